/** A container changes a tree while a layer is written to it, or read from it: nothing outside is touched or seen. */
import assert from 'node:assert/strict';
import { existsSync, lstatSync, renameSync, symlinkSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { applyLayer } from '../../src/backends/archive/apply.js';
import { diffLayer } from '../../src/backends/archive/diff.js';
import { bind, fenced, type Item, tarOf, tempDir } from './support.js';

/** Puts a symlink to `outside` where a directory stood. */
function swap(directory: string, outside: string): void {
  if (!lstatSync(directory).isDirectory()) return;
  renameSync(directory, `${directory}.old`);
  symlinkSync(outside, directory);
}

/** The layer entry by entry; before entry `at`, when all others are done, `change` is called. */
async function* stopped(
  items: Item[],
  at: number,
  change: () => void,
): AsyncGenerator<Uint8Array, void, void> {
  const whole = await tarOf(items);
  const before = (await tarOf(items.slice(0, at))).length - 1024;
  yield whole.subarray(0, before);
  change();
  yield whole.subarray(before);
}

const dir = (name: string, more: Partial<Item> = {}): Item => ({ name, type: 'directory', ...more });
const opening: Item[] = [dir('d'), dir('d/deep'), { name: 'd/one', text: '1' }, dir('last')];
const big = Buffer.alloc(200_000, 1);

const next: [string, Item[]][] = [
  ['a small file', [{ name: 'd/secret', text: 'evil' }]],
  ['a large file', [{ name: 'd/secret', text: big }]],
  ['a file in a directory below', [{ name: 'd/deep/new', text: 'evil' }]],
  ['a directory', [dir('d/new', { mode: 0o700 })]],
  ['a symlink', [{ name: 'd/new', type: 'symlink', linkname: '/' }]],
  ['a device', [{ name: 'd/new', type: 'fifo' }]],
  ['a hard link', [{ name: 'd/new', type: 'link', linkname: 'last/../d/one' }]],
  ['a hard link to what is outside', [{ name: 'got', type: 'link', linkname: 'd/secret' }]],
  ['a deletion', [{ name: 'd/.wh.secret' }]],
  ['an opaque mark', [{ name: 'd/.wh..wh..opq' }]],
  ['the deletion of all', [{ name: '.wh.d' }]],
  ['a file in its place', [{ name: 'd', text: 'x' }]],
  ['owner, mode and times', [dir('d', { mode: 0o700, uid: 1, mtime: 5_000_000_000n })]],
];

describe('a directory becomes a symlink while a layer is applied', () => {
  for (const [name, items] of next) {
    test(`given ${name} next, nothing outside is touched`, async (t) => {
      const { root, mounts, unharmed } = await fenced(t);
      const outside = join(root, '../outside');
      const before = lstatSync(outside);
      const source = stopped([...opening, ...items], opening.length, () => swap(join(root, 'd'), outside));
      await applyLayer(mounts, source).catch(() => undefined);
      await unharmed();
      const { mode, uid, mtimeMs } = lstatSync(outside);
      assert.deepEqual([mode, uid, mtimeMs], [before.mode, before.uid, before.mtimeMs]);
      assert.ok(!existsSync(join(root, 'got')));
    });
  }
});

test('a directory becomes a symlink while a tree is read: the layer has nothing of outside', async (t) => {
  for (let at = 0; at < 12; at++) {
    const home = await tempDir(t);
    const root = join(home, 'root');
    await mkdir(join(root, 'd/deep'), { recursive: true });
    await mkdir(join(home, 'outside/deep'), { recursive: true });
    for (const name of ['a', 'd/secret', 'd/deep/secret'])
      await writeFile(join(root, name), 'inside'.repeat(99));
    for (const name of ['secret', 'deep/secret'])
      await writeFile(join(home, 'outside', name), 'OUTSIDE'.repeat(99));
    const parts: Buffer[] = [];
    await diffLayer([], [bind(root)], async (bytes) => {
      parts.push(Buffer.from(bytes));
      if (parts.length === at) swap(join(root, 'd'), join(home, 'outside'));
    }).catch(() => undefined);
    assert.ok(!Buffer.concat(parts).includes('OUTSIDE'), `swapped at ${at}`);
  }
});
