/**
 * What a record of containerd looks like, so that one is known without its place: which fields make its kind, which of them prove
 * its name, and when it was last changed. Called by the files of salvage/.
 */
import type { LeafEntry, LeafPage, PageScan } from '../../bolt/scan.js';
import { isDigest } from '../../model/digest.js';
import { type Instant, zeroTime } from '../../model/time.js';
import { decodeTime, decodeVarint } from '../../model/wire.js';

/** Names on the way from the root: bytes as Latin-1 text, as all keys are here. */
export type Path = readonly string[];

/** Of names that buckets of no records have, but for those of a namespace and its content. */
export type IsStructureName = (key: string) => boolean;

/** A bucket, read as a whole. */
export interface Tree {
  readonly sequence: number;
  readonly entries: ReadonlyMap<string, Buffer | Tree>;
  /** A bucket in it has pages of its own, which may have been given out again while those of the record were not. */
  readonly isSplit: boolean;
}

export type RecordKind =
  | 'image'
  | 'container'
  | 'sandbox'
  | 'lease'
  | 'content'
  | 'ingest'
  | 'snapshot'
  | 'other';

/** A snapshot and an ingest have the name of their namespace in them, and need no other proof. */
export const namesItself = (kind: RecordKind | undefined): boolean =>
  kind === 'snapshot' || kind === 'ingest';

const COLLECTIONS: Readonly<Record<string, RecordKind>> = {
  images: 'image',
  containers: 'container',
  sandboxes: 'sandbox',
  leases: 'lease',
  'content\0blob': 'content',
  'content\0ingests': 'ingest',
};

/** `v1`, namespace, and then these. */
export const COLLECTION_PATHS: Readonly<Partial<Record<RecordKind, Path>>> = Object.fromEntries(
  Object.entries(COLLECTIONS).map(([path, kind]) => [kind, path.split('\0')]),
);

/** What a namespace has. */
export const NAMESPACE_PARTS = [
  'containers',
  'content',
  'images',
  'labels',
  'leases',
  'sandboxes',
  'snapshots',
];

/** What its content has. */
export const CONTENT_PARTS = ['blob', 'ingests', 'ingest'];

/** Of the records in a bucket; undefined for a bucket of buckets. */
export function placeIn(path: Path): { kind: RecordKind; namespace: string } | undefined {
  const [schema, namespace, ...rest] = path;
  if (schema !== 'v1' || namespace === undefined) return undefined;
  const isSnapshots = rest.length === 2 && rest[0] === 'snapshots';
  const kind = isSnapshots ? 'snapshot' : COLLECTIONS[rest.join('\0')];
  return kind && { kind, namespace };
}

export const kindIn = (path: Path): RecordKind | undefined => placeIn(path)?.kind;

/** Whether a bucket has buckets of records in it, and is not itself a record. */
export function isStructure(path: Path): boolean {
  const [schema, , ...rest] = path;
  if (path.length === 0) return true;
  if (schema !== 'v1') return false;
  if (path.length <= 2) return true;
  return (
    kindIn(path) !== undefined || (rest.length === 1 && (rest[0] === 'content' || rest[0] === 'snapshots'))
  );
}

/** Levels of buckets in a record: containerd has three. */
const DEPTH_MAX = 8;
/** Pages of a record: a lease of some hundred thousand resources. Others are not records. */
const PAGES_MAX = 10_000;

/** Where pages are read. */
type Reader = Pick<PageScan, 'page' | 'bucket'>;

/** Undefined when a page of it is not whole. `pages`: gets those that it is in. */
export function readTree(reader: Reader, value: Buffer, pages: number[] = [], depth = 0): Tree | undefined {
  const bucket = reader.bucket(value);
  if (bucket === undefined || depth > DEPTH_MAX) return undefined;
  const tree = new GrowingTree(bucket.sequence);
  const read = (inner: Buffer): Tree | undefined => readTree(reader, inner, pages, depth + 1);
  if (bucket.page === 0)
    return bucket.entries !== undefined && tree.take(reader, bucket.entries, read) ? tree : undefined;
  const next = [bucket.page];
  const own = new Set<number>();
  for (let id = next.pop(); id !== undefined; id = next.pop()) {
    const page = reader.page(id);
    if (page === undefined || pages.length > PAGES_MAX || own.has(id)) return undefined;
    own.add(id);
    pages.push(id);
    if (page.kind === 'branch') next.push(...page.children.map((child) => child.page).reverse());
    else if (!tree.take(reader, page.entries, read)) return undefined;
  }
  return tree;
}

/** A bucket that is all in one page; undefined when it is not. */
export function treeInPage(reader: Reader, { entries }: LeafPage): Tree | undefined {
  const tree = new GrowingTree(0);
  const isAll = tree.take(reader, entries, (value) => {
    const bucket = reader.bucket(value);
    // No bucket in a value has buckets.
    return bucket?.page === 0 && bucket.entries?.every(({ isBucket }) => !isBucket)
      ? readTree(reader, value)
      : undefined;
  });
  return isAll ? tree : undefined;
}

class GrowingTree implements Tree {
  readonly sequence: number;
  readonly entries = new Map<string, Buffer | Tree>();
  isSplit = false;

  constructor(sequence: number) {
    this.sequence = sequence;
  }

  /** False when a bucket of them cannot be read. */
  take(reader: Reader, found: readonly LeafEntry[], read: (value: Buffer) => Tree | undefined): boolean {
    for (const { key, isBucket, value } of found) {
      const one = isBucket ? read(value) : value;
      if (one === undefined) return false;
      this.isSplit ||= !Buffer.isBuffer(one) && (one.isSplit || reader.bucket(value)?.page !== 0);
      this.entries.set(key, one);
    }
    return true;
  }
}

/** Whether a page that can be read is in the place of a record's, and is not one. */
export function isOther(reader: Reader, value: Buffer): boolean {
  const page = reader.page(reader.bucket(value)?.page ?? 0);
  if (page?.kind !== 'leaf' || page.entries.length === 0) return false;
  return !page.entries.some(({ key, isBucket }) => !isBucket && (key === 'createdat' || key === 'ref'));
}

export const textOf = (one: Buffer | Tree | undefined): string | undefined =>
  Buffer.isBuffer(one) ? one.toString('latin1') : undefined;
export const treeIn = ({ entries }: Tree, name: string): Tree | undefined => {
  const one = entries.get(name);
  return one === undefined || Buffer.isBuffer(one) ? undefined : one;
};

const TIME_BYTES = [15, 16];

function timeIn({ entries }: Tree, name: string): Instant | undefined {
  const one = entries.get(name);
  if (!Buffer.isBuffer(one) || !TIME_BYTES.includes(one.length)) return undefined;
  try {
    return decodeTime(one);
  } catch {
    return undefined;
  }
}

export const createdAt = (tree: Tree): Instant => timeIn(tree, 'createdat') ?? zeroTime;

/** When it was changed last, as far as it says so. */
export function changedAt(tree: Tree): Instant {
  const created = timeIn(tree, 'createdat') ?? zeroTime;
  const updated = timeIn(tree, 'updatedat') ?? zeroTime;
  return created > updated ? created : updated;
}

export function sizeIn({ entries }: Tree): number | undefined {
  const one = entries.get('size');
  try {
    return Buffer.isBuffer(one) && one.length > 0 ? Number(decodeVarint(one)) : undefined;
  } catch {
    return undefined;
  }
}

/** Fields that are buckets of values: buckets or times in them are of another record's page. */
const SETS: readonly string[] = [
  'labels',
  'annotations',
  'target',
  'runtime',
  'extensions',
  'children',
  'content',
];

const isSet = (one: Buffer | Tree | undefined): boolean =>
  one === undefined ||
  (!Buffer.isBuffer(one) &&
    [...one.entries.values()].every(Buffer.isBuffer) &&
    ['createdat', 'expireat'].every((name) => timeIn(one, name) === undefined));

/**
 * By the fields that only one kind has. `createdat` and `updatedat` are at both ends of a record: one without is what a page has of a longer one.
 */
export function kindOf(tree: Tree): RecordKind | undefined {
  if (!SETS.every((name) => isSet(tree.entries.get(name)))) return undefined;
  const has = (name: string): boolean => tree.entries.has(name);
  if (has('ref')) return has('createdat') ? undefined : 'ingest';
  if (timeIn(tree, 'createdat') === undefined) return undefined;
  // Leases are never changed.
  if (!has('updatedat')) return OWN_FIELDS.some(has) ? undefined : 'lease';
  if (timeIn(tree, 'updatedat') === undefined) return undefined;
  if (has('target'))
    return isDigest(textOf(treeIn(tree, 'target')?.entries.get('digest')) ?? '') ? 'image' : undefined;
  if (has('size')) return sizeIn(tree) === undefined ? undefined : 'content';
  if (has('name')) return 'snapshot';
  if (has('snapshotKey') || has('image')) return 'container';
  return has('sandboxer') || has('runtime') || has('spec') ? 'sandbox' : undefined;
}

/** Those that no lease has. */
const OWN_FIELDS: readonly string[] = [
  'target',
  'size',
  'name',
  'parent',
  'snapshotKey',
  'image',
  'sandboxer',
  'runtime',
  'spec',
];

/** Of records, in all versions of containerd. */
const FIELDS: ReadonlySet<string> = new Set([
  ...SETS,
  ...['createdat', 'updatedat', 'expireat', 'name', 'parent', 'size', 'ref', 'expected'],
  ...['image', 'spec', 'snapshotKey', 'snapshotter', 'sandboxid', 'sandboxer', 'options'],
  ...['snapshots', 'ingests', 'images'],
]);

/** A field that is none: bytes of another page are among those of the record. */
export const strangeField = ({ entries }: Tree): string | undefined =>
  [...entries.keys()].find((name) => !FIELDS.has(name));

/** `<namespace>/<number>/<key>`: what a snapshot and an ingest are called in their backend. */
export interface BackendName {
  readonly namespace: string;
  readonly number: number;
  readonly key: string;
}

export function backendName(text: string | undefined): BackendName | undefined {
  const [, namespace = '', number, key] = /^([^/]+)\/(\d+)\/(.+)$/s.exec(text ?? '') ?? [];
  return key === undefined ? undefined : { namespace, number: Number(number), key };
}

export const backendNameOf = ({ entries }: Tree): BackendName | undefined =>
  backendName(textOf(entries.get('name') ?? entries.get('ref')));
