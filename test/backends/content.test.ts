import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import {
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type LocalContent, openContent } from '../../src/backends/content/store.js';
import type { BackendWriter } from '../../src/backends/contract.js';
import { type Algorithm, digestOf, EMPTY_SHA256 } from '../../src/model/digest.js';
import { zeroTime } from '../../src/model/time.js';
import { failsWith, type Logged, recordingLog, tempDir } from './temp.js';

interface Fixture extends Logged {
  root: string;
  content: LocalContent;
}

async function fixture(t: TestContext): Promise<Fixture> {
  const root = join(await tempDir(t), 'content');
  const logged = recordingLog();
  const content = await openContent(root, { log: logged.log });
  t.after(() => content.close());
  return { root, content, ...logged };
}

const ingestOf = (root: string, ref: string): string =>
  join(root, 'ingest', createHash('sha256').update(ref).digest('hex'));

async function addBlob(content: LocalContent, bytes: Uint8Array, ref = 'add'): Promise<string> {
  const writer = await content.writer(ref, {});
  await writer.write(bytes);
  const digest = writer.digest();
  await writer.commit(bytes.length, digest);
  return digest;
}

async function readBlob(content: LocalContent, digest: string): Promise<Buffer> {
  await using reader = await content.readerAt(digest);
  const chunks: Uint8Array[] = [];
  for await (const chunk of reader.stream()) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function digests(content: LocalContent): Promise<string[]> {
  const found: string[] = [];
  await content.walk((info) => void found.push(info.digest));
  return found.sort();
}

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

test('given no ingest was ever made, then there is no ingest directory [#129]', async (t) => {
  const { root, content } = await fixture(t);
  assert.deepEqual(await content.listStatuses(), []);
  await content.walkStatusRefs(() => assert.fail('there is no ref'));
  await content.walk(() => assert.fail('there is no blob'));
  assert.deepEqual(await readdir(root), []);
});

type Outcome = (content: LocalContent, writer: BackendWriter) => Promise<unknown>;
const outcomes: Record<string, Outcome> = {
  success: (_, writer) => writer.commit(5, ''),
  'wrong size': (_, writer) =>
    failsWith(writer.commit(6, ''), 'FailedPrecondition', /unexpected commit size 5/),
  'wrong digest': (_, writer) =>
    failsWith(writer.commit(0, digestOf(Buffer.from('x'))), 'FailedPrecondition', /unexpected commit digest/),
  'malformed digest': (_, writer) => failsWith(writer.commit(0, 'sha256:short'), 'InvalidArgument'),
  'existing blob': async (content, writer) => {
    await addBlob(content, Buffer.from('hello'));
    await failsWith(writer.commit(5, ''), 'AlreadyExists');
  },
  'aborted ingest': async (content, writer) => {
    await content.abort('ref');
    await failsWith(writer.commit(5, ''), 'NotFound');
  },
  'closed writer': async (_, writer) => {
    await writer.close();
    await failsWith(writer.commit(5, ''), 'FailedPrecondition');
  },
};
for (const [name, outcome] of Object.entries(outcomes)) {
  test(`given a commit ending in ${name}, then its ref is not locked afterwards [#84]`, async (t) => {
    const { content } = await fixture(t);
    const writer = await content.writer('ref', {});
    await writer.write(Buffer.from('hello'));
    await outcome(content, writer);
    await (await content.writer('ref', {})).close();
  });
}

test('given an open writer, when its ref is opened again, then Unavailable at once; after close it resumes [#85]', async (t) => {
  const { content } = await fixture(t);
  const writer = await content.writer('ref', {});
  await writer.write(Buffer.from('hello'));
  await failsWith(content.writer('ref', {}), 'Unavailable', /ref ref locked for .* \(since /);
  await writer.close();
  await writer.close();
  await failsWith(writer.write(Buffer.from('more')), 'FailedPrecondition');
  const again = await content.writer('ref', {});
  assert.equal((await again.status()).offset, 5);
  assert.equal(again.digest(), digestOf(Buffer.from('hello')));
  await again.commit(5, '');
});

test('given many opens of one ref at once, then exactly one succeeds and the others are Unavailable', async (t) => {
  const { content } = await fixture(t);
  const opened = await Promise.allSettled(Array.from({ length: 20 }, () => content.writer('ref', {})));
  assert.equal(opened.filter((o) => o.status === 'fulfilled').length, 1);
  for (const o of opened) if (o.status === 'fulfilled') await o.value.close();
});

test('given interrupted uploads, when resumed by truncating or by writing the rest, then the blob is right [#86]', async (t) => {
  const { content } = await fixture(t);
  for (const size of [500, 5000, 50000]) {
    for (const percent of [0, 10, 50, 90, 100]) {
      for (const way of ['truncate', 'rest']) {
        const bytes = randomBytes(size);
        const first = await content.writer('ref', { size });
        await first.write(bytes.subarray(0, (size * percent) / 100));
        await first.close();

        const second = await content.writer('ref', { size });
        const { offset, total } = await second.status();
        assert.deepEqual([offset, total], [(size * percent) / 100, size]);
        if (way === 'truncate') await second.truncate(0);
        await second.write(bytes.subarray(way === 'truncate' ? 0 : offset));
        await second.commit(size, digestOf(bytes));
        assert.deepEqual(await readBlob(content, digestOf(bytes)), bytes);
      }
    }
  }
});

test('given a writer, when truncated to another size than 0, then InvalidArgument and nothing is lost', async (t) => {
  const { content } = await fixture(t);
  const writer = await content.writer('ref', {});
  await writer.write(Buffer.from('hello'));
  for (const size of [3, 5, 10, -1]) await failsWith(writer.truncate(size), 'InvalidArgument');
  await writer.commit(5, digestOf(Buffer.from('hello')));
});

test('given a closed writer, when its ref is resumed, then startedAt, offset and total are as before [#87]', async (t) => {
  const { content } = await fixture(t);
  const writer = await content.writer('ref', { size: 100 });
  await writer.write(randomBytes(30));
  const before = await writer.status();
  await writer.close();
  const onDisk = await content.status('ref');
  const again = await content.writer('ref', { size: 100 });
  const after = await again.status();
  await again.close();
  for (const status of [onDisk, after]) {
    assert.deepEqual({ ...status, updatedAt: 0n }, { ...before, updatedAt: 0n });
    assert.ok(status.updatedAt >= before.startedAt);
  }
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

test('given two refs with the same bytes, when both commit at once, then one is AlreadyExists and none is left', async (t) => {
  const { root, content } = await fixture(t);
  const writers = await Promise.all(['a', 'b', 'c'].map((ref) => content.writer(ref, {})));
  for (const writer of writers) await writer.write(Buffer.from('same'));
  const results = await Promise.allSettled(writers.map((writer) => writer.commit(0, '')));
  assert.equal(results.filter((r) => r.status === 'fulfilled').length, 1);
  for (const r of results) if (r.status === 'rejected') assert.equal(r.reason.kind, 'AlreadyExists');
  assert.deepEqual(await readdir(join(root, 'ingest')), []);
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

test('given files that are no blobs, when walking, then they are skipped [#123]', async (t) => {
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

test('given a corrupt startedat, when the ref is opened, then it starts at 0 and old data does not survive [#124]', async (t) => {
  const { root, content, lines } = await fixture(t);
  const writer = await content.writer('ref', {});
  await writer.write(randomBytes(1000));
  await writer.close();
  await writeFile(join(ingestOf(root, 'ref'), 'startedat'), 'yesterday');
  await failsWith(content.status('ref'), 'Unknown');
  assert.deepEqual(await content.listStatuses(), []);

  const again = await content.writer('ref', {});
  assert.equal((await again.status()).offset, 0);
  await again.write(Buffer.from('new'));
  await again.commit(3, digestOf(Buffer.from('new')));
  assert.deepEqual(await readBlob(content, digestOf(Buffer.from('new'))), Buffer.from('new'));
  assert.ok(lines.some((line) => /cannot resume ingest "ref"/.test(line)));
});

test('given total 100 on disk, when opened with size 200, then recreated; with an unknown size resumed [#125]', async (t) => {
  const { root, content } = await fixture(t);
  const writer = await content.writer('ref', { size: 100 });
  await writer.write(randomBytes(10));
  await writer.close();
  const unsized = await content.writer('ref', {});
  assert.equal((await unsized.status()).offset, 10);
  await unsized.close();
  const larger = await content.writer('ref', { size: 200 });
  const { offset, total } = await larger.status();
  assert.deepEqual([offset, total], [0, 200]);
  await larger.close();
  assert.equal(await readFile(join(ingestOf(root, 'ref'), 'total'), 'utf8'), '200');
});

test('given an ingest directory of another ref, when opened, then it is recreated', async (t) => {
  const { root, content } = await fixture(t);
  const writer = await content.writer('ref', {});
  await writer.write(randomBytes(10));
  await writer.close();
  await writeFile(join(ingestOf(root, 'ref'), 'ref'), 'other');
  const again = await content.writer('ref', {});
  assert.equal((await again.status()).offset, 0);
  await again.close();
  assert.equal((await content.status('ref')).ref, 'ref');
});

test('given a timestamp of year 1, then it reads as no time [#126]', async (t) => {
  const { root, content } = await fixture(t);
  await (await content.writer('ref', {})).close();
  const directory = ingestOf(root, 'ref');
  for (const text of ['0001-01-01T00:00:00Z', '0001-01-01T07:52:58+07:53', '0001-01-02T03:04:05.5Z']) {
    await writeFile(join(directory, 'startedat'), text);
    assert.equal((await content.status('ref')).startedAt, zeroTime);
  }
});

test('given the data was written after updatedat, then the later of the two is reported', async (t) => {
  const { root, content } = await fixture(t);
  await (await content.writer('ref', {})).close();
  const later = new Date((Math.floor(Date.now() / 1000) + 3600) * 1000);
  await utimes(join(ingestOf(root, 'ref'), 'data'), later, later);
  assert.equal((await content.status('ref')).updatedAt, BigInt(later.getTime()) * 1_000_000n);
});

test('given a committed blob, then nobody may write or execute it, and it may be read [#127]', async (t) => {
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

test('given a sha256 ingest, when committed with a wrong sha512, then FailedPrecondition and it can be resumed', async (t) => {
  const { content } = await fixture(t);
  const writer = await content.writer('ref', {});
  await writer.write(Buffer.from('hello'));
  await failsWith(writer.commit(0, digestOf(Buffer.from('x'), 'sha512')), 'FailedPrecondition');
  const again = await content.writer('ref', {});
  await again.commit(5, digestOf(Buffer.from('hello'), 'sha512'));
});

test('given a writer committed twice, then the second does not free a ref now owned by another [#130]', async (t) => {
  const { content } = await fixture(t);
  const first = await content.writer('ref', {});
  await first.write(Buffer.from('one'));
  await first.commit(0, '');
  const second = await content.writer('ref', {});
  await failsWith(first.commit(0, ''), 'FailedPrecondition');
  await first.close();
  await failsWith(content.writer('ref', {}), 'Unavailable');
  await second.write(Buffer.from('two'));
  await second.commit(0, '');
});

test('given ingests, when listed and walked, then half-made ones are skipped; abort removes; absent is success', async (t) => {
  const { root, content } = await fixture(t);
  const writers = await Promise.all(['ns/1/a', 'ns/1/b'].map((ref) => content.writer(ref, { size: 7 })));
  await writers[0]!.write(Buffer.from('abc'));
  await mkdir(join(root, 'ingest', 'half-made'));
  await writeFile(join(root, 'ingest', 'half-made', 'startedat.tmp'), '');
  const listed = (await content.listStatuses()).map(({ ref, offset, total }) => [ref, offset, total]);
  assert.deepEqual(listed.sort(), [
    ['ns/1/a', 3, 7],
    ['ns/1/b', 0, 7],
  ]);
  const refs: string[] = [];
  await content.walkStatusRefs((ref) => void refs.push(ref));
  assert.deepEqual(refs.sort(), ['ns/1/a', 'ns/1/b']);

  await content.abort('ns/1/a');
  await content.abort('ns/1/a');
  await content.abort('never');
  await failsWith(content.status('ns/1/a'), 'NotFound');
  await failsWith(content.writer('ns/1/a', {}), 'Unavailable');
  for (const writer of writers) await writer.close();
  const again = await content.writer('ns/1/a', {});
  assert.equal((await again.status()).offset, 0);
  await again.close();
});

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

test('given threads that fail, when deleteMany, then the report tells and the blobs are there', async (t) => {
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

test('given an ingest whose data cannot be opened, when a writer is asked for, then it is an error and the ref is free', async (t) => {
  const { content, root } = await fixture(t);
  await (await content.writer('ref', {})).close();
  const data = join(ingestOf(root, 'ref'), 'data');
  await rename(data, `${data}.kept`);
  await symlink('data', data);
  await assert.rejects(content.writer('ref', {}), /ingest/);
  await assert.rejects(content.writer('ref', {}), /ingest/);
  assert.ok((await readdir(ingestOf(root, 'ref'))).includes('data.kept'));
  await rm(data);
  await mkdir(data);
  await (await content.writer('ref', {})).close();
  assert.equal((await content.status('ref')).offset, 0);
});

test('given a commit, when somebody opens the ref as soon as it is free, then nothing of the new ingest goes', async (t) => {
  const { content, root } = await fixture(t);
  for (let round = 0; round < 40; round++) {
    const first = await content.writer('ref', {});
    await first.write(Buffer.from(`first ${round}`));
    const committing = first.commit(0, '');
    let second: BackendWriter | undefined;
    while (second === undefined) {
      second = await content.writer('ref', {}).catch(() => undefined);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await second.write(Buffer.from(`second ${round}`));
    await committing;
    assert.ok((await readdir(ingestOf(root, 'ref'))).includes('ref'));
    await second.commit(0, '');
  }
});
