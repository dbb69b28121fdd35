/** Contract suite: isolation, conflicts, repeated runs, effects, counters. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { failedPrecondition, notFound } from '../../errors.js';
import type { Engine, Key, Reader, Transaction } from '../contract.js';
import { key } from '../schema/keys.js';
import { assertKind, type EngineUnderTest, gate, keysBelow, meanwhile, putAll } from './support.js';

type Test = (subject: EngineUnderTest, t: TestContext) => Promise<void>;

const image = (name: string): Key => key('images', 'ns', name);
const tick = () => new Promise((resolve) => setImmediate(resolve));

function numberAt(reader: Pick<Reader, 'get'>, k: Key): number {
  const value = reader.get(k);
  return typeof value === 'object' && typeof value.size === 'number' ? value.size : 0;
}

export const transactions: Record<string, Test> = {
  'given a transaction, when it writes, then it sees its own writes and others see them at once after it [#231]':
    async ({ engine }) => {
      await putAll(engine, [
        [image('a'), 'old'],
        [image('c'), 'old'],
      ]);
      const before = engine.revision;
      await engine.update(async (tx) => {
        tx.put(image('b'), 'new');
        assert.equal(tx.delete(image('c')), true);
        assert.equal(tx.delete(image('nothing')), false);
        await tick();
        assert.deepEqual(
          [...tx.scan('images')],
          [
            [image('a'), 'old'],
            [image('b'), 'new'],
          ],
        );
        assert.equal(tx.get(image('c')), undefined);
        assert.equal(tx.has(image('b')), true);
        assert.deepEqual(keysBelow(engine, 'images'), [image('a'), image('c')]);
      });
      assert.deepEqual(keysBelow(engine, 'images'), [image('a'), image('b')]);
      assert.equal(engine.revision, before + 1);
    },

  'given a failing body, when it ends, then its error passes through and nothing is stored': async ({
    engine,
  }) => {
    const failure = notFound('on purpose');
    await assert.rejects(
      engine.update(async (tx) => {
        tx.put(image('a'), 'v');
        tx.link(image('a'), 'holds', image('b'));
        await tick();
        throw failure;
      }),
      (error) => error === failure,
    );
    assert.equal(engine.get(image('a')), undefined);
    assert.equal(engine.revision, 0);
    assert.equal(engine.isReferenced(image('b')), false);
  },

  'given a view, when others commit, then it keeps its revision': async ({ engine }) => {
    await putAll(engine, [
      [image('a'), 'old'],
      [image('b'), 'old'],
    ]);
    await engine.update((tx) => void tx.link(image('a'), 'children', image('b')));
    await engine.view(async (tx) => {
      const revision = tx.revision;
      const scan = tx.scan('images')[Symbol.iterator]();
      assert.deepEqual(scan.next().value, [image('a'), 'old']);
      await meanwhile(engine, (other) => {
        other.put(image('a'), 'new');
        other.delete(image('b'));
        other.put(image('c'), 'new');
        other.unlink(image('a'), 'children', image('b'));
        other.link(image('a'), 'children', image('c'));
      });
      await meanwhile(engine, (other) => {
        other.put(image('b'), 'again');
      });
      assert.equal(tx.revision, revision);
      assert.equal(tx.get(image('a')), 'old');
      assert.equal(tx.has(image('c')), false);
      assert.deepEqual(scan.next().value, [image('b'), 'old']);
      assert.equal(scan.next().done, true);
      assert.deepEqual([...tx.links(image('a'), 'children')], [image('b')]);
      assert.equal(tx.hasLink(image('a'), 'children', image('c')), false);
      assert.deepEqual(
        [...tx.scan('images')],
        [
          [image('a'), 'old'],
          [image('b'), 'old'],
        ],
      );
    });
    assert.deepEqual([...engine.links(image('a'), 'children')], [image('c')]);
    assert.equal(engine.get(image('b')), 'again');
  },

  'given a view of many records, when records change all around the scan, then it sees its revision': async ({
    engine,
  }) => {
    const names = Array.from({ length: 300 }, (_, i) => image(`n${String(i).padStart(4, '0')}`));
    await putAll(
      engine,
      names.map((name) => [name, 'old'] as const),
    );
    await engine.view(async (tx) => {
      const seen: Key[] = [];
      for (const [k, value] of tx.scan('images')) {
        assert.equal(value, 'old');
        seen.push(k);
        if (seen.length % 50 !== 1) continue;
        await meanwhile(engine, (other) => {
          for (const [i, name] of names.entries()) {
            if (i % 7 !== seen.length % 7) continue;
            if (i % 2 === 0) other.delete(name);
            else other.put(name, 'new');
            other.put(image(`x${seen.length}-${i}`), 'new');
          }
        });
      }
      assert.deepEqual(seen, names);
    });
  },

  'given a view, when it is written to, then FailedPrecondition [#230]': async ({ engine }) => {
    const writes: ((tx: Transaction) => unknown)[] = [
      (tx) => tx.put(image('a'), 'v'),
      (tx) => tx.delete(image('a')),
      (tx) => tx.link(image('a'), 'holds', image('b')),
      (tx) => tx.unlink(image('a'), 'holds', image('b')),
      (tx) => tx.next(key('meta', 'n')),
      (tx) => tx.dropCounters(key('meta', 'n')),
    ];
    for (const write of writes) {
      await assert.rejects(
        engine.view((tx) => {
          assert.equal(tx.writable, false);
          write(tx);
        }),
        assertKind('FailedPrecondition'),
      );
    }
  },

  'given an ended transaction, when it is used, then FailedPrecondition': async ({ engine }) => {
    let kept: Transaction | undefined;
    await engine.update((tx) => {
      kept = tx;
      tx.put(image('a'), 'v');
    });
    assert.throws(() => kept?.get(image('a')), assertKind('FailedPrecondition'));
    assert.throws(() => kept?.put(image('a'), 'v'), assertKind('FailedPrecondition'));
    assert.throws(() => [...(kept?.scan('images') ?? [])], assertKind('FailedPrecondition'));
  },

  'given a key that another commit changed, when a transaction that read it commits, then it runs again':
    async ({ engine }) => {
      await putAll(engine, [[image('a'), { size: 1 }]]);
      const attempts: number[] = [];
      await engine.update(async (tx) => {
        attempts.push(tx.attempt);
        const size = numberAt(tx, image('a'));
        if (tx.attempt === 1) {
          await meanwhile(engine, (other) => other.put(image('a'), { size: 10 }));
        }
        tx.put(image('a'), { size: size + 1 });
      });
      assert.deepEqual(attempts, [1, 2]);
      assert.equal(numberAt(engine, image('a')), 11);
    },

  'given a prefix that gained a record, when a transaction that scanned it commits, then it runs again':
    async ({ engine }) => {
      const counts: number[] = [];
      await engine.update(async (tx) => {
        counts.push(keysBelow(tx, 'images').length);
        if (tx.attempt === 1) await meanwhile(engine, (other) => other.put(image('phantom'), 'v'));
        tx.put(key('containers', 'ns', 'c'), { size: counts.length });
      });
      assert.deepEqual(counts, [0, 1]);
    },

  'given links that changed, when a transaction that read them commits, then it runs again': async ({
    engine,
  }) => {
    const seen: boolean[] = [];
    await engine.update(async (tx) => {
      seen.push(tx.hasLinks(image('a'), 'children'));
      if (tx.attempt === 1) {
        await meanwhile(engine, (other) => void other.link(image('a'), 'children', image('b')));
      }
      tx.put(image('x'), 'v');
    });
    assert.deepEqual(seen, [false, true]);
  },

  'given changes it never read, when a transaction commits, then it does not run again': async ({
    engine,
  }) => {
    let runs = 0;
    await engine.update(async (tx) => {
      runs++;
      tx.get(image('a'));
      keysBelow(tx, key('images', 'other'));
      await meanwhile(engine, (other) => {
        other.put(image('b'), 'v');
        other.link(image('b'), 'holds', image('a'));
      });
      tx.put(image('c'), 'v');
    });
    assert.equal(runs, 1);
  },

  'given two transactions that each read what the other writes, when both commit, then one of them sees the other':
    async ({ engine }) => {
      const both = gate();
      let reading = 0;
      const guard = (mine: Key, other: Key) =>
        engine.update(async (tx) => {
          const free = !tx.has(other);
          if (++reading === 2) both.open();
          await both.opened;
          if (free) tx.put(mine, 'taken');
        });
      await Promise.all([guard(image('a'), image('b')), guard(image('b'), image('a'))]);
      assert.equal(keysBelow(engine, 'images').length, 1);
    },

  'given 64 callers that increment one number, when all are done, then none was lost': async ({ engine }) => {
    const increment = (waits: boolean) =>
      engine.update(
        waits
          ? async (tx) => {
              const size = numberAt(tx, image('n'));
              await tick();
              tx.put(image('n'), { size: size + 1 });
            }
          : (tx) => tx.put(image('n'), { size: numberAt(tx, image('n')) + 1 }),
      );
    await Promise.all(Array.from({ length: 64 }, (_, i) => increment(i % 2 === 0)));
    assert.equal(numberAt(engine, image('n')), 64);
  },

  'given constant conflicts, when a transaction has lost four times, then it runs alone and ends': async ({
    engine,
  }) => {
    let stop = false;
    let rivals = 0;
    const rival = (async () => {
      while (!stop) {
        await engine.update((tx) => tx.put(image('hot'), { size: ++rivals }), { durability: 'visible' });
        await tick();
      }
    })();
    let attempts = 0;
    await engine.update(async (tx) => {
      attempts = tx.attempt;
      tx.get(image('hot'));
      for (let i = 0; i < 20; i++) await tick();
      tx.put(image('done'), 'v');
    });
    stop = true;
    await rival;
    assert.ok(attempts >= 2 && attempts <= 6, `${attempts} attempts`);
    assert.ok(rivals > 5, `${rivals} rivals`);
  },

  'given a transaction alone that waits for a commit of another, when its time is up, then both end': async ({
    engine,
  }) => {
    await engine.update(async (tx) => {
      tx.get(image('a'));
      if (tx.attempt < 5) {
        await meanwhile(engine, (other) => other.put(image('a'), { size: tx.attempt }));
      } else if (tx.attempt === 5) {
        // Blocked until the privilege lapses: nothing may hang.
        await meanwhile(engine, (other) => other.put(image('b'), 'v'));
      }
      tx.put(image('c'), 'v');
    });
    assert.deepEqual(keysBelow(engine, 'images'), [image('a'), image('b'), image('c')]);
  },

  'given an error that came of stale reads, when the body fails, then it runs again instead': async ({
    engine,
  }) => {
    let runs = 0;
    await engine.update(async (tx) => {
      runs++;
      const present = tx.has(image('a'));
      if (tx.attempt === 1) await meanwhile(engine, (other) => other.put(image('a'), 'v'));
      if (!present) throw failedPrecondition('a is missing');
      tx.put(image('b'), 'v');
    });
    assert.equal(runs, 2);
  },

  'given an effect, when its transaction runs twice, then it ran once and its result was kept': async ({
    engine,
  }) => {
    let effects = 0;
    const results: number[] = [];
    await engine.update(async (tx) => {
      tx.get(image('a'));
      results.push(await tx.once('prepare', async () => ++effects));
      await assert.rejects(
        tx.once('bad', () => Promise.reject(notFound(`failure ${++effects}`))),
        /failure 2/,
      );
      if (tx.attempt === 1) await meanwhile(engine, (other) => other.put(image('a'), 'v'));
      tx.put(image('b'), 'v');
    });
    assert.deepEqual([effects, results], [2, [1, 1]]);
  },

  'given effects with undo, when the transaction fails, then they are undone last first; else never': async ({
    engine,
  }) => {
    const undone: string[] = [];
    const body = (fail: boolean) => async (tx: Transaction) => {
      for (const name of ['one', 'two']) {
        await tx.once(
          name,
          async () => name,
          async (result) => void undone.push(result),
        );
      }
      if (fail) throw failedPrecondition('on purpose');
    };
    await engine.update(body(false));
    assert.deepEqual(undone, []);
    await assert.rejects(engine.update(body(true)), assertKind('FailedPrecondition'));
    assert.deepEqual(undone, ['two', 'one']);
  },

  'given hooks, when a transaction commits at its second run, then only that run’s hooks ran': async ({
    engine,
  }) => {
    const ran: string[] = [];
    await engine.update(async (tx) => {
      tx.onCommit(() => void ran.push(`run ${tx.attempt}: ${engine.has(image('b'))}`));
      tx.get(image('a'));
      if (tx.attempt === 1) await meanwhile(engine, (other) => other.put(image('a'), 'v'));
      tx.put(image('b'), 'v');
    });
    assert.deepEqual(ran, ['run 2: true']);
    await assert.rejects(
      engine.update((tx) => {
        tx.onCommit(() => void ran.push('failed'));
        throw notFound('on purpose');
      }),
    );
    assert.equal(ran.length, 1);
  },

  'given an ended signal, when an update begins or its body ends, then it fails with the signal’s error':
    async ({ engine }) => {
      await assert.rejects(
        engine.update((tx) => tx.put(image('a'), 'v'), { signal: AbortSignal.abort() }),
        assertKind('Canceled'),
      );
      const control = new AbortController();
      await assert.rejects(
        engine.update(
          async (tx) => {
            tx.put(image('a'), 'v');
            control.abort();
            await tick();
          },
          { signal: control.signal },
        ),
        assertKind('Canceled'),
      );
      assert.equal(engine.has(image('a')), false);
    },

  'given counters, when transactions fail or conflict, then no number is handed out twice': async ({
    engine,
    reopen,
  }) => {
    const counter = key('snapshotters', 'ns', 'native');
    const handedOut: number[] = [];
    await assert.rejects(
      engine.update((tx) => {
        handedOut.push(tx.next(counter));
        throw notFound('on purpose');
      }),
    );
    await Promise.all(
      Array.from({ length: 20 }, () =>
        engine.update(async (tx) => {
          handedOut.push(tx.next(counter));
          await tick();
          assert.equal(tx.attempt, 1);
        }),
      ),
    );
    assert.deepEqual(
      [...handedOut].sort((a, b) => a - b),
      Array.from({ length: 21 }, (_, i) => i + 1),
    );
    const again = (await reopen?.()) ?? engine;
    assert.equal(await again.update((tx) => tx.next(counter)), 22);
    await again.update((tx) => {
      tx.next(key('snapshotters', 'nsx', 'native'));
      tx.dropCounters(key('snapshotters', 'ns'));
    });
    assert.equal(await again.update((tx) => tx.next(counter)), 1);
    assert.equal(await again.update((tx) => tx.next(key('snapshotters', 'nsx', 'native'))), 2);
  },

  'given a closed engine, when anything is asked of it, then FailedPrecondition [#241]': async ({
    engine,
  }) => {
    await putAll(engine, [[image('a'), 'v']]);
    await engine.close();
    await engine.close();
    assert.throws(() => engine.get(image('a')), assertKind('FailedPrecondition'));
    assert.throws(() => [...engine.scan('images')], assertKind('FailedPrecondition'));
    await assert.rejects(
      engine.update(() => 1),
      /store is closed/,
    );
    await assert.rejects(
      engine.view(() => 1),
      /store is closed/,
    );
    await assert.rejects(engine.locks.lock('a'), assertKind('FailedPrecondition'));
  },

  'given a transaction under way, when the engine closes, then it fails and stores nothing': async ({
    engine,
    reopen,
  }) => {
    const closed = gate();
    const update = engine.update(async (tx) => {
      tx.put(image('a'), 'v');
      await closed.opened;
    });
    const closing: Promise<Engine | undefined> =
      reopen === undefined ? engine.close().then(() => undefined) : reopen();
    closed.open();
    await assert.rejects(update, /store is closed/);
    const again = await closing;
    if (again !== undefined) assert.equal(again.has(image('a')), false);
  },
};
