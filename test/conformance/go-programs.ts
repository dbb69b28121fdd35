/**
 * Builds the Go programs that judge and measure servers, offline from Debian's packages (GOPATH style). Programs are
 * kept in a private directory under a hash of their sources and the packages' versions, so that only the first run compiles.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheDirectory } from '../support/cache.js';
import { newerDebian } from '../support/newer-debian.js';
import { packageVersion } from './debian.js';
import type { Release } from './releases.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const sources = 'golang-github-containerd-containerd-dev';

/** A Go compiler, and the tree of sources that it builds from. */
interface Toolchain {
  go: string;
  env: NodeJS.ProcessEnv;
  /** Versions of both. */
  versions: string;
  /** Changes what a source imports. */
  imports(source: string): string;
}

/** Path of the program made of the Go files in `dir` (relative to the repository); `test`: a test binary. */
export function buildGo(dir: string, kind: 'program' | 'test', release: Release = '1'): string {
  const from = join(root, dir);
  const { go, env, versions, imports } = release === '1' ? installed() : newer();
  const files = new Map(
    readdirSync(from)
      .filter((name) => name.endsWith('.go'))
      .sort()
      .map((name) => [name, imports(readFileSync(join(from, name), 'utf8'))]),
  );
  const hash = createHash('sha256').update(versions);
  for (const [name, text] of files) hash.update(name).update(text);
  const cache = cacheDirectory();
  const program = join(cache, `${basename(dir)}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(program)) return program;

  process.stderr.write(`compiling ${dir}\n`);
  const draft = `${program}.${process.pid}`;
  const copy = mkdtempSync(join(cache, 'go-'));
  try {
    for (const [name, text] of files) writeFileSync(join(copy, name), text);
    const verb = kind === 'test' ? ['test', '-c', '-o', draft, '.'] : ['build', '-o', draft, '.'];
    const common = {
      GO111MODULE: 'off',
      GOFLAGS: release === '1' ? '' : '-tags=containerd2',
      GOCACHE: join(cache, release === '1' ? 'go-cache' : 'go-cache-newer'),
    };
    const { status, stdout, stderr, error } = spawnSync(go, verb, {
      ...{ cwd: copy, encoding: 'utf8', env: { ...process.env, ...common, ...env } },
    });
    if (status !== 0) throw new Error(`${dir} does not compile:\n${error?.message ?? ''}${stdout}${stderr}`);
    renameSync(draft, program);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
  return program;
}

/** This machine's packages. */
function installed(): Toolchain {
  return {
    go: 'go',
    env: { GOPATH: goPath() },
    versions: `${packageVersion(sources)} ${packageVersion('golang-go')}`,
    imports: (source) => source,
  };
}

/** The tree that Debian's -dev packages install into. */
function goPath(): string {
  const { stdout } = spawnSync('dpkg', ['-L', sources], { encoding: 'utf8' });
  const src = String(stdout ?? '')
    .split('\n')
    .find((line) => line.endsWith('/src'));
  if (src === undefined) throw new Error(`${sources} has no source tree: apt-get install ${sources}`);
  return dirname(src);
}

/** Those of a newer Debian, out of their folder. */
function newer(): Toolchain {
  const { dir, versions } = newerDebian('go');
  const goRoot = realpathSync(join(dir, 'usr/lib/go'));
  return {
    go: join(goRoot, 'bin/go'),
    // Without cgo: there is no C compiler that fits.
    env: {
      ...{ GOROOT: goRoot, GOTOOLCHAIN: 'local', CGO_ENABLED: '0' },
      GOPATH: join(dir, 'usr/share/gocode'),
    },
    versions: `${versions[sources]} ${versions['golang-go']}`,
    imports: (source) =>
      [...movedIn2].reduce((text, [before, after]) => text.replace(`"${before}"`, after), source),
  };
}

/** Where containerd 2 has the packages that programs here import. */
const movedIn2: ReadonlyMap<string, string> = new Map([
  ['github.com/containerd/containerd', 'containerd "github.com/containerd/containerd/v2/client"'],
  ['github.com/containerd/containerd/content', '"github.com/containerd/containerd/v2/core/content"'],
  [
    'github.com/containerd/containerd/content/testsuite',
    '"github.com/containerd/containerd/v2/core/content/testsuite"',
  ],
  ['github.com/containerd/containerd/containers', '"github.com/containerd/containerd/v2/core/containers"'],
  ['github.com/containerd/containerd/errdefs', '"github.com/containerd/errdefs"'],
  ['github.com/containerd/containerd/images', '"github.com/containerd/containerd/v2/core/images"'],
  ['github.com/containerd/containerd/leases', '"github.com/containerd/containerd/v2/core/leases"'],
  ['github.com/containerd/containerd/mount', '"github.com/containerd/containerd/v2/core/mount"'],
  ['github.com/containerd/containerd/namespaces', '"github.com/containerd/containerd/v2/pkg/namespaces"'],
  ['github.com/containerd/containerd/snapshots', '"github.com/containerd/containerd/v2/core/snapshots"'],
  [
    'github.com/containerd/containerd/snapshots/testsuite',
    '"github.com/containerd/containerd/v2/core/snapshots/testsuite"',
  ],
]);
