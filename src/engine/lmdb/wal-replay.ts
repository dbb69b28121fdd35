/** Batches of the log as commits again, for a reader that has to see them over the tree. Called at opening. */
import type { Key } from '../contract.js';
import type { Commit, Entry, EntryChange, LinkKey } from '../core/storage.js';
import { NO_ID } from '../core/storage.js';
import type { GraphCore } from '../graph.js';
import { decodeKey, decodeLink } from './key-codec.js';
import { nodeParts, readEntry } from './node-codec.js';
import type { LmdbStorage } from './storage.js';
import { type Batch, openBatch, visitRows } from './wal-format.js';

/** Lets a batch that the tree does not have be seen by reads, and by the graph. Returns how much it changes. */
export function overlay(storage: LmdbStorage, graph: GraphCore, bytes: Buffer): number {
  const batch = openBatch(bytes);
  storage.overlay(
    decodeCommit(batch, (id) => storage.keyOf(id)),
    batch.recordDelta,
  );
  if (batch.ops.length > 0) graph.apply(batch.ops);
  return batch.ops.length;
}

/** `keyOf` returns the key of a node before the batch. */
function decodeCommit(
  { revision, rows }: Batch,
  keyOf: (id: number) => Key | undefined,
): Pick<Commit, 'revision' | 'entries' | 'links' | 'counters' | 'freed'> {
  const entries = new Map<Key, EntryChange>();
  const links = new Map<LinkKey, boolean>();
  const counters = new Map<Key, number | undefined>();
  const freed = new Map<number, Key>();
  const made = new Map<number, Key>();
  const set = (key: Key, after: Entry | undefined): void => {
    entries.set(key, { before: undefined, after });
  };
  visitRows(rows, {
    node(id, node) {
      const { keyStart, keyEnd } = nodeParts(id, node, node.length);
      const key = decodeKey(node, keyStart, keyEnd);
      made.set(id, key);
      freed.delete(id);
      set(key, readEntry(id, node, node.length));
    },
    nodeTombstone(id) {
      const key = made.get(id) ?? keyOf(id);
      if (key === undefined) return;
      freed.set(id, key);
      set(key, undefined);
    },
    inline(key, value) {
      const after = value && { id: NO_ID, adjacency: undefined, bytes: Buffer.from(value) };
      set(decodeKey(key), after);
    },
    link: (link, present) => void links.set(decodeLink(link), present),
    counter: (name, value) => void counters.set(decodeKey(name), value),
  });
  return { revision, entries, links, counters, freed };
}
