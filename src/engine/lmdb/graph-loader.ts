/**
 * Brings the graph up at opening: from the checkpoint and the journal after it, else from the adjacency stored with
 * every record. Called by engine.ts, before any caller sees the engine.
 */
import { EbbtideError } from '../../errors.js';
import { type Indexer, NodeFlag } from '../contract.js';
import { asBuffer } from '../core/bytes.js';
import { expandEdges, setOp } from '../core/planner.js';
import { splitLink } from '../core/storage.js';
import { type GraphCore, GraphOp } from '../graph.js';
import { Relation } from '../schema/keys.js';
import { chunkKey, type StoreState } from './checkpoint.js';
import { childPairs } from './codec/child-links.js';
import { decodeKey, decodeLink } from './codec/key-codec.js';
import { decodeAdjacency, nodeParts } from './codec/node-codec.js';
import type { StorageState } from './storage.js';
import type { Databases } from './tree/databases.js';
import { readJournal } from './tree/journal.js';
import { find, isInline } from './tree/key-index.js';
import { lastSizeOf } from './tree/table.js';

/** Words of ops flushed at once while rebuilding. */
const WORDS_MAX = 64 * 1024;

export interface LoadedGraph extends StorageState {
  /** Bytes of the journal after the checkpoint. */
  journalBytes: number;
  /** The stored checkpoint is of no use. */
  rebuilt: boolean;
}

export function loadGraph(
  dbs: Databases,
  graph: GraphCore,
  indexer: Indexer,
  state: StoreState,
  warn: (message: string) => void,
): LoadedGraph {
  const loaded = loadCheckpoint(dbs, graph, state);
  if (typeof loaded !== 'string') return loaded;
  warn(`the graph is rebuilt from the records: ${loaded}`);
  graph.clear();
  return { ...rebuild(dbs, graph, indexer), revision: newestRevision(dbs, state) };
}

/** Returns why it could not, when it could not. */
function loadCheckpoint(dbs: Databases, graph: GraphCore, state: StoreState): LoadedGraph | string {
  const { checkpoint } = state;
  const loaded: LoadedGraph = { revision: 0, records: 0, journalBytes: 0, rebuilt: false };
  if (checkpoint !== undefined) {
    // Straight into one buffer: at ten million records it takes 55 MB.
    const image = Buffer.allocUnsafeSlow(checkpoint.bytes);
    let size = 0;
    for (let i = 0; i < checkpoint.chunks; i++) {
      const chunk = dbs.checkpoints.getBinaryFast(chunkKey(checkpoint.slot, i));
      if (chunk === undefined) return `part ${i} of its checkpoint is missing`;
      const length = lastSizeOf(dbs.checkpoints);
      if (size + length > image.length) return 'its checkpoint is damaged';
      image.set(chunk.subarray(0, length), size);
      size += length;
    }
    if (size < image.length || !graph.load(image)) return 'its checkpoint is damaged';
    loaded.revision = checkpoint.revision;
    loaded.records = checkpoint.records;
  }
  try {
    for (const entry of readJournal(dbs.journal, loaded.revision)) {
      if (entry === undefined || entry.previous !== loaded.revision) {
        return `its journal has a gap after revision ${loaded.revision}`;
      }
      if (entry.ops.length > 0) graph.apply(entry.ops);
      loaded.revision = entry.revision;
      loaded.records += entry.recordDelta;
      loaded.journalBytes += entry.ops.byteLength;
    }
  } catch (error) {
    if (error instanceof EbbtideError) return `its journal does not fit its checkpoint (${error.message})`;
    throw error;
  }
  return loaded;
}

/** All nodes first, then all edges, since both ends of an edge must exist. */
function rebuild(dbs: Databases, graph: GraphCore, indexer: Indexer): Omit<LoadedGraph, 'revision'> {
  const ops = new OpBuffer(graph);
  let records = 0;
  for (const { id, key, bytes } of nodesOf(dbs)) {
    const parts = nodeParts(id, bytes, bytes.length);
    if (parts.valueStart >= 0) records++;
    const adjacency =
      parts.adjacencyEnd > parts.adjacencyStart
        ? decodeAdjacency(id, bytes, parts.adjacencyStart, parts.adjacencyEnd)
        : undefined;
    const flags = adjacency === undefined ? indexer.absent(key) : adjacency.flags | NodeFlag.present;
    ops.push(setOp(id, flags, adjacency?.expireAt));
  }
  ops.flush();
  for (const { id, bytes } of nodesOf(dbs)) {
    const { adjacencyStart, adjacencyEnd } = nodeParts(id, bytes, bytes.length);
    if (adjacencyEnd === adjacencyStart) continue;
    for (const [from, to, kind] of expandEdges(
      id,
      decodeAdjacency(id, bytes, adjacencyStart, adjacencyEnd),
    )) {
      ops.push([GraphOp.add, from, to, kind]);
    }
  }
  addLinks(dbs, indexer, ops);
  ops.flush();
  return {
    records: records + countInline(dbs),
    journalBytes: 1,
    rebuilt: true,
  };
}

function addLinks(dbs: Databases, indexer: Indexer, ops: OpBuffer): void {
  const add = (from: string, relation: string, to: string): boolean => {
    const kind = indexer.link(from, relation, to);
    if (kind === undefined) return false;
    const source = find(dbs, from)?.id;
    const target = find(dbs, to)?.id;
    if (source !== undefined && target !== undefined) ops.push([GraphOp.add, source, target, kind]);
    return true;
  };
  forEachRow(dbs.links, (row) => {
    const { from, relation, to } = splitLink(decodeLink(row));
    add(from, relation, to);
  });
  const keyOf = (id: number): string | undefined => {
    const node = asBuffer(dbs.nodes.getBinary(id));
    if (node === undefined) return undefined;
    const { keyStart, keyEnd } = nodeParts(id, node, node.length);
    return decodeKey(node, keyStart, keyEnd);
  };
  for (const { from, to } of childPairs(dbs.children, keyOf)) {
    // A relation is made of edges, or it is not.
    if (!add(from, Relation.children, to)) break;
  }
}

function forEachRow(table: Databases['links'], visit: (key: Buffer, value: Buffer) => void): void {
  for (let lower: Buffer = Buffer.alloc(0), exclusive = false; ; exclusive = true) {
    const rows = table.range(lower, exclusive, undefined, 512);
    for (const [key, value] of rows) visit(key, value);
    const last = rows[rows.length - 1];
    if (rows.length < 512 || last === undefined) return;
    lower = last[0];
  }
}

/** Records without a node are held by the key table itself. */
function countInline(dbs: Databases): number {
  let count = 0;
  forEachRow(dbs.keys, (_key, value) => {
    if (isInline(value)) count++;
  });
  return count;
}

/** The revision that the tree is at. */
export function newestRevision(dbs: Databases, { checkpoint }: StoreState): number {
  const last = [...dbs.journal.getKeys({ reverse: true, limit: 1 })][0];
  const journal = last === undefined ? 0 : Number(Buffer.from(last).readBigUInt64BE(0));
  return Math.max(journal, checkpoint?.revision ?? 0);
}

function* nodesOf(dbs: Databases): Generator<{ id: number; key: string; bytes: Buffer }> {
  for (const { key: id, value } of dbs.nodes.getRange({})) {
    const bytes = asBuffer(value);
    const { keyStart, keyEnd } = nodeParts(id, bytes, bytes.length);
    yield { id, key: decodeKey(bytes, keyStart, keyEnd), bytes };
  }
}

class OpBuffer {
  readonly #graph: GraphCore;
  #words: number[] = [];

  constructor(graph: GraphCore) {
    this.#graph = graph;
  }

  push(op: readonly number[]): void {
    this.#words.push(...op);
    if (this.#words.length >= WORDS_MAX) this.flush();
  }

  flush(): void {
    if (this.#words.length > 0) this.#graph.apply(Uint32Array.from(this.#words));
    this.#words = [];
  }
}
