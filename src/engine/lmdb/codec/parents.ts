/**
 * Beginnings of keys that were read lately: all but the last component, as bytes and as text. Called by key-codec.ts. Neighbours
 * in the order of keys share them, and so do records of a few kinds and namespaces that are read by their ids.
 */

export interface Parent {
  /** With the separator. */
  readonly bytes: Uint8Array;
  readonly text: string;
}

const KEPT = 8;
const parents: Parent[] = [];
let next = 0;
let last: Parent | undefined;

/** The one that the key in these bytes begins with, if there is more of it. */
export function knownParent(bytes: Uint8Array, start: number, end: number): Parent | undefined {
  if (last !== undefined && begins(bytes, start, end, last.bytes)) return last;
  for (const parent of parents) {
    if (!begins(bytes, start, end, parent.bytes)) continue;
    last = parent;
    return parent;
  }
  return undefined;
}

export function keepParent(parent: Parent): void {
  last = parent;
  parents[next] = parent;
  next = (next + 1) % KEPT;
}

function begins(bytes: Uint8Array, start: number, end: number, parent: Uint8Array): boolean {
  const { length } = parent;
  if (start + length >= end) return false;
  // From its end, where those of one collection differ.
  for (let i = length - 1; i >= 0; i--) if (bytes[start + i] !== parent[i]) return false;
  return true;
}
