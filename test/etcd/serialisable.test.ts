/**
 * Random transactions of two hosts, and a checker: reads and appends must fit one serial order (no cycle among write,
 * read and anti-dependencies), and what is read by prefix must have no phantoms.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Key, Transaction } from '../../src/engine/contract.js';
import type { EtcdEngine } from '../../src/engine/etcd/engine.js';
import { openEtcdEngine } from '../../src/engine/etcd/open.js';
import { RawStore } from '../../src/engine/raw.js';
import { key } from '../../src/engine/schema/keys.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { cluster } from './one-member.js';

/** Conflicts after which all hosts wait for a transaction (etcd/engine.ts). */
const ALONE_AFTER = 10;

async function hosts(t: TestContext): Promise<EtcdEngine[]> {
  const etcd = cluster.config();
  const opened: EtcdEngine[] = [];
  for (const hostId of ['a', 'b']) {
    const graph = createGraph();
    const engine = await openEtcdEngine({ indexer: suiteIndexer, graph, etcd: { ...etcd, hostId } });
    t.after(() => engine.close());
    opened.push(engine);
  }
  return opened;
}

function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What a transaction read (as lists) and appended to. */
interface Observed {
  id: string;
  reads: Map<Key, string[]>;
  appends: Key[];
}

const listAt = (tx: Pick<Transaction, 'get'>, k: Key): string[] => {
  const value = tx.get(k);
  const text = typeof value === 'object' ? String(value.list) : '';
  return text === '' ? [] : text.split(',');
};

/** A cycle of dependencies, or undefined when the transactions fit one order. */
function cycleIn(observed: readonly Observed[], final: ReadonlyMap<Key, string[]>): string[] | undefined {
  const after = new Map<string, Set<string>>(observed.map(({ id }) => [id, new Set<string>()]));
  const edge = (from: string | undefined, to: string | undefined): void => {
    if (from !== undefined && to !== undefined && from !== to) after.get(from)?.add(to);
  };
  for (const list of final.values()) for (let i = 1; i < list.length; i++) edge(list[i - 1], list[i]);
  for (const { id, reads } of observed) {
    for (const [k, list] of reads) {
      const whole = final.get(k) ?? [];
      assert.deepEqual(whole.slice(0, list.length), list, `${id} has read what never was`);
      edge(list[list.length - 1], id);
      edge(id, whole[list.length]);
    }
  }
  const state = new Map<string, 'open' | 'done'>();
  const path: string[] = [];
  const visit = (id: string): string[] | undefined => {
    if (state.get(id) === 'done') return undefined;
    if (state.get(id) === 'open') return [...path.slice(path.indexOf(id)), id];
    state.set(id, 'open');
    path.push(id);
    for (const next of after.get(id) ?? []) {
      const found = visit(next);
      if (found !== undefined) return found;
    }
    path.pop();
    state.set(id, 'done');
    return undefined;
  };
  for (const { id } of observed) {
    const found = visit(id);
    if (found !== undefined) return found;
  }
  return undefined;
}

test('given transactions with a write skew, when the checker sees them, then it finds the cycle', () => {
  const observed: Observed[] = [
    { id: '1', reads: new Map([['x', []]]), appends: ['y'] },
    { id: '2', reads: new Map([['y', []]]), appends: ['x'] },
  ];
  assert.ok(
    cycleIn(
      observed,
      new Map([
        ['x', ['2']],
        ['y', ['1']],
      ]),
    ),
  );
});

test('given random reads and appends on two hosts, when all are done, then they fit one serial order', async (t) => {
  const engines = await hosts(t);
  const keys = Array.from({ length: 6 }, (_, i) => key('images', 'ns', `k${i}`));
  const observed: Observed[] = [];
  let reruns = 0;
  const client = async (engine: EtcdEngine, name: string, seed: number): Promise<void> => {
    const below = random(seed);
    for (let i = 0; i < 25; i++) {
      const id = `${name}.${i}`;
      const picked = [...keys].sort(() => below(3) - 1);
      const [read, write] = [picked.slice(0, 1 + below(3)), picked.slice(2, 3 + below(2))];
      const waits = below(2) === 0;
      const seen = await engine.update(async (tx) => {
        if (tx.attempt > 1) reruns++;
        const reads = new Map(read.map((k) => [k, listAt(tx, k)]));
        if (waits) await new Promise((resolve) => setTimeout(resolve, below(3)));
        for (const k of write) {
          const list = listAt(tx, k);
          reads.set(k, list);
          tx.put(k, { list: [...list, id].join(',') });
        }
        return reads;
      });
      observed.push({ id, reads: seen, appends: write });
    }
  };
  await Promise.all(
    engines.flatMap((engine, e) => [0, 1, 2].map((c) => client(engine, `${e}.${c}`, e * 10 + c + 1))),
  );
  await engines[0]!.confirm();
  const final = new Map(keys.map((k) => [k, listAt(engines[0]!, k)]));
  const appended = [...final.values()].flat();
  assert.equal(
    appended.length,
    observed.reduce((sum, { appends }) => sum + appends.length, 0),
    'no append is lost',
  );
  assert.equal(cycleIn(observed, final), undefined);
  t.diagnostic(`${observed.length} transactions, ${reruns} runs repeated`);
  assert.ok(reruns > 10, 'they hardly met');
});

test('given a slow transaction and another host that writes what it reads all the time, then it commits, and the other goes on', async (t) => {
  const [slow, busy] = await hosts(t);
  const k = key('images', 'ns', 'contended');
  let running = true;
  let writes = 0;
  let written = 0;
  const writers = [0, 1, 2];
  const others = Promise.all(
    writers.map(async () => {
      while (running) {
        await busy!.update((tx) => tx.put(k, { list: String(++writes) }));
        written++;
      }
    }),
  );
  const until = async (isSo: () => boolean): Promise<void> => {
    while (!isSo()) await sleep(2);
  };
  await until(() => written >= 30);
  let attempts = 0;
  await slow!
    .update(async (tx) => {
      attempts = tx.attempt;
      const list = listAt(tx, k);
      // Another write comes between, until others have to wait; what each writer had under way may be in the list.
      const before = written;
      if (tx.attempt <= ALONE_AFTER) await until(() => written > before + writers.length);
      else await sleep(40);
      tx.put(k, { list: [...list, 'slow'].join(',') });
    })
    .finally(() => {
      running = false;
    });
  const before = writes;
  await others;
  t.diagnostic(`${attempts} runs beside ${before} writes`);
  assert.ok(attempts > ALONE_AFTER, 'they hardly met');
});

test('given transactions that count what is below a prefix, when they add and remove there, then none was a phantom', async (t) => {
  const engines = await hosts(t);
  // Each takes the number after the highest; a missed addition would give a number twice, a missed removal a gap.
  const taken: number[] = [];
  const client = async (engine: EtcdEngine, seed: number): Promise<void> => {
    const below = random(seed);
    for (let i = 0; i < 15; i++) {
      await engine.update((tx) => {
        const present = [...tx.scan(key('images', 'ns'))];
        if (present.length > 5 && below(3) === 0) {
          tx.delete(present[0]![0]);
          return;
        }
        const highest = present.map(([k]) => Number(k.slice(-6))).reduce((a, b) => Math.max(a, b), 0);
        const counted = tx.get(key('containers', 'ns', 'count'));
        const count = typeof counted === 'object' ? Number(counted.n) : 0;
        assert.equal(highest, count, 'the prefix and the counter are of one moment');
        tx.put(key('images', 'ns', String(highest + 1).padStart(6, '0')), {});
        tx.put(key('containers', 'ns', 'count'), { n: highest + 1 });
        tx.onCommit(() => taken.push(highest + 1));
      });
    }
  };
  await Promise.all(engines.flatMap((engine, e) => [1, 2].map((c) => client(engine, e * 10 + c))));
  assert.deepEqual(
    taken.sort((a, b) => a - b),
    taken.map((_, i) => i + 1),
  );
});

test('[#254] given two hosts that increment one raw key 50 times each, when both are done, then it is 100', async (t) => {
  const engines = await hosts(t);
  await Promise.all(
    engines.map(async (engine) => {
      const raw = new RawStore(engine);
      for (let i = 0; i < 50; i++) {
        await raw.eUpdate(async (transactor) => {
          const value = Number((await transactor.get('n')).get('n') ?? 0);
          await transactor.put('n', String(value + 1));
        });
      }
    }),
  );
  assert.equal((await new RawStore(engines[0]!).get('n')).get('n'), '100');
});

test('given two hosts that take numbers of one counter, when one forgets it meanwhile, then no number is used twice', async (t) => {
  const engines = await hosts(t);
  const counter = key('snapshotters', 'ns', 'native');
  for (let round = 0; round < 3; round++) {
    const used: number[] = [];
    await Promise.all(
      engines.map(async (engine) => {
        for (let i = 0; i < 40; i++) {
          await engine.update((tx) => {
            const number = tx.next(counter);
            tx.put(key('images', `r${round}`, `${number}`), {});
            tx.onCommit(() => used.push(number));
          });
        }
      }),
    );
    assert.equal(new Set(used).size, 80);
    await engines[round % 2]!.update((tx) => tx.dropCounters(key('snapshotters', 'ns')));
    const other = engines[(round + 1) % 2]!;
    await other.confirm();
    assert.equal(await other.update((tx) => tx.next(counter)), 1);
  }
});
