import assert from 'node:assert/strict';
import { cp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import type { OpenOptions } from '../../src/db-options.js';
import { metaKey } from '../../src/engine/schema/keys.js';
import { EbbtideError, isKind, isNotFound } from '../../src/errors.js';
import type { CollectOptions } from '../../src/gc/collect.js';
import { DirtyFlags } from '../../src/gc/sweep/dirty.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { tempDir } from '../support/db.js';
import { digest, gc, type World, world } from '../support/gc-world.js';

const NS = { namespace: 'test' };

/** A store on LMDB with real directories; `logged` is what it warned of. */
async function open(root: string, options: Partial<OpenOptions> = {}): Promise<{ db: DB; logged: string[] }> {
  const logged: string[] = [];
  const log = (level: string, message: string, details: object = {}): void => {
    if (level !== 'info') logged.push(`${message} ${JSON.stringify(details)}`);
  };
  return { db: await openDB({ root, snapshotters: ['native'], log, ...options }), logged };
}

async function keep(db: DB, text: string): Promise<void> {
  const data = Buffer.from(text);
  const desc = { digest: digestOf(data), size: data.length };
  await writeBlob(db.content, NS, `ref ${text}`, data, desc, { labels: { [gc('root')]: 'x' } });
}

/** Blobs that a root label keeps, and committed snapshots. */
async function fill(db: DB, from: number, to: number): Promise<void> {
  for (let i = from; i < to; i++) await keep(db, `blob ${i}`);
  const native = db.snapshotter('native')!;
  for (let i = from; i < to; i += 5) {
    await native.prepare(NS, `active ${i}`, '');
    await native.commit(NS, `layer ${i}`, `active ${i}`, { labels: { [gc('root')]: 'x' } });
  }
}

const blobFiles = async (root: string): Promise<number> =>
  (await readdir(join(layout.content(root), 'blobs', 'sha256'))).length;
const directories = async (root: string): Promise<number> =>
  (await readdir(join(layout.snapshotter(root, 'native'), 'snapshots'))).length;

async function refused(run: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(run, (error: Error) => {
    assert.ok(error instanceof EbbtideError && isKind(error, 'FailedPrecondition'), String(error));
    assert.match(error.message, message);
    assert.match(error.remedy ?? '', /--allow-mass-removal. or orphanGuard: false/);
    return true;
  });
}

/** A root whose metadata directory is gone: 10 blobs and 2 snapshots that nothing names. */
async function lost(t: TestContext): Promise<string> {
  const root = await tempDir(t);
  const { db } = await open(root);
  await fill(db, 0, 10);
  await db.close();
  await rm(layout.database(root), { recursive: true });
  return root;
}

test('given an empty directory in the place of that of the content, when the store is opened, then it is said, and nothing changes', async (t) => {
  const root = await tempDir(t);
  const { db } = await open(root);
  await fill(db, 0, 10);
  await db.close();
  const away = join(root, 'away');
  await rename(layout.content(root), away);
  const { db: without, logged } = await open(root);
  assert.match(logged.join(), /knows blobs, and its content directory is empty.*mount the content directory/);
  const read = without.content.readerAt(NS, { digest: digestOf(Buffer.from('blob 1')) });
  await assert.rejects(
    read,
    (error: Error) => isNotFound(error) && /again/.test((error as EbbtideError).remedy ?? ''),
  );
  assert.deepEqual((await without.garbageCollect({}, { fullSweep: true })).removed, {});
  await without.namespaces.setLabel({}, NS.namespace, 'a', 'b');
  await without.close();
  const { db: still, logged: repeated } = await open(root);
  assert.deepEqual(repeated, logged);
  await still.close();
  await rm(layout.content(root), { recursive: true });
  await rename(away, layout.content(root));
  const { db: again, logged: nothing } = await open(root);
  t.after(() => again.close());
  assert.deepEqual(nothing, []);
  await again.garbageCollect({}, { fullSweep: true });
  assert.equal(await blobFiles(root), 10);
});

describe('a tree without its records', () => {
  test('given lost metadata, when opened and collected in full, then it is said and nothing goes without consent', async (t) => {
    const root = await lost(t);
    const { db, logged } = await open(root);
    t.after(() => db.close());
    assert.match(logged.join(), /knows nothing of items.*"backends":\["content","native"\]/);
    assert.deepEqual(db.orphans, { foreign: true, kept: 0 });
    const plain = await db.garbageCollect({}, { dryRun: true });
    assert.deepEqual([plain.wouldRemove, plain.walked], [[], []]);
    await refused(
      db.garbageCollect({}, { fullSweep: true }),
      /10 blobs of 10 items in "content", 60 bytes; 2 snapshots of 2 items in "native", and the store is empty/,
    );
    assert.deepEqual([await blobFiles(root), await directories(root)], [10, 2]);
    assert.equal(db.orphans.kept, 12);

    const dry = await db.garbageCollect({}, { dryRun: true, fullSweep: true });
    assert.deepEqual(dry.walked, ['content', 'native']);
    assert.deepEqual(
      dry.wouldRemove?.map(({ kind, orphan, size }) => [kind, orphan, size]),
      [...Array(10).fill(['content', true, 6]), ...Array(2).fill(['snapshot', true, 4096])],
    );

    const stats = await db.garbageCollect({}, { fullSweep: true, orphanGuard: false });
    assert.deepEqual(stats.orphans, { content: 10, ingest: 0, snapshot: 2 });
    assert.deepEqual([await blobFiles(root), await directories(root)], [0, 0]);
    assert.match(logged.join(), /removed what no record named.*"backend":"content".*"content":10/);
    assert.deepEqual(db.orphans, { foreign: false, kept: 0 });
  });

  test('given a new image in the empty tree, when opened again unclean and collected, then the old content stays', async (t) => {
    const root = await lost(t);
    {
      const { db } = await open(root);
      await fill(db, 100, 103);
      await db.engine.update((tx) => tx.put(metaKey('dirty', 'content'), '1'));
      await db.close();
    }
    const { db, logged } = await open(root);
    t.after(() => db.close());
    assert.equal(db.orphans.foreign, true);
    assert.match(logged.join(), /is not that under which the content was written/);
    await refused(db.garbageCollect(), /10 blobs of 13 items.*began empty/);
    await refused(db.garbageCollect({}, { massGuard: false }), /10 blobs/);
    assert.equal(await blobFiles(root), 13);
    const { orphans } = await db.garbageCollect({}, { fullSweep: true, orphanGuard: false });
    assert.deepEqual(orphans, { content: 10, ingest: 0, snapshot: 2 });
    assert.deepEqual([await blobFiles(root), await directories(root)], [3, 1]);
  });

  test('given content without a mark, when the empty tree has a new image and is opened again, then the old content stays', async (t) => {
    const root = await lost(t);
    // Content of a store that was older than marks, or of another program.
    await rm(join(layout.content(root), '.tree'));
    {
      const { db } = await open(root);
      await fill(db, 100, 103);
      await db.close();
    }
    const { db } = await open(root);
    t.after(() => db.close());
    assert.equal(db.orphans.foreign, true);
    await refused(db.garbageCollect({}, { fullSweep: true }), /10 blobs of 13 items/);
    assert.equal(await blobFiles(root), 13);
  });

  test('given a plan of orphans, when applied, then those that are orphans still go, and no others', async (t) => {
    const root = await lost(t);
    const { db } = await open(root);
    t.after(() => db.close());
    const plan = await db.planCollection({}, { fullSweep: true });
    assert.equal(plan.objects.length, 12);
    for (let i = 0; i < 3; i++) await keep(db, `blob ${i}`);
    const { removed, rest } = await db.applyPlan(plan);
    assert.equal(removed.length, 9);
    assert.deepEqual(
      rest.map(({ kind, reason }) => [kind, reason]),
      Array(3).fill(['content', 'in use']),
    );
    assert.equal(await blobFiles(root), 3);
    assert.equal((await db.applyPlan(plan)).rest.filter(({ reason }) => reason === 'gone').length, 9);
  });

  test('given metadata of an old copy, when collected in full, then what came since stays', async (t) => {
    const root = await tempDir(t);
    const { db } = await open(root);
    await fill(db, 0, 25);
    await db.close();
    const old = await tempDir(t);
    await cp(layout.database(root), old, { recursive: true });
    const { db: newer } = await open(root);
    await fill(newer, 25, 55);
    await newer.close();
    await rm(layout.database(root), { recursive: true });
    await cp(old, layout.database(root), { recursive: true });

    const { db: back } = await open(root);
    t.after(() => back.close());
    assert.equal(back.orphans.foreign, true);
    await refused(back.garbageCollect({}, { fullSweep: true }), /30 blobs of 55 items in "content"/);
    assert.deepEqual([await blobFiles(root), await directories(root)], [55, 11]);
  });

  for (const [what, younger] of [
    ['a little older', 26],
    ['older by a collection', 27],
  ] as const) {
    test(`given metadata of a copy that is ${what}, when collected in full, then not one item goes without consent`, async (t) => {
      const root = await tempDir(t);
      const copy = await tempDir(t);
      {
        const { db } = await open(root);
        await fill(db, 0, 25);
        await db.close();
      }
      await cp(layout.database(root), copy, { recursive: true });
      {
        const { db } = await open(root);
        await fill(db, 25, younger);
        await db.garbageCollect();
        await db.close();
      }
      await rm(layout.database(root), { recursive: true });
      await cp(copy, layout.database(root), { recursive: true });

      const { db, logged } = await open(root);
      t.after(() => db.close());
      assert.match(logged.join(), /the metadata is older than the content/);
      await refused(db.garbageCollect({}, { fullSweep: true }), /is not that under which they were written/);
      assert.equal(await blobFiles(root), younger);
      const { orphans } = await db.garbageCollect({}, { fullSweep: true, orphanGuard: false });
      assert.equal(orphans.content, younger - 25);
      assert.equal(db.orphans.foreign, false);
    });
  }

  test('given the content directory of another store, when collected in full, then nothing of it goes', async (t) => {
    const [root, other] = [await tempDir(t), await tempDir(t)];
    for (const [at, from, to] of [
      [root, 0, 30],
      [other, 28, 35],
    ] as const) {
      const { db } = await open(at);
      await fill(db, from, to);
      await db.close();
    }
    await rm(layout.content(root), { recursive: true });
    await cp(layout.content(other), layout.content(root), { recursive: true });
    const { db, logged } = await open(root);
    t.after(() => db.close());
    assert.match(logged.join(), /the metadata is not that under which the content was written/);
    await refused(db.garbageCollect({}, { fullSweep: true }), /5 blobs of 7 items/);
    assert.equal(await blobFiles(root), 7);
  });

  test('given a store that is opened, killed and opened again, then its content is its own', async (t) => {
    const root = await tempDir(t);
    for (let i = 0; i < 4; i++) {
      const { db, logged } = await open(root);
      assert.equal(db.orphans.foreign, false, logged.join());
      await fill(db, 5 * i, 5 * i + 5);
      await db.garbageCollect({}, { fullSweep: i % 2 === 0 });
      await db.close();
      // As a power cut may leave it, or an earlier version, which made none.
      if (i === 1) await writeFile(join(layout.content(root), '.tree'), '\0\0');
      if (i === 2) await rm(join(layout.content(root), '.tree'));
    }
  });

  test('given an old store that was emptied, when opened and closed, then nothing is said', async (t) => {
    const root = await tempDir(t);
    const { db } = await open(root);
    await db.close();
    const { db: again, logged } = await open(root);
    t.after(() => again.close());
    assert.deepEqual([logged, again.orphans.foreign], [[], false]);
    assert.equal((await again.garbageCollect({}, { fullSweep: true })).walked.length, 2);
  });
});

describe('the orphan guard', () => {
  /** A kept image, so that the tree is not empty, and blobs and items that no record names. */
  async function orphans(w: World, kept: number, strays: number): Promise<void> {
    for (let i = 0; i < kept; i++) await w.blob(`kept ${i}`, { [gc('root')]: 'x' });
    for (let i = 0; i < strays; i++) w.content.blobs.set(digest(`stray ${i}`), 100);
  }
  const collectFull = (w: World, options: CollectOptions = {}) => w.collect({ fullSweep: true, ...options });

  test('given orphans at the limits and above, when collected in full, then only the second run is refused', async (t) => {
    const few = await world(t);
    await orphans(few, 1, 20);
    assert.equal((await collectFull(few)).orphans.content, 20, 'the floor');
    const share = await world(t);
    await orphans(share, 21, 21);
    assert.equal((await collectFull(share)).orphans.content, 21, 'half');
    const many = await world(t);
    await orphans(many, 19, 21);
    await many.blob('garbage');
    await refused(collectFull(many), /21 blobs of 41 items in "content", 2100 bytes/);
    assert.equal(many.content.blobs.size, 41, 'records and their bytes stay too');
    assert.equal((await many.collect()).removed.content, 1, 'a run that surveys nothing is not delayed');
    assert.equal((await collectFull(many, { orphanGuard: { maxShare: 0.9 } })).orphans.content, 21);
    for (const orphanGuard of [{ maxShare: 2 }, { floor: Number.NaN }])
      await assert.rejects(collectFull(many, { orphanGuard }), (e) => isKind(e, 'InvalidArgument'));
  });

  test('given a refused run, when runs follow, then backends are not walked again until asked for', async (t) => {
    const w = await world(t);
    await orphans(w, 1, 30);
    await w.remove(w.blobKey('none'));
    await refused(w.collect(), /30 blobs/);
    for (let i = 0; i < 5; i++) await refused(w.collect(), /30 blobs/);
    assert.equal(w.content.walks, 1);
    assert.equal(w.logged.filter((line) => line.includes('until the orphans')).length, 1);
    await refused(collectFull(w), /30 blobs/);
    assert.equal(w.content.walks, 2);
    for (let i = 0; i < 29; i++) w.content.blobs.delete(digest(`stray ${i}`));
    assert.equal((await collectFull(w)).orphans.content, 1);
    assert.deepEqual([w.dirty.contentDirty, w.orphans.state.kept], [false, 0]);
  });

  test('given records removed by a run whose bytes stayed, when started again, then they are accounted for', async (t) => {
    const w = await world(t);
    await orphans(w, 1, 0);
    for (let i = 0; i < 60; i++) await w.blob(`b${i}`);
    w.content.failure = new Error('killed here');
    await w.collect();
    w.content.failure = undefined;
    assert.equal(w.content.blobs.size, 61);
    const restarted = Object.assign(Object.create(w) as World, { dirty: new DirtyFlags(w.engine) });
    restarted.dirty.load();
    assert.equal((await restarted.collect()).orphans.content, 60);
    assert.equal(w.engine.has(metaKey('removed', 'content')), false);
    // They account for nothing any more.
    await orphans(restarted, 0, 30);
    await refused(collectFull(restarted), /30 blobs/);
  });

  test('given records that a user removed, when the store is closed and opened, then they are accounted for', async (t) => {
    const root = await tempDir(t);
    const { db } = await open(root);
    await fill(db, 0, 30);
    for (let i = 1; i < 30; i++) await db.content.delete(NS, digestOf(Buffer.from(`blob ${i}`)));
    await db.close();
    const { db: again } = await open(root);
    t.after(() => again.close());
    assert.deepEqual((await again.garbageCollect()).orphans, { content: 29, ingest: 0 });
    assert.equal(await blobFiles(root), 1);
  });

  test('given an orphan that gets its record after it was counted, when swept, then it stays', async (t) => {
    const w = await world(t);
    await orphans(w, 1, 5);
    const mark = w.engine.graph.mark.bind(w.engine.graph);
    t.mock.method(w.engine.graph, 'mark', async (...args: Parameters<typeof mark>) => {
      await w.put(w.blobKey('stray 3'), {
        createdat: 1n,
        updatedat: 1n,
        size: 100,
        labels: { [gc('root')]: 'x' },
      });
      return mark(...args);
    });
    assert.equal((await collectFull(w)).orphans.content, 4);
    assert.ok(w.content.blobs.has(digest('stray 3')));
  });

  test('given a run that is ended between survey and sweep, when the next one runs, then it walks', async (t) => {
    const w = await world(t);
    await orphans(w, 1, 5);
    await w.remove(w.blobKey('none'));
    t.mock.method(w.engine.graph, 'mark', () => Promise.reject(new Error('no memory')));
    await assert.rejects(w.collect(), /no memory/);
    t.mock.reset();
    assert.equal(w.content.blobs.size, 6);
    assert.equal((await w.collect()).orphans.content, 5);
  });

  test('given a snapshot chain of orphans and records, when collected in full, then all of it goes', async (t) => {
    const w = await world(t);
    await orphans(w, 1, 0);
    w.native.add('x/1/base');
    const middle = await w.snapshot('middle');
    w.native.items.get(middle)!.parent = 'x/1/base';
    w.native.add('x/2/top', middle);
    const { orphans: removed, removed: records } = await collectFull(w);
    assert.deepEqual([removed.snapshot, records.snapshot], [2, 1]);
    assert.deepEqual([...w.native.log], ['x/2/top', middle, 'x/1/base']);
  });

  test('given a backend that cannot be walked, when collected in full, then the others are swept and it is tried again', async (t) => {
    const w = await world(t);
    await orphans(w, 1, 3);
    w.native.add('x/1/stray');
    t.mock.method(w.content, 'walk', () => Promise.reject(new Error('I/O error')));
    const stats = await collectFull(w);
    assert.deepEqual([stats.backendErrors, stats.walked, w.native.items.size], [1, ['native', 'other'], 0]);
    t.mock.reset();
    assert.equal((await w.collect()).orphans.content, 3);
  });
});
