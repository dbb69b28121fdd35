/** Marks that live on between collections, as users of a DB meet them: across openings, as figures, checked, and at once. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DB, openDB } from '../../src/index.js';
import { tempDir } from '../support/db.js';

const ctx = { namespace: 'test' };

/** An image and a blob that nothing else keeps, with its name as bytes. */
async function image(db: DB, name: string): Promise<string> {
  const lease = await db.leases.create(ctx, { id: `of ${name}` });
  const leased = { ...ctx, lease: lease.id };
  const writer = await db.content.writer(leased, name, {});
  await writer.write(Buffer.from(name));
  const { digest, size } = target(name);
  await writer.commit(size, digest);
  await db.images.create(leased, { name, target: target(name), labels: {} });
  await db.leases.delete(ctx, lease.id);
  return digest;
}

const target = (bytes: string) => ({
  mediaType: 'a/b',
  digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
  size: bytes.length,
});

for (const core of ['native', 'wasm'] as const) {
  test(`${core}: given a store that was collected and closed, when it is opened, then its garbage is known and the first collection counts nothing`, async (t) => {
    const options = { root: await tempDir(t, 'ebbtide-marks-'), snapshotters: ['native'] as const, core };
    {
      await using db = await openDB(options);
      for (const name of ['one', 'two', 'three']) await image(db, name);
      assert.equal((await db.garbageCollect()).marking, 'counted');
      assert.deepEqual((await db.garbage())?.objects, {});
    }
    {
      // The checkpoint has marks; what comes after it is in the journal.
      await using db = await openDB(options);
      await db.images.delete(ctx, 'one');
      await image(db, 'four');
    }
    await using db = await openDB(options);
    const garbage = await db.garbage();
    assert.deepEqual(garbage && { ...garbage, ageMs: 0 }, {
      objects: { content: 1 },
      blobBytes: 'one'.length,
      isExact: true,
      ageMs: 0,
    });
    assert.equal(await db.checkMarks(), 'right');
    const stats = await db.garbageCollect();
    assert.deepEqual([stats.marking, stats.removed], ['live', { content: 1 }]);
    assert.deepEqual((await db.garbage())?.objects, {});
    assert.equal((await db.garbageCollect({}, { fullSweep: true })).marking, 'from roots');
  });
}

test('given garbage that comes and goes, when asked, then its age is that of the oldest', async (t) => {
  await using db = await openDB({ root: await tempDir(t, 'ebbtide-marks-'), snapshotters: ['native'] });
  for (const name of ['one', 'two']) await image(db, name);
  assert.equal(await db.garbage(), undefined, 'nothing is known before the first collection');
  await db.garbageCollect();
  assert.equal((await db.garbage())?.ageMs, 0);
  await db.images.delete(ctx, 'one');
  await db.garbage();
  await sleep(20);
  const beforeTwo = performance.now();
  await db.images.delete(ctx, 'two');
  const both = await db.garbage();
  assert.ok(both !== undefined && both.ageMs >= 20, String(both?.ageMs));
  assert.deepEqual(both.objects, { content: 2 });
  await db.images.create(ctx, { name: 'one', target: target('one'), labels: {} });
  const young = await db.garbage();
  const sinceTwo = performance.now() - beforeTwo;
  assert.ok(young !== undefined && young.ageMs <= sinceTwo, `${young?.ageMs} ms, ${sinceTwo} ms after`);
});

test('given a count that is wrong, when the marks are checked, then it is an alarm, and collections mark from the roots', async (t) => {
  const errors: string[] = [];
  const log = (level: string, message: string): void => {
    if (level === 'error') errors.push(message);
  };
  await using db = await openDB({
    root: await tempDir(t, 'ebbtide-marks-'),
    snapshotters: ['native'],
    log,
  });
  await image(db, 'one');
  assert.equal(await db.checkMarks(), 'not checked');
  // As if the code that counts edges were wrong, for one of a marked node.
  const digest = await image(db, 'two');
  await db.engine.graph.mark(0n, { live: 'edge-twice' });
  db.engine.graph.endRun();
  const labels = { 'containerd.io/gc.ref.content.other': digest };
  await db.images.update(ctx, { name: 'one', target: target('one'), labels });
  assert.equal(await db.checkMarks(), 'wrong');
  assert.deepEqual(
    { ...db.marksChecked, errors },
    {
      checks: 1,
      alarms: 1,
      errors: ['live marks are wrong: from now on every collection marks from the roots'],
    },
  );
  await db.images.delete(ctx, 'one');
  const stats = await db.garbageCollect();
  assert.deepEqual([stats.marking, stats.removed], ['from roots', { content: 1 }]);
  assert.equal(await db.checkMarks(), 'not checked');
});

test('given collect: immediate, when the last reference goes, by a deletion or otherwise, then the object goes without a request', async (t) => {
  await using db = await openDB({
    root: await tempDir(t, 'ebbtide-marks-'),
    snapshotters: ['native'],
    collect: 'immediate',
  });
  // From now on marks live, and only what is new asks for a collection.
  await db.garbageCollect();
  await db.garbage();
  const gone = async (digest: string): Promise<void> => {
    const isThere = (): Promise<boolean> =>
      db.content.info(ctx, digest).then(
        () => true,
        () => false,
      );
    for (const end = performance.now() + 60_000; await isThere(); await sleep(5))
      assert.ok(performance.now() < end, `${digest} stays`);
  };
  const [one, two, three] = [await image(db, 'one'), await image(db, 'two'), await image(db, 'three')];
  assert.deepEqual((await db.garbage())?.objects, {});
  await db.images.delete(ctx, 'one');
  await gone(one);
  await db.images.update(ctx, { name: 'two', target: target('three'), labels: {} });
  await gone(two);
  assert.equal((await db.content.info(ctx, three)).digest, three);
});
