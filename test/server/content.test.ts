import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { digestOf } from '../../src/model/digest.js';
import type { Failure, TestClient, WriteStream } from './client.js';
import { code, world } from './world.js';

const MiB = 2 ** 20;

test('a blob is written in pieces, committed and read back in ranges', async (t) => {
  const { client } = await world(t);
  const data = randomBytes(3 * MiB + 17);
  const digest = digestOf(data);

  // When: it is written piece by piece, without size or digest before the commit.
  const stream = client.write();
  const opened = await stream.ask({ ref: 'up' });
  for (let at = 0; at < data.length; at += MiB) {
    const piece = data.subarray(at, at + MiB);
    const { offset } = await stream.ask({ action: 1, offset: at, data: piece });
    assert.equal(offset, at + piece.length);
  }
  const committed = await stream.ask({
    action: 2,
    offset: data.length,
    total: data.length,
    expected: digest,
    labels: { kept: 'yes', dropped: '' },
  });
  await stream.end();

  // Then: the responses have offset and digest, the record has size and labels, and every range is right.
  assert.equal(opened.offset, 0);
  assert.deepEqual([committed.offset, committed.digest], [data.length, digest]);
  const { info } = await client.call('content', 'Info', { digest });
  assert.deepEqual([info.digest, info.size, info.labels], [digest, data.length, { kept: 'yes' }]);
  assert.deepEqual(await client.read(digest), data);
  assert.deepEqual(await client.read(digest, 5, 7), data.subarray(5, 12));
  assert.deepEqual(await client.read(digest, MiB - 1, MiB + 2), data.subarray(MiB - 1, 2 * MiB + 1));
  assert.deepEqual(await client.read(digest, data.length - 3, 100), data.subarray(-3));
  assert.deepEqual(await client.read(digest, data.length), Buffer.alloc(0));
  const [first, second] = await client.all('content', 'Read', { digest, offset: 10, size: MiB + 1 });
  assert.deepEqual([first.offset, second.offset], [0, first.data.length]);
  await assert.rejects(client.read(digest, data.length + 1), { code: code.outOfRange });
});

test('an ingest goes on where the last stream ended, or starts over at 0', async (t) => {
  const { client } = await world(t);
  const data = randomBytes(1000);
  const digest = digestOf(data);

  // Given: a stream that ended after 600 bytes.
  const first = client.write();
  await first.ask({ ref: 'resumed', total: 1000 });
  await first.ask({ action: 1, data: data.subarray(0, 600) });
  await first.end();
  const { statuses } = await client.call('content', 'ListStatuses', {});
  assert.deepEqual(
    statuses.map((s: { ref: string; offset: number; total: number }) => [s.ref, s.offset, s.total]),
    [['resumed', 600, 1000]],
  );

  // When: it goes on; a write anywhere else is refused and ends the stream.
  const second = client.write();
  assert.equal((await second.ask({ ref: 'resumed', total: 1000 })).offset, 600);
  assert.equal((await second.fails({ action: 1, offset: 599, data })).code, code.outOfRange);

  // And: a write at 0 starts over.
  const third = client.write();
  assert.equal((await third.ask({ ref: 'resumed', total: 1000 })).offset, 600);
  assert.equal((await third.ask({ action: 1, offset: 0, data: data.subarray(0, 10) })).offset, 10);
  assert.equal((await third.ask({ action: 1, offset: 10, data: data.subarray(10) })).offset, 1000);
  await third.ask({ action: 2, offset: 1000, total: 1000, expected: digest });
  await third.end();
  assert.deepEqual(await client.read(digest), data);
  assert.deepEqual((await client.call('content', 'ListStatuses', {})).statuses, []);
});

test('a commit of the wrong size or digest fails and keeps the ingest', async (t) => {
  const { client } = await world(t);
  const data = randomBytes(100);
  const start = async (ref: string) => {
    const stream = client.write();
    await stream.ask({ ref });
    await stream.ask({ action: 1, data });
    return stream;
  };
  const size = await (await start('size')).fails({ action: 2, offset: 100, total: 99 });
  const digest = await (await start('digest')).fails({
    action: 2,
    offset: 100,
    expected: digestOf(Buffer.from('other')),
  });
  assert.deepEqual([size.code, digest.code], [code.failedPrecondition, code.failedPrecondition]);
  const { status } = await client.call('content', 'Status', { ref: 'digest' });
  assert.deepEqual([status.ref, status.offset], ['digest', 100]);
  await client.call('content', 'Abort', { ref: 'digest' });
  assert.equal((await client.fails('content', 'Status', { ref: 'digest' })).code, code.notFound);
});

test('content that exists already is reported at the start or when its digest becomes known', async (t) => {
  const { client } = await world(t);
  const data = randomBytes(100);
  const digest = digestOf(data);
  await client.ingest('one', data, digest);

  assert.equal((await client.write().fails({ ref: 'two', expected: digest })).code, code.alreadyExists);
  const late = client.write();
  await late.ask({ ref: 'three' });
  await late.ask({ action: 1, data });
  const failure = await late.fails({ action: 2, offset: 100, total: 100, expected: digest });
  assert.equal(failure.code, code.alreadyExists);
  assert.deepEqual((await client.call('content', 'ListStatuses', {})).statuses, []);
});

/** A stream with the ref, which its last owner gives back within the moment that the server waits for it, or soon after on a busy machine. */
async function owner(client: TestClient, ref: string): Promise<WriteStream> {
  for (;;) {
    const stream = client.write();
    const failed = await stream.ask({ ref }).then(
      () => undefined,
      (error: Failure) => error,
    );
    if (failed === undefined) return stream;
    assert.equal(failed.code, code.unavailable, failed.details);
  }
}

test('a ref is locked while its stream is open, and free soon after it was closed', async (t) => {
  const { client, connect } = await world(t);
  const other = connect('test');
  const holder = client.write();
  await holder.ask({ ref: 'busy' });

  // Another client gets Unavailable after a moment; none hangs.
  assert.equal((await other.write().fails({ ref: 'busy' })).code, code.unavailable);

  // A client that cancels and opens the ref again at once gets it.
  for (let i = 0; i < 10; i++) {
    const stream = await owner(client, `again-${i % 2}`);
    stream.call.on('error', () => undefined);
    // In the middle of a write of some size, every other time.
    if (i % 3 === 0) stream.call.write({ action: 1, data: Buffer.alloc(8 * MiB) });
    if (i % 3 === 0) await new Promise((done) => setTimeout(done, 10));
    stream.call.cancel();
    // On the same connection the server hears of the two in this order.
    const next = await owner(i % 3 === 0 ? client : other, `again-${i % 2}`);
    await next.end();
  }
  await holder.end();
});

test('with the shared policy another namespace takes content by its digest; isolated it does not', async (t) => {
  for (const policy of ['shared', 'isolated'] as const) {
    const { client, connect } = await world(t, { policy });
    const data = randomBytes(200);
    const digest = digestOf(data);
    await client.ingest('one', data, digest);
    const other = connect('other');

    const stream = other.write();
    const { offset } = await stream.ask({ ref: 'two', total: 200, expected: digest });
    assert.equal(offset, policy === 'shared' ? 200 : 0, policy);
    if (policy === 'isolated') {
      assert.equal((await other.fails('content', 'Info', { digest })).code, code.notFound);
      await stream.ask({ action: 1, data });
    }
    await stream.ask({ action: 2, offset: 200, total: 200, expected: digest });
    await stream.end();
    assert.deepEqual(await other.read(digest), data, policy);
  }
});

test('lists come in messages of at most 100, filtered, in order', async (t) => {
  const { client } = await world(t);
  const digests: string[] = [];
  for (let i = 0; i < 130; i++) {
    const data = Buffer.from(`blob ${i}`);
    digests.push(digestOf(data));
    await client.ingest(`r${i}`, data, digestOf(data), i % 2 ? { odd: 'yes' } : {});
  }
  const lists = await client.all('content', 'List', {});
  assert.deepEqual(
    lists.map((message) => message.info.length),
    [100, 30],
  );
  assert.deepEqual(
    lists.flatMap((message) => message.info.map((info: { digest: string }) => info.digest)),
    [...digests].sort(),
  );
  const [first] = lists[0]?.info ?? [];
  assert.deepEqual(first, (await client.call('content', 'Info', { digest: first.digest })).info);
  const odd = await client.all('content', 'List', { filters: ['labels.odd==yes'] });
  assert.equal(odd.flatMap((message) => message.info).length, 65);
  await assert.rejects(client.all('content', 'List', { filters: ['labels.odd='] }), {
    code: code.invalidArgument,
  });
});

test('labels are updated by mask or as a whole, content is deleted', async (t) => {
  const { client } = await world(t);
  const data = Buffer.from('labelled');
  const digest = digestOf(data);
  await client.ingest('r', data, digest, { a: '1', b: '2' });
  const update = async (labels: object, paths?: string[]) => {
    const request = { info: { digest, labels }, ...(paths && { updateMask: { paths } }) };
    return (await client.call('content', 'Update', request)).info.labels;
  };
  assert.deepEqual(await update({ a: '9' }, ['labels.a']), { a: '9', b: '2' });
  assert.deepEqual(await update({}, ['labels.b']), { a: '9' });
  assert.deepEqual(await update({ c: '3', d: '' }), { c: '3' });
  const failure = await client.fails('content', 'Update', {
    info: { digest, labels: {} },
    updateMask: { paths: ['size'] },
  });
  assert.equal(failure.code, code.invalidArgument);
  await client.call('content', 'Delete', { digest });
  assert.equal((await client.fails('content', 'Delete', { digest })).code, code.notFound);
  await assert.rejects(client.read(digest), { code: code.notFound });
  assert.equal((await client.fails('content', 'Info', { digest: '../../etc' })).code, code.invalidArgument);
});

test('reading on after a blob was read a moment ago asks again whether the namespace may', async (t) => {
  const { client, connect } = await world(t);
  const [one, two] = [randomBytes(1000), randomBytes(1000)];
  for (const data of [one, two]) await client.ingest(`r${data[0]}`, data, digestOf(data));
  const digest = digestOf(one);
  for (let i = 0; i < 30; i++) {
    const at = i * 30;
    const [a, b] = await Promise.all([client.read(digest, at, 30), client.read(digestOf(two), at, 30)]);
    assert.deepEqual([a, b], [one.subarray(at, at + 30), two.subarray(at, at + 30)]);
  }
  await assert.rejects(connect('other').read(digest, 0, 10), { code: code.notFound });
  await client.call('content', 'Delete', { digest });
  await assert.rejects(client.read(digest, 0, 10), { code: code.notFound });
});
