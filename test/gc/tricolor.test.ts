import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { concurrentMark, NodeSet, sweep, tricolor } from '../../src/gc/mark/tricolor.js';
import { FLAT_VARIANT, type Node, ResourceContent } from '../../src/gc/types.js';

const node = (key: string, type: number = ResourceContent): Node => ({ type, namespace: 'ns1', key });
const names = (nodes: Iterable<Node>): string[] => Array.from(nodes, ({ key }) => key).sort();

const edges: Readonly<Record<string, string>> = { A: 'B', B: 'A', C: 'DFB', E: 'FG', F: 'H' };
const targets = (from: Node): Node[] => [...(edges[from.key] ?? '')].map((key) => node(key));

test('[#213] given a small graph, when it is marked from A and C, then exactly A B C D F H are reached', async () => {
  const roots = [node('A'), node('C')];
  assert.deepEqual(names(tricolor(roots, targets)), ['A', 'B', 'C', 'D', 'F', 'H']);
  const marked = await concurrentMark(roots, async (_signal, from, send) => targets(from).forEach(send));
  assert.deepEqual(names(marked), ['A', 'B', 'C', 'D', 'F', 'H']);
});

test('[#213] given asynchronous roots and slow references, when marked two at a time, then nothing is lost', async () => {
  async function* roots(): AsyncGenerator<Node> {
    for (const key of ['A', 'C']) {
      await new Promise((resolve) => setImmediate(resolve));
      yield node(key);
    }
  }
  let most = 0;
  let running = 0;
  const marked = await concurrentMark(
    roots(),
    async (_signal, from, send) => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      targets(from).forEach(send);
      running--;
    },
    { width: 2 },
  );
  assert.deepEqual(names(marked), ['A', 'B', 'C', 'D', 'F', 'H']);
  assert.equal(most, 2);
});

test('[#213] given no roots, when marked, then nothing is reached', async () => {
  assert.equal(tricolor([], targets).size, 0);
  assert.equal((await concurrentMark([], async () => {})).size, 0);
});

test('[#214] given 100 nodes that refer to one, when marked, then it is expanded once', () => {
  const many = Array.from({ length: 100 }, (_, i) => node(`n${i}`));
  const expanded: string[] = [];
  tricolor([...many, ...many], (from) => {
    expanded.push(from.key);
    return from.key === 'shared' ? [] : [node('shared')];
  });
  assert.equal(expanded.length, 101);
  assert.equal(expanded.filter((key) => key === 'shared').length, 1);
});

test('[#215] given flat and plain variants of a node, when marked, then both are expanded and the bits cleared', () => {
  const expanded: number[] = [];
  const reached = tricolor([node('x'), node('x', ResourceContent | FLAT_VARIANT)], (from) => {
    expanded.push(from.type);
    return [];
  });
  assert.deepEqual(
    expanded.sort((a, b) => a - b),
    [ResourceContent, ResourceContent | FLAT_VARIANT],
  );
  assert.deepEqual([...reached], [node('x')]);
});

test('[#215] given references that fail, when marked, then the error aborts', () => {
  const failure = new Error('no references');
  assert.throws(
    () =>
      tricolor([node('A')], () => {
        throw failure;
      }),
    failure,
  );
});

test('[#216] given one failing expansion, when marked, then it is thrown and the others are cancelled', async () => {
  const failure = new Error('broken');
  let cancelled = false;
  await assert.rejects(
    concurrentMark([node('slow'), node('bad')], async (signal, from) => {
      if (from.key === 'bad') throw failure;
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      cancelled = true;
    }),
    failure,
  );
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(cancelled, true);
});

test('[#216] given a cancelled context, when marked, then its error is thrown', async () => {
  const ended = AbortSignal.abort();
  await assert.rejects(
    concurrentMark([node('A')], async () => {}, { signal: ended }),
    (error) => isKind(error, 'Canceled'),
  );
  const controller = new AbortController();
  const marking = concurrentMark([node('A')], () => new Promise(() => {}), { signal: controller.signal });
  controller.abort();
  await assert.rejects(marking, (error) => isKind(error, 'Canceled'));
});

test('given reachable nodes, when swept, then the others are removed in order up to the first error', async () => {
  const removed: string[] = [];
  const all = ['a', 'b', 'c', 'd'].map((key) => node(key));
  const reachable = new NodeSet([node('b')]);
  await sweep(reachable, all, (n) => void removed.push(n.key));
  assert.deepEqual(removed, ['a', 'c', 'd']);
  removed.length = 0;
  const failure = new Error('stuck');
  await assert.rejects(
    sweep(reachable, all, (n) => {
      if (n.key === 'c') throw failure;
      removed.push(n.key);
    }),
    failure,
  );
  assert.deepEqual(removed, ['a']);
});
