/**
 * What the `metadata.db` of a snapshotter says of its snapshots, by columns, because there may be a million. Called by snapshotters.ts; a
 * large one is read by a thread of its own (snapshots-beside.ts).
 *
 *   v1/snapshots/<name>   id, kind, parent, createdat, updatedat, labels, inodes, size
 */
import type { SnapshotInfo, SnapshotKind, Usage } from '../../backends/contract.js';
import { type Bucket, type Entry, rootBucket } from '../../bolt/bucket.js';
import { readBolt } from '../../bolt/snapshot.js';
import { failedPrecondition } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import { type Instant, zeroTime } from '../../model/time.js';
import { inTurns, type Steps } from '../../system/turns.js';
import { type Complain, FIELD_BYTES_MAX, numberOf, textsOf, timeOf, unsignedOf } from '../fields.js';

export interface StoredSnapshot extends SnapshotInfo {
  readonly id: number;
  readonly usage: Usage;
}

/** Each by the place of a snapshot in `names`. */
export interface SnapshotColumns {
  readonly names: string[];
  readonly parents: string[];
  readonly ids: number[];
  readonly kinds: number[];
  readonly inodes: number[];
  readonly sizes: number[];
  /** Created and updated, one after the other; those that do not fit in 64 bits are in `otherTimes`. */
  readonly times: BigInt64Array<ArrayBuffer>;
  readonly otherTimes: Map<number, Instant>;
  /** Of those that have some. */
  readonly labels: Map<number, StringMap>;
}

const kinds: readonly (SnapshotKind | undefined)[] = [undefined, 'view', 'active', 'committed'];
const COMMITTED = 3;
const NO_LABELS = Object.freeze({});

export class SnapshotTable {
  readonly #columns: SnapshotColumns;
  readonly #places: Map<string, number>;

  constructor(columns: SnapshotColumns) {
    this.#columns = columns;
    this.#places = new Map(columns.names.map((name, place) => [name, place]));
  }

  get size(): number {
    return this.#places.size;
  }

  has(name: string): boolean {
    return this.#places.has(name);
  }

  get(name: string): StoredSnapshot | undefined {
    const place = this.#places.get(name);
    return place === undefined ? undefined : this.#at(place, name);
  }

  id(name: string): number | undefined {
    const place = this.#places.get(name);
    return place === undefined ? undefined : this.#columns.ids[place];
  }

  ids(): readonly number[] {
    return this.#columns.ids;
  }

  *[Symbol.iterator](): Generator<StoredSnapshot> {
    for (const [name, place] of this.#places) yield this.#at(place, name);
  }

  #at(place: number, name: string): StoredSnapshot {
    const { parents, ids, kinds: numbers, inodes, sizes, labels } = this.#columns;
    return {
      id: ids[place] ?? 0,
      kind: kinds[numbers[place] ?? COMMITTED] ?? 'committed',
      name,
      parent: parents[place] ?? '',
      labels: labels.get(place) ?? NO_LABELS,
      created: this.#time(2 * place),
      updated: this.#time(2 * place + 1),
      usage: { inodes: inodes[place] ?? 0, size: sizes[place] ?? 0 },
    };
  }

  #time(place: number): Instant {
    return this.#columns.otherTimes.get(place) ?? this.#columns.times[place] ?? zeroTime;
  }
}

/** Throws as `readBolt` and `bucketIn`; BoltDamage where the tree cannot be followed. */
export async function readSnapshotColumns(
  path: string,
  complain: Complain,
  signal?: AbortSignal,
): Promise<SnapshotColumns> {
  const file = await readBolt(path, { signal, valueBytesMax: FIELD_BYTES_MAX });
  return await inTurns(columnsIn(rootBucket(file), complain), signal);
}

function* columnsIn(root: Bucket, complain: Complain): Steps<SnapshotColumns> {
  const rows = new Rows(complain);
  yield* bucketIn(bucketIn(root, 'v1'), 'snapshots')?.inSteps(({ key, bucket }) => {
    if (bucket !== undefined) rows.add(key, bucket);
  }) ?? [];
  return rows.columns();
}

class Rows {
  readonly #names: string[] = [];
  readonly #parents: string[] = [];
  readonly #ids: number[] = [];
  readonly #kinds: number[] = [];
  readonly #inodes: number[] = [];
  readonly #sizes: number[] = [];
  readonly #times: Instant[] = [];
  readonly #labels = new Map<number, StringMap>();
  readonly #complain: Complain;

  constructor(complain: Complain) {
    this.#complain = complain;
  }

  add(name: string, bucket: Bucket): void {
    const place = this.#names.push(name) - 1;
    this.#parents.push('');
    this.#ids.push(0);
    this.#kinds.push(COMMITTED);
    this.#inodes.push(0);
    this.#sizes.push(0);
    this.#times.push(zeroTime, zeroTime);
    const complain = (what: string): void => this.#complain(`snapshot "${name}": ${what}`);
    bucket.each((entry) => this.#take(place, entry, complain));
  }

  #take(place: number, entry: Entry, complain: Complain): void {
    switch (entry.key) {
      case 'id':
        this.#ids[place] = unsignedOf(entry, complain);
        break;
      case 'kind':
        this.#kinds[place] = entry.value[0] ?? 0;
        break;
      case 'parent':
        this.#parents[place] = entry.text;
        break;
      case 'createdat':
        this.#times[2 * place] = timeOf(entry, complain);
        break;
      case 'updatedat':
        this.#times[2 * place + 1] = timeOf(entry, complain);
        break;
      case 'labels': {
        const labels = textsOf(entry.bucket);
        if (labels !== undefined) this.#labels.set(place, labels);
        break;
      }
      case 'inodes':
        this.#inodes[place] = numberOf(entry, complain);
        break;
      case 'size':
        this.#sizes[place] = numberOf(entry, complain);
    }
  }

  columns(): SnapshotColumns {
    const times = BigInt64Array.from(this.#times);
    const otherTimes = new Map<number, Instant>();
    for (const [place, time] of this.#times.entries()) if (times[place] !== time) otherTimes.set(place, time);
    const [names, parents, ids, kinds] = [this.#names, this.#parents, this.#ids, this.#kinds];
    const [inodes, sizes, labels] = [this.#inodes, this.#sizes, this.#labels];
    return { names, parents, ids, kinds, inodes, sizes, times, otherTimes, labels };
  }
}

/** Of a name that anything may be. */
const NAME_SHOWN = 40;

/**
 * Undefined in one that has nothing, as of a snapshotter that was never used. FailedPrecondition in one that has something else: another
 * layout, whose snapshots must not be taken for lost.
 */
function bucketIn(parent: Bucket | undefined, name: string): Bucket | undefined {
  let found: Bucket | undefined;
  let other: string | undefined;
  parent?.each(({ key, bucket }) => {
    if (key === name) found = bucket;
    else other ??= key;
  });
  if (found === undefined && other !== undefined)
    throw failedPrecondition(
      `its layout is not known: it has ${JSON.stringify(other.slice(0, NAME_SHOWN))}, and no "${name}"`,
    );
  return found;
}
