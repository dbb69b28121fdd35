import assert from 'node:assert/strict';
import { appendFile, chmod, link, lstat, mkdir, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { applyLayer } from '../../src/backends/archive/apply.js';
import { type Diffed, diffLayer } from '../../src/backends/archive/diff.js';
import type { Mount } from '../../src/backends/contract.js';
import { sys } from '../../src/backends/sys.js';
import { isKind } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { anyItem, layersOf } from './random-layers.js';
import { Stack } from './stack.js';
import { bind, type Item, readAll, run, streamOf, tarOf, tempDir, treeOf } from './support.js';

async function diff(
  lower: Mount[],
  upper: Mount[],
): Promise<{ tar: Buffer; diffed: Diffed; names: string[] }> {
  const parts: Uint8Array[] = [];
  const diffed = await diffLayer(lower, upper, async (bytes) => void parts.push(bytes));
  const tar = Buffer.concat(parts);
  return { tar, diffed, names: (await readAll(tar)).map((i) => i.entry.name) };
}

const copyOf = (from: string, to: string) => run('cp', ['-a', from, to]);

describe('diff of two trees', () => {
  test('given changes of every kind, exactly they are written, and applying them gives the other tree', async (t) => {
    const dir = await tempDir(t);
    const [a, b, c] = ['a', 'b', 'c'].map((name) => join(dir, name));
    await mkdir(join(a!, 'kept/deep'), { recursive: true });
    for (const name of ['kept/same', 'kept/deep/same', 'gone', 'changed', 'mode'])
      await writeFile(join(a!, name), name);
    await mkdir(join(a!, 'gone-dir'));
    await writeFile(join(a!, 'gone-dir/x'), 'x');
    await mkdir(join(a!, 'becomes-file'));
    await writeFile(join(a!, 'becomes-dir'), 'f');
    // Whole seconds, as layers have them: only the content shows that this one changed.
    await utimes(join(a!, 'changed'), 1000, 1000);
    copyOf(a!, b!);
    copyOf(a!, c!);
    await writeFile(join(b!, 'changed'), 'CHANGED');
    await utimes(join(b!, 'changed'), 1000, 1000);
    await chmod(join(b!, 'mode'), 0o600);
    await rm(join(b!, 'gone'));
    await rm(join(b!, 'gone-dir'), { recursive: true });
    await rm(join(b!, 'becomes-file'), { recursive: true });
    await writeFile(join(b!, 'becomes-file'), 'now');
    await rm(join(b!, 'becomes-dir'));
    await mkdir(join(b!, 'becomes-dir'));
    await writeFile(join(b!, 'becomes-dir/in'), 'in');
    await symlink('/nowhere', join(b!, 'link'));
    await writeFile(join(b!, 'one'), 'linked');
    await link(join(b!, 'one'), join(b!, 'two'));

    const { tar, diffed, names } = await diff([bind(a!)], [bind(b!)]);
    assert.deepEqual(names, [
      'becomes-dir/',
      'becomes-dir/in',
      'becomes-file',
      'changed',
      '.wh.gone',
      '.wh.gone-dir',
      'link',
      'mode',
      'one',
      'two',
    ]);
    assert.deepEqual(diffed, { digest: digestOf(tar), size: tar.length, entries: names.length });
    await applyLayer([bind(c!)], streamOf(tar));
    assert.deepEqual(await treeOf(c!), await treeOf(b!));
    assert.equal((await lstat(join(c!, 'one'))).ino, (await lstat(join(c!, 'two'))).ino);
    assert.equal((await lstat(join(c!, 'mode'))).mode & 0o777, 0o600);
    assert.equal((await diff([bind(b!)], [bind(c!)])).names.length, 0, 'nothing differs any more');
    assert.ok((await diff([bind(a!)], [bind(b!)])).tar.equals(tar), 'the same trees give the same bytes');
  });

  test('given no lower tree, everything is written; given the same tree, nothing', async (t) => {
    const dir = await tempDir(t);
    await mkdir(join(dir, 'd'));
    await writeFile(join(dir, 'd/f'), 'x');
    assert.deepEqual((await diff([], [bind(dir)])).names, ['d/', 'd/f']);
    assert.deepEqual((await diff([bind(dir)], [bind(dir)])).names, []);
  });

  test('given a change deep down, its directories come with it', async (t) => {
    const dir = await tempDir(t);
    const [a, b] = [join(dir, 'a'), join(dir, 'b')];
    await mkdir(join(a, 'x/y/z'), { recursive: true });
    await writeFile(join(a, 'x/y/z/f'), '1');
    copyOf(a, b);
    await appendFile(join(b, 'x/y/z/f'), '2');
    assert.deepEqual((await diff([bind(a)], [bind(b)])).names, ['x/', 'x/y/', 'x/y/z/', 'x/y/z/f']);
  });

  test('given a new link to an old file, and an old link to a new file, both stay one file', async (t) => {
    const dir = await tempDir(t);
    const [a, b, c] = ['a', 'b', 'c'].map((name) => join(dir, name));
    const layers: Item[][] = [
      [
        { name: 'm', text: 'm' },
        { name: 'z', type: 'link', linkname: 'm' },
        { name: 'q', text: 'q' },
      ],
      [
        { name: 'n', type: 'link', linkname: 'm' },
        { name: 'b', type: 'link', linkname: 'q' },
      ],
    ];
    for (const root of [a!, b!, c!]) {
      await mkdir(root);
      await applyLayer([bind(root)], streamOf(await tarOf(layers[0]!)));
    }
    await applyLayer([bind(b!)], streamOf(await tarOf(layers[1]!)));
    const { tar } = await diff([bind(a!)], [bind(b!)]);
    await applyLayer([bind(c!)], streamOf(tar));
    assert.deepEqual(await treeOf(c!), await treeOf(b!));
    const inode = async (name: string): Promise<number> => (await lstat(join(c!, name))).ino;
    assert.equal(await inode('n'), await inode('m'));
    assert.equal(await inode('z'), await inode('m'));
    assert.equal(await inode('b'), await inode('q'));
  });

  test('given a name that a layer cannot have, it is FailedPrecondition', async (t) => {
    const dir = await tempDir(t);
    await writeFile(join(dir, '.wh.x'), '');
    await assert.rejects(diff([], [bind(dir)]), (e) => isKind(e, 'FailedPrecondition'));
  });

  test('given an ended signal, it stops', async (t) => {
    const dir = await tempDir(t);
    await writeFile(join(dir, 'f'), '');
    const signal = AbortSignal.abort();
    await assert.rejects(
      diffLayer([], [bind(dir)], async () => {}, { signal }),
      (e) => isKind(e, 'Canceled'),
    );
  });

  const reason = sys.xattrSupported ? false : 'the native helper for extended attributes is not built';
  if (reason) console.log(`diffs of overlays are not tested: ${reason}`);
  test('given random layers, the diff of two overlay views applied to the lower tree gives the upper', {
    skip: reason,
  }, async (t) => {
    const top = await tempDir(t);
    let round = 0;
    await fc.assert(
      fc.asyncProperty(layersOf(anyItem), async (layers) => {
        const home = join(top, String(round++));
        const root = join(home, 'plain');
        await mkdir(root, { recursive: true });
        using stack = new Stack(home);
        let before: Mount[] = [];
        for (const items of layers) {
          try {
            await stack.push(await tarOf(items));
          } catch {
            return;
          }
          const after = stack.view();
          const { tar } = await diff(before, after);
          await applyLayer([bind(root)], streamOf(tar));
          assert.deepEqual((await diff([bind(root)], after)).names, []);
          before = after;
        }
      }),
      { numRuns: 100 },
    );
  });
});
