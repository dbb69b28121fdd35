/**
 * Loads a synthetic store: the records, keys and links that the stores themselves would write, in large
 * transactions. Called by `ebbtide synth`, the benchmarks and tests. Blobs and snapshots have no bytes in any
 * backend, so such a store is for measuring and trying out, not for running containers.
 *
 * Durability: on disk when the promise resolves. A load that fails or is aborted leaves a part of the store.
 */
import type { Engine, Transaction } from '../engine/contract.js';
import {
  blobKey,
  containerKey,
  imageKey,
  ingestKey,
  key,
  leaf,
  leaseKey,
  namespaceKey,
  Relation,
  snapshotKey,
  snapshotterKey,
} from '../engine/schema/keys.js';
import { failedPrecondition, throwIfAborted } from '../errors.js';
import { Label } from '../model/labels.js';
import type {
  BlobRecord,
  ContainerRecord,
  ImageRecord,
  IngestRecord,
  LeaseRecord,
  SnapshotRecord,
  StringMap,
} from '../model/records.js';
import { formatSeconds, type Instant, now } from '../model/time.js';
import { putRecord } from '../stores/common.js';
import { indexMediaType, runtimeName, type SynthRecord, snapshotterName, synthRecords } from './records.js';
import { runtimeSpec, runtimeSpecType } from './runtime-spec.js';
import { type Counts, noRecords, type Plan, sum } from './shape.js';

export interface LoadOptions {
  /** The instant that ages and expiries are relative to; default now. */
  at?: Instant;
  signal?: AbortSignal | undefined;
  /** Called after each transaction with the number of records loaded so far, and the total of the plan. */
  progress?: (loaded: number, total: number) => void;
}

/** Large enough that the cost of a commit does not matter, small enough to keep the process responsive. */
const RECORDS_PER_TRANSACTION = 1000;
const NANOS_PER_MS = 1_000_000n;

type Of<K extends SynthRecord['kind']> = Extract<SynthRecord, { kind: K }>;

/**
 * Writes all records of the plan. Returns the number of each kind. FailedPrecondition when there is a namespace: nobody could tell its
 * records from these.
 */
export async function loadSynth(engine: Engine, plan: Plan, options: LoadOptions = {}): Promise<Counts> {
  const used = engine.firstKey(key('namespaces'), undefined);
  if (used !== undefined) {
    throw failedPrecondition(`the store is not empty: it has the namespace "${leaf(used)}"`, {
      object: leaf(used),
      remedy: 'create a synthetic store in its own directory',
    });
  }
  const at = options.at ?? now();
  const counts: Counts = { ...noRecords };
  const total = sum(plan.counts);
  const records = synthRecords(plan);
  let underWay = Promise.resolve();
  for (let more = true; more; ) {
    throwIfAborted(options.signal);
    // Taken from the generator before the transaction, because its body may run more than once.
    const batch: SynthRecord[] = [];
    while (batch.length < RECORDS_PER_TRANSACTION) {
      const next = records.next();
      if (next.done) break;
      batch.push(next.value);
    }
    more = batch.length === RECORDS_PER_TRANSACTION;
    const commit = engine.update((tx) => {
      for (const record of batch) write(tx, record, at);
    });
    commit.catch(() => undefined); // Awaited below; a rejection before that must not end the process.
    // The next batch is prepared while this one goes to the disk; no more than that is in memory.
    await underWay;
    underWay = commit;
    for (const { kind } of batch) if (kind !== 'namespace') counts[`${kind}s`]++;
    options.progress?.(sum(counts), total);
  }
  await underWay;
  return counts;
}

function write(tx: Transaction, record: SynthRecord, at: Instant): void {
  switch (record.kind) {
    case 'namespace':
      putRecord(tx, namespaceKey(record.namespace), { labels: record.labels });
      break;
    case 'blob':
      writeBlob(tx, record, at);
      break;
    case 'snapshot':
      writeSnapshot(tx, record, at);
      break;
    case 'image':
      writeImage(tx, record, at);
      break;
    case 'container':
      writeContainer(tx, record, at);
      break;
    case 'ingest':
      writeIngest(tx, record, at);
      break;
    case 'lease':
      writeLease(tx, record, at);
      break;
  }
}

const before = (at: Instant, milliseconds: number): Instant => at - BigInt(milliseconds) * NANOS_PER_MS;

function timesOf(at: Instant, ago: number): { createdat: Instant; updatedat: Instant } {
  const created = before(at, ago);
  return { createdat: created, updatedat: created };
}

/** A record never has an empty map. */
const labelled = (labels: StringMap): { labels?: StringMap } =>
  Object.keys(labels).length === 0 ? {} : { labels };

function writeBlob(tx: Transaction, r: Of<'blob'>, at: Instant): void {
  putRecord<BlobRecord>(tx, blobKey(r.namespace, r.digest), {
    ...timesOf(at, r.createdMsAgo),
    size: r.sizeBytes,
    ...labelled(r.labels),
  });
}

function writeSnapshot(tx: Transaction, r: Of<'snapshot'>, at: Instant): void {
  const place = snapshotterKey(r.namespace, snapshotterName);
  if (!tx.has(place)) tx.put(place, {});
  const k = snapshotKey(r.namespace, snapshotterName, r.key);
  putRecord<SnapshotRecord>(tx, k, {
    ...timesOf(at, r.createdMsAgo),
    name: `${r.namespace}/${tx.next(place)}/${r.key}`,
    ...(r.parent !== '' && { parent: r.parent }),
    ...labelled(r.labels),
  });
  if (r.parent !== '') tx.link(snapshotKey(r.namespace, snapshotterName, r.parent), Relation.children, k);
}

function writeImage(tx: Transaction, r: Of<'image'>, at: Instant): void {
  putRecord<ImageRecord>(tx, imageKey(r.namespace, r.name), {
    ...timesOf(at, r.createdMsAgo),
    ...labelled(r.labels),
    target: { digest: r.digest, mediatype: indexMediaType, size: r.sizeBytes },
  });
}

function writeContainer(tx: Transaction, r: Of<'container'>, at: Instant): void {
  putRecord<ContainerRecord>(tx, containerKey(r.namespace, r.id), {
    ...timesOf(at, r.createdMsAgo),
    ...labelled(r.labels),
    spec: { typeUrl: runtimeSpecType, value: Buffer.from(runtimeSpec(r.id)) },
    image: r.image,
    snapshotter: snapshotterName,
    snapshotKey: r.id,
    sandboxid: '',
    runtime: { name: runtimeName },
  });
}

function writeIngest(tx: Transaction, r: Of<'ingest'>, at: Instant): void {
  putRecord<IngestRecord>(tx, ingestKey(r.namespace, r.ref), {
    ref: `${r.namespace}/1/${r.ref}`,
    expireat: before(at, -r.expiresInMs),
    expected: r.expected,
  });
}

function writeLease(tx: Transaction, r: Of<'lease'>, at: Instant): void {
  const k = leaseKey(r.namespace, r.id);
  putRecord<LeaseRecord>(tx, k, {
    createdat: before(at, r.createdMsAgo),
    labels: { [Label.gcExpire]: formatSeconds(before(at, -r.expiresInMs)) },
  });
  tx.link(k, Relation.holds, blobKey(r.namespace, r.content));
  tx.link(k, Relation.holds, snapshotKey(r.namespace, snapshotterName, r.snapshot));
}
