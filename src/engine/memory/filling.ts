/**
 * Fills a memory engine before a caller has it: records that are all there at once need no transactions, whose readers, conflicts and
 * undoing cost as much as the records. Called by engine.ts; the graph is then as the planner of a commit would have made it,
 * which `verifyGraph` can be asked.
 */
import { type Adjacency, type Indexer, type Key, NodeFlag, type Value } from '../contract.js';
import { setOp } from '../core/planner.js';
import { type Entry, linkPrefix, NO_ID, packEdge } from '../core/storage.js';
import { type GraphCore, GraphOp } from '../graph.js';
import { encodeValue } from '../schema/codec.js';
import type { MemoryStorage } from './storage.js';

const NO_EDGES: readonly number[] = [];
/** Words of operations that the graph is given at once. */
const WORDS = 64 * 1024;

export class Filling {
  readonly #storage: MemoryStorage;
  readonly #indexer: Indexer;
  readonly #graph: GraphCore;
  #ops: number[] = [];
  #nodes = 0;
  #records = 0;

  constructor(storage: MemoryStorage, indexer: Indexer, graph: GraphCore) {
    this.#storage = storage;
    this.#indexer = indexer;
    this.#graph = graph;
  }

  /** Of a key that is put in twice the first record counts. */
  record(key: Key, value: Value): void {
    const known = this.#storage.entry(key);
    if (known?.bytes !== undefined) return;
    this.#records++;
    const bytes = encodeValue(key, value);
    const node = this.#indexer.node(key, value);
    const id = known?.id ?? NO_ID;
    if (node === undefined) this.#storage.fill(key, { id, adjacency: undefined, bytes });
    else this.#node(key, id, node, bytes);
  }

  link(from: Key, relation: string, to: Key): void {
    this.#storage.fillLink(linkPrefix(from, relation) + to);
    const kind = this.#indexer.link(from, relation, to);
    if (kind !== undefined) this.#edge(this.#idOf(from), this.#idOf(to), kind);
  }

  end(): void {
    this.#apply();
    this.#storage.fillRecords(this.#records);
  }

  #apply(): void {
    if (this.#ops.length > 0) this.#graph.apply(Uint32Array.from(this.#ops));
    this.#ops = [];
  }

  #node(key: Key, known: number, { flags: given, expireAt, edges }: Adjacency, bytes: Uint8Array): void {
    const id = known === NO_ID ? this.#nodes++ : known;
    const expires = expireAt === undefined ? 0 : NodeFlag.expires;
    const flags = (given & ~NodeFlag.expires) | NodeFlag.present | expires;
    this.#push(setOp(id, flags, expireAt));
    const entry = { id, adjacency: { flags, expireAt, edges: NO_EDGES }, bytes };
    // Before its edges, which may lead to itself.
    this.#storage.fill(key, entry);
    if (edges.length === 0) return;
    entry.adjacency.edges = edges.map(({ to, kind, back = false }) => {
      const target = this.#idOf(to);
      if (back) this.#edge(target, id, kind);
      else this.#edge(id, target, kind);
      return packEdge(target, kind, back);
    });
  }

  /** Makes a dangling node if need be. */
  #idOf(key: Key): number {
    const known: Entry | undefined = this.#storage.entry(key);
    if (known !== undefined && known.id !== NO_ID) return known.id;
    const id = this.#nodes++;
    this.#push(setOp(id, this.#indexer.absent(key), undefined));
    this.#storage.fill(key, { id, adjacency: undefined, bytes: known?.bytes });
    return id;
  }

  #edge(from: number, to: number, kind: number): void {
    this.#ops.push(GraphOp.add, from, to, kind);
  }

  #push(words: readonly number[]): void {
    for (const word of words) this.#ops.push(word);
    if (this.#ops.length >= WORDS) this.#apply();
  }
}
