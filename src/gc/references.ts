/**
 * What refers to what: the label grammar and the fixed edges between records. The engine calls this for every
 * record it commits, so the code compares prefixes, never runs a pattern and never throws: a value that cannot
 * be a key names nothing, and an edge to nothing is left out.
 *
 * Rules in short. Roots: containers, sandboxes, images, leases and ingests with an expiry (until it passes),
 * and content or snapshots with a label beginning with gc.root. Edges run within one namespace. Labels are
 * followed from plainly reached objects only; a snapshot's parent and an image's target also from flat ones. Mounts are kept
 * by leases, by labels that name them, and by what their back references name.
 */
import {
  type Adjacency,
  type Edge,
  EdgeKind,
  type Indexer,
  type Key,
  NodeFlag,
  type Value,
} from '../engine/contract.js';
import {
  collectionOf,
  MAX_COMPONENT_BYTES,
  namespaceOf,
  Relation,
  SEPARATOR,
} from '../engine/schema/keys.js';
import { Label } from '../model/labels.js';
import { type Instant, parseTimestamp } from '../model/time.js';
import {
  ResourceContainer,
  ResourceContent,
  ResourceImage,
  ResourceIngest,
  ResourceLease,
  ResourceMount,
  ResourceSnapshot,
  resourceTypeOf,
} from './types.js';

const GC = 'containerd.io/gc.';
const REF_PREFIX = `${Label.gcRef}.`;
const BREF_PREFIX = `${Label.gcBref}.`;

type Labels = Readonly<Record<string, unknown>>;
type Fields = Readonly<Record<string, unknown>>;

const noLabels: Labels = {};

function fieldsOf(value: Value): Fields {
  return typeof value === 'string' ? noLabels : value;
}

/** The label map of a stored record; an empty one when it has none. */
export function labelsOf(value: Value | undefined): Labels {
  const labels = value === undefined ? undefined : fieldsOf(value).labels;
  return typeof labels === 'object' && labels !== null ? (labels as Labels) : noLabels;
}

function textField(fields: Fields, name: string): string {
  const value = fields[name];
  return typeof value === 'string' ? value : '';
}

function isComponent(part: string): boolean {
  if (part === '' || part.includes(SEPARATOR)) return false;
  return part.length * 3 <= MAX_COMPONENT_BYTES || Buffer.byteLength(part) <= MAX_COMPONENT_BYTES;
}

/** The key `<collection> <ns> <part> [<last>]`; undefined when that cannot be one. */
function targetOf(collection: string, ns: string, part: string, last?: string): Key | undefined {
  if (!isComponent(part) || (last !== undefined && !isComponent(last))) return undefined;
  const to = `${collection}${SEPARATOR}${ns}${SEPARATOR}${part}`;
  return last === undefined ? to : `${to}${SEPARATOR}${last}`;
}

function push(edges: Edge[], kind: EdgeKind, to: Key | undefined): void {
  if (to !== undefined) edges.push({ to, kind });
}

function pushBack(edges: Edge[], to: Key | undefined): void {
  if (to !== undefined) edges.push({ to, kind: EdgeKind.label, back: true });
}

/** Whether `word` is `name`, or `name` followed by `.` or `/` and anything. */
export function isWord(word: string, name: string): boolean {
  if (!word.startsWith(name)) return false;
  if (word.length === name.length) return true;
  const next = word.charCodeAt(name.length);
  return next === 0x2e || next === 0x2f;
}

const SNAPSHOT_WORD = 'snapshot.';

/** The snapshotter in `snapshot.<snapshotter>[/…]`: only a slash ends it. */
function snapshotterIn(word: string): string {
  const slash = word.indexOf('/', SNAPSHOT_WORD.length);
  return word.slice(SNAPSHOT_WORD.length, slash < 0 ? undefined : slash);
}

/**
 * One `containerd.io/gc.ref.<word>` label. A word that is not built in may be some collector's, and so may `mount`: a program
 * that embeds the store can have a mount manager of its own.
 */
function pushReference(edges: Edge[], ns: string, word: string, value: string): void {
  if (isWord(word, 'content')) push(edges, EdgeKind.label, targetOf('blobs', ns, value));
  else if (isWord(word, 'image')) push(edges, EdgeKind.label, targetOf('images', ns, value));
  else if (word.startsWith(SNAPSHOT_WORD)) {
    push(edges, EdgeKind.label, targetOf('snapshots', ns, snapshotterIn(word), value));
  } else {
    if (isWord(word, 'mount')) push(edges, EdgeKind.label, targetOf('mounts', ns, value));
    push(edges, EdgeKind.label, targetOf('foreign', ns, word, value));
  }
}

/** One `containerd.io/gc.bref.<word>` label; unknown words mean nothing. */
function pushBackReference(edges: Edge[], ns: string, word: string, value: string): void {
  if (isWord(word, 'content')) pushBack(edges, targetOf('blobs', ns, value));
  else if (isWord(word, 'image')) pushBack(edges, targetOf('images', ns, value));
  else if (isWord(word, 'container')) pushBack(edges, targetOf('containers', ns, value));
  else if (word.startsWith(SNAPSHOT_WORD))
    pushBack(edges, targetOf('snapshots', ns, snapshotterIn(word), value));
}

interface Scan {
  edges: Edge[];
  /** Flags that the labels add: root, conditional, conditionValue. */
  flags: number;
}

const ReadBack = { yes: true, no: false } as const;

/** Reads the gc labels of an object that may hold forward and, if asked, back references. */
function scanLabels(scan: Scan, ns: string, labels: Labels, back: boolean): void {
  for (const name in labels) {
    if (!name.startsWith(GC)) continue;
    const value = labels[name];
    if (typeof value !== 'string') continue;
    if (name.startsWith(REF_PREFIX)) pushReference(scan.edges, ns, name.slice(REF_PREFIX.length), value);
    else if (back && name.startsWith(BREF_PREFIX)) {
      pushBackReference(scan.edges, ns, name.slice(BREF_PREFIX.length), value);
    } else if (name.startsWith(Label.gcRoot)) scan.flags |= NodeFlag.root;
    else if (name.startsWith(Label.gcCondSnapshot)) scan.flags |= NodeFlag.conditional;
    else if (name.startsWith(Label.gcCondUsedat)) scan.flags |= NodeFlag.conditionValue;
  }
}

/** When the record's gc.expire label says it expires; undefined without one and with one that does not parse. */
function expiryOf(labels: Labels): Instant | undefined {
  const text = labels[Label.gcExpire];
  return typeof text === 'string' ? parseTimestamp(text) : undefined;
}

const typed = (type: number, flags: number): number => (type << 8) | flags;

function imageNode(ns: string, fields: Fields, labels: Labels): Adjacency {
  const expireAt = expiryOf(labels);
  const scan: Scan = { edges: [], flags: 0 };
  const target = fields.target;
  if (typeof target === 'object' && target !== null) {
    push(scan.edges, EdgeKind.structural, targetOf('blobs', ns, textField(target as Fields, 'digest')));
  }
  // A live image is a root, so only one that can expire has a use for back references.
  scanLabels(scan, ns, labels, expireAt === undefined ? ReadBack.no : ReadBack.yes);
  const flags = NodeFlag.root | NodeFlag.collectible | (scan.flags & NodeFlag.conditional);
  return { flags: typed(ResourceImage, flags), expireAt, edges: scan.edges };
}

function containerNode(ns: string, fields: Fields, labels: Labels): Adjacency {
  const scan: Scan = { edges: [], flags: 0 };
  const snapshotter = textField(fields, 'snapshotter');
  if (snapshotter !== '') {
    push(
      scan.edges,
      EdgeKind.label,
      targetOf('snapshots', ns, snapshotter, textField(fields, 'snapshotKey')),
    );
  }
  // Containers are roots, so their own back references are never needed.
  scanLabels(scan, ns, labels, ReadBack.no);
  return { flags: typed(ResourceContainer, NodeFlag.root), edges: scan.edges };
}

function sandboxNode(ns: string, labels: Labels): Adjacency {
  const scan: Scan = { edges: [], flags: 0 };
  scanLabels(scan, ns, labels, ReadBack.no);
  return { flags: typed(0, NodeFlag.root), edges: scan.edges };
}

function contentNode(ns: string, labels: Labels): Adjacency {
  const scan: Scan = { edges: [], flags: NodeFlag.collectible };
  scanLabels(scan, ns, labels, ReadBack.yes);
  const flags = scan.flags & ~NodeFlag.conditionValue;
  return { flags: typed(ResourceContent, flags), edges: scan.edges };
}

function snapshotNode(key: Key, ns: string, fields: Fields, labels: Labels): Adjacency {
  const scan: Scan = { edges: [], flags: NodeFlag.collectible };
  const parent = textField(fields, 'parent');
  if (parent !== '') {
    const start = 'snapshots'.length + ns.length + 2;
    const snapshotter = key.slice(start, key.indexOf(SEPARATOR, start));
    push(scan.edges, EdgeKind.structural, targetOf('snapshots', ns, snapshotter, parent));
  }
  scanLabels(scan, ns, labels, ReadBack.yes);
  const flags = scan.flags & ~NodeFlag.conditional;
  return { flags: typed(ResourceSnapshot, flags), edges: scan.edges };
}

function ingestNode(ns: string, fields: Fields): Adjacency {
  const edges: Edge[] = [];
  const expected = textField(fields, 'expected');
  if (expected !== '') push(edges, EdgeKind.label, targetOf('blobs', ns, expected));
  const expireAt = fields.expireat;
  if (typeof expireAt !== 'bigint') return { flags: typed(ResourceIngest, NodeFlag.collectible), edges };
  return { flags: typed(ResourceIngest, NodeFlag.root | NodeFlag.collectible), expireAt, edges };
}

function leaseNode(labels: Labels): Adjacency {
  const flags = typed(ResourceLease, NodeFlag.root | NodeFlag.collectible);
  return { flags, expireAt: expiryOf(labels), edges: [] };
}

/** As in containerd, a mount has back references only: it keeps nothing, and no label makes it a root. */
function mountNode(ns: string, labels: Labels): Adjacency {
  const edges: Edge[] = [];
  for (const name in labels) {
    const value = labels[name];
    if (typeof value !== 'string' || !name.startsWith(BREF_PREFIX)) continue;
    pushBackReference(edges, ns, name.slice(BREF_PREFIX.length), value);
  }
  return { flags: typed(ResourceMount, NodeFlag.collectible), edges };
}

/** The engine's indexer for the records of a container host. */
export const metadataIndexer: Indexer = {
  node(key, value) {
    const collection = collectionOf(key);
    if (resourceTypeOf(collection) === undefined) return undefined;
    const ns = namespaceOf(key);
    const labels = labelsOf(value);
    const fields = fieldsOf(value);
    switch (collection) {
      case 'blobs':
        return contentNode(ns, labels);
      case 'snapshots':
        return snapshotNode(key, ns, fields, labels);
      case 'images':
        return imageNode(ns, fields, labels);
      case 'containers':
        return containerNode(ns, fields, labels);
      case 'ingests':
        return ingestNode(ns, fields);
      case 'leases':
        return leaseNode(labels);
      case 'mounts':
        return mountNode(ns, labels);
      case 'sandboxes':
        return sandboxNode(ns, labels);
      default:
        return undefined;
    }
  },

  absent(key) {
    const collection = collectionOf(key);
    if (collection === 'foreign') return NodeFlag.foreign;
    return typed(resourceTypeOf(collection) ?? 0, 0);
  },

  mayOwnLinks(key, inDegree) {
    switch (collectionOf(key)) {
      case 'blobs':
      case 'images':
      case 'containers':
      case 'ingests':
      case 'mounts':
      case 'sandboxes':
        return false;
      case 'snapshots':
        // Its links are its children, and every child has an edge to it.
        return inDegree > 0;
      default:
        return true;
    }
  },

  link(_from, relation) {
    if (relation === Relation.holds) return EdgeKind.label;
    if (relation === Relation.holdsFlat) return EdgeKind.flat;
    return undefined;
  },
};
