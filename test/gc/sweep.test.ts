import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { backendNameKey, metaKey, Relation } from '../../src/engine/schema/keys.js';
import { failedPrecondition, notImplemented } from '../../src/errors.js';
import { CONTENT_BACKEND, DirtyFlags } from '../../src/gc/sweep/dirty.js';
import { childrenFirst } from '../../src/gc/sweep/sweep-snapshots.js';
import { digestOf } from '../../src/model/digest.js';
import { blobGuard, ingestGuard } from '../../src/stores/guards.js';
import { digest, gc, world } from '../support/gc-world.js';

describe('sweep of content', () => {
  test('[#217] given an ingest no record names, when everything is swept, then it is aborted, others are not', async (t) => {
    const w = await world(t);
    const kept = await w.ingest('kept', { expires: 'future' });
    w.content.ingests.add('ns1/1/stray');
    w.content.ingests.add('no backend name');
    w.content.ingests.add('ns1/1/opening');
    w.inFlight.add('ns1/1/opening');
    await w.collect();
    assert.equal(w.content.ingests.size, 4, 'an ordinary run looks at what it removed only');
    await w.collect({ fullSweep: true });
    assert.deepEqual([...w.content.ingests].sort(), [kept, 'ns1/1/opening'].sort());
  });

  test('[#217] given an imported ingest with a backend ref of another form, when swept, then it stays', async (t) => {
    const w = await world(t);
    await w.put(w.ingestKey('old'), { ref: 'k1', expireat: 9n * 10n ** 18n });
    w.content.ingests.add('k1');
    w.content.ingests.add('k2');
    await w.collect({ fullSweep: true });
    assert.deepEqual([...w.content.ingests], ['k1']);
  });

  test('[#218] given blobs of two algorithms, when swept, then the unreferenced of both go', async (t) => {
    const w = await world(t);
    const kept = digestOf(Buffer.from('kept'), 'sha512');
    const gone = digestOf(Buffer.from('gone'), 'sha512');
    const kept256 = await w.blob('kept', { [gc('root')]: '1' });
    await w.blob('gone');
    await w.put(['blobs', 'ns1', kept].join('\0'), {
      createdat: 1n,
      updatedat: 1n,
      size: 1,
      labels: { [gc('root')]: '1' },
    });
    await w.put(['blobs', 'ns1', gone].join('\0'), { createdat: 1n, updatedat: 1n, size: 1 });
    w.content.blobs.set(kept, 1);
    w.content.blobs.set(gone, 1);
    w.content.blobs.set(digestOf(Buffer.from('orphan'), 'sha512'), 1);
    await w.collect({ fullSweep: true });
    assert.deepEqual([...w.content.blobs.keys()].sort(), [kept256, kept].sort());
  });

  test('given a blob an open ingest of another namespace expects, when dropped, then the file stays', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.in('ns2').ingest('i', { expires: 'future', expected: 'a' });
    await w.in('ns2').image('dead', 'x', { [gc('ref.content')]: digest('b') });
    await w.blob('b');
    await w.collect();
    assert.deepEqual([...w.content.blobs.keys()], [digest('a')], 'a dead label keeps no file');
  });

  test('given a blob that only an ingest of another namespace expects, when that expires, then the file goes', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.in('ns2').ingest('i', { expires: 'past', expected: 'a' });
    await w.in('ns2').lease('l', {}, w.in('ns2').ingestKey('i'));
    await w.collect();
    assert.deepEqual([...w.content.blobs.keys()], [digest('a')]);
    await w.remove(['leases', 'ns2', 'l'].join('\0'));
    await w.collect();
    assert.deepEqual([[...w.content.blobs.keys()], w.content.walks], [[], 0]);
  });

  test('given a failing content backend, when collected, then the run succeeds and the next one walks', async (t) => {
    const w = await world(t);
    await w.blob('a');
    w.content.failure = new Error('I/O error');
    const stats = await w.collect();
    assert.equal(stats.backendErrors, 1);
    assert.equal(w.dirty.contentDirty, true);
    assert.ok(w.logged.some((line) => line.includes('I/O error')));
    w.content.failure = undefined;
    await w.collect();
    assert.deepEqual([w.content.blobs.size, w.content.walks, w.dirty.contentDirty], [0, 1, false]);
  });

  /** A sweep that has removed the blob `idle` and waits for the guard of `busy`. */
  async function waiting(t: TestContext) {
    const w = await world(t);
    await w.blob('busy');
    await w.blob('idle');
    const release = await w.guards.share(blobGuard(digest('busy')));
    const run = w.collect();
    while (!w.content.log.includes(`delete ${digest('idle')}`)) await new Promise((r) => setImmediate(r));
    return { w, release, run };
  }

  test('given a blob whose guard a writer shares, when swept, then it waits and looks again', async (t) => {
    const { w, release, run } = await waiting(t);
    await w.put(w.blobKey('busy'), { createdat: 1n, updatedat: 1n, size: 100 });
    release();
    await run;
    assert.deepEqual([...w.content.blobs.keys()], [digest('busy')]);
  });

  test('given a namespace that is new in the middle of a sweep, when it gets a blob that is waited for, then that stays', async (t) => {
    const { w, release, run } = await waiting(t);
    await w.put(['namespaces', 'late'].join('\0'), {});
    await w.put(w.in('late').blobKey('busy'), { createdat: 1n, updatedat: 1n, size: 100 });
    release();
    await run;
    assert.deepEqual([...w.content.blobs.keys()], [digest('busy')]);
  });

  test('given an ingest whose guard a writer shares, when swept, then it waits and looks again', async (t) => {
    const w = await world(t);
    for (const ref of ['ns1/1/busy', 'ns1/1/idle', 'ns1/1/named']) w.content.ingests.add(ref);
    const release = await w.guards.share(ingestGuard('ns1/1/busy'));
    const acquire = w.guards.acquire.bind(w.guards);
    t.mock.method(w.guards, 'acquire', (name: string) => {
      const taken = acquire(name);
      // The sweep waits; meanwhile both get their records.
      void Promise.all([
        w.ingest('busy', { expires: 'future' }),
        w.ingest('named', { expires: 'future' }),
      ]).then(release);
      return taken;
    });
    await w.collect({ fullSweep: true });
    assert.deepEqual([...w.content.ingests].sort(), ['ns1/1/busy', 'ns1/1/named']);
  });

  test('given a guard that stays taken, when swept, then the blob is left to the next run', async (t) => {
    const w = await world(t);
    await w.blob('busy');
    const release = await w.guards.share(blobGuard(digest('busy')));
    await w.collect();
    assert.equal(w.content.blobs.size, 1);
    assert.equal(w.dirty.contentDirty, true);
    release();
    await w.collect();
    assert.deepEqual([w.content.blobs.size, w.content.walks, w.dirty.contentDirty], [0, 0, false]);
  });

  test('[#223] given backends that were never used, when everything is swept, then it succeeds', async (t) => {
    const w = await world(t);
    const stats = await w.collect({ fullSweep: true });
    assert.deepEqual(Object.keys(stats.snapshotD).sort(), ['native', 'other']);
    assert.equal(stats.backendErrors, 0);
  });
});

describe('sweep of snapshots', () => {
  test('[#219] given a chain, when collected, then children go before parents', async (t) => {
    const w = await world(t);
    const names = [await w.snapshot('a')];
    for (const [name, parent] of [
      ['b', 'a'],
      ['c', 'b'],
      ['d', 'c'],
    ] as const) {
      names.push(await w.snapshot(name, { parent }));
    }
    await w.collect();
    assert.deepEqual(w.native.log, names.reverse());
  });

  test('[#219] [#224] given items no record names, when swept as a whole, then they go, children first', async (t) => {
    const w = await world(t);
    const kept = await w.snapshot('kept', { labels: { [gc('root')]: '1' } });
    w.native.add('ns9/1/base');
    w.native.add('ns9/2/top', 'ns9/1/base');
    w.native.add('ns9/3/onkept', kept);
    w.native.add('lost parent', 'never there');
    await w.collect();
    assert.equal(w.native.items.size, 5, 'no reason to look');
    await w.remove(w.snapshotKey('nothing'));
    await w.collect();
    assert.deepEqual([...w.native.items.keys()], [kept]);
    assert.ok(w.native.log.indexOf('ns9/2/top') < w.native.log.indexOf('ns9/1/base'));
  });

  test('[#220] given an item the backend refuses, when swept, then the others go and the run succeeds', async (t) => {
    const w = await world(t);
    const refused = await w.snapshot('refused');
    await w.snapshot('base');
    await w.snapshot('top', { parent: 'base' });
    w.native.failures.set(refused, failedPrecondition('in use'));
    const stats = await w.collect();
    assert.deepEqual([...w.native.items.keys()], [refused]);
    assert.equal(stats.backendErrors, 0);
    assert.deepEqual(w.left(), []);
  });

  for (const fullSweep of [false, true]) {
    test(`given one that fails (${fullSweep ? 'walk' : 'list'}), when swept, then its ancestors stay and all else goes`, async (t) => {
      const w = await world(t);
      const base = await w.snapshot('base');
      const mid = await w.snapshot('mid', { parent: 'base' });
      const bad = await w.snapshot('bad', { parent: 'mid' });
      await w.snapshot('sibling', { parent: 'mid' });
      await w.snapshot('tree');
      w.native.failures.set(bad, new Error('stuck'));
      const stats = await w.collect({ fullSweep });
      assert.deepEqual([...w.native.items.keys()].sort(), [base, mid, bad].sort());
      assert.equal(stats.backendErrors, 1);
      assert.equal(w.native.cleanups, 1, 'the cleaner runs all the same');
      assert.deepEqual([...w.dirty.dirtySnapshotters], ['native']);
      w.native.failures.clear();
      await w.collect();
      assert.equal(w.native.items.size, 0);
      assert.deepEqual([...w.dirty.dirtySnapshotters], []);
    });
  }

  test('[#221] given a snapshotter that is not configured, when collected, then its records go without error', async (t) => {
    const w = await world(t);
    await w.snapshot('s', { snapshotter: 'elsewhere' });
    const stats = await w.collect();
    assert.deepEqual(w.left(), []);
    assert.deepEqual(stats.snapshotD, {});
  });

  test('[#222] given a cleaner, when swept, then it runs after the removals and outside every guard', async (t) => {
    const w = await world(t);
    const name = await w.snapshot('s');
    w.native.onCleanup = async () => {
      assert.deepEqual(w.native.log, [name]);
      const release = await w.guards.share(`snapshot\0native\0${name}`);
      release();
      return { removed: 1, bytes: 12_345, errors: [] };
    };
    const stats = await w.collect();
    assert.equal(stats.bytesFreed, 12_345);
    await w.snapshot('t');
    w.native.onCleanup = async () => {
      throw notImplemented('no cleaner');
    };
    assert.equal((await w.collect()).backendErrors, 0);
    await w.snapshot('u');
    w.native.onCleanup = async () => {
      throw new Error('cannot clean');
    };
    assert.equal((await w.collect()).backendErrors, 1);
    assert.deepEqual([...w.dirty.dirtySnapshotters], ['native']);
  });

  test('given snapshots on their way to a record, when everything is swept, then they are left alone', async (t) => {
    const w = await world(t);
    await w.image('app', 'app');
    w.native.add('ns1/7/preparing', '', 'active');
    w.inFlight.add('ns1/7/preparing');
    await w.collect({ fullSweep: true });
    assert.equal(w.native.items.size, 1);
    w.inFlight.clear();
    await w.collect({ fullSweep: true });
    assert.equal(w.native.items.size, 0);
  });

  test('given a backend item two namespaces share, when one drops it, then it stays until both are gone', async (t) => {
    const w = await world(t);
    const name = await w.snapshot('remote');
    const adopted = w.in('ns2').snapshotKey('remote');
    await w.put(adopted, { createdat: 1n, updatedat: 1n, name, labels: { [gc('root')]: '1' } });
    await w.engine.update((tx) => void tx.link(backendNameKey('native', name), Relation.named, adopted));
    await w.collect();
    assert.deepEqual(w.left(), ['ns2:snapshot native/remote']);
    assert.equal(w.native.items.size, 1);
    await w.put(adopted, { createdat: 1n, updatedat: 1n, name });
    await w.collect();
    assert.equal(w.native.items.size, 0);
  });

  test('[#226] given a context that ends after the records went, when collected, then backends are swept all the same', async (t) => {
    const w = await world(t);
    await w.snapshot('s');
    await w.blob('a');
    const controller = new AbortController();
    w.native.beforeRemove = async () => controller.abort();
    w.content.beforeDelete = async () => controller.abort();
    await w.collect({ signal: controller.signal });
    assert.ok(controller.signal.aborted);
    assert.deepEqual([w.native.items.size, w.content.blobs.size, w.native.cleanups], [0, 0, 1]);
  });

  test('given one failing backend, when collected, then it hinders no other', async (t) => {
    const w = await world(t);
    const bad = await w.snapshot('s');
    await w.snapshot('s', { snapshotter: 'other' });
    await w.blob('a');
    w.native.failures.set(bad, new Error('broken'));
    await w.collect();
    assert.deepEqual([w.snapshotter('other').items.size, w.content.blobs.size], [0, 0]);
  });
});

test('[#219] given forests with lost parents and circles, when ordered, then children come first and none is lost', () => {
  const forest = new Map([
    ['root', ''],
    ['a', 'root'],
    ['b', 'a'],
    ['c', 'root'],
    ['lost', 'nowhere'],
    ['below lost', 'lost'],
    ['ring1', 'ring2'],
    ['ring2', 'ring1'],
  ]);
  const order = childrenFirst(forest);
  assert.deepEqual([...order].sort(), [...forest.keys()].sort());
  for (const [name, parent] of forest) {
    if (!forest.has(parent) || name.startsWith('ring')) continue;
    assert.ok(order.indexOf(name) < order.indexOf(parent), `${name} before ${parent}`);
  }
});

describe('dirty flags', () => {
  test('given a deletion, when it commits, then the flag is stored; when it fails, then not', async (t) => {
    const w = await world(t);
    const failing = w.engine.update((tx) => {
      w.dirty.countDeletion(tx);
      w.dirty.markContentDirty(tx);
      throw new Error('no');
    });
    await assert.rejects(failing);
    assert.deepEqual([w.dirty.deletions, w.dirty.contentDirty], [0, false]);
    await w.engine.update((tx) => {
      w.dirty.countDeletion(tx);
      w.dirty.markContentDirty(tx);
      w.dirty.markSnapshotterDirty(tx, 'native');
    });
    assert.deepEqual([w.dirty.deletions, w.dirty.contentDirty], [1, true]);
    const restarted = new DirtyFlags(w.engine);
    restarted.load();
    assert.deepEqual([restarted.contentDirty, [...restarted.dirtySnapshotters]], [true, ['native']]);
    assert.deepEqual(restarted.take(CONTENT_BACKEND).walk, true, 'what was removed is not known any more');
  });

  test('given a sweep, when something is deleted meanwhile, then the flag stays for the next', async (t) => {
    const w = await world(t);
    await w.blob('a');
    w.content.beforeDelete = async () => {
      w.content.beforeDelete = async () => {};
      await w.engine.update((tx) => w.dirty.markContentDirty(tx, { kind: 'blob', digest: digest('b') }));
    };
    await w.collect();
    assert.equal(w.dirty.contentDirty, true);
    assert.equal(w.engine.has(metaKey('dirty', 'content')), true);
    await w.collect();
    assert.equal(w.dirty.contentDirty, false);
    assert.equal(w.engine.has(metaKey('dirty', 'content')), false);
  });

  test('given an explicit removal that is listed, when collected, then the sweep looks at that only', async (t) => {
    const w = await world(t);
    const d = await w.blob('a');
    const name = await w.snapshot('s');
    await w.engine.update((tx) => {
      tx.delete(w.blobKey('a'));
      tx.delete(w.snapshotKey('s'));
      w.dirty.markRemoved(tx, { kind: 'blob', digest: d }, { kind: 'snapshot', snapshotter: 'native', name });
    });
    await w.collect();
    assert.deepEqual([w.content.walks, w.native.walks], [0, 0]);
    assert.deepEqual([w.content.blobs.size, w.native.items.size], [0, 0]);
  });
});
