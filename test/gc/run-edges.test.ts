import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CollectionContext, Collector, Send } from '../../src/gc/collectors.js';
import { RunEdges } from '../../src/gc/mark/run-edges.js';
import { type Node, ResourceImage, ResourceMount, ResourceStream } from '../../src/gc/types.js';
import { now } from '../../src/model/time.js';
import { digest, gc, past, type World, world } from '../support/gc-world.js';

const image = (key: string): Node => ({ type: ResourceImage, namespace: 'ns1', key });
const mount = (key: string): Node => ({ type: ResourceMount, namespace: 'ns1', key });

/** A collector with these resources; records what it is to remove. */
function collector(
  parts: Partial<CollectionContext>,
  word = 'mount',
): { collector: Collector; removed: string[] } {
  const removed: string[] = [];
  const context: CollectionContext = {
    all: () => {},
    active: () => {},
    leased: () => {},
    remove: ({ key }) => void removed.push(key),
    cancel: () => {},
    finish: () => {},
    ...parts,
  };
  return { collector: { referenceLabel: () => word, startCollection: () => context }, removed };
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

/** In use for the collector's sake: one resource that refers to an image. */
const refersTo = (name: string): Partial<CollectionContext> => ({
  all: (send) => send(mount('m')),
  active: (_ns: string, send: Send) => send(mount('m')),
  references: (_ctx, _node, send) => send(image(name)),
});

test('given a collector that refers to an image to come, when it comes during a run, then what it targets stays', async (t) => {
  const w = await world(t);
  w.collectors.register(ResourceMount, collector(refersTo('later')).collector);
  await w.blob('target');
  await w.blob('garbage');
  whenMarked(w, () => void w.image('later', 'target', { [gc('expire')]: past() }));
  await w.collect();
  assert.deepEqual(w.left('target', 'garbage'), ['blob target', 'image later']);
});

test('given an image a collector refers to, when it is removed and made again during a run, then its new target stays', async (t) => {
  const w = await world(t);
  w.collectors.register(ResourceMount, collector(refersTo('app')).collector);
  await w.blob('old');
  await w.blob('new');
  await w.image('app', 'old', { [gc('expire')]: past() });
  whenMarked(w, () => {
    void w.remove(w.imageKey('app'));
    // Takes the node that the image had.
    void w.blob('other');
    void w.image('app', 'new', { [gc('expire')]: past() });
  });
  await w.collect();
  assert.deepEqual(w.left('old', 'new', 'other'), ['blob new', 'blob old', 'blob other', 'image app']);
});

test('given a parent without a record that a collector keeps, when collected, then its child is kept, too', async (t) => {
  const w = await world(t);
  const { collector: mounts, removed } = collector({
    all: (send) => ['m', 'child', 'orphan'].forEach((name) => void send(mount(name))),
    activeWithBackRefs: (_ns, send, bref) => {
      send(mount('m'));
      bref(image('gone'), mount('child'));
      bref(image('unknown'), mount('orphan'));
    },
    references: (_ctx, { key }, send) => {
      if (key === 'm') send(image('gone'));
    },
  });
  w.collectors.register(ResourceMount, mounts);
  await w.blob('any');
  await w.collect();
  assert.deepEqual(removed, ['orphan']);
});

test('given a label to one stream that becomes a label to another during a run, when it ends, then both are kept', async (t) => {
  const w = await world(t);
  const nodes = ['t1', 't2', 't3'].map((key) => ({ type: ResourceStream, namespace: 'ns1', key }));
  const { collector: streams, removed } = collector({ all: (send) => nodes.forEach(send) }, 'stream');
  w.collectors.register(ResourceStream, streams);
  await w.blob('garbage');
  await w.blob('user', { [gc('root')]: 'x', [gc('ref.stream')]: 't1' });
  whenMarked(w, () => {
    void w.blob('user', { [gc('root')]: 'x' });
    // The node of the label's target is free now and stands for the next one.
    void w.blob('user', { [gc('root')]: 'x', [gc('ref.stream')]: 't2' });
  });
  await w.collect();
  assert.deepEqual(removed, ['t3']);
  assert.equal(w.content.blobs.has(digest('user')), true);
});

test('given commits that are lost between two slices, when the second begins, then all is looked at again', async (t) => {
  const w = await world(t);
  await w.blob('y', { [gc('root')]: '1', [gc('cond.snapshot.native')]: 'usedat<2h|s' });
  await w.snapshot('s');
  const id = w.engine.idOf(w.snapshotKey('s')) ?? -1;
  await w.engine.graph.mark(now());
  const edges = new RunEdges(w.engine, [], now(), undefined);
  assert.equal(edges.followAt(7), true);
  assert.equal(w.engine.graph.marksOf(id), 0);
  // What takes the label away again is lost: the condition is met, and the revision is what it was.
  const labels = { [gc('cond.value-usedat')]: past() };
  await w.put(w.snapshotKey('s'), { createdat: 1n, updatedat: 1n, name: 'ns1/1/s', labels });
  Object.defineProperty(w.engine, 'epoch', { value: w.engine.epoch + 1 });
  assert.equal(edges.followAt(7), true);
  assert.notEqual(w.engine.graph.marksOf(id), 0);
});
