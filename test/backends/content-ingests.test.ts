/** Ingests: one writer for each ref, resumed where the last one ended, or made again when what is there is damaged. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { LocalContent } from '../../src/backends/content/store.js';
import type { BackendWriter } from '../../src/backends/contract.js';
import { digestOf } from '../../src/model/digest.js';
import { zeroTime } from '../../src/model/time.js';
import { addBlob, fixture, ingestOf, readBlob } from './content-fixture.js';
import { failsWith } from './temp.js';

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

test('given two refs with the same bytes, when both commit at once, then one is AlreadyExists and none is left', async (t) => {
  const { root, content } = await fixture(t);
  const writers = await Promise.all(['a', 'b', 'c'].map((ref) => content.writer(ref, {})));
  for (const writer of writers) await writer.write(Buffer.from('same'));
  const results = await Promise.allSettled(writers.map((writer) => writer.commit(0, '')));
  assert.equal(results.filter((r) => r.status === 'fulfilled').length, 1);
  for (const r of results) if (r.status === 'rejected') assert.equal(r.reason.kind, 'AlreadyExists');
  assert.deepEqual(await readdir(join(root, 'ingest')), []);
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

test('given an ingest whose data cannot be opened, when a writer is asked for, then it is an error and the ref is free', async (t) => {
  const { content, root } = await fixture(t);
  await (await content.writer('ref', {})).close();
  const data = join(ingestOf(root, 'ref'), 'data');
  // A program that runs is one that even root cannot open for writing.
  await copyFile('/bin/sleep', data);
  await chmod(data, 0o700);
  const { size } = await stat(data);
  const program = spawn(data, ['600']);
  t.after(() => program.kill('SIGKILL'));
  await once(program, 'spawn');
  await assert.rejects(content.writer('ref', {}), /ingest/);
  await assert.rejects(content.writer('ref', {}), /ingest/);
  assert.equal((await content.status('ref')).offset, size);
  program.kill('SIGKILL');
  await once(program, 'exit');
  const writer = await content.writer('ref', {});
  assert.equal((await writer.status()).offset, size);
  await writer.close();
});

test('given a link or a directory in the place of the data, when a writer is asked for, then the ingest begins again', async (t) => {
  const { content, root } = await fixture(t);
  for (const put of [(path: string) => symlink('data', path), (path: string) => mkdir(path)]) {
    const first = await content.writer('ref', {});
    await first.write(Buffer.from('bytes'));
    await first.close();
    const data = join(ingestOf(root, 'ref'), 'data');
    await rm(data);
    await put(data);
    const again = await content.writer('ref', {});
    assert.equal((await again.status()).offset, 0);
    await again.close();
  }
});

test('given a commit, when another caller opens the ref as soon as it is free, then nothing of the new ingest goes', async (t) => {
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
