/** What is true of every store alike: filters that are wrong, events after the commit and none inside a transaction. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { EbbtideError } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { testDB } from '../support/db.js';

const ctx: CallContext = { namespace: 'ns1' };
const bytes = Buffer.from('some bytes');
const digest = digestOf(bytes);
const mediaType = 'application/octet-stream';

test('[#77] given a filter that does not parse, when any store lists, then InvalidArgument shows where', async (t) => {
  const db = await testDB(t);
  const native = db.snapshotter('native')!;
  const nothing = () => assert.fail('nothing may be read');
  const lists: Record<string, (filter: string) => Promise<unknown>> = {
    images: (filter) => db.images.list(ctx, filter),
    containers: (filter) => db.containers.list(ctx, filter),
    sandboxes: (filter) => db.sandboxes.list(ctx, filter),
    leases: (filter) => db.leases.list(ctx, filter),
    content: (filter) => db.content.walk(ctx, nothing, filter),
    ingests: (filter) => db.content.listStatuses(ctx, filter),
    snapshots: (filter) => native.walk(ctx, nothing, filter),
  };
  await writeBlob(db, ctx);
  await native.prepare(ctx, 'active', '');
  for (const [store, list] of Object.entries(lists)) {
    for (const filter of ['name===', 'labels.', 'name==a,']) {
      await assert.rejects(
        list(filter),
        (error) =>
          error instanceof EbbtideError &&
          error.kind === 'InvalidArgument' &&
          error.message.includes('parse error'),
        `${store}: ${filter}`,
      );
    }
  }
});

interface Event {
  namespace: string;
  topic: string;
  payload: Readonly<Record<string, unknown>>;
}

async function published(t: TestContext): Promise<{ db: DB; events: Event[] }> {
  const events: Event[] = [];
  const db = await testDB(t, {
    publisher: {
      publish: async (namespace, topic, payload) => {
        events.push({ namespace, topic, payload });
      },
    },
  });
  return { db, events };
}

async function writeBlob(db: DB, context: CallContext): Promise<void> {
  const writer = await db.content.writer(context, 'ref', { mediaType });
  await writer.write(bytes);
  await writer.commit(bytes.length, digest, {}, context);
}

/** Every operation that publishes, once, and some that never do. */
async function everything(db: DB, context: CallContext): Promise<void> {
  const native = db.snapshotter('native')!;
  const target = { mediaType, digest, size: bytes.length, annotations: {} };
  await db.images.create(context, { name: 'image', target, labels: { a: '1' } });
  await db.images.update(context, { name: 'image', target, labels: { a: '2' } }, 'labels');
  await db.images.delete(context, 'image');
  await writeBlob(db, context);
  await db.content.update(context, { digest, labels: { a: '1' } });
  await db.content.delete(context, digest);
  await native.prepare(context, 'active', '');
  await native.commit(context, 'done', 'active');
  await native.view(context, 'look', 'done');
  await native.remove(context, 'look');
  await native.remove(context, 'done');
}

/** What `everything` makes known. */
const expected: [string, Record<string, unknown>][] = [
  ['/images/create', { name: 'image', labels: { a: '1' } }],
  ['/images/update', { name: 'image', labels: { a: '2' } }],
  ['/images/delete', { name: 'image' }],
  ['/content/create', { digest, size: bytes.length, mediaType }],
  ['/content/delete', { digest }],
  ['/snapshot/prepare', { key: 'active', parent: '', snapshotter: 'native' }],
  ['/snapshot/commit', { key: 'active', name: 'done', snapshotter: 'native' }],
  ['/snapshot/remove', { key: 'look', snapshotter: 'native' }],
  ['/snapshot/remove', { key: 'done', snapshotter: 'native' }],
];

test('given a publisher, when records change, then each change is published after it, with what was changed', async (t) => {
  const { db, events } = await published(t);
  await everything(db, ctx);
  assert.deepEqual(
    events,
    expected.map(([topic, payload]) => ({ namespace: 'ns1', topic, payload })),
  );
  assert.ok(db.publisher(ctx) !== undefined);
});

test('[#233] given a publisher, when records change inside a context transaction, then nothing is published until it is committed, and then all of it in order', async (t) => {
  const { db, events } = await published(t);
  await db.update(async (tx) => {
    const inTx = db.withTransactionContext(ctx, tx);
    await everything(db, inTx);
    assert.equal(db.publisher(inTx), undefined);
    assert.deepEqual(events, []);
  });
  assert.deepEqual(
    events.map(({ topic }) => topic),
    expected.map(([topic]) => topic),
  );
});

test('given a context transaction that fails, then nothing of it is published', async (t) => {
  const { db, events } = await published(t);
  const failing = db.update(async (tx) => {
    await everything(db, db.withTransactionContext(ctx, tx));
    throw new Error('no');
  });
  await assert.rejects(failing, /no/);
  assert.deepEqual(events, []);
});
