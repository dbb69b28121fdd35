import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EbbtideError, isKind } from '../../src/errors.js';
import { addonPath, loadAddon } from '../../src/system/addon.js';
import { batch, kinds, nativeMissing, newCore, set } from './cores.js';

/** Values that no method expects. */
const strange: unknown[] = [
  undefined,
  null,
  true,
  -1,
  1.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 32,
  2 ** 53,
  1n,
  -(2n ** 80n),
  '',
  'ops',
  Symbol('s'),
  {},
  [],
  [1, 2, 3],
  () => 1,
  new Uint8Array(7),
  new Uint8Array(new SharedArrayBuffer(64)),
  new Uint32Array(new SharedArrayBuffer(64)),
  new Int32Array(8),
  new Float64Array(3),
  new BigUint64Array(2),
  new DataView(new ArrayBuffer(16)),
  new ArrayBuffer(16),
  new Proxy(new Uint32Array(4), {}),
  Object.create(Uint32Array.prototype),
];

const methods = [
  'apply',
  'markFrom',
  'marksOf',
  'candidates',
  'stillCandidates',
  'endRun',
  'takeFreeable',
  'unusedIds',
  'withFlags',
  'flagsOf',
  'inDegreeOf',
  'expiryOf',
  'edgesOf',
  'rows',
  'path',
  'load',
  'stats',
  'mark',
  'markInSteps',
  'retained',
  'save',
  'clear',
];

type Callable = Record<string, (...args: unknown[]) => unknown>;

async function callAll(target: object, check: (error: unknown) => void): Promise<void> {
  const core = target as Callable;
  for (const method of methods) {
    for (const first of strange) {
      for (const rest of [[], [first], [0n], [10]]) {
        try {
          await core[method]!(first, ...rest);
        } catch (error) {
          check(error);
        }
      }
    }
    await Promise.resolve(core.endRun!());
  }
}

describe('the addon itself', { skip: nativeMissing ?? false }, () => {
  const addon =
    nativeMissing === undefined ? (loadAddon('ebbtide_core') as { Graph: new () => Callable }) : undefined;

  it('given any argument of any type, when any method is called, then it throws or returns, and the process goes on', async () => {
    const graph = new addon!.Graph();
    await callAll(graph, (error) => assert(error instanceof Error && 'kind' in error, String(error)));
    graph.clear!();
    graph.apply!(batch(set(1, 1)));
    assert.deepEqual((graph.stats!() as { nodes: number }).nodes, 1);
  });

  it('given a receiver that is not a graph, when a method is called, then it throws', () => {
    const graph = new addon!.Graph();
    for (const receiver of [undefined, {}, Object.create(addon!.Graph.prototype), new Uint8Array(1)]) {
      for (const method of methods) assert.throws(() => graph[method]!.call(receiver, new Uint32Array(1)));
    }
    assert.throws(() => (addon!.Graph as unknown as () => void)(), TypeError);
  });

  it('given an array whose memory was given away, when applied, then it counts as empty', () => {
    const graph = new addon!.Graph();
    const ops = batch(set(1, 1));
    structuredClone(ops, { transfer: [ops.buffer as ArrayBuffer] });
    graph.apply!(ops);
    assert.deepEqual((graph.stats!() as { nodes: number }).nodes, 0);
  });

  it('given the addon, when its path is asked for, then it lies in the package', () => {
    assert.match(addonPath('ebbtide_core'), /build[/\\]Release[/\\]ebbtide_core\.node$/);
  });
});

for (const kind of kinds) {
  describe(`hostile input to the ${kind} graph core`, () => {
    it('given any words as ops, when applied, then InvalidArgument or a graph that still works', async () => {
      const graph = newCore(kind);
      let seed = 1;
      const random = (): number => {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
        return seed;
      };
      const pick = (): number =>
        [random(), random() % 6, random() % 40, 0xffffffff, 2 ** 30 - 2][random() % 5]!;
      let applied = 0;
      for (let round = 0; round < 3000; round++) {
        const ops = Uint32Array.from({ length: random() % 12 }, pick);
        // Ids far apart are allowed; a block of memory for each of thousands of them is not what is tested here.
        if (ops.some((word, i) => i > 0 && word > 40 && word < 2 ** 30 - 2)) continue;
        try {
          graph.apply(ops);
          applied++;
        } catch (error) {
          assert(isKind(error, 'InvalidArgument') && error instanceof EbbtideError, String(error));
        }
      }
      assert(applied > 20);
      await graph.mark(0n);
      assert.equal(newCore(kind).load(await graph.save()), true);
    });
  });
}
