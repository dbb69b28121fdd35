/** What each field of a rule keeps, and how far a rule goes; on real stores. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { imageKey } from '../../src/engine/schema/keys.js';
import { isKind } from '../../src/errors.js';
import type { PolicyPlan } from '../../src/gc/report/plan.js';
import { Label } from '../../src/model/labels.js';
import { formatTimestamp } from '../../src/model/time.js';
import { type ChoiceHost, choose } from '../../src/policy/choice.js';
import { planPolicy } from '../../src/policy/plan.js';
import { type Policy, type PolicyRule, parsePolicy } from '../../src/policy/policy.js';
import type { Root } from '../../src/policy/roots.js';
import { withId } from '../../src/stores/leases.js';
import { Pace } from '../../src/stores/listing.js';
import { testDB } from '../support/db.js';
import { digest, gc, world } from '../support/gc-world.js';
import { Random } from '../support/random.js';
import { Host } from './host.js';

const namespace = 'one';
const ctx = { namespace };
const container = { runtime: { name: 'runc' }, spec: { typeUrl: '', value: Buffer.from('{}') } };

/** A store with images, each of a manifest, a config and the layers that its name is followed by. */
async function store(
  t: TestContext,
  images: Readonly<Record<string, readonly number[]>>,
): Promise<{ db: DB; host: Host }> {
  const db = await testDB(t);
  const host = new Host(db, 1);
  for (const [name, layers] of Object.entries(images)) {
    await host.image(namespace, name, await host.manifest(namespace, name, layers, false));
  }
  return { db, host };
}

const plan = (db: DB, ...rules: PolicyRule[]): Promise<PolicyPlan> => db.planPolicy({ rules });
const retired = ({ retired: roots }: PolicyPlan): string[] => roots.map(({ key }) => key);
const reasons = ({ kept }: PolicyPlan): Record<string, string> =>
  Object.fromEntries(
    kept.map(({ key, reason, rule, by }) => [key, [reason, by, rule].filter(Boolean).join(' | ')]),
  );

/** A block and its parts: manifests and configs of these stores take one each. */
const BLOCK = 4096;

test('given images that are pinned, used, or referred to, when a rule retires all, then those stay, with what uses them', async (t) => {
  const { db, host } = await store(t, { 'app:1': [0], 'named:1': [1], 'leased:1': [2], 'free:1': [3] });
  const { target } = await db.images.get(ctx, 'app:1');
  await host.image(namespace, 'pinned:1', target.digest, { 'io.cri-containerd.pinned': 'pinned' });
  await host.image(namespace, 'named:again', (await db.images.get(ctx, 'named:1')).target.digest);
  await db.containers.create(ctx, { ...container, id: 'web', image: 'named:1' });
  await db.leases.create(ctx, withId('keep'));
  await db.leases.addResource(ctx, 'keep', { id: 'leased:1', type: 'images' });
  const found = await plan(db, { name: 'all' });
  assert.deepEqual(retired(found), ['app:1', 'free:1']);
  assert.deepEqual(reasons(found), {
    'pinned:1': 'pinned | all',
    'named:1': 'in use | container web | all',
    'named:again': 'in use | container web | all',
    'leased:1': 'in use | a reference | all',
    web: 'no rule',
    keep: 'no rule',
  });
  // What app:1 has stays because of the pin.
  assert.equal(found.retired[0]?.bytes, 0);
  assert.equal(found.kept.find(({ key }) => key === 'pinned:1')?.pins, 3 * BLOCK);
});

test('given a container, when a rule says which are stopped, then only those go, and their image with the next rule', async (t) => {
  const { db } = await store(t, { 'a:1': [0], 'b:1': [1] });
  for (const [id, image, state] of [
    ['c1', 'a:1', 'exited'],
    ['c2', 'b:1', 'running'],
  ] as const) {
    await db.containers.create(ctx, { ...container, id, image, labels: { state } });
  }
  const stopped: PolicyRule = { name: 'stopped', kinds: ['container'], stopped: ['labels.state==exited'] };
  const found = await plan(db, stopped, { name: 'all' });
  assert.deepEqual(retired(found), ['c1', 'a:1']);
  assert.deepEqual(reasons(found), { 'b:1': 'in use | container c2 | all', c2: 'no rule' });
  assert.deepEqual((await db.applyPlan(found)).rest, []);
  assert.deepEqual(
    (await db.containers.list(ctx)).map(({ id }) => id),
    ['c2'],
  );
  // Together in one rule the image has to wait.
  const together = { ...stopped, kinds: ['image' as const, 'container' as const], stopped: ['id==c2'] };
  assert.deepEqual(retired(await plan(db, together)), ['c2']);
});

test('given a lease with an upload, when a rule retires leases, then it stays', async (t) => {
  const { db } = await store(t, {});
  await db.leases.create(ctx, withId('upload'));
  await db.leases.create(ctx, withId('old'));
  const writer = await db.content.writer({ ...ctx, lease: 'upload' }, 'ref');
  t.after(() => writer.close());
  const found = await plan(db, { kinds: ['lease'], keepDuration: '1ns' });
  assert.deepEqual([retired(found), reasons(found).upload], [['old'], 'in use | an upload | rule 1']);
  assert.deepEqual(retired(await plan(db, { kinds: ['lease'], keepDuration: '1h' })), []);
});

test('given images of several repositories, when rules keep some, then each says which', async (t) => {
  const { db, host } = await store(t, {
    'a:1': [0],
    'a:2': [1],
    'a:stable': [2],
    'b:1': [3],
    'other:1': [4],
  });
  // Two names of one target count once.
  await host.image(namespace, 'a:latest', (await db.images.get(ctx, 'a:2')).target.digest);
  const rule = { name: 'r', filters: ['name~=/^[ab]:/'] };
  const last = await plan(db, { ...rule, keepLast: 2 });
  assert.deepEqual(retired(last), ['a:1']);
  assert.deepEqual(reasons(last), {
    'a:2': 'keepLast | r',
    'a:latest': 'keepLast | r',
    'a:stable': 'keepLast | r',
    'b:1': 'keepLast | r',
    'other:1': 'no rule',
  });
  assert.deepEqual(retired(await plan(db, { ...rule, keepTagged: ['stable', 'l*t'] })), [
    'a:1',
    'a:2',
    'b:1',
  ]);
  assert.deepEqual(retired(await plan(db, { ...rule, keepTagged: true })), []);
  assert.deepEqual(retired(await plan(db, { ...rule, keepDuration: '1h' })), []);
  assert.deepEqual(retired(await plan(db, { ...rule, namespaces: ['two'] })), []);
  // What one rule keeps a later one may retire; the last one is named.
  const two = await plan(db, { name: 'first', keepTagged: true }, { name: 'second', filters: ['name==b:1'] });
  assert.deepEqual(retired(two), ['b:1']);
  assert.equal(reasons(two)['a:1'], 'keepTagged | first');
});

test('given ten images on one base, when all of them go, then the base goes with the last', async (t) => {
  const base = [0, 1, 2];
  const { db } = await store(t, Object.fromEntries(Array.from({ length: 10 }, (_, n) => [`a${n}:1`, base])));
  const found = await plan(db, {});
  const own = 2 * BLOCK;
  assert.deepEqual(
    found.retired.map(({ bytes }) => bytes),
    [...Array(9).fill(own), own + 3 * BLOCK],
  );
  assert.equal(found.bytes, found.space.used);
  // A target that takes them all is met by them all; nine would not do.
  const most = await plan(db, { maxUsedSpace: 2 * BLOCK });
  assert.equal(most.retired.length, 10);
  assert.deepEqual([most.rules[0]?.met, most.rules[0]?.wanted], [true, 21 * BLOCK]);
});

test('given a rule with space, when planned, then it goes as far as that, by last use, and not into what is reserved', async (t) => {
  const { db } = await store(t, { 'a:1': [0], 'b:1': [0, 3], 'c:1': [0, 3], 'd:1': [4] });
  // Least recently used: c, then a, b, d.
  for (const name of ['a:1', 'b:1', 'd:1'])
    await db.images.update(ctx, { name, labels: { x: name } }, 'labels.x');
  const all = await plan(db, {});
  assert.deepEqual(retired(all), ['c:1', 'a:1', 'b:1', 'd:1']);
  assert.deepEqual(
    all.retired.map(({ bytes }) => bytes / BLOCK),
    [2, 2, 4, 3],
  );
  const { used } = all.space;
  assert.equal(used, 11 * BLOCK);
  const some = await plan(db, { maxUsedSpace: used - 3 * BLOCK });
  assert.deepEqual(retired(some), ['c:1', 'a:1']);
  assert.deepEqual([reasons(some)['b:1'], some.rules[0]?.met], ['target met | rule 1', true]);
  const reserved = await plan(db, { maxUsedSpace: 0, reservedSpace: 4 * BLOCK });
  assert.deepEqual(retired(reserved), ['c:1', 'a:1']);
  assert.deepEqual([reasons(reserved)['b:1'], reserved.rules[0]?.met], ['reservedSpace | rule 1', false]);
  // Said alone, all beyond it goes.
  assert.deepEqual(retired(await plan(db, { reservedSpace: 3 * BLOCK })), ['c:1', 'a:1', 'b:1']);
  assert.deepEqual(retired(await plan(db, { maxUsedSpace: used })), []);
  // Of the disk, as it is now.
  const { free = 0, size = 0 } = all.space;
  assert.deepEqual(retired(await plan(db, { minFreeSpace: Math.floor(free / 2) })), []);
  assert.equal((await plan(db, { minFreeSpace: size })).retired.length, 4);
  assert.deepEqual(retired(await db.planPolicy({ lowWater: '100%', rules: [{}] })), []);
  assert.equal((await db.planPolicy({ lowWater: 0, rules: [{}] })).retired.length, 4);
});

test('given a tag that frees nothing, when a rule wants space, then it stays, and without a wish for space it goes', async (t) => {
  const { db, host } = await store(t, { 'old:1': [0], 'a:1': [1], 'b:1': [2] });
  await host.image(namespace, 'pinned:1', (await db.images.get(ctx, 'old:1')).target.digest, {
    'io.cri-containerd.pinned': 'pinned',
  });
  const found = await plan(db, { maxUsedSpace: 6 * BLOCK });
  assert.deepEqual([retired(found), reasons(found)['old:1']], [['a:1'], 'frees nothing | rule 1']);
  assert.deepEqual(retired(await plan(db, {})), ['old:1', 'a:1', 'b:1']);
});

test('given content kept flat, when an image with it goes, then what only the image keeps goes, and the rest is the lease’s', async (t) => {
  const { db } = await store(t, { 'a:1': [0, 1] });
  const { target } = await db.images.get(ctx, 'a:1');
  await db.leases.create(ctx, withId('flat'), { labels: { [gc('flat')]: 'x' } });
  await db.leases.addResource(ctx, 'flat', { id: target.digest, type: 'content' });
  const found = await plan(db, { maxUsedSpace: BLOCK });
  assert.deepEqual([retired(found), found.bytes], [['a:1'], 3 * BLOCK]);
  assert.deepEqual(
    found.kept.map(({ key, bytes, pins }) => [key, bytes, pins]),
    [['flat', BLOCK, BLOCK]],
  );
  assert.equal((await db.applyPlan(found)).stats.bytesFreed, found.bytes);
});

test('given content in no directory, when a rule is about a file system, then that is refused', async (t) => {
  const w = await world(t);
  await w.blob('a');
  await w.image('a:1', 'a');
  const planned = (rule: PolicyRule): Promise<PolicyPlan> =>
    planPolicy(w, (run) => run(), parsePolicy({ rules: [rule] }));
  for (const rule of [{ minFreeSpace: 1 }, { maxUsedSpace: '1%' }, { reservedSpace: '1%' }]) {
    await assert.rejects(planned(rule), (error) => isKind(error, 'FailedPrecondition'));
  }
  const found = await planned({ maxUsedSpace: 0 });
  assert.deepEqual([found.retired.length, found.bytes, found.space.size], [1, 100, undefined]);
});

test('given images of one time, when the last of them are kept, then those used last, each with all its names', async (t) => {
  const w = await world(t);
  const target = (name: string) => ({ digest: digest(name), mediatype: 'm', size: 1 });
  const image = (name: string, of: string, at: bigint, used = '1970-01-01T00:00:00Z') =>
    w.put(imageKey('ns1', name), {
      createdat: at,
      updatedat: at,
      target: target(of),
      labels: { [Label.gcCondUsedat]: used },
    });
  await image('a:1', 'a1', 5n, '2020-01-01T00:00:00Z');
  for (const n of [2, 3, 4, 5]) await image(`a:${n}`, `a${n}`, 5n);
  await image('a:old', 'a5', 1n);
  await image(digest('id1'), 'a1', 9n);
  await image(digest('id2'), 'a2', 9n);
  const planned = (rule: PolicyRule): Promise<PolicyPlan> =>
    planPolicy(w, (run) => run(), parsePolicy({ rules: [rule] }));
  const last = await planned({ keepLast: 2 });
  assert.deepEqual(reasons(last), {
    'a:1': 'keepLast | rule 1',
    'a:5': 'keepLast | rule 1',
    'a:old': 'keepLast | rule 1',
    [digest('id1')]: 'keepLast | rule 1',
  });
  // What the CRI plugin calls an image by its id is no tag, and stays with the tags.
  assert.deepEqual(retired(await planned({ keepTagged: ['1'] })).sort(), [
    'a:2',
    'a:3',
    'a:4',
    'a:5',
    'a:old',
    digest('id2'),
  ]);
  const young = await planned({ keepDuration: '200000h', filters: ['name!=a:5'] });
  assert.deepEqual(reasons(young)[digest('id1')], 'keepDuration | rule 1');
  await w.engine.update((tx) => tx.delete(imageKey('ns1', 'a:2')));
  assert.deepEqual(retired(await planned({ keepTagged: true })), [digest('id2')]);
});

test('given a file system that says no size, or less than is to be free, when a rule asks for a part of it, then it retires nothing', async () => {
  const root = { place: 0, kind: 'image', namespace, key: 'a:1', isPinned: false, lastUsed: 1n } as Root;
  const on = (size: number): ChoiceHost => ({
    at: 2n,
    roots: [root],
    coveredBy: () => Uint32Array.of(0),
    disk: { size, free: 0, block: BLOCK },
    pace: new Pace({}),
    inUse: async () => () => undefined,
    effectOf: async () => ({ gone: Float64Array.of(0, 100), total: 100, freesNothing: () => false }),
  });
  const chosen = (size: number, policy: Omit<Policy, 'rules'>, rule: PolicyRule) =>
    choose(on(size), parsePolicy({ ...policy, rules: [rule] }));
  for (const amount of ['10%', '0%', '100%']) {
    for (const rule of [{ maxUsedSpace: amount }, { minFreeSpace: amount }, { reservedSpace: amount }]) {
      await assert.rejects(chosen(0, {}, rule), (error) => isKind(error, 'FailedPrecondition'));
    }
    await assert.rejects(chosen(0, { lowWater: amount }, {}), (error) => isKind(error, 'FailedPrecondition'));
  }
  for (const size of [0, 999])
    await assert.rejects(chosen(size, {}, { name: 'r', minFreeSpace: 1000 }), /"r" wants 1000 bytes free/);
  assert.equal((await chosen(1000, {}, { minFreeSpace: 1000 })).retired.length, 1);
  assert.equal((await chosen(0, {}, { maxUsedSpace: 0 })).retired.length, 1);
});

test('given thousands of images, when all may go, then they go by last use', async (t) => {
  const w = await world(t);
  const random = new Random(7);
  await w.blob('a');
  const times = Array.from({ length: 2500 }, () => BigInt(1 + random.int(1000)));
  for (const [n, at] of times.entries()) {
    const target = { digest: digest('a'), mediatype: 'm', size: 1 };
    await w.put(imageKey('ns1', `i${n}`), { createdat: at, updatedat: at, target });
  }
  const { retired: roots } = await planPolicy(w, (run) => run(), parsePolicy({ rules: [{}] }));
  const sorted = [...times].sort((a, b) => Number(a - b)).map(formatTimestamp);
  assert.deepEqual(
    roots.map(({ lastUsed }) => lastUsed),
    sorted,
  );
  assert.equal(new Set(roots.map(({ key }) => key)).size, 2500);
});
