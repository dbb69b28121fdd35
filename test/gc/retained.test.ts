import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { NodeFlag } from '../../src/engine/contract.js';
import { GraphOp } from '../../src/engine/graph.js';
import { isKind } from '../../src/errors.js';
import { GraphView, NO_WAY, plainState } from '../../src/gc/report/reach.js';
import { diskUsageBy, type UsageGroup, type UsageReport } from '../../src/gc/report/retained.js';
import { createGraph } from '../../src/graph/carriers.js';
import { digest, future, gc, past, type World, world } from '../support/gc-world.js';

const usage = (w: World, by: UsageGroup, namespace?: string): Promise<UsageReport> =>
  diskUsageBy(w, (run) => run(), { namespace }, { by });

/** name → [total, shared, retained]. */
const table = ({ rows }: UsageReport): Record<string, number[]> =>
  Object.fromEntries(rows.map(({ name, total, shared, retained }) => [name, [total, shared, retained]]));

describe('the snapshot of the graph', () => {
  test('given any graph, when it is marked and when it is looked at, then the same is reached', async () => {
    const graphs = fc.record({
      roots: fc.array(fc.integer({ min: 0, max: 11 }), { maxLength: 4 }),
      edges: fc.array(
        fc.tuple(fc.integer({ min: 0, max: 11 }), fc.integer({ min: 0, max: 11 }), fc.constantFrom(0, 1, 2)),
        { maxLength: 30 },
      ),
    });
    await fc.assert(
      fc.asyncProperty(graphs, async ({ roots, edges }) => {
        const graph = createGraph();
        const ops: number[] = [];
        for (let id = 0; id < 12; id++) {
          ops.push(GraphOp.set, id, NodeFlag.present | (roots.includes(id) ? NodeFlag.root : 0), 0, 0);
        }
        for (const [from, to, kind] of edges) ops.push(GraphOp.add, from, to, kind);
        graph.apply(Uint32Array.from(ops));
        const view = await GraphView.read(graph, 1n);
        const reached = view.reach(view.roots.map(plainState));
        await graph.mark(1n);
        for (let id = 0; id < 12; id++) {
          const bits = (reached[id * 2] ? 1 : 0) | (reached[id * 2 + 1] ? 2 : 0);
          assert.equal(bits, graph.marksOf(id));
          const ways = view.waysTo(id);
          const leads = view.roots.some((root) => ways[plainState(root)] !== NO_WAY);
          assert.equal(leads, bits !== 0);
          assert.equal(graph.path(id, 1n) !== undefined, leads);
        }
        graph.endRun();
      }),
      { numRuns: 200 },
    );
  });
});

describe('disk usage', () => {
  test('given two images over one base, when asked by image, then the base is shared and the rest retained', async (t) => {
    const w = await world(t);
    for (const name of ['base', 'a', 'b', 'garbage']) await w.blob(name);
    await w.blob('ma', { [gc('ref.content.0')]: digest('base'), [gc('ref.content.1')]: digest('a') });
    await w.blob('mb', { [gc('ref.content.0')]: digest('base'), [gc('ref.content.1')]: digest('b') });
    await w.image('A', 'ma');
    await w.image('B', 'mb');
    await w.image('expired', 'garbage', { [gc('expire')]: past() });
    const report = await usage(w, 'image');
    assert.deepEqual(table(report), { A: [300, 100, 200], B: [300, 100, 200] });
    assert.deepEqual([report.kept, report.garbage], [500, 100]);
  });

  test('given a tag of an image, when asked, then neither retains anything', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.image('one', 'a');
    await w.image('two', 'a');
    assert.deepEqual(table(await usage(w, 'image')), { one: [100, 100, 0], two: [100, 100, 0] });
  });

  test('given a container on an image, when asked by image, then what the container keeps is shared', async (t) => {
    const w = await world(t);
    await w.blob('config', { [gc('ref.snapshot.native')]: 'top' });
    await w.image('app', 'config');
    await w.snapshot('base');
    await w.snapshot('top', { parent: 'base' });
    await w.container('web', 'native', 'base');
    assert.deepEqual(table(await usage(w, 'image')), { app: [100 + 8192, 4096, 100 + 4096] });
    assert.deepEqual(table(await usage(w, 'snapshotter')), { native: [8192, 0, 8192] });
  });

  test('given a blob in two namespaces, when one is asked for, then its bytes are shared and counted once', async (t) => {
    const w = await world(t);
    await w.blob('shared');
    await w.blob('own');
    await w.image('a', 'shared');
    await w.image('b', 'own');
    const other = w.in('ns2');
    await other.blob('shared');
    await other.image('a', 'shared');
    const report = await usage(w, 'namespace');
    assert.deepEqual(table(report), { ns1: [200, 100, 100], ns2: [100, 100, 0] });
    assert.equal(report.kept, 200);
    const images = await usage(w, 'image');
    assert.deepEqual(
      images.rows.map(({ namespace, name, retained }) => [namespace, name, retained]),
      [
        ['ns1', 'b', 100],
        ['ns1', 'a', 0],
        ['ns2', 'a', 0],
      ],
    );
    assert.deepEqual(table(await usage(w, 'image', 'ns2')), { a: [100, 100, 0] });
  });

  test('given an open ingest in another namespace, when it expects a blob, then its bytes are shared', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.image('app', 'a');
    await w.in('ns2').ingest('up', { expires: 'future', expected: 'a' });
    assert.deepEqual(table(await usage(w, 'image')), { app: [100, 100, 0] });
  });

  test('given leases, when asked by lease, then flat ones reach only what they keep', async (t) => {
    const w = await world(t);
    await w.blob('layer');
    await w.blob('manifest', { [gc('ref.content')]: digest('layer') });
    await w.image('expired', 'manifest', { [gc('expire')]: past() });
    await w.lease('plain', {}, w.imageKey('expired'));
    await w.lease('flat', { [gc('flat')]: 'x', [gc('expire')]: future() }, w.blobKey('manifest'));
    const report = await usage(w, 'lease');
    assert.deepEqual(table(report), { plain: [200, 100, 100], flat: [100, 100, 0] });
    assert.deepEqual(
      report.rows.map((row) => 'expiresAt' in row),
      [false, true],
    );
    // The image is reached through the lease alone, and what it dominates includes what the lease does through it.
    assert.deepEqual(table(await usage(w, 'image')), { expired: [200, 100, 100] });
  });

  test('given any records, when an image or a lease is removed and collected, then its retained bytes go', async (t) => {
    const names = ['a', 'b', 'c', 'd', 'e'];
    const pick = fc.constantFrom(...names);
    const records = fc.record({
      refs: fc.array(fc.tuple(pick, pick), { maxLength: 8 }),
      images: fc.array(fc.record({ target: pick, expired: fc.boolean() }), { maxLength: 4 }),
      leases: fc.array(fc.record({ flat: fc.boolean(), blob: pick, image: fc.nat(3) }), { maxLength: 3 }),
    });
    const build = async (input: typeof records extends fc.Arbitrary<infer R> ? R : never): Promise<World> => {
      const w = await world(t);
      for (const name of names) {
        const refs = input.refs.filter(([from]) => from === name).map(([, to]) => to);
        await w.blob(name, Object.fromEntries(refs.map((to, i) => [gc(`ref.content.${i}`), digest(to)])));
      }
      for (const [i, { target, expired }] of input.images.entries()) {
        await w.image(`image${i}`, target, expired ? { [gc('expire')]: past() } : {});
      }
      for (const [i, { flat, blob, image }] of input.leases.entries()) {
        await w.lease(
          `lease${i}`,
          flat ? { [gc('flat')]: 'x' } : {},
          w.blobKey(blob),
          w.imageKey(`image${image}`),
        );
      }
      return w;
    };
    await fc.assert(
      fc.asyncProperty(records, async (input) => {
        for (const by of ['image', 'lease'] as const) {
          const rows = (await usage(await build(input), by)).rows;
          for (const { name, retained, total, shared } of rows) {
            assert.equal(total, shared + retained);
            const w = await build(input);
            await w.collect();
            const before = w.content.blobs.size;
            await w.remove(by === 'image' ? w.imageKey(name) : `leases\0ns1\0${name}`);
            await w.collect();
            assert.equal(retained, (before - w.content.blobs.size) * 100, `${by} ${name}`);
          }
        }
      }),
      { numRuns: 25 },
    );
  });

  test('given another grouping, when asked, then it is refused', async (t) => {
    const w = await world(t);
    await assert.rejects(usage(w, 'owner' as UsageGroup), (error) => isKind(error, 'InvalidArgument'));
  });
});
