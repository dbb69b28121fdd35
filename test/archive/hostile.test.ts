/** Archives that try to get out, or to take too much: an error that names the entry, and nothing outside touched. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { applyLayer } from '../../src/backends/archive/apply.js';
import type { ArchiveLimits } from '../../src/backends/archive/limits.js';
import { EbbtideError, type ErrorKind } from '../../src/errors.js';
import { fenced, type Item, streamOf, tarOf, treeOf } from './support.js';

const link = (name: string, linkname: string): Item => ({ name, type: 'symlink', linkname });
const hard = (name: string, linkname: string): Item => ({ name, type: 'link', linkname });
const dir = (name: string): Item => ({ name, type: 'directory' });

const refused: [string, Item[], string][] = [
  ['.. in the name', [{ name: '../outside/secret', text: 'evil' }], '../outside/secret'],
  [
    '.. after a directory',
    [dir('a'), { name: 'a/../../outside/secret', text: 'evil' }],
    'a/../../outside/secret',
  ],
  ['.. in an absolute name', [{ name: '/../outside/secret', text: 'evil' }], '/../outside/secret'],
  ['a hard link to ..', [hard('h', '../outside/secret')], 'h'],
  ['a hard link to an absolute path of the host', [hard('h', '/etc/passwd')], 'h'],
  ['a hard link through a symlink that leads out', [link('out', '../outside'), hard('h', 'out/secret')], 'h'],
  ['a hard link to itself', [{ name: 'h', text: 'x' }, hard('h', 'h')], 'h'],
  ['a hard link to a directory', [dir('d'), hard('h', 'd')], 'h'],
  ['a hard link to nothing', [hard('h', 'none')], 'h'],
  ['a hard link to the root', [hard('h', '.')], 'h'],
  ['a symlink loop as parent', [link('a', 'b'), link('b', 'a'), { name: 'a/x', text: 'x' }], 'a/x'],
  [
    'a file as parent',
    [
      { name: 'f', text: 'x' },
      { name: 'f/x', text: 'x' },
    ],
    'f/x',
  ],
  [
    'a symlink to a file as parent',
    [{ name: 'f', text: 'x' }, link('l', 'f'), { name: 'l/x', text: 'x' }],
    'l/x',
  ],
  ['a whiteout of ..', [{ name: 'd/.wh...' }], 'd/.wh...'],
  ['a whiteout of .', [{ name: '.wh..' }], '.wh..'],
  ['a whiteout of nothing', [{ name: '.wh.' }], '.wh.'],
  ['a path through a whiteout', [{ name: '.wh.d/x', text: 'x' }], '.wh.d/x'],
  ['a NUL in the name', [{ name: `${'n'.repeat(120)}\0x`, text: 'x' }], 'n'.repeat(60)],
  ['an empty symlink', [link('s', '')], 's'],
  ['a component longer than the file system takes', [{ name: 'c'.repeat(300), text: 'x' }], 'c'.repeat(60)],
];

describe('hostile layers are refused', () => {
  for (const [name, items, entry] of refused) {
    test(`given ${name}`, async (t) => {
      const { mounts, unharmed } = await fenced(t);
      await assert.rejects(applyLayer(mounts, streamOf(await tarOf(items))), (error: unknown) => {
        assert.ok(error instanceof EbbtideError, String(error));
        assert.equal(error.kind, 'InvalidArgument', error.message);
        assert.ok(error.message.includes(entry), error.message);
        return true;
      });
      await unharmed();
    });
  }
});

/** These are not errors: what they aim at is inside the layer, whatever it looks like. */
const confined: [string, Item[], Record<string, string>][] = [
  [
    'an absolute symlink as parent',
    [link('out', '/outside'), { name: 'out/secret', text: 'in' }],
    { out: '-> /outside', outside: 'dir', 'outside/secret': 'in' },
  ],
  [
    'a climbing symlink as parent',
    [link('out', '../../../outside'), { name: 'out/secret', text: 'in' }],
    { out: '-> ../../../outside', outside: 'dir', 'outside/secret': 'in' },
  ],
  [
    'a chain of symlinks',
    [link('a', '..'), link('b', 'a/../a/..'), { name: 'b/outside/secret', text: 'in' }],
    { a: '-> ..', b: '-> a/../a/..', outside: 'dir', 'outside/secret': 'in' },
  ],
  [
    'a symlink that is then written as a file',
    [link('l', '../outside/secret'), { name: 'l', text: 'in' }],
    { l: 'in' },
  ],
  [
    'a symlink that is then made a directory',
    [link('l', '../outside'), dir('l'), { name: 'l/secret', text: 'in' }],
    { l: 'dir', 'l/secret': 'in' },
  ],
  [
    'a directory that is replaced by a symlink after it was filled',
    [dir('d'), { name: 'd/x', text: '1' }, link('d', '../outside'), { name: 'd/secret', text: 'in' }],
    { d: '-> ../outside', outside: 'dir', 'outside/secret': 'in' },
  ],
  [
    'a whiteout through a symlink that leads out',
    [link('out', '../outside'), { name: 'out/.wh.secret' }, { name: 'out/.wh..wh..opq' }],
    { out: '-> ../outside' },
  ],
  [
    'a hard link to a symlink that leads out',
    [link('s', '../outside/secret'), hard('h', 's'), { name: 'h', text: 'in' }],
    { h: 'in', s: '-> ../outside/secret' },
  ],
  [
    'a directory entry over a symlink, whose mode must not reach the target',
    [link('d', '/outside'), { name: 'd', type: 'directory', mode: 0o700 }],
    { d: 'dir' },
  ],
];

describe('layers that point out stay in', () => {
  for (const [name, items, want] of confined) {
    test(`given ${name}`, async (t) => {
      const { mounts, root, unharmed } = await fenced(t);
      await applyLayer(mounts, streamOf(await tarOf(items)));
      await unharmed();
      assert.deepEqual(await treeOf(root), want);
    });
  }

  test('given a directory that was replaced by a link, its recorded times do not go through the link', async (t) => {
    const { mounts, unharmed } = await fenced(t);
    const items = [
      { name: 'd', type: 'directory', mtime: 5_000_000_000n, mode: 0o700 },
      { name: 'd/outside', type: 'directory', mtime: 5_000_000_000n, mode: 0o700 },
      link('d', '..'),
    ] satisfies Item[];
    await applyLayer(mounts, streamOf(await tarOf(items)));
    await unharmed();
  });
});

describe('limits', () => {
  const big: [string, Partial<ArchiveLimits>, Item[], ErrorKind][] = [
    ['entries', { maxEntries: 2 }, [{ name: 'a' }, { name: 'b' }, { name: 'last' }], 'FailedPrecondition'],
    [
      'bytes',
      { maxBytes: 5000 },
      [{ name: 'a' }, { name: 'last', text: 'x'.repeat(6000) }],
      'FailedPrecondition',
    ],
    [
      'a long path',
      { maxPathBytes: 100 },
      [{ name: `last${'/x'.repeat(100)}`, text: '' }],
      'FailedPrecondition',
    ],
    ['a long link', { maxPathBytes: 100 }, [link('last', 'x'.repeat(101))], 'FailedPrecondition'],
  ];
  for (const [name, limits, items, kind] of big) {
    test(`given too many ${name}, the error names the entry and the limit`, async (t) => {
      const { mounts, root } = await fenced(t);
      await assert.rejects(applyLayer(mounts, streamOf(await tarOf(items)), { limits }), (error: unknown) => {
        assert.ok(error instanceof EbbtideError);
        assert.equal(error.kind, kind);
        assert.match(error.remedy ?? '', /a program can raise max/);
        return true;
      });
      assert.equal((await treeOf(root)).last, undefined);
    });
  }

  test('given a sparse file of a petabyte, its size counts before anything is written', async (t) => {
    const { mounts, root } = await fenced(t);
    const size = 2 ** 50;
    const records = [
      `GNU.sparse.major=1`,
      'GNU.sparse.minor=0',
      'GNU.sparse.name=huge',
      `GNU.sparse.realsize=${size}`,
    ];
    const pax = await tarOf([{ name: 'x', text: records.map(record).join('') }]);
    pax[156] = 'x'.charCodeAt(0);
    let sum = 256;
    for (let i = 0; i < 512; i++) if (i < 148 || i >= 156) sum += pax[i]!;
    pax.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    const map = await tarOf([{ name: 'y', text: `1\n0\n0\n`.padEnd(512, '\0') }]);
    const archive = Buffer.concat([pax.subarray(0, 1024), map]);
    await assert.rejects(applyLayer(mounts, streamOf(archive)), /needs more than .* bytes \(at "huge"\)/);
    assert.deepEqual(await treeOf(root), {});
  });
});

function record(text: string): string {
  const rest = ` ${text}\n`;
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return `${length}${rest}`;
}
