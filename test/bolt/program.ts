/** The real bbolt, from Debian's packages: see writer/main.go. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ensurePackages } from '../conformance/debian.js';
import { buildGo } from '../conformance/go-programs.js';

/** A sentence why there is no bbolt here. */
export const missing = ensurePackages(['golang-go', 'golang-github-containerd-containerd-dev']);
if (missing !== undefined) console.log(`bbolt is not compared with: ${missing}`);

const program = (): string => buildGo('test/bolt/writer', 'program');

export type Tree = { [name: string]: string | Tree };

/** Makes a file, and returns what bbolt says is in it. */
export const fill = (path: string, pageSize: number, keys: number): Tree =>
  treeFrom('fill', path, `${pageSize}`, `${keys}`);

/** What bbolt says is in a file. */
export const dump = (path: string): Tree => treeFrom('dump', path);

/** Makes a file of that many pages, nearly all without bytes on disk, and returns what bbolt says is in it. */
export const makeFar = (path: string, pageSize: number, pages: number): Tree =>
  treeFrom('far', path, `${pageSize}`, `${pages}`);

function treeFrom(...args: string[]): Tree {
  const { status, stdout, stderr } = spawnSync(program(), args, { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Tree;
}

/** `sound`, or what bbolt says is wrong, of each file; which are changed by that. */
export function judge(paths: readonly string[]): string[] {
  const { status, stdout, stderr } = spawnSync(program(), ['judge'], {
    encoding: 'utf8',
    input: paths.map((path) => `${path}\n`).join(''),
  });
  if (status !== 0) throw new Error(stderr);
  return stdout.trimEnd().split('\n');
}

/** Makes a root of containerd in `dir`, and returns what it prints: history.go. */
export function makeHistory(dir: string, seed: number, pageSize: number, transactions: number): string[] {
  const args = ['history', dir, `${seed}`, `${pageSize}`, `${transactions}`];
  const { status, stdout, stderr } = spawnSync(program(), args, { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error(stderr);
  return stdout.trimEnd().split('\n');
}

/** The files `0`, `1`, … in `dir`: one file after each of its commits. See images.go. */
export function makeImages(dir: string, pageSize: number, commits: number, seed: number): void {
  const args = ['images', dir, `${pageSize}`, `${commits}`, `${seed}`];
  const { status, stderr } = spawnSync(program(), args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

/**
 * Writes the pages of another transaction, and not its meta page: as a kill within a commit leaves a file of containerd's. Both meta pages,
 * as they would be, are then in `<path>.metas`.
 */
export function interrupt(path: string): void {
  const { status, stderr } = spawnSync(program(), ['interrupt', path], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

/** A process that commits to a file until it is disposed. */
export class Writer implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#ended = new Promise((resolve) => child.on('close', resolve));
  }

  static async start(path: string): Promise<Writer> {
    const child = spawn(program(), ['run', path], { stdio: ['pipe', 'pipe', 'inherit'] });
    const writer = new Writer(child);
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout! }).once('line', () => resolve());
      child.once('close', () => reject(new Error('the writer ended before it was ready')));
    });
    return writer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin?.end();
    await this.#ended;
  }
}
