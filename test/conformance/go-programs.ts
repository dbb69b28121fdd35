/**
 * Builds the Go programs that judge and measure servers, offline from Debian's packages (GOPATH style). Programs are
 * kept in a private directory under a hash of their sources and the packages' versions, so that only the first run compiles.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheDirectory } from '../support/cache.js';
import { packageVersion } from './debian.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const sources = 'golang-github-containerd-containerd-dev';

/** Path of the program made of the Go files in `dir` (relative to the repository); `test`: a test binary. */
export function buildGo(dir: string, kind: 'program' | 'test'): string {
  const from = join(root, dir);
  const files = readdirSync(from).filter((f) => f.endsWith('.go'));
  const hash = createHash('sha256').update(`${packageVersion(sources)} ${packageVersion('golang-go')}`);
  for (const file of files.sort()) hash.update(file).update(readFileSync(join(from, file)));
  const cache = cacheDirectory();
  const program = join(cache, `${basename(dir)}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(program)) return program;

  process.stderr.write(`compiling ${dir}\n`);
  const draft = `${program}.${process.pid}`;
  const verb = kind === 'test' ? ['test', '-c', '-o', draft, '.'] : ['build', '-o', draft, '.'];
  const { status, stdout, stderr, error } = spawnSync('go', verb, {
    cwd: from,
    encoding: 'utf8',
    env: {
      ...process.env,
      GO111MODULE: 'off',
      GOFLAGS: '',
      GOPATH: goPath(),
      GOCACHE: join(cache, 'go-cache'),
    },
  });
  if (status !== 0) throw new Error(`${dir} does not compile:\n${error?.message ?? ''}${stdout}${stderr}`);
  renameSync(draft, program);
  return program;
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
