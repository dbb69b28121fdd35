/**
 * Builds the peer's side (main.go) with Debian's Go and Debian's containerd package, and talks to it. The program is
 * kept in the tests' cache under a hash of its source and the packages' versions.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { aptLock } from '../support/apt.js';
import { cacheDirectory } from '../support/cache.js';
import type { PeerRecord } from './stores.js';

const source = fileURLToPath(new URL('../../../test/peer/main.go', import.meta.url));
const packages = ['golang-go', 'golang-github-containerd-containerd-dev'] as const;
const remedy = `apt-get install ${packages.join(' ')}`;
const INSTALL_MS_MAX = 120_000;

function run(command: string, args: readonly string[], options: Parameters<typeof spawnSync>[2] = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, { ...options, encoding: 'utf8' });
  return { done: status === 0, stdout: String(stdout ?? ''), stderr: String(stderr ?? '') };
}

/** Versions of the packages, or undefined when one of them is not installed. */
function installed(): string | undefined {
  const fields = ['db:Status-Abbrev', 'Package', 'Version'].map((field) => `\${${field}}`);
  const { stdout } = run('dpkg-query', ['-W', '-f', `${fields.join(' ')}\n`, ...packages]);
  const found = stdout.split('\n').filter((line) => line.startsWith('ii '));
  return found.length === packages.length ? found.join('; ') : undefined;
}

/** Installs the packages; when that takes too long it is given up before anything is unpacked. */
function install(): boolean {
  const started = Date.now();
  const apt = (args: readonly string[]): boolean =>
    run('flock', [aptLock, 'apt-get', ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      timeout: Math.max(1, INSTALL_MS_MAX - (Date.now() - started)),
    }).done;
  const options = ['install', '-y', '-q', '--no-install-recommends'];
  // A download may be cut short by the clock; unpacking may not.
  const download = (): boolean => apt([...options, '--download-only', ...packages]);
  if (!download() && !(apt(['update', '-q']) && download())) return false;
  return run('flock', [aptLock, 'apt-get', ...options, ...packages], {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  }).done;
}

/** Path of the program, or in a sentence why there is none. */
export function buildPeer(): { program: string } | { missing: string } {
  let versions = installed();
  if (versions === undefined) {
    if (process.getuid?.() !== 0) return { missing: `needs ${packages.join(' and ')}: ${remedy}` };
    if (!install())
      return { missing: `could not install ${packages.join(' and ')} within 2 minutes: ${remedy}` };
    versions = installed();
  }
  const hash = createHash('sha256').update(readFileSync(source)).update(String(versions)).digest('hex');
  const dir = cacheDirectory();
  const program = join(dir, `peer-${hash.slice(0, 16)}`);
  if (existsSync(program)) return { program };
  const root = run('dpkg', ['-L', packages[1]])
    .stdout.split('\n')
    .find((line) => line.endsWith('/src'));
  if (root === undefined) return { missing: `${packages[1]} has no source tree` };
  const draft = `${program}.${process.pid}`;
  const go = { GO111MODULE: 'off', GOFLAGS: '', GOPATH: dirname(root), GOCACHE: join(dir, 'go-cache') };
  const built = run('go', ['build', '-o', draft, source], { env: { ...process.env, ...go } });
  if (!built.done) throw new Error(`the peer's program does not compile:\n${built.stderr}`);
  renameSync(draft, program);
  return { program };
}

export interface PeerResult {
  left: string[];
  /** Collections until nothing changed any more. */
  runs: number;
}

/** One process for many stores. */
export class Peer implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting: { resolve: (result: PeerResult) => void; reject: (error: Error) => void }[] = [];
  readonly #exited: Promise<void>;
  #stderr = '';

  constructor(program: string) {
    this.#child = spawn(program, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      this.#waiting.shift()?.resolve(JSON.parse(line) as PeerResult);
    });
    this.#exited = new Promise((resolve) => {
      this.#child.on('close', (code) => {
        for (const { reject } of this.#waiting.splice(0)) {
          reject(new Error(`the peer ended with ${code}: ${this.#stderr}`));
        }
        resolve();
      });
    });
  }

  /** `keep`: where a copy of the meta.db goes before the collection. */
  collect(records: readonly PeerRecord[], keep = ''): Promise<PeerResult> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#child.stdin?.write(`${JSON.stringify({ records, keep })}\n`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin?.end();
    await this.#exited;
  }
}
