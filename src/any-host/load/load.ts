/**
 * Loads the records of a containerd's `meta.db` into a memory engine, so that everything that reads engines
 * and the graph works on them. Called by store.ts. The engine has the state of one moment, and is private
 * from then on.
 *
 * Many records are read by two threads, which have batches of leaf pages in turns, and are put together in the order of the file, so
 * that the result is that of one thread.
 */
import { Bucket, rootBucket } from '../../bolt/bucket.js';
import { type BoltSnapshot, readBolt } from '../../bolt/snapshot.js';
import type { Engine } from '../../engine/contract.js';
import { openFilledEngine } from '../../engine/memory/engine.js';
import type { Filling } from '../../engine/memory/filling.js';
import { metaKey } from '../../engine/schema/keys.js';
import { SCHEMA_REVISION } from '../../engine/schema/legacy.js';
import { throwIfAborted } from '../../errors.js';
import { createGraph } from '../../graph/carriers.js';
import { inTurns, type Steps } from '../../system/turns.js';
import { FIELD_BYTES_MAX } from '../fields.js';
import { indexerOf } from './indexers.js';
import { ROUND, SecondLane } from './lanes.js';
import { doubtAbout, type RecordSink, readRecords, revisionOf } from './records.js';

export interface Loaded {
  readonly engine: Engine;
  /** Revision of containerd's tree. */
  readonly revision: number;
  readonly transaction: bigint;
  /** What could not be read. */
  readonly complaints: readonly string[];
}

export interface LoadOptions {
  readonly signal?: AbortSignal | undefined;
  /** With less pages one thread reads them. */
  readonly pagesForTwo?: number;
}

/** Of less than some 400,000 records, a second thread takes longer to begin, and to pass on what it read, than what it saves. */
const PAGES_FOR_TWO = 400_000;

/** Throws as `readBolt` and `doubtAbout`; BoltDamage where the tree cannot be followed. */
export async function loadMetadata(path: string, options: LoadOptions = {}): Promise<Loaded> {
  const { signal, pagesForTwo = PAGES_FOR_TWO } = options;
  const snapshot = await readBolt(path, { signal, valueBytesMax: FIELD_BYTES_MAX });
  const root = rootBucket(snapshot);
  const revision = revisionOf(root);
  const doubt = doubtAbout(root, path);
  const load = async (fill: Fill): Promise<Loaded> => {
    const complaints = doubt === undefined ? [] : [doubt];
    const engine = await openFilledEngine(
      { indexer: indexerOf(revision), graph: createGraph() },
      (filling) => {
        filling.record(metaKey('version'), { version: SCHEMA_REVISION });
        return fill(snapshot, revision, filling, complaints, signal);
      },
    );
    return { engine, revision, transaction: snapshot.meta.transaction, complaints };
  };
  if (snapshot.pages.slots >= pagesForTwo)
    try {
      return await load(fillByTwo);
    } catch {
      // Damage, or no thread can start: what one thread says of it counts.
      throwIfAborted(signal);
    }
  return await load(fillAlone);
}

type Fill = (
  snapshot: BoltSnapshot,
  revision: number,
  filling: Filling,
  complaints: string[],
  signal: AbortSignal | undefined,
) => Promise<void>;

const sinkOf = (filling: Filling, complaints: string[]): RecordSink => ({
  record: (key, value) => filling.record(key, value),
  link: (from, relation, to) => filling.link(from, relation, to),
  complain: (what) => complaints.push(what),
});

const fillAlone: Fill = (snapshot, _revision, filling, complaints, signal) =>
  inTurns(readRecords(rootBucket(snapshot), sinkOf(filling, complaints)), signal);

const fillByTwo: Fill = async ({ pages, meta }, revision, filling, complaints, signal) => {
  const entered = new Uint8Array(new SharedArrayBuffer(pages.slots));
  await using second = new SecondLane({ pages: pages.share(), root: meta.root, revision, entered });
  const first = Bucket.root(pages, meta.root, { ...ROUND, isFirst: true, entered });
  const take = async (): Promise<boolean> => {
    const batch = await second.next();
    if (batch === undefined) return false;
    filling.take(batch.part);
    for (const complaint of batch.complaints) complaints.push(complaint);
    return true;
  };
  function* steps(): Steps {
    let leaves = 0;
    for (const step of readRecords(first, sinkOf(filling, complaints)))
      yield ++leaves % ROUND.first === 0 ? take() : step;
  }
  await inTurns(steps(), signal);
  while (await take()) throwIfAborted(signal);
};
