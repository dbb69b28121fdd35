/**
 * Loads the records of a containerd's `meta.db` into a memory engine, so that everything that reads engines
 * and the graph works on them. Called by store.ts. The engine has the state of one moment, and is private
 * from then on.
 */
import { rootBucket } from '../bolt/bucket.js';
import { readBolt } from '../bolt/snapshot.js';
import type { Engine, Indexer, Value } from '../engine/contract.js';
import { openMemoryEngine } from '../engine/memory/engine.js';
import { collectionOf, metaKey } from '../engine/schema/keys.js';
import { SCHEMA_REVISION } from '../engine/schema/legacy.js';
import { labelsOf, metadataIndexer } from '../gc/references.js';
import { createGraph } from '../graph/carriers.js';
import { Label } from '../model/labels.js';
import type { StringMap } from '../model/records.js';
import { inTurns } from '../system/turns.js';
import { FIELD_BYTES_MAX } from './fields.js';
import { doubtAbout, REVISION_OF_2, readRecords, revisionOf } from './records.js';

export interface Loaded {
  readonly engine: Engine;
  /** Revision of containerd's tree. */
  readonly revision: number;
  readonly transaction: bigint;
  /** What could not be read. */
  readonly complaints: readonly string[];
}

/** Throws as `readBolt` and `doubtAbout`; BoltDamage where the tree cannot be followed. */
export async function loadMetadata(path: string, signal?: AbortSignal): Promise<Loaded> {
  const snapshot = await readBolt(path, { signal, valueBytesMax: FIELD_BYTES_MAX });
  const root = rootBucket(snapshot);
  const revision = revisionOf(root);
  // A walk of its own: each enters a page once.
  const doubt = doubtAbout(rootBucket(snapshot), path);
  const complaints: string[] = doubt === undefined ? [] : [doubt];
  const engine = await openMemoryEngine(
    { indexer: revision < REVISION_OF_2 ? indexerOf1 : metadataIndexer, graph: createGraph() },
    async (filling) => {
      filling.record(metaKey('version'), { version: SCHEMA_REVISION });
      const steps = readRecords(root, {
        record: (key, value) => filling.record(key, value),
        link: (from, relation, to) => filling.link(from, relation, to),
        complain: (what) => complaints.push(what),
      });
      await inTurns(steps, signal);
    },
  );
  return { engine, revision, transaction: snapshot.meta.transaction, complaints };
}

/** Before 2.0 only its deletion ended an image, and labels of later collections mean nothing. */
const indexerOf1: Indexer = {
  ...metadataIndexer,
  node(key, value) {
    const node = metadataIndexer.node(key, withoutLaterLabels(value));
    return node !== undefined && collectionOf(key) === 'images' ? { ...node, expireAt: undefined } : node;
  },
};

function withoutLaterLabels(value: Value): Value {
  if (typeof value === 'string') return value;
  const labels = labelsOf(value) as StringMap;
  // Nearly no record has one.
  for (const name in labels)
    if (isLater(name)) {
      const known = Object.entries(labels).filter(([one]) => !isLater(one));
      return { ...value, labels: Object.fromEntries(known) };
    }
  return value;
}

/** Back references, conditions, and roots by more than the whole key. */
const isLater = (name: string): boolean =>
  name.startsWith(GC) && name !== Label.gcRoot && LATER.some((prefix) => name.startsWith(prefix));
const GC = 'containerd.io/gc.';
const LATER = [Label.gcRoot, `${Label.gcBref}.`, Label.gcCondSnapshot, Label.gcCondUsedat];
