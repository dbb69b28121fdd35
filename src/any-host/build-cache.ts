/**
 * What BuildKit knows of its cache, beside the records of containerd's code that it stores with: called by open.ts, for what lists
 * leases and snapshots, which have no names that people know.
 *
 *   metadata_v2.db   _main/<id>/<field>                  {"value": …}, an empty value for none
 *   cache.db         _byresult/<worker>::<id>/<step>     the steps of builds that have this result
 *
 * A cache record is kept by a lease of its id, or of the record that it is a frozen copy of; views of it and other compressions of
 * its blob have leases of their own.
 */
import { type Bucket, type Entry, rootBucket } from '../bolt/bucket.js';
import { readBolt } from '../bolt/snapshot.js';
import { throwIfAborted } from '../errors.js';
import type { Instant } from '../model/time.js';
import { messageOf } from '../system/system-errors.js';
import { inTurns } from '../system/turns.js';
import { type Complain, FIELD_BYTES_MAX } from './fields.js';
import type { Places } from './places.js';

export interface CacheRecord {
  id: string;
  /** `regular`, `source.local`, `exec.cachemount`, … */
  type: string;
  description: string;
  createdAt?: Instant;
  lastUsedAt?: Instant;
  usageCount: number;
  /** As BuildKit counted them last. */
  bytes?: number;
  parents: string[];
  /** Key of its snapshot. */
  snapshot: string;
  /** Digest. */
  blob?: string;
  isMutable: boolean;
  /** Steps of builds that have it as their result. */
  steps: number;
}

export interface BuildCache {
  readonly records: ReadonlyMap<string, CacheRecord>;
  /** By the lease that keeps it. */
  readonly byLease: ReadonlyMap<string, CacheRecord>;
}

/** Undefined without one, and when it cannot be read, which is reported. */
export async function readBuildCache(
  { buildCache }: Places,
  complain: Complain,
  signal?: AbortSignal,
): Promise<BuildCache | undefined> {
  if (buildCache === undefined) return undefined;
  try {
    const steps = new Map<string, number>();
    if (buildCache.steps !== undefined)
      await eachIn(buildCache.steps, '_byresult', signal, (entry) => {
        const [, id] = entry.key.split('::');
        let count = 0;
        entry.bucket?.each(() => count++);
        if (id !== undefined) steps.set(id, count);
      });
    const stored: Stored[] = [];
    await eachIn(buildCache.records, '_main', signal, (entry) => {
      const record = entry.bucket && recordOf(entry.key, entry.bucket, complain);
      if (record !== undefined) stored.push(record);
    });
    return cacheOf(stored, steps);
  } catch (error) {
    throwIfAborted(signal);
    complain(`what BuildKit knows of its cache cannot be read: ${messageOf(error)}`);
    return undefined;
  }
}

/** Entries of a bucket at the top of a file. */
async function eachIn(
  path: string,
  bucket: string,
  signal: AbortSignal | undefined,
  visit: (entry: Entry) => void,
): Promise<void> {
  const found: Bucket[] = [];
  rootBucket(await readBolt(path, { signal, valueBytesMax: FIELD_BYTES_MAX })).find(bucket, (entry) => {
    if (entry.bucket !== undefined) found.push(entry.bucket);
  });
  for (const one of found) await inTurns(one.inSteps(visit), signal);
}

interface Stored extends CacheRecord {
  isCommitted: boolean;
  isDeleted: boolean;
  /** What it is a frozen copy of. */
  equalMutable: string;
}

function recordOf(id: string, bucket: Bucket, complain: Complain): Stored {
  const record: Stored = {
    id,
    type: 'regular',
    description: '',
    usageCount: 0,
    parents: [],
    snapshot: '',
    isMutable: false,
    steps: 0,
    isCommitted: false,
    isDeleted: false,
    equalMutable: '',
  };
  bucket.each(({ key, isBucket, text }) => {
    const take = isBucket || text === '' ? undefined : FIELDS[key];
    try {
      take?.(record, fieldIn(text));
    } catch (error) {
      complain(`cache record ${id}: ${key}: ${messageOf(error)}`);
    }
  });
  return record;
}

type FieldValue = string | number | bigint | boolean | readonly string[] | undefined;

/** Times are nanoseconds, which are not exact numbers. */
function fieldIn(text: string): FieldValue {
  const [, number] = /^\{"value":(-?\d{1,19})[,}]/.exec(text) ?? [];
  if (number !== undefined) return BigInt(number);
  const { value } = JSON.parse(text) as { value?: unknown };
  if (typeof value === 'string' || typeof value === 'boolean') return value;
  return Array.isArray(value) ? value.map(String) : undefined;
}

const textIn = (value: FieldValue): string => (typeof value === 'string' ? value : '');
const numberIn = (value: FieldValue): number => (typeof value === 'bigint' ? Number(value) : 0);
const timeIn = (value: FieldValue): { at?: Instant } =>
  typeof value === 'bigint' && value > 0n ? { at: value } : {};

const FIELDS: Readonly<Record<string, (record: Stored, value: FieldValue) => void>> = {
  'cache.description': (record, value) => {
    record.description = textIn(value);
  },
  'cache.recordType': (record, value) => {
    record.type = textIn(value) || record.type;
  },
  'cache.createdAt': (record, value) => {
    const { at } = timeIn(value);
    if (at !== undefined) record.createdAt = at;
  },
  'cache.lastUsedAt': (record, value) => {
    const { at } = timeIn(value);
    if (at !== undefined) record.lastUsedAt = at;
  },
  'cache.usageCount': (record, value) => {
    record.usageCount = numberIn(value);
  },
  'snapshot.size': (record, value) => {
    // -1 until it is counted.
    if (numberIn(value) >= 0) record.bytes = numberIn(value);
  },
  'cache.parent': (record, value) => {
    if (textIn(value) !== '') record.parents.push(textIn(value));
  },
  'cache.mergeParents': (record, value) => {
    if (Array.isArray(value)) record.parents.push(...value);
  },
  'cache.lowerDiffParent': (record, value) => {
    if (textIn(value) !== '') record.parents.push(textIn(value));
  },
  'cache.upperDiffParent': (record, value) => {
    if (textIn(value) !== '') record.parents.push(textIn(value));
  },
  'cache.snapshot': (record, value) => {
    record.snapshot = textIn(value);
  },
  'cache.blob': (record, value) => {
    if (textIn(value) !== '') record.blob = textIn(value);
  },
  'cache.equalMutable': (record, value) => {
    record.equalMutable = textIn(value);
  },
  'snapshot.committed': (record, value) => {
    record.isCommitted = value === true;
  },
  'cache.deleted': (record, value) => {
    record.isDeleted = value === true;
  },
};

function cacheOf(stored: readonly Stored[], steps: ReadonlyMap<string, number>): BuildCache {
  const records = new Map<string, CacheRecord>();
  const byLease = new Map<string, CacheRecord>();
  const keep = (lease: string, record: CacheRecord): void => {
    if (!byLease.has(lease)) byLease.set(lease, record);
  };
  for (const { isCommitted, isDeleted, equalMutable, ...record } of stored) {
    if (isDeleted) continue;
    const { id } = record;
    const copied = equalMutable === '' ? id : equalMutable;
    const one = {
      ...record,
      snapshot: record.snapshot || copied,
      isMutable: !isCommitted,
      steps: steps.get(id) ?? 0,
    };
    records.set(id, one);
    // What has steps is what people look for.
    if (copied !== id) byLease.set(copied, one);
    for (const lease of [id, `${id}-view`, `${id}-variants`, `${one.snapshot}-view`]) keep(lease, one);
  }
  return { records, byLease };
}
