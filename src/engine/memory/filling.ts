/**
 * Fills a memory engine before a caller has it: records that are all there at once need no transactions, whose readers, conflicts and
 * undoing cost as much as the records. Called by engine.ts; the graph is then as the planner of a commit would have made it,
 * which `verifyGraph` can be asked.
 */
import { type Adjacency, type Indexer, type Key, NodeFlag, type Value } from '../contract.js';
import { PartitionedMap } from '../core/partitioned-map.js';
import { setOp } from '../core/planner.js';
import {
  type Entry,
  edgeIsBack,
  edgeKind,
  edgeTarget,
  linkPrefix,
  NO_ID,
  packEdge,
  type StoredAdjacency,
} from '../core/storage.js';
import { type GraphCore, GraphOp } from '../graph.js';
import { ByteStore } from '../schema/bytes.js';
import { encodeInto } from '../schema/codec.js';
import { type Contents, noContents } from './storage.js';

const NO_EDGES: readonly number[] = [];
/** Words of operations that the graph is given at once. */
const WORDS = 64 * 1024;
/** Of the longest operation. */
const OP_WORDS = 5;

/** What one thread filled in, for another one to take in. Nodes have the numbers of their keys. */
export interface FilledPart {
  /** Of nodes, and then of records that are none. */
  readonly keys: readonly string[];
  readonly nodes: number;
  /** Of each node; -1 without a record. */
  readonly flags: Int32Array;
  /** Of those nodes that expire. */
  readonly expiries: ReadonlyMap<number, bigint>;
  /** Of the value under each key in `chunks`; -1 without one. */
  readonly places: Float64Array;
  /** Of all nodes, packed, one after the other. */
  readonly edges: Float64Array;
  readonly edgeCounts: Uint32Array;
  /** `from`, relation and `to`, one after the other. */
  readonly links: readonly string[];
  readonly chunks: readonly Uint8Array<ArrayBuffer>[];
}

/** What is known under a key so far; in place, since others may refer to a record before it comes. Few objects: there may be millions. */
class Filled implements Entry {
  store: ByteStore;
  id = NO_ID;
  /** -1 without adjacency. */
  flags = -1;
  expireAt: bigint | undefined = undefined;
  edges = NO_EDGES;
  /** Of the value in the store; -1 without one. */
  place = -1;

  constructor(store: ByteStore) {
    this.store = store;
  }

  get adjacency(): StoredAdjacency | undefined {
    const { flags, expireAt, edges } = this;
    return flags < 0 ? undefined : { flags, expireAt, edges };
  }

  get bytes(): Uint8Array | undefined {
    return this.place < 0 ? undefined : this.store.at(this.place);
  }
}

export class Filling {
  readonly #store = new ByteStore();
  readonly #entries = new PartitionedMap<Filled>();
  readonly #contents: Contents = { ...noContents(), entries: this.#entries };
  readonly #indexer: Indexer;
  readonly #graph: Pick<GraphCore, 'apply'>;
  readonly #ops = new Uint32Array(WORDS);
  #words = 0;

  constructor(indexer: Indexer, graph: Pick<GraphCore, 'apply'>) {
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

  /** What another thread filled in; what is there already counts. */
  take(part: FilledPart): void {
    const { keys, nodes, flags, expiries, places, edges, edgeCounts, links, chunks } = part;
    const store = new ByteStore(chunks.map((chunk) => Buffer.from(chunk.buffer)));
    const ids = new Uint32Array(nodes);
    const fresh: (Filled | undefined)[] = [];
    for (const [i, key] of keys.entries()) {
      const entry = this.#entry(key);
      const place = places[i] ?? -1;
      const isFresh = place >= 0 && entry.place < 0;
      if (isFresh) {
        this.#contents.records++;
        entry.store = store;
        entry.place = place;
      }
      if (i >= nodes) continue;
      fresh.push(isFresh ? entry : undefined);
      ids[i] = isFresh ? this.#present(key, entry, flags[i] ?? 0, expiries.get(i)) : this.#idOf(key, entry);
    }
    let at = 0;
    for (const [i, entry] of fresh.entries()) {
      const end = at + (edgeCounts[i] ?? 0);
      if (entry !== undefined && end > at)
        entry.edges = Array.from(edges.subarray(at, end), (edge) =>
          this.#join(entry.id, ids[edgeTarget(edge)] ?? 0, edgeKind(edge), edgeIsBack(edge)),
        );
      at = end;
    }
    for (let i = 0; i < links.length; i += 3)
      this.link(links[i] ?? '', links[i + 1] ?? '', links[i + 2] ?? '');
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

  /** For `take` of another one. @param links those that were put in */
  part(links: readonly string[]): FilledPart {
    const nodes = this.#contents.nodes as Filled[];
    const others = [...this.#entries.entries()].filter(([, { id }]) => id === NO_ID);
    const all = [...nodes, ...others.map(([, entry]) => entry)];
    const expiries = new Map<number, bigint>();
    for (const { id, expireAt } of nodes) if (expireAt !== undefined) expiries.set(id, expireAt);
    return {
      keys: [...(this.#contents.keys as string[]), ...others.map(([key]) => key)],
      nodes: nodes.length,
      flags: Int32Array.from(nodes, ({ flags }) => flags),
      expiries,
      places: Float64Array.from(all, ({ place }) => place),
      edges: Float64Array.from(nodes.flatMap(({ edges }) => edges)),
      edgeCounts: Uint32Array.from(nodes, ({ edges }) => edges.length),
      links,
      chunks: this.#store.chunks.map(({ buffer }) => new Uint8Array(buffer as ArrayBuffer)),
    };
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
    const expires = expireAt === undefined ? 0 : NodeFlag.expires;
    const id = this.#present(key, entry, (flags & ~NodeFlag.expires) | NodeFlag.present | expires, expireAt);
    if (edges.length > 0)
      entry.edges = edges.map(({ to, kind, back = false }) => this.#join(id, this.#idOf(to), kind, back));
  }

  #present(key: Key, entry: Filled, flags: number, expireAt: bigint | undefined): number {
    const id = entry.id === NO_ID ? this.#number(key, entry) : entry.id;
    entry.flags = flags;
    entry.expireAt = expireAt;
    this.#push(setOp(id, flags, expireAt));
    return id;
  }

  #join(id: number, target: number, kind: number, back: boolean): number {
    if (back) this.#edge(target, id, kind);
    else this.#edge(id, target, kind);
    return packEdge(target, kind, back);
  }

  /** Makes a dangling node if need be. */
  #idOf(key: Key, entry = this.#entry(key)): number {
    if (entry.id !== NO_ID) return entry.id;
    const id = this.#number(key, entry);
    this.#push(setOp(id, this.#indexer.absent(key), undefined));
    return id;
  }

  #number(key: Key, entry: Filled): number {
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
