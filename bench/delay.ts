/**
 * Delay of writers, before and during one collection. Each kind of write arrives at a fixed rate, one after
 * another; its delay counts from when it was due, so that what queues up after a stall is charged for its wait.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Operations } from './operations.js';
import type { Delays, Target, WriteKind } from './results.js';
import { openStore } from './store.js';

interface Arrival {
  due: number;
  took: number;
}

export async function delay(
  dir: string,
  targets: readonly Target[],
  rate: number,
  leadMs: number,
): Promise<Delays> {
  const { db } = await openStore(dir);
  const ops = new Operations(db, targets);
  let stopAt = Number.POSITIVE_INFINITY;
  const arrivals = async (op: (i: number) => Promise<void>): Promise<Arrival[]> => {
    const list: Arrival[] = [];
    let due = performance.now();
    for (let i = 0; ; i++) {
      due += 1000 / rate;
      for (let wait = due - performance.now(); wait > 0; wait = due - performance.now()) await sleep(wait);
      if (due > stopAt) return list;
      await op(i);
      list.push({ due, took: performance.now() - due });
    }
  };
  const writers = {
    imageCreate: arrivals((i) => ops.imageCreate(i)),
    leaseCreate: arrivals(() => ops.leaseCreate()),
    labelUpdate: arrivals((i) => ops.labelUpdate(i)),
  };
  await sleep(leadMs);
  const start = performance.now();
  const stats = await db.garbageCollect();
  const end = performance.now();
  // A collection may be over before the next arrival is due.
  stopAt = Math.max(end, start + 2000 / rate);
  const delays = {} as Delays['delays'];
  for (const [kind, writer] of Object.entries(writers)) {
    const list = await writer;
    delays[kind as WriteKind] = {
      without: list.filter((a) => a.due + a.took < start).map((a) => a.took),
      with: list.filter((a) => a.due >= start).map((a) => a.took),
    };
  }
  await db.close();
  return { collectionMs: end - start, lockedMs: stats.pauseMax, delays };
}
