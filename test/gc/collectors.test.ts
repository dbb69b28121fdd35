import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { CollectionContext, Collector } from '../../src/gc/collectors.js';
import { Streams } from '../../src/gc/streams.js';
import { type Node, ResourceContent, ResourceMount, ResourceStream } from '../../src/gc/types.js';
import { digest, future, gc, past, world } from '../support/gc-world.js';

const TYPE = 12;
const node = (key: string, namespace = 'ns1', type = TYPE): Node => ({ type, namespace, key });

interface Answers {
  all?: Node[];
  active?: Node[];
  leased?: Record<string, Node[]>;
  references?: Record<string, Node[]>;
  back?: [parent: Node, child: Node][];
  /** Results come only after a turn of the event loop. */
  slow?: boolean;
}

/** A collector with fixed results that records its calls. */
class TestCollector implements Collector {
  readonly log: string[] = [];
  readonly #results: Answers;
  failToStart = false;

  constructor(results: Answers) {
    this.#results = results;
  }

  referenceLabel(): string {
    return 'test';
  }

  startCollection(): CollectionContext {
    if (this.failToStart) throw new Error('busy');
    this.log.push('start');
    const { all = [], active = [], leased = {}, references, back, slow } = this.#results;
    const result = (nodes: readonly Node[], send: (node: Node) => void): void | Promise<void> => {
      if (!slow) return nodes.forEach(send);
      return new Promise((resolve) => {
        setImmediate(() => {
          nodes.forEach(send);
          resolve();
        });
      });
    };
    const inNamespace = (ns: string): Node[] => active.filter(({ namespace }) => namespace === ns);
    return {
      all: (send) => result(all, send),
      active: (ns, send) => {
        this.log.push(`active ${ns}`);
        return result(inNamespace(ns), send);
      },
      ...(back && {
        activeWithBackRefs: (ns: string, send: (node: Node) => void, bref: (p: Node, c: Node) => void) => {
          for (const [parent, child] of back) if (parent.namespace === ns) bref(parent, child);
          return result(inNamespace(ns), send);
        },
      }),
      leased: (_ns, lease, send) => result(leased[lease] ?? [], send),
      ...(references && {
        references: (_ctx: unknown, { key }: Node, send: (node: Node) => void) =>
          result(references[key] ?? [], send),
      }),
      remove: ({ namespace, key }) => void this.log.push(`remove ${namespace}/${key}`),
      cancel: () => void this.log.push('cancel'),
      finish: () => void this.log.push('finish'),
    };
  }

  get removed(): string[] {
    return this.log
      .filter((line) => line.startsWith('remove '))
      .map((line) => line.slice('remove '.length))
      .sort();
  }
}

describe('collectible resources', () => {
  for (const slow of [false, true]) {
    test(`[#203] given ${slow ? 'slow' : 'quick'} results, when collected, then labels, use and live leases keep`, async (t) => {
      const w = await world(t);
      await w.blob('kept', {
        [gc('root')]: '1',
        [gc('ref.test')]: 'by label',
        [gc('ref.test/2')]: 'by other label',
      });
      await w.blob('dropped', { [gc('ref.test')]: 'by garbage' });
      await w.lease('live', { [gc('expire')]: future() });
      await w.lease('expired', { [gc('expire')]: past() });
      const names = ['by label', 'by other label', 'by garbage', 'in use', 'leased', 'leased late', 'unused'];
      const collector = new TestCollector({
        slow,
        all: [...names.map((key) => node(key)), node('stray', 'unknown')],
        active: [node('in use'), node('stray', 'unknown')],
        leased: { live: [node('leased')], expired: [node('leased late')] },
      });
      w.collectors.register(TYPE, collector);
      const stats = await w.collect();
      assert.deepEqual(collector.removed, [
        'ns1/by garbage',
        'ns1/leased late',
        'ns1/unused',
        'unknown/stray',
      ]);
      assert.equal(stats.removed.type12, 4);
      assert.equal(collector.log.at(-1), 'finish');
      assert.ok(!collector.log.includes('cancel'));
      assert.deepEqual(
        collector.log.filter((line) => line.startsWith('active')),
        ['active ns1'],
      );
    });

    test(`[#203] given ${slow ? 'slow' : 'quick'} forward references, when collected, then they keep records and resources`, async (t) => {
      const w = await world(t);
      await w.blob('deep');
      await w.blob('held', { [gc('ref.content')]: digest('deep'), [gc('ref.test')]: 'third' });
      await w.blob('loose');
      const collector = new TestCollector({
        slow,
        all: ['first', 'second', 'third', 'fourth'].map((key) => node(key)),
        active: [node('first')],
        references: {
          first: [node('second'), node(digest('missing'), 'ns1', ResourceContent)],
          second: [node(digest('held'), 'ns1', ResourceContent)],
          fourth: [node(digest('loose'), 'ns1', ResourceContent)],
        },
      });
      w.collectors.register(TYPE, collector);
      await w.collect();
      assert.deepEqual(w.left('deep', 'held', 'loose'), ['blob deep', 'blob held']);
      assert.deepEqual(collector.removed, ['ns1/fourth']);
    });
  }

  test('given back references, when collected, then a kept parent keeps its child, flat or lost ones do not', async (t) => {
    const w = await world(t);
    await w.blob('child');
    await w.image('app', 'x');
    await w.blob('flat');
    await w.lease('l', { [gc('flat')]: '1' }, w.blobKey('flat'));
    const collector = new TestCollector({
      all: ['on image', 'on resource', 'on flat', 'on nothing'].map((key) => node(key)),
      back: [
        [node('app', 'ns1', 5), node('on image')],
        [node('on image'), node('on resource')],
        [node('on resource'), node(digest('child'), 'ns1', ResourceContent)],
        [node(digest('flat'), 'ns1', ResourceContent), node('on flat')],
        [node('gone', 'ns1', 5), node('on nothing')],
      ],
    });
    w.collectors.register(TYPE, collector);
    await w.collect();
    assert.deepEqual(collector.removed, ['ns1/on flat', 'ns1/on nothing']);
    assert.deepEqual(w.left('child', 'flat'), ['blob child', 'blob flat', 'image app', 'lease l']);
  });

  test('given a collector that does not start, when collected, then it is left out and its labels keep nothing', async (t) => {
    const w = await world(t);
    const broken = new TestCollector({ all: [node('x')] });
    broken.failToStart = true;
    const other = new TestCollector({ all: [node('y', 'ns1', 13)] });
    w.collectors.register(TYPE, broken);
    w.collectors.register(13, other);
    await w.collect();
    assert.deepEqual(broken.log, []);
    assert.deepEqual(other.removed, ['ns1/y']);
    assert.ok(w.logged.some((line) => line.includes('busy')));
  });

  test('given a failing mark, when collected, then every started collector is cancelled once', async (t) => {
    const w = await world(t);
    const collector = new TestCollector({});
    const broken = new TestCollector({});
    w.collectors.register(TYPE, collector);
    w.collectors.register(13, {
      referenceLabel: () => 'broken',
      startCollection: () => ({
        ...broken.startCollection(),
        active: () => {
          throw new Error('cannot tell');
        },
      }),
    });
    await w.blob('a');
    await assert.rejects(w.collect(), /cannot tell/);
    assert.deepEqual(
      collector.log.filter((line) => line === 'cancel' || line === 'finish'),
      ['cancel'],
    );
    assert.deepEqual(
      broken.log.filter((line) => line === 'cancel' || line === 'finish'),
      ['cancel'],
    );
    assert.equal(w.left().length, 1, 'nothing was removed');
  });

  test('given an invalid snapshot node, when collected, then the collection fails', async (t) => {
    const w = await world(t);
    await w.blob('a');
    w.collectors.register(TYPE, new TestCollector({ active: [node('no slash', 'ns1', 2)] }));
    await assert.rejects(w.collect(), /invalid snapshot gc key/);
  });

  test('given a dry run, when asked, then collectors are asked and cancelled, and remove nothing', async (t) => {
    const w = await world(t);
    await w.blob('held');
    await w.blob('loose');
    const collector = new TestCollector({
      all: [node('x')],
      active: [node(digest('held'), 'ns1', ResourceContent)],
    });
    w.collectors.register(TYPE, collector);
    const stats = await w.collect({ dryRun: true });
    assert.deepEqual(
      stats.wouldRemove?.map(({ key }) => key),
      [digest('loose')],
    );
    assert.deepEqual(
      collector.log.filter((line) => line !== 'active ns1'),
      ['start', 'cancel'],
    );
  });

  test('given registered streams, when collected, then one is kept by its lease until that is gone', async (t) => {
    const w = await world(t);
    const closed: string[] = [];
    const streams = new Streams();
    w.collectors.register(ResourceStream, streams);
    await w.lease('l', {});
    await w.image('app', 'x', { [gc('ref.stream')]: 'labelled' });
    for (const name of ['held', 'labelled']) {
      streams.register({ namespace: 'ns1', lease: 'l' }, name, { close: () => void closed.push(name) });
    }
    streams.register({ namespace: 'ns1' }, 'free', { close: () => void closed.push('free') });
    await w.collect();
    assert.deepEqual(closed, []);
    await w.remove(['leases', 'ns1', 'l'].join('\0'));
    const stats = await w.collect();
    assert.deepEqual(closed, ['held']);
    assert.equal(stats.removed.stream, 1);
    await w.remove(w.imageKey('app'));
    await w.collect();
    assert.deepEqual(closed, ['held', 'labelled']);
  });

  test('given two collectors, when collected, then a label word leads to the one it names', async (t) => {
    const w = await world(t);
    const mounts = new TestCollector({ all: [node('m', 'ns1', ResourceMount)] });
    const tests = new TestCollector({ all: [node('m')] });
    w.collectors.register(ResourceMount, {
      referenceLabel: () => 'mount',
      startCollection: () => mounts.startCollection(),
    });
    w.collectors.register(TYPE, tests);
    await w.image('app', 'x', {
      [gc('ref.mount.rootfs')]: 'm',
      [gc('ref.mounts')]: 'm',
      [gc('ref.testing')]: 'm',
    });
    await w.collect();
    assert.deepEqual(mounts.removed, []);
    assert.deepEqual(tests.removed, ['ns1/m']);
  });
});
