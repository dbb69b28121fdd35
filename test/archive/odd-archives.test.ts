/** Archives as old and sloppy tools write them: read as tar and containerd do, or refused with the reason. */
import assert from 'node:assert/strict';
import { lstat, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { applyLayer } from '../../src/backends/archive/apply.js';
import { isKind } from '../../src/errors.js';
import { missingTools } from '../support/debian.js';
import { fenced, hasTool, type Item, readAll, run, streamOf, tarOf, tempDir, treeOf } from './support.js';

const isRoot = process.getuid?.() === 0;

/** Sets bytes of the header at `at` and makes its checksum right again. */
function patched(archive: Buffer, offset: number, bytes: Buffer | string, at = 0): Buffer {
  const copy = Buffer.from(archive);
  Buffer.from(bytes as string, 'latin1').copy(copy, at + offset);
  copy.fill(0x20, at + 148, at + 156);
  let sum = 0;
  for (const byte of copy.subarray(at, at + 512)) sum += byte;
  copy.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1');
  return copy;
}

/** A number in base 256, as GNU tar writes what octal digits cannot express. */
function base256(value: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let rest = BigInt.asUintN(length * 8, value);
  for (let i = length - 1; i >= 0; i--, rest >>= 8n) bytes[i] = Number(rest & 255n);
  bytes[0]! |= 0x80;
  return bytes;
}

/** An archive with pax records before its only entry. */
async function withPax(records: string[], item: Item): Promise<Buffer> {
  const record = (text: string): string => {
    let length = text.length + 3;
    while (`${length} ${text}\n`.length !== length) length++;
    return `${length} ${text}\n`;
  };
  const header = await tarOf([{ name: 'pax', text: records.map(record).join('') }]);
  return Buffer.concat([patched(header.subarray(0, -1024), 156, 'x'), await tarOf([item])]);
}

async function applied(t: TestContext, archive: Buffer) {
  const { root, mounts, unharmed } = await fenced(t);
  const done = await applyLayer(mounts, streamOf(archive, 700));
  await unharmed();
  return { root, done, tree: await treeOf(root) };
}

const refused = async (t: TestContext, archive: Buffer, text: RegExp): Promise<void> => {
  const { mounts, unharmed } = await fenced(t);
  await assert.rejects(applyLayer(mounts, streamOf(archive)), (error: unknown) => {
    assert.ok(isKind(error, 'InvalidArgument'), String(error));
    assert.match(String(error), text);
    return true;
  });
  await unharmed();
};

describe('an archive that ends early', () => {
  for (const size of [0, 1, 511, 512, 513]) {
    test(`given a last entry of ${size} bytes, then padding and end mark may be missing, in part or whole`, async (t) => {
      const text = 'x'.repeat(size);
      const whole = await tarOf([
        { name: 'first', text: '1' },
        { name: 'last', text },
      ]);
      const complete = whole.length - 1024 - ((512 - (size % 512)) % 512);
      for (const end of [
        complete,
        complete + 1,
        whole.length - 1024,
        whole.length - 1000,
        whole.length - 512,
        whole.length - 1,
      ]) {
        const { tree, done } = await applied(t, whole.subarray(0, end));
        assert.deepEqual(tree, { first: '1', last: text }, `${end} of ${whole.length}`);
        assert.equal(done.size, end);
      }
      if (size > 0) await refused(t, whole.subarray(0, complete - 1), /ends inside "last"/);
    });
  }

  test('given an end inside a header, or after records that describe an entry, then it is malformed', async (t) => {
    const whole = await withPax(['path=renamed'], { name: 'f', text: 'x' });
    await refused(t, whole.subarray(0, 1024), /ends before the entry/);
    await refused(t, whole.subarray(0, 1300), /ends inside a header/);
    assert.deepEqual((await applied(t, whole)).tree, { renamed: 'x' });
  });

  test('given the layer that umoci inserts, then it is applied', async (t) => {
    const missing = missingTools(['umoci']);
    if (missing !== undefined) return t.skip(missing);
    const dir = await tempDir(t);
    await writeFile(join(dir, 'file'), 'inserted');
    const umoci = (...args: string[]): Buffer => run('umoci', args);
    umoci('init', '--layout', join(dir, 'image'));
    umoci('new', '--image', join(dir, 'image:tag'));
    umoci('insert', '--image', join(dir, 'image:tag'), join(dir, 'file'), '/file');
    const blob = async (digest: string): Promise<Buffer> =>
      readFile(join(dir, 'image/blobs', digest.replace(':', '/')));
    const index = JSON.parse(await readFile(join(dir, 'image/index.json'), 'utf8'));
    const manifest = JSON.parse((await blob(index.manifests[0].digest)).toString());
    const { tree } = await applied(t, await blob(manifest.layers[0].digest));
    assert.deepEqual(tree, { file: 'inserted' });
  });
});

describe('numbers', () => {
  const file: Item = { name: 'f', text: 'x' };

  test('given ids in base 256 or pax, then they are those of Linux: 32 bits, -2 is nobody, -1 no change', async (t) => {
    const tar = await tarOf([file]);
    const cases: [Buffer, number][] = [
      [patched(tar, 108, base256(-2n, 8)), 2 ** 32 - 2],
      [patched(tar, 108, base256(2n ** 32n - 2n, 8)), 2 ** 32 - 2],
      [patched(tar, 108, base256(3_000_000_000n, 8)), 3_000_000_000],
      [patched(tar, 108, base256(-1n, 8)), process.getuid!()],
      [await withPax(['uid=-2'], file), 2 ** 32 - 2],
      [await withPax(['uid=4000000000'], file), 4_000_000_000],
    ];
    for (const [archive, uid] of cases) {
      const { root, done } = await applied(t, archive);
      if (isRoot) assert.equal((await lstat(join(root, 'f'))).uid, uid);
      else assert.equal(done.skipped.owners, 1);
    }
  });

  test('given ids beyond 32 bits, which cut would be those of others, then they are refused', async (t) => {
    const tar = await tarOf([file]);
    for (const value of [2n ** 32n, 2n ** 40n, -(2n ** 40n)]) {
      await refused(t, patched(tar, 108, base256(value, 8)), /the uid -?\d+ has more than 32 bits/);
      await refused(t, patched(tar, 116, base256(value, 8)), /the gid -?\d+ has more than 32 bits/);
      await refused(t, await withPax([`gid=${value}`], file), /gid/);
    }
    await refused(t, patched(tar, 124, base256(-1n, 12)), /negative size/);
  });

  test('given times of many digits, then they are cut to nanoseconds, and 1970 where nothing can store them', async (t) => {
    const cases: [Buffer, bigint][] = [
      [await withPax([`mtime=1234567890.${'123456789'.repeat(9)}`], file), 1_234_567_890_123_456_789n],
      [await withPax([`mtime=${'9'.repeat(15)}`], file), 0n],
      [await withPax([`mtime=${'9'.repeat(30)}.5`], file), 0n],
      [await withPax([`mtime=-${'9'.repeat(30)}`], file), 0n],
      [await withPax([`mtime=+0000000000000000000000077.`], file), 77_000_000_000n],
      [patched(await tarOf([file]), 136, base256(2n ** 80n, 12)), 0n],
      [patched(await tarOf([file]), 136, base256(-5n, 12)), 0n],
    ];
    for (const [archive, mtime] of cases) {
      const { root } = await applied(t, archive);
      assert.equal((await lstat(join(root, 'f'), { bigint: true })).mtimeNs, mtime);
    }
    await refused(t, await withPax(['mtime=soon'], file), /time is not a number/);
  });
});

describe('fields of old and odd writers', () => {
  const file: Item = { name: 'f', text: 'x' };

  test('given numbers that begin with NULs or blanks, then they are read as by tar', async (t) => {
    const tar = await tarOf([{ name: 'f', text: 'hello' }, file]);
    for (const size of [
      '\x000000000005',
      '\0\x000000000005',
      '         5 \0',
      '000000000005',
      '\0         5 ',
    ]) {
      const two = patched(tar, 0, 'g', 1024);
      const { tree } = await applied(t, patched(two, 124, size));
      assert.deepEqual(tree, { f: 'hello', g: 'x' }, JSON.stringify(size));
    }
    assert.equal((await readAll(patched(tar, 100, '\x000644\0')))[0]!.entry.mode, 0o644);
  });

  test('given a file whose name ends in a slash, then it is one if it has a content, else a directory', async (t) => {
    const tar = await tarOf([{ name: 'f/', text: 'hello' }, file]);
    for (const type of ['0', '\0', '7']) {
      const { tree } = await applied(t, patched(patched(tar, 156, type), 0, 'g', 1024));
      assert.deepEqual(tree, { f: 'hello', g: 'x' }, JSON.stringify(type));
    }
    const empty = await tarOf([
      { name: 'd/', text: '' },
      { name: 'd/f', text: 'x' },
    ]);
    assert.deepEqual((await applied(t, empty)).tree, { d: 'dir', 'd/f': 'x' });
  });

  test('given an entry of another type, then what comes after it is read; in a layer it is refused', async (t) => {
    const tar = await tarOf([{ name: 'label', text: 'content' }, file]);
    for (const type of ['V', 'D', 'M', 'A', 's']) {
      const archive = patched(tar, 156, type);
      const items = await readAll(archive);
      assert.deepEqual(
        items.map(({ entry, content }) => [entry.name, entry.type, content.toString()]),
        [
          ['label', 'unknown', 'content'],
          ['f', 'file', 'x'],
        ],
      );
      await refused(t, archive, new RegExp(`"label" has the unsupported type "${type}"`));
    }
  });

  test('given a prefix as star writes it, then the times after it are not part of the name', async (t) => {
    const times = '12345670000\x0012345670000\0';
    const tar = patched(patched(await tarOf([file]), 345, 'p'.repeat(131) + times), 508, 'tar\0');
    const name = 'p'.repeat(131);
    assert.deepEqual((await applied(t, tar)).tree, { [name]: 'dir', [`${name}/f`]: 'x' });
  });

  test('given a way through symlinks, then as many are followed as Linux follows', async (t) => {
    const chain = (links: number): Item[] => [
      { name: 's0', type: 'directory' },
      ...Array.from(
        { length: links },
        (_, i): Item => ({ name: `s${i + 1}`, type: 'symlink', linkname: `s${i}` }),
      ),
      { name: `s${links}/f`, text: 'x' },
    ];
    assert.equal((await applied(t, await tarOf(chain(40)))).tree['s0/f'], 'x');
    await refused(t, await tarOf(chain(41)), /too many symlinks/);
  });

  test('given records whose length has leading zeros, then they are read', async (t) => {
    const header = await tarOf([{ name: 'pax', text: '012 path=ren\n' }]);
    const pax = patched(header.subarray(0, -1024), 156, 'x');
    const bad = Buffer.from(pax);
    bad.write('000 path=ren', 512);
    // Given 13 bytes with the newline.
    const good = Buffer.from(pax);
    good.write('013 path=ren\n', 512);
    assert.deepEqual((await applied(t, Buffer.concat([good, await tarOf([file])]))).tree, { ren: 'x' });
    await refused(t, Buffer.concat([bad, await tarOf([file])]), /pax record/);
  });

  test('given attributes that no file system can store, then the error names the entry, and no other attribute is set', async (t) => {
    const large: Item = { name: 'f', text: 'x'.repeat(100_000) };
    for (const item of [file, large, { name: 'd', type: 'directory' } as Item]) {
      const { name } = item;
      const with1 = (key: string, value = 'v') => withPax([`SCHILY.xattr.${key}=${value}`], item);
      await refused(t, await with1('user.a\0b'), /NUL/);
      await refused(t, await with1(''), new RegExp(`"${name}/?" has an extended attribute whose name`));
      await refused(t, await with1(`user.${'n'.repeat(300)}`), /attribute whose name is empty or too long/);
      await refused(t, await with1('user.v', 'v'.repeat(70_000)), /attribute that is too large/);
    }
  });
});

describe('what AUFS left in layers', () => {
  test('given hard links into .wh..wh.plnk, then they are one file, and that directory is not there', async (t) => {
    const { root, tree } = await applied(
      t,
      await tarOf([
        { name: '.wh..wh.aufs', text: 'meta' },
        { name: '.wh..wh.plnk', type: 'directory' },
        { name: '.wh..wh.plnk/57.1234', text: 'linked', mode: 0o640, mtime: 55_000_000_000n },
        { name: '.wh..wh.plnk/out', type: 'symlink', linkname: '/etc/passwd' },
        { name: 'a', type: 'link', linkname: '.wh..wh.plnk/57.1234' },
        { name: 'd/b', type: 'link', linkname: '/.wh..wh.plnk/57.1234' },
      ]),
    );
    assert.deepEqual(tree, { a: 'linked', d: 'dir', 'd/b': 'linked' });
    const [a, b] = await Promise.all(['a', 'd/b'].map((path) => lstat(join(root, path))));
    assert.deepEqual([a!.ino, a!.nlink, a!.mode & 0o777, a!.mtimeMs], [b!.ino, 2, 0o640, 55_000]);
    for (const target of ['.wh..wh.plnk/none', '.wh..wh.plnk/out']) {
      const link: Item = { name: 'h', type: 'link', linkname: target };
      const out: Item = { name: '.wh..wh.plnk/out', type: 'symlink', linkname: '/etc/passwd' };
      await refused(t, await tarOf([out, link]), /does not exist/);
    }
  });

  test('given its marks as directories with something in them, then they are marks all the same', async (t) => {
    const { tree } = await applied(
      t,
      await tarOf([
        { name: 'd/kept', text: 'x' },
        { name: 'd/.wh..wh..opq', type: 'directory' },
        { name: 'd/.wh..wh..opq/in', text: 'meta' },
        { name: '.wh..wh.orph', type: 'directory' },
        { name: '.wh..wh.orph/in', text: 'meta' },
        { name: 'd/.wh..wh.opaque', type: 'directory' },
        { name: 'd/.wh..wh.opaque/in', text: 'meta' },
      ]),
    );
    assert.deepEqual(tree, { d: 'dir', 'd/kept': 'x' });
  });
});

describe('other formats', () => {
  const magics: [string, Buffer][] = [
    ['xz', Buffer.from('fd377a585a00', 'hex')],
    ['bzip2', Buffer.from('BZh91AY&SY')],
    ['lz4', Buffer.from('04224d18', 'hex')],
    ['ZIP', Buffer.from('PK\x03\x04')],
    ['squashfs', Buffer.from('hsqs')],
  ];
  for (const [name, magic] of magics) {
    test(`given ${name}, then the error names it`, async (t) => {
      for (const length of [0, 100, 5000]) {
        await refused(t, Buffer.concat([magic, Buffer.alloc(length, 7)]), new RegExp(`the format ${name},`));
      }
    });
  }

  test('given a layer that is compressed twice, then the error says so', async (t) => {
    const tar = await tarOf([{ name: 'f', text: 'x' }]);
    await refused(t, gzipSync(gzipSync(tar)), /compressed twice: .* the format gzip,/);
    await refused(t, gzipSync(gzipSync(Buffer.alloc(4000, tar))), /compressed twice/);
    const zstd = Buffer.concat([Buffer.from('28b52ffd', 'hex'), Buffer.alloc(600, 7)]);
    await refused(t, gzipSync(zstd), /compressed twice: .* the format zstd,/);
  });

  test('given what xz and bzip2 write, then the error names them; a name like a mark is a name', async (t) => {
    for (const tool of ['xz', 'bzip2']) {
      if (!hasTool(tool)) continue;
      await refused(
        t,
        run(tool, ['-c'], await tarOf([{ name: 'f', text: 'x' }])),
        new RegExp(`format ${tool},`),
      );
    }
    assert.deepEqual((await applied(t, await tarOf([{ name: 'BZh9', text: 'x' }]))).tree, { BZh9: 'x' });
    const [item] = await readAll(await tarOf([{ name: 'PK\x03\x04', text: 'x' }]));
    assert.equal(item?.entry.name, 'PK\x03\x04');
  });
});
