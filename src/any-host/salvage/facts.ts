/**
 * What the fields of a record say that tells which one it is: read once, so that only what is written is read again. Called by the files of
 * salvage/.
 */
import { isDigest } from '../../model/digest.js';
import { Label } from '../../model/labels.js';
import { type Instant, zeroTime } from '../../model/time.js';
import { decodeAny } from '../../model/wire.js';
import {
  type BackendName,
  backendNameOf,
  changedAt,
  createdAt,
  kindOf,
  type RecordKind,
  sizeIn,
  strangeField,
  type Tree,
  textOf,
  treeIn,
} from './shapes.js';

export interface Blob {
  readonly digest: string;
  readonly size: number | undefined;
}

export interface Facts {
  /** What its fields are in, beside the leaf of its entry. */
  readonly pages: readonly number[];
  readonly kind: RecordKind | undefined;
  readonly createdAt: Instant;
  readonly changedAt: Instant;
  /** Of a snapshot and an ingest. */
  readonly name: BackendName | undefined;
  readonly parent: string | undefined;
  /** Of a blob. */
  readonly size: number | undefined;
  /** Of an image; its digest is among `blobs`, too. */
  readonly mediaType: string | undefined;
  /** What it needs besides itself. */
  readonly blobs: readonly Blob[];
  /** By their names. */
  readonly snapshots: readonly string[];
  /** What the labels of a blob keep. */
  readonly references: readonly string[];
  /** A bucket in it has pages of its own, which may have been given out again while those of the record were not. */
  readonly isSplit: boolean;
  /** A field that there is not: bytes of another page are among its own. */
  readonly isStrange: boolean;
  readonly isSpecDamaged: boolean;
}

const NONE: readonly never[] = [];

/** Of an entry that is no bucket. */
export const NO_FACTS: Facts = {
  pages: NONE,
  kind: undefined,
  createdAt: zeroTime,
  changedAt: zeroTime,
  name: undefined,
  parent: undefined,
  size: undefined,
  mediaType: undefined,
  blobs: NONE,
  snapshots: NONE,
  references: NONE,
  isSplit: false,
  isStrange: false,
  isSpecDamaged: false,
};

/** Labels that keep other objects. */
const REFERENCE = 'containerd.io/gc.ref.';
const SNAPSHOT_REFERENCE = `${Label.gcRefSnapshot}.`;

export function factsIn(tree: Tree, pages: readonly number[]): Facts {
  const kind = kindOf(tree);
  const target = kind === 'image' ? treeIn(tree, 'target') : undefined;
  const labels = kind === 'content' ? labelsIn(tree) : NONE;
  return {
    pages,
    kind,
    createdAt: createdAt(tree),
    changedAt: changedAt(tree),
    name: kind === 'snapshot' || kind === 'ingest' ? backendNameOf(tree) : undefined,
    parent: kind === 'snapshot' ? textOf(tree.entries.get('parent')) : undefined,
    size: kind === 'content' ? sizeIn(tree) : undefined,
    mediaType: textOf(target?.entries.get('mediatype')),
    blobs: kind === 'lease' ? contentOf(tree) : targetOf(target),
    snapshots: snapshotsOf(kind, tree, labels),
    references: listOf(labels.filter(([name]) => name.startsWith(REFERENCE)).map(([, value]) => value)),
    isSplit: tree.isSplit,
    isStrange: strangeField(tree) !== undefined,
    isSpecDamaged: (kind === 'container' || kind === 'sandbox') && !isSpec(tree.entries.get('spec')),
  };
}

/** What a record is by its fields, and by its name. */
export const kindFor = (key: string, { kind }: Facts): RecordKind | undefined =>
  kind === 'content' && !isDigest(key) ? undefined : kind;

const listOf = <T>(all: readonly T[]): readonly T[] => (all.length === 0 ? NONE : all);

const labelsIn = (tree: Tree): [string, string][] =>
  [...(treeIn(tree, 'labels')?.entries ?? [])].map(([name, value]) => [name, textOf(value) ?? '']);

function targetOf(target: Tree | undefined): readonly Blob[] {
  const digest = textOf(target?.entries.get('digest'));
  return target === undefined || digest === undefined ? NONE : [{ digest, size: sizeIn(target) }];
}

const contentOf = (lease: Tree): readonly Blob[] =>
  listOf(
    [...(treeIn(lease, 'content')?.entries.keys() ?? [])].map((digest) => ({ digest, size: undefined })),
  );

function snapshotsOf(
  kind: RecordKind | undefined,
  tree: Tree,
  labels: readonly (readonly [string, string])[],
): readonly string[] {
  if (kind === 'container') return [textOf(tree.entries.get('snapshotKey')) ?? ''];
  if (kind === 'lease')
    return listOf(
      [...(treeIn(tree, 'snapshots')?.entries.values() ?? [])].flatMap((names) =>
        Buffer.isBuffer(names) ? [] : [...names.entries.keys()],
      ),
    );
  return listOf(labels.filter(([name]) => name.startsWith(SNAPSHOT_REFERENCE)).map(([, value]) => value));
}

const OPENING = '{'.charCodeAt(0);

/** Specs are long, and mostly JSON, which shows what was written over. */
function isSpec(spec: Buffer | Tree | undefined): boolean {
  if (spec === undefined) return true;
  try {
    const { value } = decodeAny(Buffer.isBuffer(spec) ? spec : Buffer.alloc(0));
    if (value[0] === OPENING) JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(value));
    return true;
  } catch {
    return false;
  }
}
