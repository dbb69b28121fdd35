/** Builds archives for tests, honest and hostile, and looks at what was made of them. */
import { spawnSync } from 'node:child_process';
import { lstat, mkdir, readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { ChunkReader } from '../../src/backends/archive/chunks.js';
import { readTar, type TarEntry } from '../../src/backends/archive/tar/tar-reader.js';
import { type NewEntry, TarWriter } from '../../src/backends/archive/tar/tar-writer.js';
import type { Mount } from '../../src/backends/contract.js';
import { tempDir } from '../support/temp.js';

export interface Item extends Partial<NewEntry> {
  name: string;
  text?: string | Buffer;
}

/** A tar of these entries; a file unless the type says otherwise. Names are written as they are given. */
export async function tarOf(items: readonly Item[]): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const writer = new TarWriter(async (bytes) => void parts.push(bytes));
  for (const { text, ...item } of items) {
    const type = item.type ?? 'file';
    const content = Buffer.from(text ?? '');
    const mode = item.mode ?? (type === 'directory' ? 0o755 : 0o644);
    await writer.add({ ...item, type, mode, size: content.length }, type === 'file' ? [content] : undefined);
  }
  await writer.end();
  return Buffer.concat(parts);
}

/** Bytes as a stream of chunks of the given size. */
export async function* streamOf(bytes: Uint8Array, chunk = 60_000): AsyncGenerator<Uint8Array, void, void> {
  for (let at = 0; at < bytes.length; at += chunk) yield bytes.subarray(at, at + chunk);
}

export interface ReadItem {
  entry: TarEntry;
  content: Buffer;
}

export async function readAll(bytes: Uint8Array, chunk?: number): Promise<ReadItem[]> {
  const items: ReadItem[] = [];
  for await (const entry of readTar(new ChunkReader(streamOf(bytes, chunk)))) {
    const parts: Buffer[] = [];
    for await (const part of entry.body()) parts.push(Buffer.from(part));
    items.push({ entry, content: Buffer.concat(parts) });
  }
  return items;
}

export { tempDir };

/** A directory for a layer and beside it a file that nothing may touch. */
export async function fenced(
  t: TestContext,
): Promise<{ root: string; mounts: Mount[]; unharmed(): Promise<void> }> {
  const dir = await tempDir(t);
  const root = join(dir, 'root');
  await mkdir(root);
  await mkdir(join(dir, 'outside'));
  await writeFile(join(dir, 'outside/secret'), 'untouched');
  const before = await treeOf(join(dir, 'outside'));
  return {
    root,
    mounts: [bind(root)],
    unharmed: async () => {
      const after = await treeOf(join(dir, 'outside'));
      if (JSON.stringify(after) !== JSON.stringify(before))
        throw new Error(`written outside: ${JSON.stringify(after)}`);
      const names = (await readdir(dir)).sort();
      if (names.join() !== 'outside,root') throw new Error(`made outside: ${names.join()}`);
    },
  };
}

export const bind = (source: string): Mount => ({ type: 'bind', source, options: ['rbind', 'rw'] });

/** path → what stands there: text of files, destination of symlinks, `dir`, a device's number. */
export async function treeOf(root: string): Promise<Record<string, string>> {
  const tree: Record<string, string> = {};
  const open = [''];
  for (let dir = open.pop(); dir !== undefined; dir = open.pop()) {
    for (const name of (await readdir(join(root, dir))).sort()) {
      const path = dir === '' ? name : `${dir}/${name}`;
      const stats = await lstat(join(root, path));
      if (stats.isDirectory()) {
        tree[path] = 'dir';
        open.push(path);
      } else if (stats.isSymbolicLink()) tree[path] = `-> ${await readlink(join(root, path))}`;
      else if (stats.isFile()) tree[path] = (await readFile(join(root, path))).toString('latin1');
      else tree[path] = `device ${stats.rdev}`;
    }
  }
  return Object.fromEntries(Object.entries(tree).sort(([a], [b]) => (a < b ? -1 : 1)));
}

export const hasTool = (tool: string): boolean =>
  spawnSync('sh', ['-c', `command -v "$1"`, 'sh', tool]).status === 0;

export function run(command: string, args: readonly string[], input?: Uint8Array): Buffer {
  const done = spawnSync(command, args, { input, maxBuffer: 2 ** 28, env: { ...process.env, LC_ALL: 'C' } });
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${done.stderr}`);
  return done.stdout;
}
