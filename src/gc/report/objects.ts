/**
 * Finds the object a user means by a text: a digest or the beginning of one, a name, an id, a ref, a snapshot's key.
 * Called by why.ts; reads only.
 */
import type { Key, Reader, StoredNode } from '../../engine/contract.js';
import {
  blobKey,
  containerKey,
  imageKey,
  ingestKey,
  key,
  leaf,
  leaseKey,
  mountKey,
  sandboxKey,
  snapshotKey,
} from '../../engine/schema/keys.js';
import { type EbbtideError, invalidArgument, notFound } from '../../errors.js';
import { kindName, nodeOfKey } from '../types.js';

/** What objects there are. */
export const objectKinds = [
  'content',
  'snapshot',
  'image',
  'container',
  'lease',
  'ingest',
  'sandbox',
  'mount',
] as const;
/** One of `objectKinds`. */
export type ObjectKind = (typeof objectKinds)[number];

/** How an object is named in a question. */
export interface ObjectName {
  /** Digest or the beginning of one, name, id, ref; a snapshot's key, with `<snapshotter>/` in front where need be. */
  readonly name: string;
  /** Looks among these only. */
  readonly kind?: ObjectKind | undefined;
}

/** Hex digits that a shortened digest must have at least. */
const SHORTEST_PREFIX = 4;
const DIGEST_PREFIX = new RegExp(`^(?:sha(?:256|384|512):)?[0-9a-f]{${SHORTEST_PREFIX},128}$`);

/** A digest or the beginning of one; a missing algorithm means sha256. */
export const isDigestPrefix = (text: string): boolean => DIGEST_PREFIX.test(text);

const MAX_LISTED = 5;

/**
 * The record's key. `snapshotters` are those looked at for snapshots. NotFound when nothing matches; InvalidArgument for a kind that does not exist, and when several
 * objects match: the message lists them.
 */
export function findObject(
  reader: Reader,
  snapshotters: readonly string[],
  namespace: string,
  object: ObjectName,
): Key {
  const { name, kind } = object;
  if (kind !== undefined && !objectKinds.includes(kind)) {
    throw invalidArgument(`there are no objects of kind "${kind}"`, {
      object: kind,
      remedy: `use one of ${objectKinds.join(', ')}`,
    });
  }
  if (name === '') throw invalidArgument('the object needs a name');
  const wanted = (found: Key): boolean => kind === undefined || kindOfKey(found) === kind;
  const place: Place = { reader, ns: namespace, snapshotters };
  const exact = exactMatches(place, name).filter(wanted);
  const found = exact.length > 0 ? exact : prefixMatches(place, name).filter(wanted);
  const [only, ...others] = found;
  if (only === undefined) {
    throw notFound(`no ${kind ?? 'object'} "${name}" in namespace "${namespace}"`, { object: name });
  }
  if (others.length > 0) throw ambiguous(name, found);
  return only;
}

/** A record's kind and name as reports show them. */
export interface ObjectDescription {
  /** One of `objectKinds`. */
  kind: string;
  /** Where it is. */
  namespace: string;
  /** Digest, name, id or ref; `<snapshotter>/<key>` for snapshots. */
  key: string;
}

export function describeKey(record: Key): ObjectDescription {
  const node = nodeOfKey(record);
  if (node === undefined) return { kind: 'record', namespace: '', key: record.replaceAll('\0', '/') };
  return { kind: kindName(node.type), namespace: node.namespace, key: node.key };
}

/** As `describeKey` of the node's key, for a caller that describes very many. */
export function describeNode({ parent, leaf: name }: Pick<StoredNode, 'parent' | 'leaf'>): ObjectDescription {
  let head = heads.get(parent);
  if (head === undefined) {
    head = describeKey(`${parent}x`);
    if (heads.size === HEADS_MAX) heads.clear();
    heads.set(parent, head);
  }
  const { kind, namespace, key: first } = head;
  // All but the x.
  return { kind, namespace, key: first.length === 1 ? name : first.slice(0, -1) + name };
}

/** What is the same for all with one parent. */
const heads = new Map<string, ObjectDescription>();
const HEADS_MAX = 1024;

interface Place {
  readonly reader: Reader;
  readonly ns: string;
  readonly snapshotters: readonly string[];
}

const kindOfKey = (record: Key): string => describeKey(record).kind;

function ambiguous(name: string, found: readonly Key[]): EbbtideError {
  const names = found.slice(0, MAX_LISTED).map((record) => {
    const { kind, key: object } = describeKey(record);
    return `${kind} ${object}`;
  });
  const kinds = new Set(found.map(kindOfKey));
  return invalidArgument(`"${name}" could be ${names.join(', ')}${found.length > MAX_LISTED ? ', …' : ''}`, {
    object: name,
    remedy:
      kinds.size > 1
        ? `say which kind is meant: ${[...kinds].join(' or ')}`
        : 'give more of the name; a snapshot as <snapshotter>/<key>',
  });
}

function exactMatches({ reader, ns, snapshotters }: Place, name: string): Key[] {
  const possible = [
    blobKey(ns, name),
    imageKey(ns, name),
    containerKey(ns, name),
    leaseKey(ns, name),
    ingestKey(ns, name),
    sandboxKey(ns, name),
    mountKey(ns, name),
  ];
  for (const snapshotter of snapshotters) {
    possible.push(snapshotKey(ns, snapshotter, name));
    if (name.startsWith(`${snapshotter}/`) && name.length > snapshotter.length + 1) {
      possible.push(snapshotKey(ns, snapshotter, name.slice(snapshotter.length + 1)));
    }
  }
  return possible.filter((record) => reader.has(record));
}

/** Blobs and snapshots whose name is a digest that begins so; a missing algorithm means sha256. */
function prefixMatches({ reader, ns, snapshotters }: Place, text: string): Key[] {
  const slash = text.lastIndexOf('/');
  const digits = text.slice(slash + 1);
  if (!isDigestPrefix(digits)) return [];
  const prefix = digits.includes(':') ? digits : `sha256:${digits}`;
  const found: Key[] = [];
  if (slash < 0) found.push(...beginning(reader, key('blobs', ns), prefix));
  for (const snapshotter of snapshotters) {
    if (slash >= 0 && text.slice(0, slash) !== snapshotter) continue;
    found.push(...beginning(reader, key('snapshots', ns, snapshotter), prefix));
  }
  return found;
}

/** The first few records below `collection` whose last component begins so. */
function beginning(reader: Reader, collection: Key, prefix: string): Key[] {
  const after = `${collection}\0${prefix}`;
  // The scan starts after it.
  const found: Key[] = reader.has(after) ? [after] : [];
  for (const [record] of reader.scan(collection, { after, limit: MAX_LISTED + 1 })) {
    if (!leaf(record).startsWith(prefix)) break;
    found.push(record);
  }
  return found;
}
