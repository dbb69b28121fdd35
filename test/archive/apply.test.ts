import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmod, lstat, mkdir, readFile, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { type Applied, type ApplyOptions, applyLayer } from '../../src/backends/archive/apply.js';
import { xattrSupported } from '../../src/backends/sys.js';
import { isKind } from '../../src/errors.js';
import { fenced, hasTool, type Item, run, streamOf, tarOf, tempDir, treeOf } from './support.js';

const isRoot = process.getuid?.() === 0;
const dir = (name: string, more: Partial<Item> = {}): Item => ({ name, type: 'directory', ...more });

async function apply(
  t: TestContext,
  layers: Item[][],
  options: ApplyOptions = {},
): Promise<Record<string, string>> {
  const { root, mounts, unharmed } = await fenced(t);
  for (const layer of layers) await applyLayer(mounts, streamOf(await tarOf(layer)), options);
  await unharmed();
  return treeOf(root);
}

describe('applying a layer to a bind mount', () => {
  test('given a real tree, what is written is what GNU tar extracts', async (t) => {
    const { root, mounts } = await fenced(t);
    const from = await tempDir(t);
    await mkdir(join(from, 'a/b/c'), { recursive: true });
    await writeFile(join(from, 'a/file'), 'content');
    await chmod(join(from, 'a/file'), 0o4751);
    await writeFile(join(from, 'a/b/ünïcode name'), Buffer.alloc(300_000, 7));
    await symlink('../../../../etc/passwd', join(from, 'a/b/c/link'));
    run('ln', [join(from, 'a/file'), join(from, 'a/b/hard')]);
    await utimes(join(from, 'a/b'), 1_000_000_000, 1_000_000_000);
    await chmod(join(from, 'a/b/c'), 0o555);
    const archive = run('tar', ['-C', from, '--format=posix', '-cf', '-', '.']);
    const applied = await applyLayer(mounts, streamOf(archive));
    assert.deepEqual(await treeOf(root), await treeOf(from));
    for (const path of ['a', 'a/file', 'a/b', 'a/b/c', 'a/b/hard']) {
      const [made, meant] = await Promise.all([root, from].map((d) => lstat(join(d, path))));
      assert.deepEqual(
        [made!.mode, made!.mtimeMs, made!.nlink],
        [meant!.mode, meant!.mtimeMs, meant!.nlink],
        path,
      );
    }
    assert.equal((await lstat(join(root, 'a/file'))).ino, (await lstat(join(root, 'a/b/hard'))).ino);
    assert.equal(applied.digest, `sha256:${createHash('sha256').update(archive).digest('hex')}`);
    assert.equal(applied.size, archive.length);
  });

  for (const form of ['none', 'gzip', 'zstd'] as const) {
    test(`given ${form}, the digest is that of the uncompressed archive`, async (t) => {
      if (form === 'zstd' && !hasTool('zstd')) return t.skip('the zstd tool is not installed');
      const { mounts, root } = await fenced(t);
      const archive = Buffer.concat([await tarOf([{ name: 'f', text: 'x' }]), Buffer.alloc(10_240)]);
      const packed = {
        none: archive,
        gzip: gzipSync(archive),
        zstd: form === 'zstd' ? run('zstd', ['-qc'], archive) : archive,
      };
      const applied: Applied = await applyLayer(mounts, streamOf(packed[form], 100), {
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      });
      assert.equal(applied.compression, form);
      assert.equal(applied.digest, `sha256:${createHash('sha256').update(archive).digest('hex')}`);
      assert.equal(applied.entries, 1);
      assert.deepEqual(await treeOf(root), { f: 'x' });
    });
  }

  test('given a later layer, files are replaced and kinds change', async (t) => {
    const tree = await apply(t, [
      [
        dir('d'),
        { name: 'd/x', text: '1' },
        { name: 'f', text: '1' },
        { name: 'l', type: 'symlink', linkname: 'd' },
      ],
      [
        { name: 'd', text: 'now a file' },
        dir('f'),
        { name: 'f/in', text: '2' },
        { name: 'l', text: 'not through the link' },
      ],
    ]);
    assert.deepEqual(tree, { d: 'now a file', f: 'dir', 'f/in': '2', l: 'not through the link' });
  });

  test('given names in other spellings, they are the same paths', async (t) => {
    const tree = await apply(t, [
      [{ name: '/abs//./a/../b', text: '1' }, { name: './c/', type: 'directory' }, dir('.')],
    ]);
    assert.deepEqual(tree, { abs: 'dir', 'abs/b': '1', c: 'dir' });
  });

  test('given missing parents, they are made with mode 0755', async (t) => {
    const { root, mounts } = await fenced(t);
    await applyLayer(mounts, streamOf(await tarOf([{ name: 'a/b/c', text: '1' }])));
    assert.equal((await lstat(join(root, 'a/b'))).mode & 0o777, 0o755);
  });

  test('given parents that are symlinks, they are followed inside the root', async (t) => {
    const tree = await apply(t, [
      [
        dir('real/deep'),
        { name: 'abs', type: 'symlink', linkname: '/real' },
        { name: 'real/up', type: 'symlink', linkname: '../../../../real/deep' },
        { name: 'abs/one', text: '1' },
        { name: 'abs/up/two', text: '2' },
        { name: 'dangling', type: 'symlink', linkname: '/made/here' },
        { name: 'dangling/three', text: '3' },
      ],
    ]);
    assert.equal(tree['real/one'], '1');
    assert.equal(tree['real/deep/two'], '2');
    assert.equal(tree['made/here/three'], '3');
  });

  test('given files in an old directory, its times stay; given an entry for it, it gets those', async (t) => {
    const { root, mounts } = await fenced(t);
    await applyLayer(
      mounts,
      streamOf(await tarOf([dir('d', { mtime: 7_000_000_000n }), { name: 'd/a', text: '1' }])),
    );
    assert.equal((await lstat(join(root, 'd'))).mtimeMs, 7000);
    await applyLayer(mounts, streamOf(await tarOf([{ name: 'd/b', text: '1' }])));
    assert.equal((await lstat(join(root, 'd'))).mtimeMs, 7000);
    await applyLayer(
      mounts,
      streamOf(await tarOf([dir('d', { mtime: 9_000_000_000n }), { name: 'd/.wh.a' }])),
    );
    assert.equal((await lstat(join(root, 'd'))).mtimeMs, 9000);
  });

  test('given times in nanoseconds and owners, root sets them, others count the owners', async (t) => {
    const { root, mounts } = await fenced(t);
    const item = { name: 'f', text: '1', uid: 1234, gid: 4321, mtime: 1_600_000_000_123_456_789n };
    const { skipped } = await applyLayer(mounts, streamOf(await tarOf([item])));
    const stats = await lstat(join(root, 'f'), { bigint: true });
    // Without the native helper times go through a float.
    const late = Number(stats.mtimeNs - item.mtime);
    assert.ok(xattrSupported ? late === 0 : Math.abs(late) < 2000, `${late} ns off`);
    assert.equal(skipped.owners, isRoot ? 0 : 1);
    if (isRoot) assert.deepEqual([stats.uid, stats.gid], [1234n, 4321n]);
  });

  test('given devices and fifos, they are made or counted', async (t) => {
    const { root, mounts } = await fenced(t);
    const layer = [
      { name: 'null', type: 'char', major: 1, minor: 3, mode: 0o666 },
      { name: 'wh', type: 'char', major: 0, minor: 0 },
      { name: 'fifo', type: 'fifo', mode: 0o640 },
    ] satisfies Item[];
    const { skipped } = await applyLayer(mounts, streamOf(await tarOf(layer)));
    const tree = await treeOf(root);
    assert.equal(tree.wh, undefined, 'the device that means "deleted" is never made');
    assert.ok((await lstat(join(root, 'fifo'))).isFIFO());
    if (tree.null === undefined) assert.equal(skipped.devices, 2);
    else assert.equal((await lstat(join(root, 'null'))).rdev, 259);
  });

  test('given a sparse file, holes stay holes and the rest is in its place', async (t) => {
    const { root, mounts } = await fenced(t);
    const from = await tempDir(t);
    run('sh', [
      '-c',
      'truncate -s 40M "$1/s"; printf mid | dd of="$1/s" bs=1 seek=20000000 conv=notrunc 2>/dev/null',
      'sh',
      from,
    ]);
    const archive = run('tar', ['-C', from, '--format=posix', '-S', '-cf', '-', 's']);
    await applyLayer(mounts, streamOf(archive));
    assert.ok((await readFile(join(root, 's'))).equals(await readFile(join(from, 's'))));
    assert.ok((await lstat(join(root, 's'))).blocks * 512 < 10_000_000);
  });

  test('given a name that is not UTF-8, its bytes stay', async (t) => {
    const { root, mounts } = await fenced(t);
    await applyLayer(mounts, streamOf(await tarOf([{ name: 'caf\xe9', text: 'latin 1' }])));
    assert.equal((await readFile(Buffer.from(`${root}/caf\xe9`, 'latin1'))).toString(), 'latin 1');
  });

  test('given an ended signal, the error is its own and writing stops', async (t) => {
    const { mounts } = await fenced(t);
    const control = new AbortController();
    const archive = await tarOf(Array.from({ length: 500 }, (_, i) => ({ name: `f${i}`, text: 'x' })));
    const running = applyLayer(mounts, streamOf(archive, 512), {
      signal: control.signal,
      progress: (bytes) => bytes > 20_000 && control.abort(),
    });
    await assert.rejects(running, (e) => isKind(e, 'Canceled'));
  });

  test('given a read-only mount or a strange media type, nothing is read', async (t) => {
    const { mounts, root } = await fenced(t);
    const layer = await tarOf([{ name: 'f', text: 'x' }]);
    const readOnly = [{ ...mounts[0]!, options: ['rbind', 'ro'] }];
    await assert.rejects(applyLayer(readOnly, streamOf(layer)), (e) => isKind(e, 'FailedPrecondition'));
    const mediaType = 'application/vnd.oci.image.layer.v1.tar+encrypted';
    await assert.rejects(applyLayer(mounts, streamOf(layer), { mediaType }), (e) =>
      isKind(e, 'NotImplemented'),
    );
    await assert.rejects(applyLayer([], streamOf(layer)), (e) => isKind(e, 'NotImplemented'));
    assert.deepEqual(await treeOf(root), {});
  });
});

describe('whiteouts', () => {
  const lower: Item[] = [
    dir('d'),
    { name: 'd/a', text: 'lower a' },
    dir('d/sub'),
    { name: 'd/sub/b', text: 'lower b' },
    { name: 'top', text: 'lower top' },
  ];
  const cases: [string, Item[], Record<string, string>][] = [
    [
      'of a file',
      [{ name: 'd/.wh.a' }],
      { d: 'dir', 'd/sub': 'dir', 'd/sub/b': 'lower b', top: 'lower top' },
    ],
    ['of a directory', [{ name: '.wh.d' }], { top: 'lower top' }],
    ['of nothing', [{ name: 'd/.wh.none' }, { name: 'no/where/.wh.x' }], Object.fromEntries(expected())],
    [
      'of a directory, before a new one of the same layer',
      [{ name: '.wh.d' }, dir('d'), { name: 'd/new', text: 'n' }],
      { d: 'dir', 'd/new': 'n', top: 'lower top' },
    ],
    [
      'of a directory, after a new one of the same layer',
      [dir('d'), { name: 'd/new', text: 'n' }, { name: '.wh.d' }],
      { d: 'dir', 'd/new': 'n', top: 'lower top' },
    ],
    [
      'of a directory, after a file in it without its own entry',
      [{ name: 'd/sub/new', text: 'n' }, { name: '.wh.d' }],
      { d: 'dir', 'd/sub': 'dir', 'd/sub/new': 'n', top: 'lower top' },
    ],
    [
      'of a file of the same layer, which stays',
      [{ name: 'top', text: 'upper' }, { name: '.wh.top' }],
      { ...Object.fromEntries(expected()), top: 'upper' },
    ],
    [
      'opaque, before the entries',
      [dir('d'), { name: 'd/.wh..wh..opq' }, { name: 'd/new', text: 'n' }],
      { d: 'dir', 'd/new': 'n', top: 'lower top' },
    ],
    [
      'opaque, after the entries',
      [dir('d'), { name: 'd/sub/new', text: 'n' }, { name: 'd/.wh..wh..opq' }],
      { d: 'dir', 'd/sub': 'dir', 'd/sub/new': 'n', top: 'lower top' },
    ],
    ['opaque, at the root', [{ name: 'only', text: 'o' }, { name: '.wh..wh..opq' }], { only: 'o' }],
    [
      'of AUFS, which mean nothing',
      [{ name: '.wh..wh.aufs', text: 'x' }, dir('.wh..wh.plnk'), { name: '.wh..wh.plnk/1.2', text: 'x' }],
      Object.fromEntries(expected()),
    ],
    [
      'through a symlink, resolved inside',
      [{ name: 's', type: 'symlink', linkname: '/d' }, { name: 's/.wh.a' }],
      { d: 'dir', 'd/sub': 'dir', 'd/sub/b': 'lower b', s: '-> /d', top: 'lower top' },
    ],
  ];
  for (const [name, layer, want] of cases) {
    test(`given a whiteout ${name}`, async (t) => {
      assert.deepEqual(await apply(t, [lower, layer]), want);
    });
  }

  function expected(): [string, string][] {
    return [
      ['d', 'dir'],
      ['d/a', 'lower a'],
      ['d/sub', 'dir'],
      ['d/sub/b', 'lower b'],
      ['top', 'lower top'],
    ];
  }
});
