/**
 * Layers that are written before their parents are there: what the kernel shows in the end is what it shows of layers that are written
 * onto their parents, with owners, modes, times and attributes.
 */
import assert from 'node:assert/strict';
import { lstat, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { sys } from '../../src/backends/sys.js';
import { isKind } from '../../src/errors.js';
import { anyItem } from './random-layers.js';
import { Stack } from './stack.js';
import { type Item, tarOf, tempDir, treeOf } from './support.js';

const mountable = await canMount();
const skip = !sys.xattrSupported
  ? 'the native helper for extended attributes is not built'
  : !mountable.ok && `mounts are not permitted: ${mountable.reason}`;

/** Times that no entry has are the times of the test. */
const LATEST_SECONDS = 1000;

async function shown(root: string): Promise<Record<string, string>> {
  const tree: Record<string, string> = {};
  for (const name of Object.keys(await treeOf(root))) {
    const path = join(root, name);
    const stats = await lstat(path);
    const seconds = Math.floor(stats.mtimeMs / 1000);
    const xattrs = sys.llistxattr(path).map((key) => `${key}=${sys.lgetxattr(path, key)}`);
    tree[name] = [
      ...[stats.mode.toString(8), stats.uid, stats.gid, seconds > LATEST_SECONDS ? 'now' : seconds],
      ...[stats.isDirectory() ? '' : stats.nlink, ...xattrs.sort()],
      stats.isFile() ? await readFile(path, 'latin1') : stats.isSymbolicLink() ? await readlink(path) : '',
    ].join(' ');
  }
  return tree;
}

/** What makes no sense, as a hard link to nothing. */
const refusalOf = (pushed: Promise<unknown>): Promise<string | undefined> =>
  pushed.then(
    () => undefined,
    (error) => {
      if (!isKind(error, 'InvalidArgument')) throw error;
      return (error as Error).message;
    },
  );

async function both(t: Pick<TestContext, 'after'>, layers: readonly Item[][]) {
  const [inTurn, apart] = [new Stack(await tempDir(t)), new Stack(await tempDir(t))];
  try {
    const how: string[] = [];
    for (const [i, items] of layers.entries()) {
      const layer = await tarOf(items);
      const refused = await refusalOf(inTurn.push(layer));
      if (i === 0) assert.equal(await refusalOf(apart.push(layer)), refused);
      else {
        const pushed = apart.pushDetached(layer);
        assert.equal(await refusalOf(pushed), refused);
        if (refused === undefined) how.push(await pushed);
      }
      if (refused !== undefined) return { how: ['is refused'], inTurn: {}, apart: {} };
    }
    return {
      how,
      inTurn: await withMounts(inTurn.view(), shown),
      apart: await withMounts(apart.view(), shown),
    };
  } finally {
    inTurn[Symbol.dispose]();
    apart[Symbol.dispose]();
  }
}

const dir = (name: string, more: Partial<Item> = {}): Item => ({ name, type: 'directory', ...more });
const kept = new Map([['user.kept', Buffer.from('below')]]);
const base: Item[] = [
  dir('d', { mode: 0o750, uid: 12, gid: 34, mtime: 77_000_000_000n, xattrs: kept }),
  { name: 'd/a', text: 'a', mode: 0o4755, mtime: 55_000_000_000n },
  dir('d/sub', { mode: 0o1777 }),
  { name: 'd/sub/b', text: 'b' },
  { name: 'f', text: 'f' },
  { name: 'link', type: 'symlink', linkname: '/d/sub' },
];

describe('layers written before their parents', { skip }, () => {
  const cases: [string, Item[], string][] = [
    ['files of its own', [dir('n'), { name: 'n/x', text: 'x' }], 'fits'],
    ['a file in a directory below', [{ name: 'd/n', text: 'n' }], 'fits'],
    [
      'a directory below, named again',
      [dir('d', { mode: 0o700, mtime: 5n }), { name: 'd/n', text: 'n' }],
      'fits',
    ],
    ['a deletion', [{ name: 'd/.wh.a' }], 'fits'],
    ['a deletion two directories down', [{ name: 'd/sub/.wh.b' }], 'fits'],
    ['a directory that replaces one', [{ name: '.wh.d' }, dir('d'), { name: 'd/n', text: 'n' }], 'fits'],
    ['an opaque directory', [dir('d'), { name: 'd/.wh..wh..opq' }, { name: 'd/sub/n', text: 'n' }], 'fits'],
    ['a directory in place of a file', [dir('f'), { name: 'f/n', text: 'n' }], 'fits'],
    ['a directory in place of a symlink', [dir('link'), { name: 'link/n', text: 'n' }], 'fits'],
    ['a file through a symlink', [{ name: 'link/n', text: 'n' }], 'does not fit'],
    [
      'a symlink that is replaced after it was used',
      [{ name: 'link/n', text: 'n' }, dir('link')],
      'does not fit',
    ],
    ['a deletion through a symlink', [{ name: 'link/.wh.b' }], 'does not fit'],
    ['a deletion of nothing', [{ name: 'd/.wh.n' }], 'does not fit'],
    ['a deletion in a directory that is not there', [{ name: 'x/y/.wh.n' }], 'does not fit'],
    ['an opaque mark in one that is not there', [{ name: 'x/.wh..wh..opq' }], 'does not fit'],
    ['a hard link to a file below', [{ name: 'h', type: 'link', linkname: 'd/a' }], 'needs its parent'],
    ['everything below deleted', [{ name: '.wh..wh..opq' }, { name: 'n', text: 'n' }], 'needs its parent'],
  ];
  for (const [name, layer, outcome] of cases) {
    test(`given ${name}, it ${outcome}, and the tree is the same`, async (t) => {
      const { how, inTurn, apart } = await both(t, [base, layer]);
      assert.deepEqual(how, [outcome]);
      assert.deepEqual(apart, inTurn);
    });
  }

  test('given layers at random, the trees are the same', async (t) => {
    const metadata = fc.record({
      mode: fc.constantFrom(0o755, 0o711, 0o1777),
      uid: fc.nat(2),
      mtime: fc.nat(900).map((seconds) => BigInt(seconds) * 1_000_000_000n),
    });
    const attributes = fc.option(fc.constantFrom('a', 'b'), { nil: undefined });
    const item = fc.tuple(anyItem, metadata, attributes).map(([one, more, key]): Item => {
      const xattrs = new Map([[`user.${key}`, Buffer.from(String(more.uid))]]);
      return { ...one, ...more, ...(one.type === 'directory' && key !== undefined && { xattrs }) };
    });
    const layers = fc.array(fc.array(item, { maxLength: 6 }), { minLength: 2, maxLength: 4 });
    const outcomes = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(layers, async (given) => {
        const made = await both(t, given);
        for (const one of made.how) outcomes.set(one, (outcomes.get(one) ?? 0) + 1);
        assert.deepEqual(made.apart, made.inTurn);
      }),
      {
        numRuns: Number(process.env.EBBTIDE_DETACHED_RUNS ?? 60),
        endOnFailure: true,
        includeErrorInReport: true,
      },
    );
    assert.equal(outcomes.size, 4, JSON.stringify([...outcomes]));
  });
});
