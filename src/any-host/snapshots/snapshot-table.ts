/**
 * What the `metadata.db` of a snapshotter says of its snapshots, by columns, without an object for each, because there may be a million. Called by
 * snapshotters.ts.
 *
 *   v1/snapshots/<name>   id, kind, parent, createdat, updatedat, labels, inodes, size
 */
import type { SnapshotInfo, SnapshotKind, Usage } from '../../backends/contract.js';
import { type Bucket, type Entry, rootBucket } from '../../bolt/bucket.js';
import { readBolt } from '../../bolt/snapshot.js';
import { ByteStore } from '../../engine/schema/bytes.js';
import { decodeValue, encodeInto } from '../../engine/schema/codec.js';
import { Growing } from '../../engine/schema/growing.js';
import { NameTable } from '../../engine/schema/name-table.js';
import { failedPrecondition } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import { type Instant, zeroTime } from '../../model/time.js';
import { inTurns, type Steps } from '../../system/turns.js';
import { type Complain, FIELD_BYTES_MAX, numberOf, textsOf, timeOf, unsignedOf } from '../fields.js';

const kinds: readonly (SnapshotKind | undefined)[] = [undefined, 'view', 'active', 'committed'];
const COMMITTED = 3;
const NO_LABELS = Object.freeze({});

/** What a time is that was not read, or does not fit in 64 bits. */
const NO_TIME = -(2n ** 63n);

export class SnapshotTable {
  readonly #names = new NameTable();
  #lastName: string | undefined;
  #lastPlace: number | undefined;
  /** The others by the number of a name. Of those in `#parentNames` 0 is none. */
  readonly #parents = new Growing(Uint32Array);
  readonly #parentNames = new NameTable();
  readonly #ids = new Growing(Float64Array);
  readonly #kinds = new Growing(Uint32Array);
  readonly #inodes = new Growing(Float64Array);
  readonly #sizes = new Growing(Float64Array);
  /** Created and updated, one after the other. */
  #times = new BigInt64Array(2048);
  /** Those that do not fit in 64 bits. */
  readonly #otherTimes = new Map<number, Instant>();
  /** Where they are in `#labelBytes`; -1 without some. */
  readonly #labels = new Growing(Float64Array);
  readonly #labelBytes = new ByteStore();

  constructor() {
    this.#parentNames.add('');
  }

  get size(): number {
    return this.#names.length;
  }

  /** The place of a name. Of the last one it is known: more is asked of it next. */
  find(name: string): number | undefined {
    if (name !== this.#lastName) {
      this.#lastPlace = this.#names.find(name);
      this.#lastName = name;
    }
    return this.#lastPlace;
  }

  idAt(place: number): number {
    return this.#ids.at(place);
  }

  kindAt(place: number): SnapshotKind {
    return kinds[this.#kinds.at(place)] ?? 'committed';
  }

  /** Computed at the commit. */
  usageAt(place: number): Usage {
    return { inodes: this.#inodes.at(place), size: this.#sizes.at(place) };
  }

  ids(): Float64Array {
    return this.#ids.take();
  }

  *[Symbol.iterator](): Generator<SnapshotInfo> {
    for (let place = 0; place < this.size; place++) yield this.at(place);
  }

  at(place: number): SnapshotInfo {
    return {
      kind: this.kindAt(place),
      name: this.#names.at(place),
      parent: this.#parentNames.at(this.#parents.at(place)),
      labels: this.#labelsAt(place),
      created: this.#time(2 * place),
      updated: this.#time(2 * place + 1),
    };
  }

  #labelsAt(place: number): StringMap {
    const at = this.#labels.at(place);
    // Texts are all that was put in.
    return at < 0 ? NO_LABELS : (decodeValue('', this.#labelBytes.at(at)) as StringMap);
  }

  #time(place: number): Instant {
    const time = this.#times[place] ?? NO_TIME;
    return time === NO_TIME ? (this.#otherTimes.get(place) ?? zeroTime) : time;
  }

  add(name: string, bucket: Bucket, complainOf: Complain): void {
    const place = this.#ids.length;
    // Only damage has a name twice: then the first one has it, and the directories of both are known.
    if (this.#names.add(name) !== place) this.#names.add(name, place);
    this.#parents.push(0);
    this.#ids.push(0);
    this.#kinds.push(COMMITTED);
    this.#inodes.push(0);
    this.#sizes.push(0);
    this.#labels.push(-1);
    this.#setTime(2 * place, NO_TIME);
    this.#setTime(2 * place + 1, NO_TIME);
    const complain = (what: string): void => complainOf(`snapshot "${name}": ${what}`);
    bucket.each((entry) => this.#take(place, entry, complain));
  }

  #take(place: number, entry: Entry, complain: Complain): void {
    switch (entry.key) {
      case 'id':
        this.#ids.set(place, unsignedOf(entry, complain));
        break;
      case 'kind':
        this.#kinds.set(place, entry.value[0] ?? 0);
        break;
      case 'parent':
        this.#parents.set(place, this.#parentNames.add(entry.text));
        break;
      case 'createdat':
        this.#setTime(2 * place, timeOf(entry, complain));
        break;
      case 'updatedat':
        this.#setTime(2 * place + 1, timeOf(entry, complain));
        break;
      case 'labels': {
        const labels = textsOf(entry.bucket);
        if (labels !== undefined) this.#labels.set(place, encodeInto(this.#labelBytes, '', labels));
        break;
      }
      case 'inodes':
        this.#inodes.set(place, numberOf(entry, complain));
        break;
      case 'size':
        this.#sizes.set(place, numberOf(entry, complain));
    }
  }

  #setTime(place: number, time: Instant): void {
    if (place >= this.#times.length) {
      const times = new BigInt64Array(2 * this.#times.length);
      times.set(this.#times);
      this.#times = times;
    }
    this.#times[place] = time;
    if (this.#times[place] === time) return;
    this.#times[place] = NO_TIME;
    this.#otherTimes.set(place, time);
  }
}

/** Throws as `readBolt` and `bucketIn`; BoltDamage where the tree cannot be followed. */
export async function readSnapshots(
  path: string,
  complain: Complain,
  signal?: AbortSignal,
): Promise<SnapshotTable> {
  const file = await readBolt(path, { signal, valueBytesMax: FIELD_BYTES_MAX });
  return await inTurns(snapshotsIn(rootBucket(file), complain), signal);
}

function* snapshotsIn(root: Bucket, complain: Complain): Steps<SnapshotTable> {
  const table = new SnapshotTable();
  yield* bucketIn(bucketIn(root, 'v1'), 'snapshots')?.inSteps(({ key, bucket }) => {
    if (bucket !== undefined) table.add(key, bucket, complain);
  }) ?? [];
  return table;
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
