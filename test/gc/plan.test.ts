import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { applyPlan } from '../../src/gc/report/apply-plan.js';
import { type CollectionPlan, type Plan, parsePlan, planCollection } from '../../src/gc/report/plan.js';
import { digest, gc, past, type World, world } from '../support/gc-world.js';

const asFile = (plan: Plan): Plan => parsePlan(JSON.parse(JSON.stringify(plan)));
const names = (objects: readonly { kind: string; key: string }[], ...known: string[]): string[] => {
  const short = new Map(known.map((name) => [digest(name), name]));
  return objects.map(({ kind, key }) => `${kind} ${short.get(key) ?? key}`).sort();
};

describe('plans', () => {
  test('given garbage of every kind, when planned, then the plan is what a run removes, and removes nothing', async (t) => {
    const w = await world(t);
    await w.blob('kept');
    await w.image('app', 'kept');
    await w.blob('lost');
    await w.snapshot('base');
    await w.snapshot('top', { parent: 'base' });
    await w.ingest('up');
    await w.lease('old', { [gc('expire')]: past() });
    await w.image('gone', 'lost', { [gc('expire')]: past() });
    const before = w.left('kept', 'lost');
    const plan = await planCollection(w);
    assert.equal(plan.revision, w.engine.revision);
    assert.equal(plan.bytes, 100 + 2 * 4096);
    const expected = [
      'content lost',
      'image gone',
      'ingest up',
      'lease old',
      'snapshot native/base',
      'snapshot native/top',
    ];
    assert.deepEqual(names(plan.objects, 'lost'), expected);
    assert.deepEqual(w.left('kept', 'lost'), before);
    const { removed, rest, stats } = await applyPlan(w, asFile(plan));
    assert.deepEqual(names(removed, 'lost'), expected);
    assert.deepEqual(rest, []);
    assert.deepEqual(w.left('kept'), ['blob kept', 'image app']);
    assert.deepEqual(w.content.log.sort(), [`abort ns1/1/up`, `delete ${digest('lost')}`]);
    assert.deepEqual(w.native.log, ['ns1/2/top', 'ns1/1/base']);
    assert.equal(stats.bytesFreed, 100);
  });

  test('given a plan, when the store changes before it is applied, then only what is garbage still goes', async (t) => {
    const w = await world(t);
    for (const name of ['goes', 'used', 'replaced', 'gone']) await w.blob(name);
    const plan = await planCollection(w);
    await w.blob('later');
    await w.image('app', 'used');
    await w.remove(w.blobKey('gone'));
    await w.put(w.blobKey('replaced'), { createdat: 99n, updatedat: 99n, size: 100 });
    const { removed, rest } = await applyPlan(w, plan);
    assert.deepEqual(names(removed, 'goes'), ['content goes']);
    assert.deepEqual(
      rest.map(({ key, reason }) => `${key} ${reason}`).sort(),
      [`${digest('gone')} gone`, `${digest('replaced')} replaced`, `${digest('used')} in use`].sort(),
    );
    assert.deepEqual(w.left('later', 'used', 'replaced'), [
      'blob later',
      'blob replaced',
      'blob used',
      'image app',
    ]);
    // The bytes of a record that was deleted by hand are not the plan's; the next run takes them.
    assert.deepEqual(w.content.log, [`delete ${digest('goes')}`]);
    await w.collect();
    assert.deepEqual(w.left('used'), ['blob used', 'image app']);
    assert.equal(w.content.blobs.size, 1);
  });

  test('given a planned snapshot, when it got a child since, then it stays and the child is named', async (t) => {
    const w = await world(t);
    await w.snapshot('base');
    const plan = await planCollection(w);
    await w.snapshot('child', { parent: 'base' });
    const { removed, rest } = await applyPlan(w, plan);
    assert.deepEqual(removed, []);
    assert.deepEqual(
      rest.map(({ key, reason }) => [key, reason]),
      [['native/base', 'has a child']],
    );
    assert.deepEqual(w.left(), ['snapshot native/base', 'snapshot native/child']);
  });

  test('given a plan, when labels of its object change, then it is the same object and goes', async (t) => {
    const w = await world(t);
    await w.blob('a');
    const plan = await planCollection(w);
    await w.blob('a', { colour: 'blue' });
    assert.equal((await applyPlan(w, plan)).removed.length, 1);
    assert.deepEqual(await applyPlan(w, plan).then(({ rest }) => rest.map(({ reason }) => reason)), ['gone']);
  });

  test('given a limit, when planned, then the plan is what the limited run would remove', async (t) => {
    const w = await world(t);
    for (const name of ['a', 'b', 'c']) await w.blob(name);
    assert.equal((await planCollection(w, { maxObjects: 2 })).objects.length, 2);
  });

  test('given a plan of another store or no plan, when applied, then it is refused and nothing goes', async (t) => {
    const w = await world(t);
    await w.blob('a');
    const plan = await planCollection(w);
    const later = { ...plan, revision: w.engine.revision + 1 };
    await assert.rejects(applyPlan(w, later), (error) => isKind(error, 'FailedPrecondition'));
    const broken: unknown[] = [
      null,
      'plan',
      {},
      { ...plan, version: 2 },
      { ...plan, objects: undefined },
      { ...plan, revision: 'x' },
      { ...plan, objects: [{ ...plan.objects[0], kind: 'tree' }] },
      { ...plan, objects: [{ ...plan.objects[0], key: 'a\0b' }] },
      { ...plan, objects: [{ kind: 'content' }] },
      { ...plan, objects: [null] },
    ];
    for (const document of broken) {
      await assert.rejects(
        async () => applyPlan(w, document as CollectionPlan),
        (error) => isKind(error, 'InvalidArgument'),
        JSON.stringify(document),
      );
    }
    assert.deepEqual(w.left('a'), ['blob a']);
  });

  test('given a snapshotter that fails, when a plan is applied, then it is reported and the next run tries again', async (t) => {
    const w: World = await world(t);
    const name = await w.snapshot('s');
    w.native.failures.set(name, new Error('busy'));
    const { removed, stats } = await applyPlan(w, await planCollection(w));
    assert.equal(removed.length, 1);
    assert.equal(stats.backendErrors, 1);
    w.native.failures.clear();
    await w.collect();
    assert.deepEqual(w.native.log, [name]);
  });
});
