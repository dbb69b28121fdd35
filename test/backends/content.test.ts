import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, stat, truncate, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openContent } from '../../src/backends/content/store.js';
import { readNow } from '../../src/backends/sys.js';
import { type Algorithm, digestOf, EMPTY_SHA256 } from '../../src/model/digest.js';
import { addBlob, digests, fixture, ingestOf, readBlob } from './content-fixture.js';
import { failsWith, recordingLog } from './temp.js';

test('given a new root, when bytes are written in pieces and committed, then the layout is the documented one', async (t) => {
  const { root, content } = await fixture(t);
  const bytes = randomBytes(256);
  const writer = await content.writer('a/ref', { size: 256 });
  for (let at = 0; at < 256; at += 32) assert.equal(await writer.write(bytes.subarray(at, at + 32)), 32);

  const directory = ingestOf(root, 'a/ref');
  assert.deepEqual((await readdir(directory)).sort(), ['data', 'ref', 'startedat', 'total', 'updatedat']);
  assert.equal(await readFile(join(directory, 'ref'), 'utf8'), 'a/ref');
  assert.equal(await readFile(join(directory, 'total'), 'utf8'), '256');
  assert.match(await readFile(join(directory, 'startedat'), 'utf8'), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.equal((await stat(directory)).mode & 0o777, 0o700);

  const before = BigInt(Date.now() - 1000) * 1_000_000n;
  const digest = digestOf(bytes);
  await writer.commit(256, digest);
  assert.deepEqual(await readFile(join(root, 'blobs', 'sha256', digest.slice(7))), bytes);
  assert.deepEqual(await readdir(join(root, 'ingest')), []);
  const info = await content.info(digest);
  assert.deepEqual([info.digest, info.size, info.labels], [digest, 256, {}]);
  assert.ok(info.createdAt >= before && info.updatedAt >= before);
});

test('given nothing was written, when committed, then the blob is the well-known empty one [#88]', async (t) => {
  const { content } = await fixture(t);
  await (await content.writer('ref', {})).commit(0, '');
  assert.equal((await content.info(EMPTY_SHA256)).size, 0);
  assert.deepEqual(await readBlob(content, EMPTY_SHA256), Buffer.alloc(0));
});

test('given a blob of 6 bytes, when read with a buffer of 7, then 6 bytes and the end [#89]', async (t) => {
  const { content } = await fixture(t);
  const digest = await addBlob(content, Buffer.from('abcdef'));
  const reader = await content.readerAt(digest);
  assert.equal(reader.size, 6);
  const buffer = Buffer.alloc(7);
  assert.equal(await reader.read(buffer, 0), 6);
  assert.equal(buffer.toString('latin1', 0, 6), 'abcdef');
  assert.equal(await reader.read(buffer, 6), 0);
  assert.equal(await reader.read(buffer, 100), 0);
  assert.equal(await reader.read(buffer.subarray(0, 2), 3), 2);
  assert.equal(buffer.toString('latin1', 0, 2), 'de');
  await failsWith(reader.read(buffer, -1), 'InvalidArgument');
  await reader.close();
  await reader.close();
  await failsWith(reader.read(buffer, 0), 'FailedPrecondition');
});

test('given an existing blob, when a writer expects it, then AlreadyExists, no ingest, and the ref is free', async (t) => {
  const { root, content } = await fixture(t);
  const digest = await addBlob(content, Buffer.from('hello'));
  await failsWith(content.writer('ref', { digest, size: 99 }), 'AlreadyExists');
  assert.deepEqual(await readdir(join(root, 'ingest')), []);
  await (await content.writer('ref', {})).close();
});

test('given wrong arguments, then InvalidArgument everywhere and nothing on disk [#107]', async (t) => {
  const { root, content } = await fixture(t);
  await failsWith(content.writer('', {}), 'InvalidArgument');
  await failsWith(content.writer('r', { size: -1 }), 'InvalidArgument');
  for (const digest of ['foo', 'sha256:short', `sha256:${'A'.repeat(64)}`, 'sha256:../../etc/passwd']) {
    await failsWith(content.writer('r', { digest }), 'InvalidArgument');
    await failsWith(content.info(digest), 'InvalidArgument');
    await failsWith(content.readerAt(digest), 'InvalidArgument');
    await failsWith(content.delete(digest), 'InvalidArgument');
    await failsWith(content.deleteMany([digest]), 'InvalidArgument');
  }
  assert.deepEqual(await readdir(root), []);
});

test('given a blob in memory, when pieces of any size are read, then each is right, and a small one needs no other thread', async (t) => {
  const { root, content } = await fixture(t);
  const bytes = randomBytes(300_000);
  const digest = await addBlob(content, bytes);
  const path = join(root, 'blobs', 'sha256', digest.slice(7));
  await using reader = await content.readerAt(digest);
  for (const size of [1, 4096, 32_768, 65_536, 65_537, 200_000]) {
    const piece = Buffer.alloc(size);
    for (const position of [0, 1, 99_999, 299_999, 300_000]) {
      const count = Math.min(size, bytes.length - position);
      assert.equal(await reader.read(piece, position), count);
      assert.deepEqual(piece.subarray(0, count), bytes.subarray(position, position + count));
    }
  }
  const file = await open(path);
  const now = readNow(file.fd, Buffer.alloc(32_768), 0);
  await file.close();
  if (now === 32_768) {
    let done = false;
    const reading = reader.read(Buffer.alloc(32_768), 0).then(() => {
      done = true;
    });
    for (let step = 0; step < 10; step++) await undefined;
    assert.equal(done, true);
    await reading;
  }
  await truncate(path, 10_000);
  await assert.rejects(reader.read(Buffer.alloc(32_768), 0), /ends at 10000 of 300000 bytes/);
});

test('given the backend lost a blob, then info and readerAt are NotFound and deletes succeed [#122]', async (t) => {
  const { root, content } = await fixture(t);
  const digest = await addBlob(content, Buffer.from('hello'));
  await unlink(join(root, 'blobs/sha256', digest.slice(7)));
  await failsWith(content.info(digest), 'NotFound');
  await failsWith(content.readerAt(digest), 'NotFound');
  await content.delete(digest);
  assert.deepEqual(await content.deleteMany([digest]), { removed: 1, bytes: 0, errors: [] });
});

test('given files that are not blobs, when walking, then they are skipped [#123]', async (t) => {
  const { root, content, lines } = await fixture(t);
  const kept = await addBlob(content, Buffer.from('hello'));
  await mkdir(join(root, 'blobs/unknownalg'));
  await writeFile(join(root, 'blobs/unknownalg', 'a'.repeat(64)), '');
  await writeFile(join(root, 'blobs/sha256/README'), '');
  await writeFile(join(root, 'blobs/sha256', 'A'.repeat(64)), '');
  await mkdir(join(root, 'blobs/sha256', 'b'.repeat(64)));
  assert.deepEqual(await digests(content), [kept]);
  assert.equal(lines.length, 2);
});

test('given 200 blobs, when fn deletes each one visited, then each is seen once; its error stops the walk', async (t) => {
  const { content } = await fixture(t);
  const added: string[] = [];
  for (let i = 0; i < 200; i++) added.push(await addBlob(content, Buffer.from(`blob ${i}`)));
  const error = new Error('enough');
  await assert.rejects(
    content.walk(() => Promise.reject(error)),
    error,
  );
  const seen: string[] = [];
  await content.walk(async ({ digest }) => {
    seen.push(digest);
    await content.delete(digest);
  });
  assert.deepEqual(seen.sort(), added.sort());
  assert.deepEqual(await digests(content), []);
});

test('given a committed blob, then no user may write or execute it, and it may be read [#127]', async (t) => {
  const { root, content } = await fixture(t);
  const digest = await addBlob(content, Buffer.from('hello'));
  const { mode } = await stat(join(root, 'blobs/sha256', digest.slice(7)));
  assert.equal(mode & 0o333, 0);
  assert.equal(mode & 0o400, 0o400);
});

for (const algorithm of ['sha384', 'sha512'] satisfies Algorithm[]) {
  test(`given ${algorithm} as expected digest, at opening or at commit, then the blob lands there [#128]`, async (t) => {
    const { root, content } = await fixture(t);
    for (const [ref, when] of Object.entries({ a: 'opening', b: 'commit' })) {
      const bytes = randomBytes(3_000_000);
      const digest = digestOf(bytes, algorithm);
      const writer = await content.writer(ref, when === 'opening' ? { digest } : {});
      await writer.write(bytes);
      if (when === 'opening') assert.equal(writer.digest(), digest);
      else await failsWith(content.info(digest), 'NotFound');
      await writer.commit(bytes.length, digest);
      assert.equal(writer.digest(), digest);
      assert.deepEqual(await readBlob(content, digest), bytes);
      assert.ok((await readdir(join(root, 'blobs', algorithm))).includes(digest.slice(7)));
    }
  });
}

test('given blobs, when deleteMany, then they are gone, absent ones count, and the disk bytes are reported', async (t) => {
  const { root, content } = await fixture(t);
  const bytes = randomBytes(100_000);
  const big = await addBlob(content, bytes);
  const small = await addBlob(content, Buffer.from('small'));
  const kept = await addBlob(content, Buffer.from('kept'));
  let blocks = 0;
  for (const digest of [big, small])
    blocks += (await stat(join(root, 'blobs/sha256', digest.slice(7)))).blocks;
  const report = await content.deleteMany([big, digestOf(Buffer.from('absent')), small]);
  assert.deepEqual(report, { removed: 3, bytes: blocks * 512, errors: [] });
  assert.deepEqual(await digests(content), [kept]);
});

test('given threads that fail, when deleteMany, then the report has them and the blobs are there', async (t) => {
  const { root, content } = await fixture(t);
  const jobs = { removeTrees: () => Promise.reject(new Error('crash')) };
  const digest = await addBlob(content, Buffer.from('hello'));
  const report = await (await openContent(root, { jobs })).deleteMany([digest]);
  assert.deepEqual(report, { removed: 0, bytes: 0, errors: [{ path: root, message: 'crash' }] });
  assert.deepEqual(await digests(content), [digest]);
});

test('given a crash between moving away and deleting, when opened again, then the trash is emptied', async (t) => {
  const { root, content } = await fixture(t);
  const jobs = { removeTrees: () => Promise.reject(new Error('crash')) };
  await (await content.writer('ns/1/a', {})).close();
  const crashing = await openContent(root, { jobs, log: recordingLog().log });
  await crashing.abort('ns/1/a');
  await crashing.close();
  assert.equal((await readdir(join(root, '.trash'))).length, 1);
  const reopened = await openContent(root);
  await reopened.close();
  assert.deepEqual(await readdir(join(root, '.trash')), []);
});

test('given two instances on one directory, then they share no locks but the same blobs', async (t) => {
  const { root, content } = await fixture(t);
  const other = await openContent(root);
  const a = await content.writer('ref', {});
  const b = await other.writer('ref', {});
  await a.close();
  await b.close();
  const digest = await addBlob(content, Buffer.from('hello'));
  assert.equal((await other.info(digest)).size, 5);
});

test('given overlapping writes on one writer, then they are appended in the order they were made', async (t) => {
  const { content } = await fixture(t);
  const writer = await content.writer('ref', {});
  const parts = Array.from({ length: 30 }, (_, i) => Buffer.alloc(1000 + i, i));
  await Promise.all(parts.map((part) => writer.write(part)));
  await writer.commit(0, digestOf(Buffer.concat(parts)));
});

test('given a directory in the way or no access, then the error names kind, path and remedy', async (t) => {
  const { root, content } = await fixture(t);
  await writeFile(join(root, 'blobs'), 'a file');
  const writer = await content.writer('ref', {});
  await writer.write(Buffer.from('hello'));
  const error = await failsWith(writer.commit(0, ''), 'FailedPrecondition', /blobs/);
  assert.ok('remedy' in error && typeof error.remedy === 'string' && error.remedy !== '');
  await unlink(join(root, 'blobs'));
  await (await content.writer('ref', {})).commit(5, '');

  await writeFile(join(root, 'plain'), '');
  await failsWith(openContent(join(root, 'plain')), 'FailedPrecondition', /plain/);
  await failsWith(openContent(join(root, 'plain', 'below')), 'FailedPrecondition', /plain/);
});
