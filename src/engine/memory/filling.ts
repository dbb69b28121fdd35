/**
 * Fills a memory engine before a caller has it: records that are all there at once need no transactions, whose readers, conflicts and
 * undoing cost as much as the records. Called by engine.ts; the graph is then as the planner of a commit would have made it,
 * which `verifyGraph` can be asked.
 */
import { type Adjacency, type Edge, type Indexer, type Key, NodeFlag, type Value } from '../contract.js';
import { PartitionedMap } from '../core/partitioned-map.js';
import { setOp } from '../core/planner.js';
import { type Entry, linkPrefix, NO_ID, packEdge, type StoredAdjacency } from '../core/storage.js';
import { type GraphCore, GraphOp } from '../graph.js';
import { ByteStore } from '../schema/bytes.js';
import { encodeInto } from '../schema/codec.js';
import { type Contents, noContents } from './storage.js';

const NO_EDGES: readonly number[] = [];
/** Words of operations that the graph is given at once. */
const WORDS = 64 * 1024;
/** Of the longest operation. */
const OP_WORDS = 5;

/** What is known under a key so far; in place, since others may refer to a record before it comes. Few objects: there may be millions. */
class Filled implements Entry {
  readonly #store: ByteStore;
  id = NO_ID;
  /** -1 without adjacency. */
  flags = -1;
  expireAt: bigint | undefined = undefined;
  edges = NO_EDGES;
  /** Of the value in the store; -1 without one. */
  place = -1;

  constructor(store: ByteStore) {
    this.#store = store;
  }

  get adjacency(): StoredAdjacency | undefined {
    const { flags, expireAt, edges } = this;
    return flags < 0 ? undefined : { flags, expireAt, edges };
  }

  get bytes(): Uint8Array | undefined {
    return this.place < 0 ? undefined : this.#store.at(this.place);
  }
}

export class Filling {
  readonly #store = new ByteStore();
  readonly #entries = new PartitionedMap<Filled>();
  readonly #contents: Contents = { ...noContents(), entries: this.#entries };
  readonly #indexer: Indexer;
  readonly #graph: GraphCore;
  readonly #ops = new Uint32Array(WORDS);
  #words = 0;

  constructor(indexer: Indexer, graph: GraphCore) {
    this.#indexer = indexer;
    this.#graph = graph;
  }

  /** Of a key that is put in twice the first record counts. */
  record(key: Key, value: Value): void {
    const entry = this.#entry(key);
    if (entry.place >= 0) return;
    this.#contents.records++;
    entry.place = encodeInto(this.#store, key, value);
    const node = this.#indexer.node(key, value);
    if (node !== undefined) this.#node(key, entry, node);
  }

  link(from: Key, relation: string, to: Key): void {
    this.#contents.links.set(linkPrefix(from, relation) + to, true);
    const kind = this.#indexer.link(from, relation, to);
    if (kind !== undefined) this.#edge(this.#idOf(from), this.#idOf(to), kind);
  }

  end(): Contents {
    this.#apply();
    return this.#contents;
  }

  #entry(key: Key): Filled {
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = new Filled(this.#store);
      this.#entries.set(key, entry);
    }
    return entry;
  }

  #node(key: Key, entry: Filled, { flags, expireAt, edges }: Adjacency): void {
    const id = entry.id === NO_ID ? this.#take(key, entry) : entry.id;
    const expires = expireAt === undefined ? 0 : NodeFlag.expires;
    entry.flags = (flags & ~NodeFlag.expires) | NodeFlag.present | expires;
    entry.expireAt = expireAt;
    this.#push(setOp(id, entry.flags, expireAt));
    if (edges.length > 0) entry.edges = edges.map((edge) => this.#edgeOf(id, edge));
  }

  #edgeOf(id: number, { to, kind, back = false }: Edge): number {
    const target = this.#idOf(to);
    if (back) this.#edge(target, id, kind);
    else this.#edge(id, target, kind);
    return packEdge(target, kind, back);
  }

  /** Makes a dangling node if need be. */
  #idOf(key: Key): number {
    const entry = this.#entry(key);
    if (entry.id !== NO_ID) return entry.id;
    const id = this.#take(key, entry);
    this.#push(setOp(id, this.#indexer.absent(key), undefined));
    return id;
  }

  #take(key: Key, entry: Filled): number {
    entry.id = this.#contents.keys.push(key) - 1;
    this.#contents.nodes.push(entry);
    return entry.id;
  }

  #edge(from: number, to: number, kind: number): void {
    this.#push([GraphOp.add, from, to, kind]);
  }

  #push(words: readonly number[]): void {
    if (this.#words + OP_WORDS > WORDS) this.#apply();
    for (const word of words) this.#ops[this.#words++] = word;
  }

  #apply(): void {
    if (this.#words > 0) this.#graph.apply(this.#ops.subarray(0, this.#words));
    this.#words = 0;
  }
}
