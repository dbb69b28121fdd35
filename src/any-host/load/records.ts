/**
 * Converts containerd's `meta.db` to records of our engine, in one walk of the file, in its order. Called by
 * load.ts. Knows the trees of containerd 1.0 to 2.x: sandboxes beside `v1` (before 2.0) and below it, ingests
 * as strings (before 1.2) and as buckets.
 *
 *   v1/version
 *   v1/<namespace>/labels | images | containers | sandboxes | leases
 *   v1/<namespace>/content/blob | ingests | ingest
 *   v1/<namespace>/snapshots/<snapshotter>
 *   <namespace>/sandboxes
 */
import type { Bucket, Entry } from '../../bolt/bucket.js';
import type { Key, Value } from '../../engine/contract.js';
import {
  blobKey,
  checkComponent,
  containerKey,
  imageKey,
  ingestKey,
  leaseKey,
  namespaceKey,
  Relation,
  sandboxKey,
  snapshotKey,
  snapshotterKey,
} from '../../engine/schema/keys.js';
import { SCHEMA } from '../../engine/schema/legacy.js';
import { failedPrecondition } from '../../errors.js';
import { Label } from '../../model/labels.js';
import type {
  Any,
  AnyMap,
  BlobRecord,
  ContainerRecord,
  ImageRecord,
  IngestRecord,
  LeaseRecord,
  RuntimeRecord,
  SandboxRecord,
  SnapshotRecord,
  StringMap,
} from '../../model/records.js';
import { type Instant, zeroTime } from '../../model/time.js';
import { decodeVarint } from '../../model/wire.js';
import { messageOf } from '../../system/system-errors.js';
import type { Steps } from '../../system/turns.js';
import { anyOf, anysOf, type Complain, NO_MESSAGE, numberOf, textsOf, timeOf } from '../fields.js';

export interface RecordSink {
  record(key: Key, value: Value): void;
  link(from: Key, relation: string, to: Key): void;
  /** Called with what cannot be converted to a record, or not completely. */
  complain(what: string): void;
}

/** Since this revision (2.0) images expire and sandboxes are below `v1`. */
export const REVISION_OF_2 = 4;

/** The revision of the tree; 0 if it has none. */
export function revisionOf(root: Bucket): number {
  let revision = 0;
  root.find(SCHEMA, (schema) =>
    schema.bucket?.find('version', (entry) => {
      try {
        revision = Number(decodeVarint(entry.value));
      } catch {
        revision = 0;
      }
    }),
  );
  return revision;
}

/** Of containerd 2.x, since 2.0. */
const REVISION_MAX = 4;
/** Of a name that anything may be. */
const NAME_SHOWN = 40;

/**
 * A sentence about what is expected to be read wrong: a revision that is later than those known here. FailedPrecondition for a tree that
 * is not containerd's, or of a schema that is not known: an empty one would be said to keep nothing.
 */
export function doubtAbout(root: Bucket, path: string): string | undefined {
  if (!root.find(SCHEMA, () => undefined)) {
    let first: string | undefined;
    root.each(({ key }) => {
      first ??= key;
    });
    // An owner that has just begun, or one before 1.0, has nothing.
    if (first === undefined) return undefined;
    throw failedPrecondition(
      `${path} is not laid out as containerd's: it has ${JSON.stringify(first.slice(0, NAME_SHOWN))}, and no "${SCHEMA}"`,
      {
        object: path,
        remedy:
          'name the root of a containerd; of a later one, take a newer ebbtide; if the name was damaged, `ebbtide salvage` brings back what can be read',
      },
    );
  }
  const revision = revisionOf(root);
  return revision > REVISION_MAX
    ? `the metadata has revision ${revision} of containerd's schema, and the last one known here is ${REVISION_MAX}: what it has in addition is not shown, and may keep what is shown as garbage`
    : undefined;
}

/**
 * Passes all records of the tree to the sink, one page per step; of a divided walk those of a lane, of which the first one has all that is
 * not divided. BoltDamage where it cannot be followed.
 */
export function* readRecords(root: Bucket, sink: RecordSink, isFirstLane = true): Steps {
  const common = isFirstLane ? sink : NO_SINK;
  for (const top of recordsIn(root, 'namespace', common)) {
    if (top.name !== SCHEMA) {
      const reader = new NamespaceReader(top.name, sink, common);
      for (const { name, bucket } of recordsIn(top.bucket, 'namespace', common))
        if (name === 'sandboxes') yield* reader.sandboxes(bucket);
      continue;
    }
    for (const { name, bucket } of recordsIn(top.bucket, 'namespace', common))
      yield* new NamespaceReader(name, sink, common).read(bucket);
  }
}

const ignore = (): void => undefined;
const NO_SINK: RecordSink = { record: ignore, link: ignore, complain: ignore };

interface NamedBucket {
  readonly name: string;
  readonly bucket: Bucket;
}

/** The records of a bucket with few entries. */
function recordsIn(bucket: Bucket, what: string, sink: RecordSink): NamedBucket[] {
  const found: NamedBucket[] = [];
  bucket.eachInBoth((entry) => {
    const record = recordOf(entry, what, sink);
    if (record !== undefined) found.push({ name: entry.key, bucket: record });
  });
  return found;
}

/** The bucket that an entry is, if its name is a valid key of ours. */
const recordOf = (entry: Entry, what: string, sink: RecordSink): Bucket | undefined =>
  entry.isBucket && isNamed(entry, what, sink) ? entry.bucket : undefined;

function isNamed(entry: Entry, what: string, sink: RecordSink): boolean {
  try {
    if (!entry.hasTextKey) throw new Error('its name is not UTF-8');
    checkComponent(entry.key, what);
    return true;
  } catch (error) {
    sink.complain(`${what} "${entry.key}" is left out: ${messageOf(error)}`);
    return false;
  }
}

class NamespaceReader {
  readonly #ns: string;
  readonly #sink: RecordSink;
  /** Of what is not divided. */
  readonly #common: RecordSink;

  constructor(ns: string, sink: RecordSink, common: RecordSink) {
    this.#ns = ns;
    this.#sink = sink;
    this.#common = common;
  }

  *read(namespace: Bucket): Steps {
    const parts = recordsIn(namespace, 'part', this.#common);
    if (this.#common === this.#sink) {
      const labels = textsOf(parts.find(({ name }) => name === 'labels')?.bucket, true);
      this.#put(namespaceKey(this.#ns), { labels });
    }
    for (const { name, bucket } of parts) {
      switch (name) {
        case 'images':
          yield* this.#all(bucket, 'image', (image, one, complain) =>
            this.#put(imageKey(this.#ns, image), imageOf(one, complain)),
          );
          break;
        case 'containers':
          yield* this.#all(bucket, 'container', (id, one, complain) =>
            this.#put(containerKey(this.#ns, id), containerOf(one, complain)),
          );
          break;
        case 'sandboxes':
          yield* this.sandboxes(bucket);
          break;
        case 'content':
          yield* this.#content(bucket);
          break;
        case 'snapshots':
          yield* this.#snapshots(bucket);
          break;
        case 'leases':
          yield* this.#all(bucket, 'lease', (id, one, complain) => this.#lease(id, one, complain));
      }
    }
  }

  sandboxes(bucket: Bucket): Steps {
    return this.#all(bucket, 'sandbox', (id, one, complain) =>
      this.#put(sandboxKey(this.#ns, id), sandboxOf(one, complain)),
    );
  }

  /** Each record of a bucket of buckets whose name is a valid key. */
  #all(
    bucket: Bucket,
    what: string,
    read: (name: string, record: Bucket, complain: Complain) => void,
  ): Steps {
    return bucket.inSteps((entry) => {
      const record = recordOf(entry, what, this.#sink);
      if (record === undefined) return;
      const name = entry.key;
      read(name, record, (trouble) => this.#sink.complain(`${what} "${name}" in ${this.#ns}: ${trouble}`));
    });
  }

  *#content(content: Bucket): Steps {
    for (const { name, bucket } of recordsIn(content, 'part', this.#common)) {
      if (name === 'blob')
        yield* this.#all(bucket, 'content', (digest, one, complain) =>
          this.#put(blobKey(this.#ns, digest), blobOf(one, complain)),
        );
      else if (name === 'ingests')
        yield* this.#all(bucket, 'ingest', (ref, one, complain) =>
          this.#put(ingestKey(this.#ns, ref), ingestOf(one, complain)),
        );
      else if (name === 'ingest')
        yield* bucket.inSteps((old) => {
          if (!old.isBucket && isNamed(old, 'ingest', this.#sink))
            this.#put(ingestKey(this.#ns, old.key), { ref: old.text });
        });
    }
  }

  *#snapshots(snapshotters: Bucket): Steps {
    for (const { name: snapshotter, bucket } of recordsIn(snapshotters, 'snapshotter', this.#common)) {
      this.#common.record(snapshotterKey(this.#ns, snapshotter), {});
      yield* this.#all(bucket, 'snapshot', (name, one, complain) =>
        this.#put(snapshotKey(this.#ns, snapshotter, name), snapshotOf(one, complain)),
      );
    }
  }

  #lease(id: string, bucket: Bucket, complain: Complain): void {
    const held: Key[] = [];
    const record: Loose<LeaseRecord> = { createdat: zeroTime, labels: undefined };
    const hold = (what: string, set: Bucket | undefined, keyOf: (name: string) => Key): void =>
      set?.each((entry) => {
        try {
          if (!entry.hasTextKey) throw new Error('its name is not UTF-8');
          held.push(keyOf(entry.key));
        } catch (error) {
          complain(`${what} "${entry.key}" is left out: ${messageOf(error)}`);
        }
      });
    bucket.each((entry) => {
      const { bucket: set } = entry;
      switch (entry.key) {
        case 'createdat':
          record.createdat = timeOf(entry, complain);
          break;
        case 'labels':
          record.labels = textsOf(set);
          break;
        case 'content':
          hold('content', set, (digest) => blobKey(this.#ns, digest));
          break;
        case 'ingests':
          hold('ingest', set, (ref) => ingestKey(this.#ns, ref));
          break;
        case 'images':
          hold('image', set, (name) => imageKey(this.#ns, name));
          break;
        case 'snapshots':
          set?.each((snapshotter) =>
            hold('snapshot', snapshotter.bucket, (name) => snapshotKey(this.#ns, snapshotter.key, name)),
          );
      }
    });
    const key = leaseKey(this.#ns, id);
    this.#put(key, record);
    const isFlat = record.labels?.[Label.gcFlat] !== undefined;
    for (const target of held) {
      const isIngest = target.startsWith('ingests\0');
      this.#sink.link(key, isFlat && !isIngest ? Relation.holdsFlat : Relation.holds, target);
    }
  }

  // Interfaces have no index signature, which is the only difference between a record and a Value.
  #put(key: Key, record: object): void {
    this.#sink.record(key, record as Value);
  }
}

/** A field without a value is left out of the stored form. */
type Loose<T> = { [K in keyof T]: T[K] | undefined };

/**
 * The fields that nearly all records have. All objects are created here, because objects of several hidden
 * classes make property access several times slower.
 */
class Common {
  createdat: Instant = zeroTime;
  updatedat: Instant = zeroTime;
  labels: StringMap | undefined = undefined;
  readonly #complain: Complain;

  constructor(complain: Complain) {
    this.#complain = complain;
  }

  /** Whether the entry is one of them. */
  take(entry: Entry): boolean {
    switch (entry.key) {
      case 'createdat':
        this.createdat = timeOf(entry, this.#complain);
        return true;
      case 'updatedat':
        this.updatedat = timeOf(entry, this.#complain);
        return true;
      case 'labels':
        this.labels = textsOf(entry.bucket);
        return true;
      default:
        return false;
    }
  }
}

function imageOf(bucket: Bucket, complain: Complain): Loose<ImageRecord> {
  const common = new Common(complain);
  let annotations: StringMap | undefined;
  const target = { digest: '', mediatype: '', size: 0 };
  bucket.each((entry) => {
    if (common.take(entry)) return;
    if (entry.key === 'annotations') annotations = textsOf(entry.bucket);
    else if (entry.key === 'target')
      entry.bucket?.each((field) => {
        if (field.key === 'digest') target.digest = field.text;
        else if (field.key === 'mediatype') target.mediatype = field.text;
        else if (field.key === 'size') target.size = numberOf(field, complain);
      });
  });
  const { createdat, updatedat, labels } = common;
  return { createdat, updatedat, labels, annotations, target };
}

function blobOf(bucket: Bucket, complain: Complain): Loose<BlobRecord> {
  const common = new Common(complain);
  let size = 0;
  bucket.each((entry) => {
    if (!common.take(entry) && entry.key === 'size') size = numberOf(entry, complain);
  });
  const { createdat, updatedat, labels } = common;
  return { createdat, updatedat, size, labels };
}

function ingestOf(bucket: Bucket, complain: Complain): Loose<IngestRecord> {
  const ingest: Loose<IngestRecord> = { ref: '', expireat: undefined, expected: undefined };
  bucket.each((entry) => {
    if (entry.key === 'ref') ingest.ref = entry.text;
    else if (entry.key === 'expected') ingest.expected = entry.text;
    else if (entry.key === 'expireat') ingest.expireat = timeOf(entry, complain);
  });
  return ingest;
}

function snapshotOf(bucket: Bucket, complain: Complain): Loose<SnapshotRecord> {
  const common = new Common(complain);
  let name = '';
  let parent: string | undefined;
  bucket.each((entry) => {
    if (common.take(entry)) return;
    if (entry.key === 'name') name = entry.text;
    else if (entry.key === 'parent') parent = entry.text || undefined;
  });
  const { createdat, updatedat, labels } = common;
  return { createdat, updatedat, name, parent, labels };
}

function containerOf(bucket: Bucket, complain: Complain): Loose<ContainerRecord> {
  const common = new Common(complain);
  const run = new Run(complain);
  const names = { image: '', snapshotter: '', snapshotKey: '', sandboxid: '' };
  bucket.each((entry) => {
    if (common.take(entry) || run.take(entry)) return;
    const { key } = entry;
    if (key === 'image' || key === 'snapshotter' || key === 'snapshotKey' || key === 'sandboxid')
      names[key] = entry.text;
  });
  const { createdat, updatedat, labels } = common;
  const { spec = NO_MESSAGE, runtime, extensions } = run;
  return { createdat, updatedat, labels, spec, ...names, runtime, extensions };
}

function sandboxOf(bucket: Bucket, complain: Complain): Loose<SandboxRecord> {
  const common = new Common(complain);
  const run = new Run(complain);
  let sandboxer = '';
  bucket.each((entry) => {
    if (common.take(entry) || run.take(entry)) return;
    if (entry.key === 'sandboxer') sandboxer = entry.text;
  });
  const { createdat, updatedat, labels } = common;
  const { spec, runtime, extensions } = run;
  return { createdat, updatedat, labels, spec, sandboxer, runtime, extensions };
}

/** The fields of containers and sandboxes. */
class Run {
  spec: Any | undefined = undefined;
  readonly runtime: RuntimeRecord = { name: '' };
  extensions: AnyMap | undefined = undefined;
  readonly #complain: Complain;

  constructor(complain: Complain) {
    this.#complain = complain;
  }

  take(entry: Entry): boolean {
    switch (entry.key) {
      case 'spec':
        this.spec = anyOf(entry, this.#complain);
        return true;
      case 'runtime':
        entry.bucket?.each((field) => {
          if (field.key === 'name') this.runtime.name = field.text;
          else if (field.key === 'options' && field.valueEnd > field.valueAt)
            this.runtime.options = anyOf(field, this.#complain);
        });
        return true;
      case 'extensions':
        this.extensions = anysOf(entry.bucket, this.#complain);
        return true;
      default:
        return false;
    }
  }
}
