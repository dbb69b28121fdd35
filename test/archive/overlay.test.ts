/**
 * Layers written into overlay directories without mounting: what the kernel then shows must be what the native
 * snapshotter's plain directories have, and both what the image specification says.
 */
import assert from 'node:assert/strict';
import { lstat, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { applyLayer } from '../../src/backends/archive/apply.js';
import type { Mount } from '../../src/backends/contract.js';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { sys } from '../../src/backends/sys.js';
import { anyItem, layersOf, leafOf, parentOf, plainItem } from './random-layers.js';
import { Stack } from './stack.js';
import { bind, type Item, streamOf, tarOf, tempDir, treeOf } from './support.js';

const mountable = await canMount();
const reason = !sys.xattrSupported
  ? 'the native helper for extended attributes is not built'
  : mountable.ok
    ? false
    : `mounts are not permitted: ${mountable.reason}`;
if (reason) console.log(`overlay layers are not tested: ${reason}`);

async function seen(mounts: Mount[]): Promise<Record<string, string>> {
  return withMounts(mounts, (dir) => treeOf(dir));
}

async function both(t: TestContext, layers: Item[][]) {
  const stack = new Stack(await tempDir(t));
  t.after(() => stack[Symbol.dispose]());
  const root = await tempDir(t);
  for (const items of layers) {
    const layer = await tarOf(items);
    await stack.push(layer);
    await applyLayer([bind(root)], streamOf(layer));
  }
  return { stack, root, overlay: await seen(stack.view()), plain: await treeOf(root) };
}

const dir = (name: string, more: Partial<Item> = {}): Item => ({ name, type: 'directory', ...more });
const base: Item[] = [
  dir('d', { mode: 0o750, uid: 12, gid: 34, mtime: 77_000_000_000n }),
  { name: 'd/a', text: 'a', mode: 0o4755, mtime: 55_000_000_000n },
  dir('d/sub'),
  { name: 'd/sub/b', text: 'b' },
  { name: 'f', text: 'f' },
  { name: 'link', type: 'symlink', linkname: '/d/sub' },
];

describe('layers in overlay directories', { skip: reason }, () => {
  const cases: [string, Item[]][] = [
    ['a deletion of a file', [{ name: 'd/.wh.a' }]],
    ['a deletion of a directory', [{ name: '.wh.d' }]],
    ['an opaque directory', [dir('d'), { name: 'd/.wh..wh..opq' }, { name: 'd/n', text: 'n' }]],
    [
      'an opaque mark after the entries',
      [dir('d/sub'), { name: 'd/sub/n', text: 'n' }, { name: 'd/.wh..wh..opq' }],
    ],
    ['a deleted directory that is made again', [{ name: '.wh.d' }, dir('d'), { name: 'd/n', text: 'n' }]],
    ['a directory made again, deleted after', [dir('d'), { name: 'd/n', text: 'n' }, { name: '.wh.d' }]],
    ['a directory that becomes a file', [{ name: 'd', text: 'now' }]],
    [
      'a directory that becomes a file and a directory again',
      [{ name: 'd', text: 'x' }, dir('d'), { name: 'd/n', text: 'n' }],
    ],
    ['a file that becomes a directory', [dir('f'), { name: 'f/n', text: 'n' }]],
    ['a file in a lower directory', [{ name: 'd/sub/n', text: 'n' }]],
    ['a file through a lower symlink', [{ name: 'link/n', text: 'n' }]],
    ['a deletion through a lower symlink', [{ name: 'link/.wh.b' }]],
    ['a hard link to a lower file', [{ name: 'h', type: 'link', linkname: 'd/a' }]],
    [
      'a hard link to a lower file, through a lower symlink',
      [{ name: 'h', type: 'link', linkname: 'link/b' }],
    ],
    ['a hard link to a lower symlink', [{ name: 'h', type: 'link', linkname: 'link' }]],
    [
      'a link to a lower file that is replaced after',
      [
        { name: 'h', type: 'link', linkname: 'd/a' },
        { name: 'd/a', text: 'new' },
      ],
    ],
    [
      'a link to a lower symlink that is replaced after',
      [
        { name: 'd/h', type: 'link', linkname: 'link' },
        { name: 'link', text: 'new' },
      ],
    ],
    [
      'a link to a lower file whose directory is opaque after',
      [{ name: 'h', type: 'link', linkname: 'd/a' }, { name: 'd/.wh..wh..opq' }],
    ],
    ['a device that means "deleted"', [{ name: 'f', type: 'char', major: 0, minor: 0 }]],
  ];
  for (const [name, layer] of cases) {
    test(`given ${name}, the mounted tree is the plain one`, async (t) => {
      const { overlay, plain } = await both(t, [base, layer]);
      assert.deepEqual(overlay, plain);
    });
  }

  test('given a file in a lower directory, that directory keeps owner, mode and times', async (t) => {
    const { stack, root } = await both(t, [base, [{ name: 'd/n', text: 'n' }]]);
    await withMounts(stack.view(), async (mounted) => {
      for (const at of [join(mounted, 'd'), join(root, 'd')]) {
        const stats = await lstat(at);
        assert.deepEqual(
          [stats.mode & 0o7777, stats.uid, stats.gid, stats.mtimeMs],
          [0o750, 12, 34, 77_000],
          at,
        );
      }
    });
  });

  test('given a hard link to a lower file, it is one file with the metadata it had', async (t) => {
    const { stack } = await both(t, [base, [{ name: 'h', type: 'link', linkname: 'd/a' }]]);
    const [one, two] = await Promise.all(['h', 'd/a'].map((path) => lstat(stack.upper(path))));
    assert.deepEqual([one!.ino, one!.mode & 0o7777, one!.mtimeMs], [two!.ino, 0o4755, 55_000]);
  });

  test('given nothing below to hide, no marks are left', async (t) => {
    const { stack } = await both(t, [base, [{ name: '.wh.none' }, { name: 'new/.wh..wh..opq' }, dir('new')]]);
    await assert.rejects(lstat(stack.upper('none')));
    assert.deepEqual(sys.llistxattr(stack.upper('new')), []);
  });

  test('given attributes of a layer, they are set, but never those of overlay itself', async (t) => {
    const xattrs = new Map([
      ['user.colour', Buffer.from([1, 0, 255])],
      ['trusted.overlay.redirect', Buffer.from('/etc')],
      ['user.overlay.opaque', Buffer.from('y')],
      ['security.capability', Buffer.from('0100000200040000000000000000000000000000', 'hex')],
    ]);
    const { stack } = await both(t, [base, [dir('d', { xattrs }), { name: 'caps', text: 'x', xattrs }]]);
    for (const path of ['d', 'caps']) {
      const names = sys.llistxattr(stack.upper(path));
      assert.ok(!names.some((name) => name.includes('overlay')), names.join());
      assert.deepEqual(sys.lgetxattr(stack.upper(path), 'user.colour'), xattrs.get('user.colour'));
    }
    assert.equal(sys.lgetxattr(stack.upper('caps'), 'security.capability')?.[0], 1);
  });

  test('given 128 layers, all of them show', async (t) => {
    const layers = Array.from({ length: 128 }, (_, i): Item[] => [
      { name: `f${i}`, text: String(i) },
      { name: 'same', text: String(i) },
    ]);
    using stack = new Stack(await tempDir(t));
    for (const items of layers) await stack.push(await tarOf(items));
    const tree = await seen(stack.view());
    assert.equal(Object.keys(tree).length, 129);
    assert.equal(tree.same, '127');
  });
});

// ------------------------------------------------------------------------------------------------ random layers

/** The specification's rules on a map, written apart from the implementation. Throws where a layer is wrong. */
class Oracle {
  readonly #nodes = new Map<string, { content: string; fresh: boolean }>();

  apply(layer: readonly Item[]): void {
    for (const node of this.#nodes.values()) node.fresh = false;
    for (const item of layer) this.#item(item);
  }

  tree(): Record<string, string> {
    const entries = [...this.#nodes].map(([p, n]): [string, string] => [p, n.content]);
    return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  #item(item: Item): void {
    const at = parentOf(item.name).replace(/\/$/, '');
    const leaf = leafOf(item.name);
    if (leaf === '.wh..wh..opq') {
      if (this.#walk(at) === 'there') this.#dropOld(at);
      return;
    }
    if (leaf.startsWith('.wh.')) {
      if (this.#walk(at) !== 'there') return;
      const target = (at === '' ? '' : `${at}/`) + leaf.slice(4);
      this.#dropOld(target);
      const node = this.#nodes.get(target);
      if (node && !node.fresh && !this.#below(target).some(([, n]) => n.fresh)) this.#nodes.delete(target);
      return;
    }
    this.#makeParents(at);
    const old = this.#nodes.get(item.name);
    if (item.type === 'directory' && old?.content === 'dir') {
      old.fresh = true;
      return;
    }
    for (const [p] of this.#below(item.name)) this.#nodes.delete(p);
    this.#nodes.delete(item.name);
    let content = item.type === 'directory' ? 'dir' : (item.text ?? '').toString();
    if (item.type === 'link') {
      const target = item.linkname!;
      if (this.#walk(parentOf(target).replace(/\/$/, '')) !== 'there') throw new Error('no target');
      const linked = this.#nodes.get(target);
      if (linked === undefined || linked.content === 'dir') throw new Error('no target');
      content = linked.content;
    }
    this.#nodes.set(item.name, { content, fresh: true });
  }

  /** Whether the directory is there; `blocked` when a file stands in the way. */
  #walk(p: string): 'there' | 'missing' | 'blocked' {
    if (p === '') return 'there';
    const parts = p.split('/');
    for (let i = 1; i <= parts.length; i++) {
      const node = this.#nodes.get(parts.slice(0, i).join('/'));
      if (node === undefined) return 'missing';
      if (node.content !== 'dir') return 'blocked';
    }
    return 'there';
  }

  #makeParents(p: string): void {
    const found = this.#walk(p);
    if (found === 'there') return;
    if (found === 'blocked') throw new Error('a file in the way');
    const parts = p.split('/');
    for (let i = 1; i <= parts.length; i++) {
      const made = parts.slice(0, i).join('/');
      if (!this.#nodes.has(made)) this.#nodes.set(made, { content: 'dir', fresh: false });
    }
  }

  #below(p: string) {
    return [...this.#nodes].filter(([q]) => q.startsWith(p === '' ? '' : `${p}/`) && q !== p);
  }

  #dropOld(p: string): void {
    const below = this.#below(p);
    for (const [q, node] of below) {
      const holdsFresh = below.some(([r, n]) => n.fresh && r.startsWith(`${q}/`));
      if (!node.fresh && !holdsFresh) this.#nodes.delete(q);
    }
  }
}

async function outcome(work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch {
    return false;
  }
}

test('given random layers without symlinks, a plain directory has what the specification says', async (t) => {
  const top = await tempDir(t);
  let run = 0;
  await fc.assert(
    fc.asyncProperty(layersOf(plainItem), async (layers) => {
      const root = join(top, String(run++));
      await mkdir(root);
      const oracle = new Oracle();
      for (const layer of layers) {
        const meant = await outcome(async () => oracle.apply(layer));
        const done = await outcome(
          async () => void (await applyLayer([bind(root)], streamOf(await tarOf(layer)))),
        );
        assert.equal(done, meant);
        if (!meant) return;
        assert.deepEqual(await treeOf(root), oracle.tree());
      }
    }),
    { numRuns: 250 },
  );
});

/** Layers that hide all below at the root, where the kernel heeds no mark: directly, and through a symlink. */
const rootCleared: Item[][][] = [
  [[{ name: 'a', type: 'symlink', linkname: '..' }], [{ name: 'a/.wh..wh..opq' }], []],
  [
    [
      { name: 'a/b', text: '1' },
      { name: 'b/a', text: '2' },
      { name: 'c', text: '3' },
    ],
    [{ name: 'b/c', text: '4' }, { name: '.wh..wh..opq' }, { name: 'a/a', text: '5' }],
    [{ name: 'c/a', text: '6' }],
  ],
];

test('given random layers with symlinks, the mounted overlay is the plain directory', {
  skip: reason,
}, async (t) => {
  const top = await tempDir(t);
  let run = 0;
  await fc.assert(
    fc.asyncProperty(layersOf(anyItem), async (layers) => {
      const home = join(top, String(run++));
      const root = join(home, 'plain');
      await mkdir(root, { recursive: true });
      await writeFile(join(home, 'outside'), 'untouched');
      using stack = new Stack(home);
      for (const items of layers) {
        const layer = await tarOf(items);
        const plain = await outcome(async () => void (await applyLayer([bind(root)], streamOf(layer))));
        assert.equal(await outcome(() => stack.push(layer)), plain);
        if (!plain) return;
        assert.deepEqual(await seen(stack.view()), await treeOf(root));
      }
    }),
    { numRuns: 120, examples: rootCleared.map((layers) => [layers]) },
  );
});
