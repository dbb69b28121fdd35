/** Batches of the log as commits again, for a reader that has to see them over the tree. Called at opening. */
import type { Key } from '../contract.js';
import { asBuffer } from '../core/bytes.js';
import { type Entry, type EntryChange, type LinkKey, NO_ID } from '../core/storage.js';
import type { GraphCore } from '../graph.js';
import { ByteReader } from '../schema/bytes.js';
import type { ChildLink } from './codec/child-links.js';
import { decodeKey, decodeLink } from './codec/key-codec.js';
import { nodeParts, readEntry } from './codec/node-codec.js';
import { type PackedOps, readOps } from './codec/packed-ops.js';
import type { TableCommit } from './memtable.js';
import type { LmdbStorage } from './storage.js';
import { type Batch, openBatch, visitRows } from './wal/format.js';

/** Lets a batch that the tree does not have be seen by reads, and by the graph. Returns how much it changes. */
export function overlay(storage: LmdbStorage, graph: GraphCore, bytes: Buffer): number {
  const batch = openBatch(bytes);
  const { commit, ops } = decodeBatch(batch, (id) => storage.pendingKeyOf(id));
  storage.overlay(commit, batch.recordDelta);
  let words = 0;
  for (const packed of ops) {
    const reader = new ByteReader();
    reader.over(asBuffer(packed.bytes), 0, packed.bytes.length);
    graph.apply(readOps(reader, packed.words));
    words += packed.words;
  }
  return words;
}

/**
 * `pendingKeyOf` returns the key of a node that batches before this one have changed. Of others that go the number is enough, as
 * in the memtables: there may be hundreds of thousands.
 */
function decodeBatch(
  batch: Batch,
  pendingKeyOf: (id: number) => Key | undefined,
): { commit: TableCommit; ops: readonly PackedOps[] } {
  const { revision } = batch;
  const entries = new Map<Key, EntryChange>();
  const links = new Map<LinkKey, boolean>();
  const counters = new Map<Key, number | undefined>();
  const freed = new Set<number>();
  const made = new Map<number, Key>();
  const formerChildren: ChildLink[] = [];
  const ops: PackedOps[] = [];
  const set = (key: Key, after: Entry | undefined): void => {
    entries.set(key, { before: undefined, after });
  };
  visitRows(batch, {
    node(id, node) {
      const { keyStart, keyEnd } = nodeParts(id, node, node.length);
      const key = decodeKey(node, keyStart, keyEnd);
      made.set(id, key);
      freed.delete(id);
      set(key, readEntry(id, node, node.length));
    },
    nodeTombstone(id) {
      freed.add(id);
      const key = made.get(id) ?? pendingKeyOf(id);
      if (key !== undefined) set(key, undefined);
    },
    inline(key, value) {
      const after = value && { id: NO_ID, adjacency: undefined, bytes: Buffer.from(value) };
      set(decodeKey(key), after);
    },
    link: (link, present) => void links.set(decodeLink(link), present),
    counter: (name, value) => void counters.set(decodeKey(name), value),
    childTombstone: (from, to) => void formerChildren.push({ from, to }),
    graphOps: (packed) => void ops.push(packed),
  });
  return { commit: { revision, entries, links, formerChildren, counters, freed }, ops };
}
