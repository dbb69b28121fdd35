/** A plan that is applied later: what has changed since stays, and is reported. On real stores. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { isKind } from '../../src/errors.js';
import { type Plan, parsePlan } from '../../src/gc/report/plan.js';
import type { EventsPublisher } from '../../src/stores/host.js';
import { withId } from '../../src/stores/leases.js';
import { testDB } from '../support/db.js';
import { digest } from '../support/gc-world.js';
import { Host } from './host.js';

const namespace = 'one';
const ctx = { namespace };
const container = { runtime: { name: 'runc' }, spec: { typeUrl: '', value: Buffer.from('{}') } };
const asFile = (plan: Plan): Plan => parsePlan(JSON.parse(JSON.stringify(plan)));

/** Unpacked images, each of a layer of its own. */
async function store(
  t: TestContext,
  names: readonly string[],
  publisher?: EventsPublisher,
): Promise<{ db: DB; host: Host }> {
  const db = await testDB(t, publisher ? { publisher } : {});
  const host = new Host(db, 1);
  for (const [n, name] of names.entries()) {
    await host.image(namespace, name, await host.manifest(namespace, name, [n], true));
  }
  await host.unpacked();
  return { db, host };
}

const reasons = (rest: readonly { kind: string; key: string; reason: string }[]): Record<string, string> =>
  Object.fromEntries(
    rest
      .filter(({ kind }) => kind !== 'content' && kind !== 'snapshot')
      .map(({ key, reason }) => [key, reason]),
  );

test('given a plan, when its roots change before it is applied, then those stay, each with its reason, and the rest goes', async (t) => {
  const { db } = await store(t, [
    'goes:1',
    'gone:1',
    'moved:1',
    'ran:1',
    'mounted:1',
    'pinned:1',
    'leased:1',
    'labelled:1',
    'again:1',
  ]);
  const plan = await db.planPolicy({ rules: [{ name: 'all' }] });
  assert.equal(plan.retired.length, 9);
  await db.images.delete(ctx, 'gone:1');
  const { target } = await db.images.get(ctx, 'goes:1');
  await db.images.update(ctx, { name: 'moved:1', target }, 'target');
  await db.containers.create(ctx, { ...container, id: 'web', image: 'ran:1' });
  await db.snapshotter('native')?.prepare(ctx, 'rw', 'chain-4');
  await db.images.update(
    ctx,
    { name: 'pinned:1', labels: { 'io.cri-containerd.pinned': 'pinned' } },
    'labels.io.cri-containerd.pinned',
  );
  await db.leases.create(ctx, withId('keep'));
  await db.leases.addResource(ctx, 'keep', { id: 'leased:1', type: 'images' });
  await db.images.update(ctx, { name: 'labelled:1', labels: { a: 'b' } }, 'labels.a');
  const again = await db.images.get(ctx, 'again:1');
  await db.images.delete(ctx, 'again:1');
  await db.images.create(ctx, again);
  const { removed, rest, stats } = await db.applyPlan(asFile(plan));
  assert.deepEqual(reasons(rest), {
    'gone:1': 'gone',
    'moved:1': 'replaced',
    'ran:1': 'in use',
    'mounted:1': 'used since',
    'pinned:1': 'in use',
    'leased:1': 'in use',
    'labelled:1': 'used since',
    'again:1': 'replaced',
  });
  assert.deepEqual(
    removed.filter(({ kind }) => kind === 'image').map(({ key }) => key),
    ['goes:1'],
  );
  assert.equal(stats.removed.image, 1);
  const [past] = await db.history();
  assert.deepEqual(
    past?.names.filter(({ kind }) => kind === 'image').map(({ key }) => key),
    ['goes:1'],
  );
  // What moved:1 names now is in use again.
  const manifest = rest.find(({ key }) => key === target.digest);
  assert.equal(manifest?.reason, 'in use');
  assert.deepEqual((await db.images.list(ctx)).map(({ name }) => name).sort(), [
    'again:1',
    'labelled:1',
    'leased:1',
    'mounted:1',
    'moved:1',
    'pinned:1',
    'ran:1',
  ]);
  for (const { name, target: kept } of await db.images.list(ctx))
    await db.content.info(ctx, kept.digest).catch(() => assert.fail(name));
});

test('given a plan of nearly everything, when it is applied with the mass guard, then nothing is retired', async (t) => {
  const { db } = await store(
    t,
    Array.from({ length: 12 }, (_, n) => `a:${n}`),
  );
  const plan = await db.planPolicy({ rules: [{}] });
  const guarded = db.applyPlan(plan, {}, { massGuard: { floor: 4 } });
  await assert.rejects(guarded, (error) => isKind(error, 'FailedPrecondition'));
  assert.equal((await db.images.list(ctx)).length, 12);
  // Of a namespace nothing may be left, however large the store is.
  const lone = await db.planPolicy({ rules: [{}] });
  await assert.rejects(db.applyPlan(lone, {}, { massGuard: { maxShare: 1, floor: 4 } }), /no root left/);
  assert.equal((await db.images.list(ctx)).length, 12);
  const half = await db.planPolicy({ rules: [{ filters: ['name~=/:1/'] }] });
  assert.deepEqual((await db.applyPlan(half, {}, { massGuard: { floor: 4 } })).rest, []);
  assert.equal((await db.images.list(ctx)).length, 9);
});

test('given listeners, when a plan is applied, then they hear of what is retired, and of what goes with it', async (t) => {
  const heard: string[] = [];
  const publisher = {
    async publish(ns: string, topic: string, payload: Readonly<Record<string, unknown>>) {
      heard.push(`${ns} ${topic} ${String(payload.name ?? payload.id ?? payload.key ?? '')}`.trim());
    },
  };
  const { db } = await store(t, ['a:1'], publisher);
  await db.containers.create(ctx, { ...container, id: 'web', image: 'a:1' });
  const rules = [{ kinds: ['container' as const], stopped: ['id==web'] }, {}];
  const plan = await db.planPolicy({ rules });
  heard.length = 0;
  await db.applyPlan(plan);
  assert.deepEqual(heard, [
    'one /containers/delete web',
    'one /images/delete a:1',
    'one /content/delete',
    'one /content/delete',
    'one /content/delete',
    'one /snapshot/remove chain-0',
  ]);
});

test('given a lease of many resources, when it is retired, then it goes in pieces, and what it held goes', async (t) => {
  const { db, host } = await store(t, []);
  await db.leases.create(ctx, withId('large'));
  const blob = await host.blob(namespace, 'held', 5000);
  await db.leases.addResource(ctx, 'large', { id: blob, type: 'content' });
  for (let n = 0; n < 300; n++)
    await db.leases.addResource(ctx, 'large', { id: digest(`absent ${n}`), type: 'content' });
  const plan = await db.planPolicy({ rules: [{ kinds: ['lease'], keepDuration: '1ns' }] });
  const { removed, stats } = await db.applyPlan(plan);
  assert.deepEqual(
    removed.map(({ kind }) => kind),
    ['lease', 'content'],
  );
  assert.equal(stats.bytesFreed, 8192);
  assert.deepEqual(await db.leases.list(ctx), []);
});

test('given damaged plans of a policy, when applied, then they are refused', async (t) => {
  const { db } = await store(t, ['a:1']);
  const plan = await db.planPolicy({ rules: [{}] });
  const [root] = plan.retired;
  const broken = [
    { ...plan, version: 3 },
    { ...plan, retired: undefined },
    { ...plan, retired: [null] },
    { ...plan, retired: [{ ...root, kind: 'content' }] },
    { ...plan, retired: [{ ...root, lastUsed: 'yesterday' }] },
    { ...plan, retired: [{ ...root, identity: 7 }] },
    { ...plan, retired: [{ ...root, key: 'a\0b' }] },
  ];
  for (const document of broken) {
    await assert.rejects(db.applyPlan(document as unknown as Plan), (error) =>
      isKind(error, 'InvalidArgument'),
    );
  }
  const later = { ...plan, revision: plan.revision + 1 };
  await assert.rejects(db.applyPlan(later), (error) => isKind(error, 'FailedPrecondition'));
  assert.equal((await db.images.list(ctx)).length, 1);
});
