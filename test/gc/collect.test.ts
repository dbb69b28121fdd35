/** What a collection keeps, and what it removes. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { digest, future, gc, past, world } from '../support/gc-world.js';

const ref = gc('ref.content.0');

describe('what a collection keeps', () => {
  test('[#181] given an empty store, when collected, then nothing is removed', async (t) => {
    const w = await world(t);
    const stats = await w.collect();
    assert.deepEqual(stats.removed, {});
    assert.equal(stats.slices, 0);
    assert.deepEqual(w.content.log, []);
  });

  test('[#182] given an unreferenced blob, when collected, then record and file are gone', async (t) => {
    const w = await world(t);
    const d = await w.blob('a');
    const stats = await w.collect();
    assert.deepEqual(w.left(), []);
    assert.deepEqual(stats.removed, { content: 1 });
    assert.deepEqual(w.content.log, [`delete ${d}`]);
    assert.equal(stats.bytesFreed, 100);
  });

  test('[#183] [#184] given an image with a tree of content, when it is deleted, then one run collects the tree', async (t) => {
    const w = await world(t);
    await w.blob('grandchild');
    await w.blob('child', { [ref]: digest('grandchild') });
    await w.blob('target', { [ref]: digest('child') });
    await w.image('app', 'target');
    await w.collect();
    const names = ['target', 'child', 'grandchild'];
    assert.deepEqual(w.left(...names), ['blob child', 'blob grandchild', 'blob target', 'image app']);
    await w.remove(w.imageKey('app'));
    await w.collect();
    assert.deepEqual(w.left(...names), []);
    assert.equal(w.content.blobs.size, 0);
  });

  test('[#185] [#186] [#187] given labels, when collected, then only those of the grammar keep', async (t) => {
    const w = await world(t);
    for (const name of ['bad', 'dot', 'slash']) await w.blob(name);
    await w.snapshot('plain');
    await w.snapshot('suffix');
    await w.blob('root', {
      [gc('root')]: '1',
      [gc('ref.contentbad')]: digest('bad'),
      [gc('ref.content.a')]: digest('dot'),
      [gc('ref.content/b')]: digest('slash'),
      [gc('ref.snapshot.native')]: 'plain',
      [gc('ref.snapshot.native/anything-1')]: 'suffix',
    });
    await w.collect();
    assert.deepEqual(w.left('bad', 'dot', 'slash', 'root'), [
      'blob dot',
      'blob root',
      'blob slash',
      'snapshot native/plain',
      'snapshot native/suffix',
    ]);
  });

  test('[#188] given a container on a chain of snapshots, when it is deleted, then the chain is collected', async (t) => {
    const w = await world(t);
    await w.snapshot('base');
    await w.snapshot('mid', { parent: 'base' });
    await w.snapshot('top', { parent: 'mid' });
    await w.snapshot('sibling', { parent: 'base' });
    await w.container('c', 'native', 'top');
    await w.collect();
    assert.deepEqual(w.left(), ['snapshot native/base', 'snapshot native/mid', 'snapshot native/top']);
    await w.remove(['containers', 'ns1', 'c'].join('\0'));
    await w.collect();
    assert.deepEqual(w.left(), []);
    assert.equal(w.native.items.size, 0);
  });

  test('[#189] given a container without snapshotter, when collected, then its labels keep content', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.container('c', '', '', { [ref]: digest('a') });
    await w.collect();
    assert.deepEqual(w.left('a'), ['blob a']);
  });

  test('[#190] [#191] given a root snapshot and an unlabelled one, when collected, then the root keeps its own', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.snapshot('base');
    await w.snapshot('root', { parent: 'base', labels: { [gc('root')]: 'x', [ref]: digest('a') } });
    await w.snapshot('active', { parent: 'base' });
    await w.collect();
    assert.deepEqual(w.left('a'), ['blob a', 'snapshot native/base', 'snapshot native/root']);
  });

  test('[#192] given a lease, when it is deleted, then what it kept is released', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.snapshot('s');
    await w.ingest('i');
    await w.lease('l', {}, w.blobKey('a'), w.snapshotKey('s'), w.ingestKey('i'));
    await w.collect();
    assert.deepEqual(w.left('a'), ['blob a', 'ingest i', 'lease l', 'snapshot native/s']);
    await w.remove(['leases', 'ns1', 'l'].join('\0'));
    const stats = await w.collect();
    assert.deepEqual(w.left('a'), []);
    assert.deepEqual(stats.removed, { content: 1, snapshot: 1, ingest: 1 });
  });

  test('[#193] given an expired lease, when collected, then it and what it kept go in one run', async (t) => {
    const w = await world(t);
    await w.blob('old');
    await w.blob('new');
    await w.blob('odd');
    await w.lease('gone', { [gc('expire')]: past() }, w.blobKey('old'));
    await w.lease('kept', { [gc('expire')]: future() }, w.blobKey('new'));
    await w.lease('unparsable', { [gc('expire')]: 'soon' }, w.blobKey('odd'));
    const stats = await w.collect();
    assert.deepEqual(w.left('old', 'new', 'odd'), ['blob new', 'blob odd', 'lease kept', 'lease unparsable']);
    assert.deepEqual(stats.removed, { lease: 1, content: 1 });
  });

  test('[#194] given a flat lease, when collected, then labels of what it keeps keep nothing', async (t) => {
    const w = await world(t);
    await w.blob('child');
    await w.blob('held', { [ref]: digest('child') });
    await w.blob('labelled');
    await w.snapshot('base');
    await w.snapshot('top', { parent: 'base', labels: { [ref]: digest('labelled') } });
    await w.blob('expected');
    await w.ingest('i', { expected: 'expected' });
    const held = [w.blobKey('held'), w.snapshotKey('top'), w.ingestKey('i')];
    await w.lease('l', { [gc('flat')]: 'false' }, ...held);
    await w.collect();
    assert.deepEqual(w.left('child', 'held', 'labelled', 'expected'), [
      'blob expected',
      'blob held',
      'ingest i',
      'lease l',
      'snapshot native/base',
      'snapshot native/top',
    ]);
  });

  test('[#195] given an expired image, when collected, then it goes with its target and an event says so', async (t) => {
    const w = await world(t);
    const events: unknown[] = [];
    w.publisher = { publish: async (...event) => void events.push(event) };
    await w.blob('target');
    await w.image('app', 'target', { [gc('expire')]: past() });
    await w.blob('live');
    await w.image('live', 'live', { [gc('bref.content')]: digest('nothing') });
    await w.collect();
    assert.deepEqual(w.left('live'), ['blob live', 'image live']);
    assert.deepEqual(events, [
      ['ns1', '/images/delete', { name: 'app' }],
      ['ns1', '/content/delete', { digest: digest('target') }],
    ]);
  });

  test('[#196] given an expired image kept by a lease, when collected, then target and children stay', async (t) => {
    const w = await world(t);
    await w.blob('child');
    await w.blob('target', { [ref]: digest('child') });
    await w.image('app', 'target', { [gc('expire')]: past() });
    await w.lease('l', {}, w.imageKey('app'));
    await w.collect();
    assert.deepEqual(w.left('child', 'target'), ['blob child', 'blob target', 'image app', 'lease l']);
  });

  test('[#196] given one kept by a flat lease, when collected, then only the target stays', async (t) => {
    const w = await world(t);
    await w.blob('child');
    await w.blob('other');
    await w.blob('target', { [ref]: digest('child') });
    await w.image('app', 'target', { [gc('expire')]: past(), [ref]: digest('other') });
    await w.lease('l', { [gc('flat')]: '1' }, w.imageKey('app'));
    await w.collect();
    assert.deepEqual(w.left('child', 'other', 'target'), ['blob target', 'image app', 'lease l']);
  });

  test('[#197] [#198] given images with expiries, when collected, then future, unparsable and referenced ones stay', async (t) => {
    const w = await world(t);
    await w.image('later', 'x', { [gc('expire')]: future() });
    await w.image('odd', 'x', { [gc('expire')]: '2020-01-01' });
    await w.image('referenced', 'x', { [gc('expire')]: past() });
    await w.image('live', 'x', { [gc('ref.image')]: 'referenced' });
    await w.image('expired', 'x', { [gc('expire')]: past() });
    await w.collect();
    assert.deepEqual(w.left(), ['image later', 'image live', 'image odd', 'image referenced']);
  });

  test('[#199] given content with a back reference to an image, when the image goes, then so does the content', async (t) => {
    const w = await world(t);
    await w.blob('referrer', { [gc('bref.image')]: 'app', [gc('bref.image/2')]: 'missing' });
    await w.image('app', 'x');
    await w.collect();
    assert.deepEqual(w.left('referrer'), ['blob referrer', 'image app']);
    await w.remove(w.imageKey('app'));
    await w.collect();
    assert.deepEqual(w.left('referrer'), []);
  });

  test('[#199] given a parent that is only kept flat, when collected, then back references keep nothing', async (t) => {
    const w = await world(t);
    await w.blob('parent');
    await w.blob('y', { [gc('bref.content')]: digest('parent') });
    await w.lease('l', { [gc('flat')]: '1' }, w.blobKey('parent'));
    await w.collect();
    assert.deepEqual(w.left('parent', 'y'), ['blob parent', 'lease l']);
  });

  test('[#199] given back references in a circle, when collected, then they keep nothing', async (t) => {
    const w = await world(t);
    await w.blob('a', { [gc('bref.content')]: digest('b') });
    await w.blob('b', { [gc('bref.content')]: digest('a') });
    await w.collect();
    assert.deepEqual(w.left('a', 'b'), []);
  });

  test('[#200] given a reference to a digest of another namespace, when collected, then it keeps nothing there', async (t) => {
    const w = await world(t);
    const other = w.in('ns2');
    await other.blob('a');
    await w.image('app', 'x', { [ref]: digest('a') });
    await w.collect();
    assert.deepEqual(w.left('a'), ['image app']);
  });

  test('[#201] given ingests without a lease, when collected, then the expired are aborted', async (t) => {
    const w = await world(t);
    await w.ingest('later', { expires: 'future' });
    const gone = await w.ingest('gone', { expires: 'past' });
    const never = await w.ingest('never');
    await w.collect();
    assert.deepEqual(w.left(), ['ingest later']);
    assert.deepEqual(w.content.log.sort(), [`abort ${gone}`, `abort ${never}`].sort());
  });

  test('[#202] given a sandbox with a snapshot label, when collected, then the snapshot stays', async (t) => {
    const w = await world(t);
    await w.snapshot('s');
    await w.sandbox('pod', { [gc('ref.snapshot.native')]: 's' });
    await w.collect();
    assert.deepEqual(w.left(), ['snapshot native/s']);
  });

  test('[#205] given dead edges, when collected, then there is no error', async (t) => {
    const w = await world(t);
    await w.image('app', 'missing', {
      [gc('ref.content')]: 'garbage',
      [gc('ref.content.long')]: 'x'.repeat(40_000),
      [gc('ref.content.nul')]: 'a\0b',
      [gc('ref.snapshot.missing')]: 'x',
      [gc('ref.snapshot.')]: 'x',
      [gc('ref.unknown')]: 'x',
    });
    await w.container('c', 'native', '');
    await w.collect();
    assert.deepEqual(w.left(), ['image app']);
  });

  test('[#206] given cycles, when collected, then the rooted one stays and the other goes', async (t) => {
    const w = await world(t);
    await w.blob('a', { [ref]: digest('b'), [gc('root')]: '1' });
    await w.blob('b', { [ref]: digest('a') });
    await w.blob('c', { [ref]: digest('d') });
    await w.blob('d', { [ref]: digest('c') });
    await w.collect();
    assert.deepEqual(w.left('a', 'b', 'c', 'd'), ['blob a', 'blob b']);
  });

  test('[#207] given a digest in two namespaces, when one drops it, then the file stays', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.in('ns2').blob('a', { [gc('root')]: '1' });
    const stats = await w.collect();
    assert.deepEqual(w.left('a'), ['ns2:blob a']);
    assert.equal(stats.removed.content, 1);
    assert.equal(w.content.blobs.size, 1);
    assert.equal(stats.bytesFreed, 0);
  });
});

describe('conditional references', () => {
  const cond = gc('cond.snapshot.native');
  const value = gc('cond.value-usedat');

  test('given conditions on snapshots, when collected, then those that are met keep the snapshot and its chain', async (t) => {
    const w = await world(t);
    await w.snapshot('base');
    await w.snapshot('young', { parent: 'base', labels: { [`${value}.a`]: past() } });
    await w.snapshot('old', { labels: { [value]: past() } });
    await w.snapshot('unused');
    await w.blob('y', {
      [gc('root')]: '1',
      [cond]: 'usedat<2h|young',
      [`${cond}/2`]: 'usedat<1m|old',
      [`${cond}/3`]: 'usedat<1h|unused',
    });
    await w.collect();
    assert.deepEqual(w.left('y'), ['blob y', 'snapshot native/base', 'snapshot native/young']);
  });

  test('given a condition on content that only a flat lease keeps, when collected, then it does not count', async (t) => {
    const w = await world(t);
    await w.snapshot('s', { labels: { [value]: past() } });
    await w.blob('y', { [cond]: 'usedat<2h|s' });
    await w.lease('l', { [gc('flat')]: '1' }, w.blobKey('y'));
    await w.collect();
    assert.deepEqual(w.left('y'), ['blob y', 'lease l']);
  });

  test('given a condition reached through another condition, when collected, then both keep', async (t) => {
    const w = await world(t);
    await w.snapshot('second', { labels: { [value]: past() } });
    await w.blob('b', { [cond]: 'usedat>1m|second' });
    await w.snapshot('first', { labels: { [value]: past(), [ref]: digest('b') } });
    await w.image('app', 'x', { [cond]: 'usedat>1m|first' });
    await w.collect();
    assert.deepEqual(w.left('b'), ['blob b', 'image app', 'snapshot native/first', 'snapshot native/second']);
  });
});
