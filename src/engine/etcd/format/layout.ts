/**
 * Where everything lives in etcd: keys of records, links and counters, and back. Keys are relative to the tree's
 * prefix. Called by the rest of this room; pure.
 *
 * ```
 * v1/version                                       schema revision, decimal; any other text: a later layout
 * v1/namespaces/<ns>                               one etcd key per record, JSON
 * v1/<ns>/images|containers|sandboxes|leases|mounts/<name>
 * v1/<ns>/content/blob/<digest>   v1/<ns>/content/ingests/<ref>
 * v1/<ns>/snapshots/<snapshotter>[/<key>]
 * <record>/children/<key>   <lease>/[flat/]content|ingests|images|mounts|snapshots/<…>     unbounded sets: a key an entry
 * v1/<ns>/sequence/<counter>                       decimal
 * scheduler.v1/dirty|last|dirtyCS/<backend>|dirtySS/<snapshotter>/<backend>
 * scheduler.v1/removed/content/<backend>|removed/snapshots/<snapshotter>/<backend>|foreign/<backend>
 * lock/<name>/<w|r>-<request>                      locks
 * other/… otherlinks/…                             records and links of no such form
 * sys/…                                            what keeps transactions apart (see commit.ts)
 * <anything else>                                  raw keys, as their users spell them
 * ```
 * Components are escaped: `%`, `/` and control characters as `%XX`.
 */
import { invalidArgument } from '../../../errors.js';
import type { Key } from '../../contract.js';
import { components, metaKey, Relation, SEPARATOR } from '../../schema/keys.js';

export const escapePart = (part: string): string =>
  part.replace(
    /[%/\x00-\x1f\x7f]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
export const plainPart = (part: string): string =>
  part.includes('%')
    ? part.replace(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    : part;

export const firstPart = (name: string): string => name.split('/', 1)[0] ?? '';

/** Keys of the machinery, all below `sys/`. */
export const Sys = {
  /** Written by whatever adds a root or an edge; compared by whatever removes what nothing refers to. */
  head: 'sys/head',
  /** Present while a unit too big for one etcd transaction is applied. */
  gate: 'sys/gate',
  unit: (id: string): string => `sys/unit/${escapePart(id)}/`,
  units: 'sys/unit/',
  /** Written by changes of links, and deletions, of the owners that fall into the bucket. */
  stamp: (owner: Key): string => `sys/stamp/${bucketOf(owner)}`,
  /** Written when a record of the collection (and namespace) is deleted. */
  gone: (collection: string, namespace: string): string =>
    `sys/gone/${escapePart(collection)}/${escapePart(namespace)}`,
  /** Present while the host's session lasts; rewritten to shut out the host's own earlier requests. */
  host: (id: string): string => `sys/host/${escapePart(id)}`,
  hosts: 'sys/host/',
  /** Every host that ever began a session, until it is removed from the cluster. */
  member: (id: string): string => `sys/member/${escapePart(id)}`,
  members: 'sys/member/',
  /** The last transaction of each slot of each host: every commit writes one. */
  commit: (host: string, slot: number | string): string => `sys/commit/${escapePart(host)}/${slot}`,
  commitsOf: (host: string): string => `sys/commit/${escapePart(host)}/`,
  commits: 'sys/commit/',
} as const;

/** The id of the unit that a key below `Sys.units` is of. */
export const unitOf = (key: string): string => plainPart(firstPart(key.slice(Sys.units.length)));

export const DIRTY = 'scheduler.v1/dirty';
export const LAST = 'scheduler.v1/last';
export const lockPrefix = (name: string): string => `lock/${escapePart(name)}/`;

/** First components that are not to be had by raw keys. */
const reserved = new Set(['v1', 'scheduler.v1', 'lock', 'other', 'otherlinks', 'sys']);

interface Shape {
  parts: number;
  dir: string;
}
const shapes: Readonly<Record<string, Shape>> = {
  images: { parts: 3, dir: 'images' },
  containers: { parts: 3, dir: 'containers' },
  sandboxes: { parts: 3, dir: 'sandboxes' },
  leases: { parts: 3, dir: 'leases' },
  mounts: { parts: 3, dir: 'mounts' },
  blobs: { parts: 3, dir: 'content/blob' },
  ingests: { parts: 3, dir: 'content/ingests' },
  snapshotters: { parts: 3, dir: 'snapshots' },
  snapshots: { parts: 4, dir: 'snapshots' },
};

const VERSION = metaKey('version');
export const VERSION_NAME = 'v1/version';
const DIRTY_CONTENT = metaKey('dirty', 'content');
const DIRTY_SNAPSHOTS = metaKey('dirty', 'snapshots');
/** Records of one host's backends (gc/sweep/dirty.ts, gc/sweep/orphan-guard.ts). */
const OF_BACKENDS: ReadonlySet<string> = new Set(['removed', 'foreign']);

export type Place =
  | { is: 'record'; key: Key }
  | { is: 'link'; from: Key; relation: string; to: Key }
  | { is: 'commit'; host: string }
  | { is: 'counter'; name: Key }
  | { is: 'gate' | 'head' | 'dirty' | 'last' | 'lock' | 'other' };

export class Layout {
  readonly #backend: string;

  constructor(backendId: string) {
    this.#backend = escapePart(backendId);
  }

  // ------------------------------------------------------------------------------------------------- to etcd

  record(key: Key): string {
    const parts = components(key);
    const [collection, second = '', , snapshotter = ''] = parts;
    if (collection === 'raw' && parts.length === 2) return rawName(second);
    if (collection === 'meta') {
      if (key === VERSION) return VERSION_NAME;
      if (key === DIRTY_CONTENT) return `scheduler.v1/dirtyCS/${this.#backend}`;
      if (key.startsWith(DIRTY_SNAPSHOTS + SEPARATOR) && parts.length === 4) {
        return `scheduler.v1/dirtySS/${escapePart(snapshotter)}/${this.#backend}`;
      }
      if (OF_BACKENDS.has(second)) {
        return ['scheduler.v1', ...parts.slice(1).map(escapePart), this.#backend].join('/');
      }
    }
    return regular(parts) ?? `other/${parts.map(escapePart).join('/')}`;
  }

  /** Everything that belongs to a record and goes with it begins with this. */
  linksOf(from: Key): string {
    const parts = components(from);
    return ownsDirectory(parts) ? `${regular(parts)}/` : `otherlinks/${joined(from)}/`;
  }

  link(from: Key, relation: string, to: Key): string {
    return (
      this.linksOf(from) + (directoryOf(from, relation, to) ?? `links/${escapePart(relation)}/${joined(to)}`)
    );
  }

  counter(name: Key): string {
    const [collection = '', ns, ...rest] = components(name);
    if (ns === undefined || rest.length === 0) return `other/sequence/${joined(name)}`;
    return `v1/${namespaceDir(ns)}/sequence/${[collection, ...rest].map(escapePart).join('/')}`;
  }

  /** Ranges (key, end) that hold every counter at or below a prefix. */
  countersBelow(prefix: Key): [string, string | undefined][] {
    const [collection = '', ns, ...rest] = components(prefix);
    if (ns === undefined) return [[`other/sequence/${joined(prefix)}`, undefined]];
    const dir = `v1/${namespaceDir(ns)}/sequence/${[collection, ...rest].map(escapePart).join('/')}`;
    return [
      [dir, undefined],
      [`${dir}/`, `${dir}0`],
      [`other/sequence/${joined(prefix)}`, undefined],
    ];
  }

  /** Ranges whose keys include those of all records strictly below a prefix; undefined: no such ranges are small. */
  rangesBelow(prefix: Key): [string, string][] | undefined {
    const parts = components(prefix);
    const [collection = '', ns] = parts;
    if (prefix === '' || ns === undefined || collection === 'meta' || collection === 'raw') return undefined;
    const irregular = `other/${parts.map(escapePart).join('/')}/`;
    const shape = shapes[collection];
    if (shape === undefined || parts.length >= shape.parts)
      return [[irregular, `${irregular.slice(0, -1)}0`]];
    const dir = ['v1', namespaceDir(ns), shape.dir, ...parts.slice(2).map(escapePart)].join('/');
    return [
      [`${dir}/`, `${dir}0`],
      [irregular, `${irregular.slice(0, -1)}0`],
    ];
  }

  // ----------------------------------------------------------------------------------------------- from etcd

  /** undefined: a key of the tree that this version does not know. */
  parse(name: string): Place | undefined {
    const parts = name.split('/');
    switch (parts[0]) {
      case 'v1':
        return parseTree(parts);
      case 'other':
        if (parts[1] === 'sequence') return { is: 'counter', name: split(parts[2] ?? '') };
        return { is: 'record', key: parts.slice(1).map(plainPart).join(SEPARATOR) };
      case 'otherlinks':
        return parseLinks(split(parts[1] ?? ''), parts.slice(2));
      case 'scheduler.v1':
        return this.#parseScheduler(parts);
      case 'lock':
        return { is: 'lock' };
      case 'sys':
        if (parts[1] === 'commit') return { is: 'commit', host: plainPart(parts[2] ?? '') };
        if (parts[1] === 'gate' || parts[1] === 'head') return { is: parts[1] };
        return { is: 'other' };
      default:
        return { is: 'record', key: `raw${SEPARATOR}${name}` };
    }
  }

  #parseScheduler(parts: string[]): Place {
    const [, flag = '', name = ''] = parts;
    if (flag === 'dirty' && parts.length === 2) return { is: 'dirty' };
    if (flag === 'last' && parts.length === 2) return { is: 'last' };
    const own = parts.at(-1) === this.#backend;
    if (own && flag === 'dirtyCS' && parts.length === 3) return { is: 'record', key: DIRTY_CONTENT };
    if (own && flag === 'dirtySS' && parts.length === 4) {
      return { is: 'record', key: metaKey('dirty', 'snapshots', plainPart(name)) };
    }
    if (own && OF_BACKENDS.has(flag)) {
      return { is: 'record', key: metaKey(...parts.slice(1, -1).map(plainPart)) };
    }
    // Flags of other hosts' backends are theirs.
    return { is: 'other' };
  }
}

/** Raw keys keep their spelling, so they must keep out of the tree. */
export function rawName(name: string): string {
  if (!reserved.has(firstPart(name))) return name;
  throw invalidArgument(`the raw key "${name.slice(0, 200)}" lies in the tree of records`, {
    object: name,
    remedy: `begin it with anything but ${[...reserved].join(', ')}`,
  });
}

// A namespace may be called like what stands beside the namespaces.
const namespaceDir = (ns: string): string => {
  if (ns === 'namespaces') return '%6Eamespaces';
  return ns === 'version' ? '%76ersion' : escapePart(ns);
};

/** Below it every namespace has a key, which ends in its name. */
export const NAMESPACES = 'v1/namespaces/';
export const namespaceOfIndex = (key: string): string => plainPart(key.slice(NAMESPACES.length));

/** What the keys of a namespace begin with: all of them, those of each kind, and those of its blobs. */
export function directoriesOf(ns: string): { all: string; each: string[]; blobs: string } {
  const all = `v1/${namespaceDir(ns)}/`;
  const each = [...Object.values(shapes).map(({ dir }) => dir), 'sequence'].map((dir) => `${all}${dir}/`);
  return { all, each: [...new Set(each)], blobs: `${all}content/blob/` };
}

/** The readable key of a record whose path has the usual form. */
function regular(parts: readonly string[]): string | undefined {
  const [collection = '', ns = '', ...rest] = parts;
  if (collection === 'namespaces' && parts.length === 2) return `v1/namespaces/${escapePart(ns)}`;
  const shape = shapes[collection];
  if (shape === undefined || parts.length !== shape.parts) return undefined;
  return `v1/${namespaceDir(ns)}/${shape.dir}/${rest.map(escapePart).join('/')}`;
}

/** What lies below a snapshotter or the namespaces are records; below the others, links. */
function ownsDirectory(parts: readonly string[]): boolean {
  return parts[0] !== 'snapshotters' && parts[0] !== 'namespaces' && regular(parts) !== undefined;
}

const joined = (key: Key): string => escapePart(components(key).map(escapePart).join('/'));
const split = (text: string): Key => plainPart(text).split('/').map(plainPart).join(SEPARATOR);

function directoryOf(from: Key, relation: string, to: Key): string | undefined {
  const source = components(from);
  const target = components(to);
  const [collection = '', ns, ...names] = target;
  if (!ownsDirectory(source) || source[1] !== ns || regular(target) === undefined) return undefined;
  if (source[0] === 'snapshots' && relation === Relation.children) {
    const [snapshotter, name = ''] = names;
    return collection === 'snapshots' && snapshotter === source[2]
      ? `children/${escapePart(name)}`
      : undefined;
  }
  if (source[0] !== 'leases') return undefined;
  if (relation !== Relation.holds && relation !== Relation.holdsFlat) return undefined;
  const dir = leaseDirs[collection];
  if (dir === undefined) return undefined;
  return `${relation === Relation.holdsFlat ? 'flat/' : ''}${dir}/${names.map(escapePart).join('/')}`;
}

const leaseDirs: Readonly<Record<string, string>> = {
  blobs: 'content',
  ingests: 'ingests',
  images: 'images',
  mounts: 'mounts',
  snapshots: 'snapshots',
};
const leaseCollections: Readonly<Record<string, string>> = {
  content: 'blobs',
  ingests: 'ingests',
  images: 'images',
  mounts: 'mounts',
  snapshots: 'snapshots',
};

function parseTree(parts: string[]): Place | undefined {
  if (parts[1] === 'version' && parts.length === 2) return { is: 'record', key: VERSION };
  const names = parts.slice(1).map(plainPart);
  if (parts[1] === 'namespaces') {
    return parts.length === 3 ? { is: 'record', key: ['namespaces', names[1]].join(SEPARATOR) } : undefined;
  }
  const [ns = '', dir] = names;
  const at = (collection: string, from: number, length: number): Place | undefined => {
    if (parts.length < from + length) return undefined;
    const key = [collection, ns, ...names.slice(from - 1, from - 1 + length)].join(SEPARATOR);
    if (parts.length === from + length) return { is: 'record', key };
    return parseLinks(key, parts.slice(from + length));
  };
  switch (dir) {
    case 'images':
    case 'containers':
    case 'sandboxes':
    case 'leases':
    case 'mounts':
      return at(dir, 3, 1);
    case 'content':
      if (names[2] === 'blob') return at('blobs', 4, 1);
      return names[2] === 'ingests' ? at('ingests', 4, 1) : undefined;
    case 'snapshots':
      return parts.length === 4 ? at('snapshotters', 3, 1) : at('snapshots', 3, 2);
    case 'sequence':
      return { is: 'counter', name: [names[2], ns, ...names.slice(3)].join(SEPARATOR) };
    default:
      return undefined;
  }
}

function parseLinks(from: Key, rest: string[]): Place | undefined {
  const [kind, second = '', third = ''] = rest;
  if (kind === 'links' && rest.length === 3) {
    return { is: 'link', from, relation: plainPart(second), to: split(third) };
  }
  const [collection, ns, snapshotter] = components(from);
  if (collection === 'snapshots' && kind === 'children' && rest.length === 2) {
    const to = ['snapshots', ns, snapshotter, plainPart(second)].join(SEPARATOR);
    return { is: 'link', from, relation: Relation.children, to };
  }
  if (collection !== 'leases') return undefined;
  const flat = kind === 'flat';
  const [dir = '', ...names] = flat ? rest.slice(1) : rest;
  const held = leaseCollections[dir];
  if (held === undefined || names.length !== (held === 'snapshots' ? 2 : 1)) return undefined;
  const to = [held, ns, ...names.map(plainPart)].join(SEPARATOR);
  return { is: 'link', from, relation: flat ? Relation.holdsFlat : Relation.holds, to };
}

/** Owners of links fall into so many buckets; two of one bucket may make each other run again, no more. */
const BUCKETS = 4096;

function bucketOf(owner: Key): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < owner.length; i++) hash = Math.imul(hash ^ owner.charCodeAt(i), 0x01000193);
  return (hash >>> 0) % BUCKETS;
}
