/**
 * Where every object lives: the one place that spells keys. Components are joined by NUL; the first is the
 * collection. Called by stores/, gc/ and the engines.
 */
import { invalidArgument } from '../../errors.js';
import type { Key } from '../contract.js';

export const SEPARATOR = '\0';
export const MAX_COMPONENT_BYTES = 32768;

/** Joins components: InvalidArgument for an empty one, one with a NUL, or one over 32768 bytes. */
export function key(first: string, ...others: string[]): Key {
  checkComponent(first);
  let joined = first;
  for (const part of others) {
    checkComponent(part);
    joined += SEPARATOR + part;
  }
  return joined;
}

export function checkComponent(part: string, what = 'key'): void {
  if (part === '') throw invalidArgument(`${what} must not be empty`);
  if (part.includes(SEPARATOR)) throw invalidArgument(`${what} must not contain NUL`, { object: part });
  // A UTF-16 unit is at most 3 bytes, so only long ones need counting.
  if (part.length * 3 > MAX_COMPONENT_BYTES && Buffer.byteLength(part) > MAX_COMPONENT_BYTES) {
    throw invalidArgument(`${what} is longer than ${MAX_COMPONENT_BYTES} bytes`, {
      object: `${part.slice(0, 64)}…`,
    });
  }
}

export const components = (k: Key): string[] => k.split(SEPARATOR);
export const collectionOf = (k: Key): string => k.slice(0, (k.indexOf(SEPARATOR) + 1 || k.length + 1) - 1);
/** The last component. */
export const leaf = (k: Key): string => k.slice(k.lastIndexOf(SEPARATOR) + 1);
/** The second component: the namespace in every namespaced collection. */
export function namespaceOf(k: Key): string {
  const start = k.indexOf(SEPARATOR) + 1;
  const end = k.indexOf(SEPARATOR, start);
  return end < 0 ? k.slice(start) : k.slice(start, end);
}

export const namespaceKey = (ns: string): Key => key('namespaces', ns);
export const imageKey = (ns: string, name: string): Key => key('images', ns, name);
export const containerKey = (ns: string, id: string): Key => key('containers', ns, id);
/** Existence of a snapshotter in a namespace; also the name of its sequence counter. */
export const snapshotterKey = (ns: string, snapshotter: string): Key => key('snapshotters', ns, snapshotter);
export const snapshotKey = (ns: string, snapshotter: string, name: string): Key =>
  key('snapshots', ns, snapshotter, name);
export const blobKey = (ns: string, digest: string): Key => key('blobs', ns, digest);
export const ingestKey = (ns: string, ref: string): Key => key('ingests', ns, ref);
export const sandboxKey = (ns: string, id: string): Key => key('sandboxes', ns, id);
export const mountKey = (ns: string, name: string): Key => key('mounts', ns, name);
export const leaseKey = (ns: string, id: string): Key => key('leases', ns, id);
/** Target of `containerd.io/gc.ref.<word…>` for words that are not built in; `word` is all after `gc.ref.`. */
export const foreignKey = (ns: string, word: string, value: string): Key => key('foreign', ns, word, value);
/** Owner of links `named` to the records that share a backend snapshot they did not create. */
export const backendNameKey = (snapshotter: string, name: string): Key =>
  key('backendnames', snapshotter, name);
export const rawKey = (name: string): Key => key('raw', name);
export const metaKey = (...name: string[]): Key => key('meta', ...name);

/** Link relations. */
export const Relation = {
  /** snapshot → its child snapshots; not a graph edge. */
  children: 'children',
  /** lease → what it holds, plain and flat (a flat lease's content, snapshots and images). */
  holds: 'holds',
  holdsFlat: 'holds.flat',
  /** backend name → records that adopted it. */
  named: 'named',
} as const;
