import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Key, Transaction } from '../../src/engine/contract.js';
import type { GraphCore } from '../../src/engine/graph.js';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import { blobKey, imageKey, leaseKey, Relation, snapshotKey } from '../../src/engine/schema/keys.js';
import { metadataIndexer } from '../../src/gc/references.js';
import type { GCStats } from '../../src/gc/stats.js';
import { createGraph } from '../../src/graph/carriers.js';
import { now } from '../../src/model/time.js';
import { digest, future, gc, past, World, world } from '../support/gc-world.js';
import { collectibles, readModel, survivors } from '../support/oracle.js';
import { Random } from '../support/random.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** The core with its write barrier switched off: what happens during a run changes no mark. */
function withoutBarrier(): GraphCore {
  const graph = createGraph();
  const mark = graph.mark.bind(graph);
  graph.mark = (at, options) => mark(at, { ...options, live: false, barrier: false });
  return graph;
}

const N = 60;
const names = Array.from({ length: N }, (_, i) => `b${i}`);

/** Blobs in chains of three, all garbage; snapshots in chains; leases and images to hang them on. */
async function fill(w: World, random: Random): Promise<void> {
  await w.engine.update((tx) => {
    for (const [i, name] of names.entries()) {
      const labels: Record<string, string> =
        i % 3 === 2 ? {} : { [gc('ref.content.0')]: digest(names[i + 1] ?? '') };
      tx.put(blobKey('ns1', digest(name)), { createdat: 1n, updatedat: 1n, size: 1, labels });
    }
    for (let i = 0; i < N / 2; i++) {
      const key = snapshotKey('ns1', 'native', `s${i}`);
      const parent = i % 3 === 0 ? '' : `s${i - 1}`;
      tx.put(key, { createdat: 1n, updatedat: 1n, name: `ns1/${i}/s${i}`, ...(parent && { parent }) });
      if (parent) tx.link(snapshotKey('ns1', 'native', parent), Relation.children, key);
    }
    tx.put(leaseKey('ns1', 'live'), { createdat: 1n });
    tx.put(leaseKey('ns1', 'expired'), { createdat: 1n, labels: { [gc('expire')]: past() } });
    tx.put(['namespaces', 'ns1'].join('\0'), {});
  });
  for (let i = 0; i < 4; i++) await w.image(`i${i}`, random.pick(names));
}

/** The object with what it refers to and what exists of that: all of it is reachable from now on. */
function closure(tx: Transaction, target: Key, flat: boolean): Key[] {
  const found: Key[] = [];
  const stack = [target];
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    const value = tx.get(at);
    if (typeof value !== 'object' || found.includes(at)) continue;
    found.push(at);
    if (typeof value.parent === 'string') stack.push(snapshotKey('ns1', 'native', value.parent));
    if (flat) continue;
    for (const [label, child] of Object.entries((value.labels ?? {}) as Record<string, string>)) {
      if (label.startsWith(gc('ref.content'))) stack.push(blobKey('ns1', child));
    }
  }
  return found;
}

/** One random change by a writer; adds what it made reachable for good. */
function change(tx: Transaction, random: Random, serial: number, needed: Set<Key>): void {
  const target = random.chance(0.6)
    ? blobKey('ns1', digest(random.pick(names)))
    : snapshotKey('ns1', 'native', `s${random.int(N / 2)}`);
  const value = tx.get(target);
  if (typeof value !== 'object') return;
  let flat = false;
  switch (random.int(5)) {
    case 0:
      tx.link(leaseKey('ns1', 'live'), Relation.holds, target);
      break;
    case 1: {
      const lease = leaseKey('ns1', `new${serial}`);
      tx.put(lease, { createdat: 1n, labels: { [gc('flat')]: '1', [gc('expire')]: future() } });
      tx.link(lease, Relation.holdsFlat, target);
      flat = true;
      break;
    }
    case 2:
      tx.put(target, {
        ...value,
        labels: { ...(value.labels as Record<string, string>), [gc('root')]: 'x' },
      });
      break;
    case 3: {
      if (!target.startsWith('blobs')) return;
      const descriptor = { digest: target.slice(target.lastIndexOf('\0') + 1), mediatype: 'm', size: 1 };
      tx.put(imageKey('ns1', `i${random.int(8)}`), { createdat: 1n, updatedat: 1n, target: descriptor });
      // The image may go again, so nothing is needed for good.
      return;
    }
    default:
      tx.delete(imageKey('ns1', `i${random.int(8)}`));
      return;
  }
  for (const key of closure(tx, target, flat)) needed.add(key);
}

/** Runs a collection with writers beside it; returns what a writer had made reachable and is gone. */
async function race(
  t: TestContext,
  graph: GraphCore,
  seed: number,
): Promise<{ lost: Key[]; stats: GCStats }> {
  const engine = await openMemoryEngine({ indexer: metadataIndexer, graph });
  t.after(() => engine.close());
  const w = new World(engine, {});
  const random = new Random(seed);
  await fill(w, random);
  const needed = new Set<Key>();
  let running = true;
  const run = w.collect({ sliceBudgetMs: 0.01 }).finally(() => {
    running = false;
  });
  for (let serial = 0; running; serial++) {
    if (random.chance(0.5)) await turn();
    else await engine.update((tx) => change(tx, random, serial, needed));
  }
  const stats = await run;
  const lost = [...needed].filter((key) => !engine.has(key));
  for (const [, value] of engine.scan('images')) {
    const target = typeof value === 'object' && typeof value.target === 'object' ? value.target : {};
    // An image is only ever put while its target exists.
    const key = blobKey('ns1', String('digest' in target ? target.digest : ''));
    if (!engine.has(key)) lost.push(key);
  }
  await w.collect();
  const again = readModel(engine);
  assert.deepEqual([...collectibles(again)].sort(), [...survivors(again, now())].sort(), `seed ${seed}`);
  return { lost, stats };
}

/** Runs `fn` at the moment a collection has listed its candidates and removed none yet. */
function whenMarked(w: World, fn: () => void): void {
  const { graph } = w.engine;
  const candidates = graph.candidates.bind(graph);
  graph.candidates = () => {
    const ids = candidates();
    graph.candidates = candidates;
    fn();
    return ids;
  };
}

const SEEDS = 40;

const cores: [name: string, make: () => GraphCore][] = [
  ['WebAssembly', () => createGraph('wasm')],
  ['the core in use', () => createGraph()],
];
for (const [name, make] of cores) {
  test(`given writers beside a collection on ${name}, when they refer to what it was about to remove, then nothing is lost`, async (t) => {
    let slices = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { lost, stats } = await race(t, make(), seed);
      assert.deepEqual(lost, [], `seed ${seed}`);
      slices += stats.slices;
    }
    assert.ok(slices > 2 * SEEDS, 'collections took several slices, so writers came in between');
  });
}

test('given the same without the write barrier, when they refer to it, then live objects are lost', async (t) => {
  let lost = 0;
  for (let seed = 1; seed <= SEEDS && lost === 0; seed++) {
    lost += (await race(t, withoutBarrier(), seed)).lost.length;
  }
  assert.ok(lost > 0, 'a barrier that can be switched off without harm would not be a barrier');
});

test('[#225] given a collection under way, when a caller views and updates, then neither waits for its end', async (t) => {
  const w = await world(t);
  await w.engine.update((tx) => {
    for (let i = 0; i < 3000; i++) {
      tx.put(blobKey('ns1', digest(`${i}`)), { createdat: 1n, updatedat: 1n, size: 1 });
    }
  });
  let ended = false;
  const run = w.collect({ sliceBudgetMs: 0.2 }).finally(() => {
    ended = true;
  });
  let updates = 0;
  let views = 0;
  while (!ended && updates < 20) {
    await w.image(`i${updates}`, 'x');
    if (!ended) updates++;
    const seen = await w.engine.view((r) => r.has(w.imageKey('i0')));
    if (!ended && seen) views++;
    await turn();
  }
  assert.ok(updates >= 5 && views >= 5, `${updates} updates and ${views} views went on beside the run`);
  const stats = await run;
  assert.equal(stats.removed.content, 3000);
});

test('given an object that is removed and made again during a run, when its slice comes, then the new one stays', async (t) => {
  const w = await world(t);
  await w.blob('anew');
  await w.blob('garbage');
  whenMarked(w, () => {
    void w.engine.update((tx) => void tx.delete(w.blobKey('anew')));
    void w.engine.update((tx) => tx.put(w.blobKey('anew'), { createdat: 2n, updatedat: 2n, size: 2 }));
  });
  await w.collect();
  assert.deepEqual(w.left('anew', 'garbage'), ['blob anew']);
  assert.deepEqual([...w.content.blobs.keys()], [digest('anew')]);
});

test('given an expired image that is renewed during a run, when its slice comes, then it stays with its target', async (t) => {
  const w = await world(t);
  await w.blob('target');
  await w.image('app', 'target', { [gc('expire')]: past() });
  await w.image('other', 'target', { [gc('expire')]: past() });
  whenMarked(w, () => void w.image('app', 'target', { [gc('expire')]: future() }));
  await w.collect();
  assert.deepEqual(w.left('target'), ['blob target', 'image app']);
});

test('given a snapshot prepared on garbage during a run, when the run goes on, then its parent is left for the next', async (t) => {
  const w = await world(t);
  await w.snapshot('base');
  await w.snapshot('parent', { parent: 'base' });
  await w.blob('garbage');
  whenMarked(w, () => void w.snapshot('child', { parent: 'parent' }));
  await w.collect();
  assert.deepEqual(w.left(), ['snapshot native/base', 'snapshot native/child', 'snapshot native/parent']);
  await w.collect();
  assert.deepEqual(w.left(), []);
  assert.equal(w.native.items.size, 0);
});

test('given a condition that comes true during a run, when the snapshot’s slice comes, then it stays', async (t) => {
  const w = await world(t);
  await w.blob('y', { [gc('root')]: '1', [gc('cond.snapshot.native')]: 'usedat<2h|s' });
  const name = await w.snapshot('s');
  await w.snapshot('other');
  const labels = { [gc('cond.value-usedat')]: past() };
  whenMarked(w, () => void w.put(w.snapshotKey('s'), { createdat: 1n, updatedat: 1n, name, labels }));
  await w.collect();
  assert.deepEqual(w.left('y'), ['blob y', 'snapshot native/s']);
});

test('given back references in a circle with a parent, when collected, then child and parent go in one run', async (t) => {
  const w = await world(t);
  await w.snapshot('base');
  await w.snapshot('mid', { parent: 'base' });
  await w.snapshot('top', { parent: 'mid', labels: { [gc('bref.snapshot.native')]: 'top' } });
  const stats = await w.collect();
  assert.deepEqual(stats.removed, { snapshot: 3 });
  assert.deepEqual(w.left(), []);
});

test('given a failing commit in the middle, when collected, then what was removed stays so and the rest waits', async (t) => {
  const w = await world(t);
  const events: unknown[] = [];
  w.publisher = { publish: async (...event) => void events.push(event) };
  for (let i = 0; i < 40; i++) await w.image(`i${i}`, 'x', { [gc('expire')]: past() });
  // The commits counted below are the slices' alone.
  await w.expiryClock.save(w.engine);
  const { update } = w.engine;
  let commits = 0;
  w.engine.update = ((fn: never, options: never) => {
    if (++commits === 2) return Promise.reject(new Error('no space'));
    return update.call(w.engine, fn, options);
  }) as typeof update;
  await assert.rejects(w.collect({ sliceBudgetMs: 0.001 }), /no space/);
  w.engine.update = update;
  const left = w.left().length;
  assert.ok(left > 0 && left < 40, `${left} left`);
  assert.equal(events.length, 40 - left, 'events are of what did go');
  await w.collect();
  assert.deepEqual(w.left(), []);
  assert.equal(events.length, 40);
});
