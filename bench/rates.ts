/** Operations per second, by tinybench; the counts are those that the peer is given. */
import { Bench } from 'tinybench';
import { type CallContext, withTransactionContext } from '../src/context.js';
import { indexMediaType } from '../src/synth/records.js';
import { Operations } from './operations.js';
import type { Rates, Target } from './results.js';
import { type BenchStore, openStore } from './store.js';

/** Operations of one iteration of a fast read, so that tinybench's own clock does not count. */
const READS_PER_ITERATION = 500;
/** Reads for each write: a second or two of them, so that the first tenth, before they are compiled, does not decide. */
const READS = 500;
const LISTED = 10_000;
const CALLERS = 64;
const READERS = 8;
/** Writes of a crowd for each one of a single caller: enough that what is written after them counts as well. */
const CROWD = 16;

/** Operations per second of `op`, which is `batch` operations at once, done `iterations` times. */
export async function perSecond(
  name: string,
  iterations: number,
  batch: number,
  op: (i: number) => Promise<unknown>,
): Promise<number> {
  let i = 0;
  const bench = new Bench({ time: 0, iterations, warmup: false, throws: true });
  // Said, so that it is not tried out: the trial would run beside what is measured.
  bench.add(name, () => op(i++), { async: true });
  const [task] = await bench.run();
  const result = task?.result;
  if (result?.state !== 'completed') throw new Error(`${name} did not complete`);
  return (iterations * batch * 1000) / result.totalTime;
}

const inTurn =
  (op: (i: number) => Promise<void>) =>
  async (iteration: number): Promise<void> => {
    const start = iteration * READS_PER_ITERATION;
    for (let i = start; i < start + READS_PER_ITERATION; i++) await op(i);
  };

/** `count` operations by callers of whom each goes on as soon as its last one is done. */
export async function crowd(count: number, callers: number, op: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const caller = async (): Promise<void> => {
    while (next < count) await op(next++);
  };
  await Promise.all(Array.from({ length: callers }, caller));
}

export async function rates(dir: string, targets: readonly Target[], count: number): Promise<Rates> {
  const store = await openStore(dir);
  const { db, visible } = store;
  const ops = new Operations(db, targets);
  const reads = Math.ceil((count * READS) / READS_PER_ITERATION);
  const crowded = (name: string): Promise<number> =>
    perSecond(name, 1, count * CROWD, () => crowd(count * CROWD, CALLERS, create));
  const read = (name: string, op: (i: number) => Promise<void>): Promise<number> =>
    perSecond(name, reads, READS_PER_ITERATION, inTurn(op));
  const readers = (name: string, op: (i: number) => Promise<void>): Promise<number> =>
    perSecond(name, 1, count * READS, () => crowd(count * READS, READERS, op));
  const write = (name: string, op: (i: number) => Promise<void>): Promise<number> =>
    perSecond(name, count, 1, op);
  const create = (i: number): Promise<void> => ops.imageCreate(i);
  const before = {
    imageGet1: await read('imageGet1', (i) => ops.imageGet(i)),
    imageGet8: await readers('imageGet8', (i) => ops.imageGet(i)),
    contentInfo1: await read('contentInfo1', (i) => ops.contentInfo(i)),
    contentInfo8: await readers('contentInfo8', (i) => ops.contentInfo(i)),
    imageGetKept: await read('imageGetKept', (i) => ops.imageGetKept(i)),
    contentInfoKept: await read('contentInfoKept', (i) => ops.contentInfoKept(i)),
    imageCreate1: await write('imageCreate1', create),
    imageCreate64: await crowded('imageCreate64'),
    leaseCreate1: await write('leaseCreate1', () => ops.leaseCreate()),
    labelUpdate1: await write('labelUpdate1', (i) => ops.labelUpdate(i)),
    imageCreateVisible: await perSecond('imageCreateVisible', count * 4, 1, (i) =>
      ops.imageCreate(i, visible),
    ),
    imageList10k: await listRate(store, ops),
  };
  await collectManyTimes(store, ops);
  const after = {
    imageCreate1Collected: await write('imageCreate1Collected', create),
    imageCreate64Collected: await crowded('imageCreate64Collected'),
  };
  await db.close();
  return { ...before, ...after };
}

/** How often a second all of 10,000 images can be listed. */
async function listRate({ db }: BenchStore, ops: Operations): Promise<number> {
  const ctx: CallContext = { namespace: 'listed' };
  await db.update(async (tx) => {
    const inside = withTransactionContext(ctx, tx);
    for (let i = 0; i < LISTED; i++) {
      await db.images.create(inside, {
        name: `registry.example.com/listed/app-${String(i).padStart(5, '0')}:latest`,
        target: { mediaType: indexMediaType, digest: ops.at(i).index, size: 1400 },
        labels: { 'io.cri-containerd.image': 'managed' },
      });
    }
  });
  return perSecond('imageList10k', 20, 1, async () => {
    const images = await db.images.list(ctx);
    if (images.length !== LISTED) throw new Error(`listed ${images.length} images`);
  });
}

/** Six collections with deletions between them: what later writes meet. */
async function collectManyTimes({ db }: BenchStore, ops: Operations): Promise<void> {
  const part = Math.floor(ops.targets.length / 20);
  for (let round = 0; round < 5; round++) {
    await db.garbageCollect();
    for (const { image } of ops.targets.slice(round * part, (round + 1) * part)) {
      await db.images.delete(ops.ctx, image);
    }
  }
  await db.garbageCollect();
}
