/**
 * Lists larger than a message: our own command gets all of them, containerd's clients a refusal that says what to do. And
 * documents (plans, reports) of any size.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { RemoteStore } from '../../src/cli/remote/store.js';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { openDB } from '../../src/open.js';
import { daemonOptions } from '../../src/server/config.js';
import { Daemon } from '../../src/server/daemon.js';
import { fromDocument, toDocument } from '../../src/server/messages/documents.js';
import { withId } from '../../src/stores/leases.js';
import { tempDir } from '../support/db.js';
import { TestClient } from './client.js';
import { code } from './world.js';

const ctx = { namespace: 'test' };
const MiB = 2 ** 20;
const digest = (n: number): string => `sha256:${n.toString(16).padStart(64, '0')}`;
const many = <T>(count: number, make: (n: number) => T): T[] =>
  Array.from({ length: count }, (_, n) => make(n));

/** A daemon on a store that `fill` has filled, our own client of it, and a plain one. */
async function filled(
  t: TestContext,
  fill: (db: DB) => Promise<unknown>,
): Promise<{ store: RemoteStore; client: TestClient }> {
  const root = join(await tempDir(t, 'ebbtide-lists-'), 'root');
  {
    await using db = await openDB({ root, snapshotters: ['native'], log: () => undefined });
    await fill(db);
  }
  const daemon = await Daemon.start(daemonOptions(root, {}, { gc: 'on-request', logLevel: 'fatal' }));
  t.after(() => daemon.stop());
  const store = await RemoteStore.connect(daemon.address);
  t.after(() => store[Symbol.asyncDispose]());
  const client = new TestClient(daemon.address, ctx.namespace);
  t.after(() => client.close());
  return { store, client };
}

/** In one transaction, as fast as it goes. */
const inOne = (db: DB, count: number, make: (n: number, inTx: CallContext) => Promise<unknown>) =>
  db.update(async (tx) => {
    const inTx = db.withTransactionContext(ctx, tx);
    for (let n = 0; n < count; n++) await make(n, inTx);
  });

async function refused(call: Promise<unknown>, hint: RegExp): Promise<void> {
  await assert.rejects(call, (error: { code: number; details: string }) => {
    assert.equal(error.code, code.resourceExhausted, error.details);
    assert.match(error.details, /larger than max \(16777216\)/);
    assert.match(error.details, hint);
    return true;
  });
}

test('given 14,000 images, when they are listed, then the command gets all; a client of containerd gets the advice to filter', async (t) => {
  const labels = { 'containerd.io/distribution.source.docker.io': 'library/x'.repeat(150) };
  const { store, client } = await filled(t, (db) =>
    inOne(db, 14_000, (n, inTx) =>
      db.images.create(inTx, {
        name: `docker.io/library/image-with-a-usual-name:${n}`,
        target: { digest: digest(n), mediaType: 'application/vnd.oci.image.manifest.v1+json', size: n + 1 },
        labels,
      }),
    ),
  );
  const images = await store.images.list(ctx);
  assert.equal(new Set(images.map(({ name }) => name)).size, 14_000);
  assert.deepEqual(images[0]?.labels, labels);
  assert.equal((await store.images.list(ctx, 'name~=":123$"')).length, 1);
  await refused(client.call('images', 'List'), /use filters/);
  await refused(client.call('images', 'List', { filters: ['name~="docker"'] }), /use filters/);
  const some = await client.call('images', 'List', { filters: ['name~=":12[0-9]$"'] });
  assert.equal(some.images.length, 10);
});

test('given 1,200 containers of 16 KiB, when they are listed, then as for images; ListStream has them all', async (t) => {
  const spec = { typeUrl: 'spec', value: new Uint8Array(16 * 1024).fill(120) };
  const { store, client } = await filled(t, (db) =>
    inOne(db, 1_200, (n, inTx) =>
      db.containers.create(inTx, { id: `c${n}`, image: 'x', runtime: { name: 'r' }, spec }),
    ),
  );
  assert.equal((await store.containers.list(ctx)).length, 1_200);
  await refused(client.call('containers', 'List'), /use ListStream, or filters/);
  assert.equal((await client.all('containers', 'ListStream')).length, 1_200);
});

test('given leases, their resources, namespaces and blobs beyond a message, when they are listed, then as for images', async (t) => {
  const long = 'x'.repeat(4000);
  const big = Object.fromEntries(many(8, (n) => [`label${n}`, long]));
  const { store, client } = await filled(t, async (db) => {
    await inOne(db, 600, (n, inTx) => db.leases.create(inTx, withId(`l${n}`), { labels: big }));
    await db.leases.create(ctx, withId('held'));
    await inOne(db, 4_500, (n, inTx) =>
      db.leases.addResource(inTx, 'held', { type: 'snapshots/native', id: `${n}-${'y'.repeat(3900)}` }),
    );
    await inOne(db, 600, (n, inTx) => db.namespaces.create(inTx, `ns${n}`, big));
  });
  assert.equal((await store.leases.list(ctx)).length, 601);
  assert.equal((await store.leases.listResources(ctx, 'held')).length, 4_500);
  assert.equal((await store.namespaces.list({})).length, 601);
  await refused(client.call('leases', 'List'), /use filters/);
  await refused(client.call('leases', 'ListResources', { id: 'held' }), /ebbtide/);
  await refused(client.call('namespaces', 'List'), /ebbtide/);
});

test('given garbage beyond a message, when it is planned and the plan applied through the daemon, then all of it goes', async (t) => {
  const { store } = await filled(t, (db) =>
    inOne(db, 20_000, (n, inTx) =>
      db.leases.create(inTx, withId(`${n}-${'z'.repeat(900)}`), {
        labels: { 'containerd.io/gc.expire': '2001-01-01T00:00:00Z' },
      }),
    ),
  );
  const plan = await store.planCollection();
  assert.equal(plan.objects.length, 20_000);
  assert.ok(JSON.stringify(plan, (_, v) => (typeof v === 'bigint' ? `${v}` : v)).length > 16 * MiB);
  const { stats } = await store.applyPlan(plan);
  assert.equal(stats.removed.lease, 20_000);
});

test('given any document, when it goes in pieces, then it comes back as it was, and no piece is large', () => {
  const documents: unknown[] = [
    { rows: many(5000, (n) => ({ n, at: BigInt(n), text: '\u{1f600}'.repeat(9) })) },
    { empty: {}, none: [], list: many(2500, (n) => n), nested: { list: many(1001, () => null) } },
    many(3000, (n) => `${n}`),
    '\u{1f600}'.repeat(200_000),
    { toString: 'x', __proto__x: [1] },
    {},
    [],
    null,
    7,
  ];
  for (const document of documents) {
    const chunks = [...toDocument(document)];
    assert.deepEqual(fromDocument(chunks), document);
    for (const { json } of chunks) assert.ok(json.length <= 65_537, `${json.length}`);
  }
  assert.deepEqual(fromDocument([...toDocument({ kept: 1, gone: undefined, run: () => 1 })]), { kept: 1 });
});
