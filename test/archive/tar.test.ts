import assert from 'node:assert/strict';
import { mkdir, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import tar from 'tar-stream';
import { toBytePath } from '../../src/backends/archive/paths.js';
import { EbbtideError } from '../../src/errors.js';
import { type Item, readAll, run, streamOf, tarOf, tempDir } from './support.js';

const long = `${'d'.repeat(60)}/${'e'.repeat(60)}/${'f'.repeat(120)}`;

describe('tar reader: what GNU tar writes', () => {
  for (const format of ['ustar', 'gnu', 'oldgnu', 'posix', 'v7']) {
    test(`given the ${format} format, names, kinds and contents come out as they went in`, async (t) => {
      const dir = await tempDir(t);
      const deep =
        format === 'v7' ? 'short/name' : format === 'ustar' ? `${'d'.repeat(60)}/${'e'.repeat(60)}` : long;
      await mkdir(join(dir, deep.slice(0, deep.lastIndexOf('/'))), { recursive: true });
      await writeFile(join(dir, deep), 'deep');
      await writeFile(join(dir, 'empty'), '');
      await symlink('empty', join(dir, 'link'));
      const archive = run('tar', ['-C', dir, `--format=${format}`, '--sort=name', '-cf', '-', '.']);
      const items = await readAll(archive, 700);
      const byName = new Map(items.map((i) => [i.entry.name, i]));
      assert.equal(byName.get(`./${deep}`)?.content.toString(), 'deep');
      assert.equal(byName.get('./empty')?.content.length, 0);
      assert.equal(byName.get('./link')?.entry.type, 'symlink');
      assert.equal(byName.get('./link')?.entry.linkname, 'empty');
      assert.equal(byName.get('./')?.entry.type, 'directory');
    });
  }

  const sparseFormats = [
    ['gnu', []],
    ['posix', ['--sparse-version=0.0']],
    ['posix', ['--sparse-version=0.1']],
    ['posix', ['--sparse-version=1.0']],
  ] as const;
  for (const [format, more] of sparseFormats) {
    test(`given a sparse file in ${format} ${more.join()}, its segments and size come out`, async (t) => {
      const dir = await tempDir(t);
      const path = join(dir, 'sparse');
      const pieces = 30;
      await writeFile(path, '');
      await truncate(path, 8 * 2 ** 20);
      const { open } = await import('node:fs/promises');
      const file = await open(path, 'r+');
      for (let i = 0; i < pieces; i++) await file.write(Buffer.alloc(4096, 65 + i), 0, 4096, i * 2 ** 18);
      await file.close();
      const archive = run('tar', ['-C', dir, `--format=${format}`, ...more, '-S', '-cf', '-', 'sparse']);
      const [item] = await readAll(archive);
      assert.equal(item?.entry.name, 'sparse');
      assert.equal(item.entry.size, 8 * 2 ** 20);
      const data = item.entry.segments?.filter((s) => s.size > 0) ?? [];
      assert.ok(data.length >= pieces, `a sparse file system is needed, found ${data.length} segments`);
      assert.equal(data[3]?.offset, 3 * 2 ** 18);
      assert.equal(
        item.content.length,
        data.reduce((sum, s) => sum + s.size, 0),
      );
      assert.equal(item.content[0], 65);
    });
  }

  test('given fractions of seconds and large owners in pax, they come out exactly', async (t) => {
    const dir = await tempDir(t);
    await writeFile(join(dir, 'f'), 'x');
    await utimes(join(dir, 'f'), 0, 1_700_000_000.125);
    const archive = run('tar', [
      '-C',
      dir,
      '--format=posix',
      '--owner=:3000000',
      '--group=:4000000',
      '-cf',
      '-',
      'f',
    ]);
    const [item] = await readAll(archive);
    assert.equal(item?.entry.uid, 3_000_000);
    assert.equal(item.entry.gid, 4_000_000);
    assert.equal(item.entry.mtime / 1_000_000n, 1_700_000_000_125n);
  });

  test('given what tar-stream packs, the reader and the packer agree', async () => {
    const pack = tar.pack();
    pack.entry({ name: 'dir', type: 'directory', mode: 0o711 });
    pack.entry({ name: `dir/${'n'.repeat(200)}`, mode: 0o600, uid: 7, gid: 8 }, 'content');
    pack.entry({ name: 'umlaut-ä', type: 'symlink', linkname: 'dir' });
    pack.finalize();
    const parts: Buffer[] = [];
    for await (const part of pack as AsyncIterable<Buffer>) parts.push(part);
    const items = await readAll(Buffer.concat(parts), 100);
    assert.deepEqual(
      items.map(({ entry: e, content }) => [e.name, e.type, e.mode, e.uid, e.gid, content.toString()]),
      [
        ['dir', 'directory', 0o711, 0, 0, ''],
        [`dir/${'n'.repeat(200)}`, 'file', 0o600, 7, 8, 'content'],
        [toBytePath('umlaut-ä'), 'symlink', 0o644, 0, 0, ''],
      ],
    );
  });

  test('given a size beyond 8 GiB in base 256 and in pax, the size is exact and the missing bytes an error', async () => {
    const size = 9 * 2 ** 30 + 5;
    const pack = tar.pack();
    pack.entry({ name: 'big', size });
    const head = await new Promise<Buffer>((resolve) => pack.once('data', (part) => resolve(part as Buffer)));
    assert.equal(head[124]! & 0x80, 0x80, 'tar-stream writes base 256');
    pack.destroy();
    await assert.rejects(readAll(head.subarray(0, 512)), /ends inside "big"/);
    const ours = (await tarOf([{ name: 'big' }])).subarray(0, 512);
    const pax = await tarOf([{ name: 'x', text: `19 size=${size}\n` }]);
    assert.equal(pax.toString('latin1', 124, 136), '00000000023\0');
    pax[156] = 'x'.charCodeAt(0);
    fixChecksum(pax);
    await assert.rejects(readAll(Buffer.concat([pax.subarray(0, 1024), ours])), /ends inside "big"/);
  });
});

describe('tar writer', () => {
  const hard: Item[] = [
    { name: 'plain', text: 'p', mtime: 5_000_000_000n },
    { name: long, text: 'long', mtime: 1_234_567_890_123_456_789n },
    { name: toBytePath('größe/ünïcode'), text: 'u', uid: 5_000_000, gid: 6_000_000 },
    { name: 'bytes-\xff\xfe', text: 'no utf-8' },
    { name: 'link', type: 'symlink', linkname: 'l'.repeat(300), mode: 0o777 },
    { name: 'hard', type: 'link', linkname: 'plain' },
    { name: 'dir', type: 'directory', mode: 0o1777 },
    { name: 'dev', type: 'char', major: 1, minor: 3, mode: 0o666 },
    {
      name: 'caps',
      text: 'x',
      xattrs: new Map([['security.capability', Buffer.from([1, 0, 0, 2, 255, 10, 61])]]),
    },
  ];

  test('given hard entries, what is written reads back the same', async () => {
    const items = await readAll(await tarOf(hard), 333);
    assert.deepEqual(
      items.map(({ entry: e }) => [e.name, e.type, e.uid, e.gid, e.mtime, e.linkname, e.major, e.minor]),
      hard.map((i) => [
        i.type === 'directory' ? `${i.name}/` : i.name,
        i.type ?? 'file',
        i.uid ?? 0,
        i.gid ?? 0,
        i.mtime ?? 0n,
        i.linkname ?? '',
        i.major ?? 0,
        i.minor ?? 0,
      ]),
    );
    assert.deepEqual(items.at(-1)?.entry.xattrs, hard.at(-1)?.xattrs);
    assert.equal(items[1]?.content.toString(), 'long');
  });

  test('given hard entries, GNU tar lists them all', async () => {
    const listed = run('tar', ['-tf', '-', '--quoting-style=escape'], await tarOf(hard)).toString();
    assert.equal(listed.trim().split('\n').length, hard.length);
    assert.ok(listed.includes(long));
  });

  test('given the same entries, the bytes are the same', async () => {
    assert.ok((await tarOf(hard)).equals(await tarOf(hard)));
  });
});

describe('tar reader: damage', () => {
  const items: Item[] = [
    { name: long, text: 'a'.repeat(700) },
    { name: 'x', type: 'symlink', linkname: 'y'.repeat(150) },
    { name: 'z', text: 'b', xattrs: new Map([['user.a', Buffer.from('b')]]) },
  ];

  test('given an archive cut anywhere, the outcome is its first entries or InvalidArgument', async () => {
    const whole = await tarOf(items);
    const names = (await readAll(whole)).map((i) => i.entry.name);
    for (let cut = 0; cut < whole.length; cut += 97) {
      try {
        const got = (await readAll(whole.subarray(0, cut))).map((i) => i.entry.name);
        assert.deepEqual(got, names.slice(0, got.length));
      } catch (error) {
        assert.ok(error instanceof EbbtideError && error.kind === 'InvalidArgument', String(error));
      }
    }
  });

  test('given bytes changed at random, the reader ends or throws InvalidArgument', async () => {
    const whole = await tarOf(items);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        fc.boolean(),
        async (changes, repair) => {
          const damaged = Buffer.from(whole);
          for (const [at, byte] of changes) damaged[at] = byte;
          if (repair)
            for (let at = 0; at + 512 <= damaged.length; at += 512)
              fixChecksum(damaged.subarray(at, at + 512));
          try {
            await readAll(damaged);
          } catch (error) {
            assert.ok(error instanceof EbbtideError && error.kind === 'InvalidArgument', String(error));
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test('given something that is not a tar, the error says so', async () => {
    await assert.rejects(readAll(Buffer.alloc(2048, 'x')), /malformed tar archive/);
  });

  test('given names beyond the limit in front of an entry, they are refused before they are read', async () => {
    const pax = await tarOf([{ name: 'x', text: 'y' }]);
    pax[156] = 'x'.charCodeAt(0);
    pax.write('77777777777', 124);
    fixChecksum(pax);
    await assert.rejects(readAll(pax), /exceed/);
  });

  test('streams of one byte at a time read like any other', async () => {
    const whole = await tarOf(items);
    const parts: Uint8Array[] = [];
    for await (const part of streamOf(whole, 1)) parts.push(part);
    assert.equal(Buffer.concat(parts).length, whole.length);
    assert.equal((await readAll(whole, 1)).length, items.length);
  });
});

function fixChecksum(block: Buffer): void {
  if (block.subarray(0, 512).every((b) => b === 0)) return;
  block.fill(0x20, 148, 156);
  let sum = 0;
  for (const byte of block.subarray(0, 512)) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}
