/**
 * Records that are all there at once, for an engine in memory that is only read: they need no transactions, whose readers, conflicts and
 * undoing cost as much as the records, and no object each. Called by engine.ts; the graph is then as the planner of commits would have
 * made it, which `verifyGraph` can be asked.
 */
import { type Adjacency, type Indexer, type Key, NodeFlag, type Value } from '../contract.js';
import { PartitionedMap } from '../core/partitioned-map.js';
import { setOp } from '../core/planner.js';
import { LINK_SEPARATOR, linkPrefix } from '../core/storage.js';
import { type GraphCore, GraphOp } from '../graph.js';
import { ByteStore } from '../schema/bytes.js';
import { encodeInto } from '../schema/codec.js';
import { Growing } from '../schema/growing.js';
import type { NameColumns } from '../schema/name-table.js';
import { KeyTable } from './key-table.js';

/** Words of operations that the graph is given at once. */
const WORDS = 64 * 1024;
/** Of the longest operation. */
const OP_WORDS = 5;
/** Of an `add`. */
const EDGE_WORDS = 4;
const NO_PLACE = -1;

/** What is known. */
export class Filled {
  /** Of the nodes, by their ids. */
  readonly keys = new KeyTable();
  /** Where the values of nodes are in the store; -1 without one. */
  readonly places = new Growing(Float64Array);
  /** The same of records that are no nodes. */
  readonly others = new PartitionedMap<number>();
  readonly store = new ByteStore();
  readonly links = new PartitionedMap<true>(LINK_SEPARATOR);
  records = 0;
}

/** What one thread filled in, for another one to take in. */
export interface FilledPart {
  /** Of nodes. */
  readonly names: NameColumns;
  readonly parents: readonly string[];
  readonly places: Float64Array;
  readonly others: readonly (readonly [Key, number])[];
  /** Of nodes, and their edges without those that links are. */
  readonly ops: readonly Uint32Array[];
  /** `from`, relation and `to`, one after the other. */
  readonly links: readonly string[];
  readonly chunks: readonly Uint8Array[];
}

export class Filling {
  readonly #filled = new Filled();
  readonly #indexer: Indexer;
  /** Without one: a part, that another thread takes in. */
  readonly #graph: Pick<GraphCore, 'apply'> | undefined;
  readonly #ops = new Uint32Array(WORDS);
  #words = 0;
  readonly #partOps: Uint32Array[] = [];
  readonly #partLinks: string[] = [];
  /** Whether the record that was in a part last is, and so the edges that follow it. */
  #isTaken = false;

  constructor(indexer: Indexer, graph?: Pick<GraphCore, 'apply'>) {
    this.#indexer = indexer;
    this.#graph = graph;
  }

  /** Of a key that is put in twice the first record counts. REQUIRES: nothing refers to a key that the indexer has no node for. */
  record(key: Key, value: Value): void {
    const filled = this.#filled;
    const node = this.#indexer.node(key, value);
    if (node === undefined) {
      if (!filled.others.has(key)) this.#other(key, encodeInto(filled.store, key, value));
      return;
    }
    const id = this.#add(key);
    if (filled.places.at(id) >= 0) return;
    this.#place(id, encodeInto(filled.store, key, value));
    this.#node(id, node);
  }

  link(from: Key, relation: string, to: Key): void {
    const kind = this.#indexer.link(from, relation, to);
    const ids = kind === undefined ? undefined : ([this.#idOf(from), this.#idOf(to)] as const);
    if (this.#graph === undefined) {
      this.#partLinks.push(from, relation, to);
      return;
    }
    this.#filled.links.set(linkPrefix(from, relation) + to, true);
    if (ids !== undefined) this.#edge(...ids, kind ?? 0);
  }

  /** What another thread filled in; what is there already counts. */
  take({ names, parents, places, others, ops, links, chunks }: FilledPart): void {
    const { keys, places: known, store, others: knownOthers } = this.#filled;
    const base = store.append(chunks);
    const before = known.length;
    const ids = keys.addAll(names, parents);
    while (known.length < keys.length) known.push(NO_PLACE);
    for (const [key, place] of others) if (!knownOthers.has(key)) this.#other(key, base + place);
    for (const words of ops) this.#takeOps(words, ids, before, (local) => base + (places[local] ?? 0));
    for (let i = 0; i < links.length; i += 3)
      this.link(links[i] ?? '', links[i + 1] ?? '', links[i + 2] ?? '');
  }

  /** @param before the first id that there was no node for */
  #takeOps(words: Uint32Array, ids: Uint32Array, before: number, placeOf: (local: number) => number): void {
    const word = (at: number): number => words[at] ?? 0;
    for (let at = 0; at < words.length; ) {
      const local = word(at + 1);
      const id = ids[local] ?? 0;
      if (words[at] === GraphOp.add) {
        if (this.#isTaken) this.#edge(id, ids[word(at + 2)] ?? 0, word(at + 3));
        at += EDGE_WORDS;
        continue;
      }
      const isDangling = (word(at + 2) & NodeFlag.present) === 0;
      if (!isDangling) this.#isTaken = this.#place(id, placeOf(local));
      if (isDangling ? id >= before : this.#isTaken)
        this.#push(GraphOp.set, id, word(at + 2), word(at + 3), word(at + 4));
      at += OP_WORDS;
    }
  }

  end(): Filled {
    this.#apply();
    return this.#filled;
  }

  /** For `take` of another one. */
  part(): FilledPart {
    this.#apply();
    const { keys, places, others, store } = this.#filled;
    return {
      names: keys.names,
      parents: keys.parents,
      places: places.take(),
      others: [...others.entries()],
      ops: this.#partOps,
      links: this.#partLinks,
      chunks: store.chunks,
    };
  }

  #other(key: Key, place: number): void {
    this.#filled.others.set(key, place);
    this.#filled.records++;
  }

  /** False: it has a record. */
  #place(id: number, place: number): boolean {
    const { places } = this.#filled;
    if (places.at(id) >= 0) return false;
    places.set(id, place);
    this.#filled.records++;
    return true;
  }

  #node(id: number, { flags, expireAt, edges }: Adjacency): void {
    this.#set(id, flags | NodeFlag.present, expireAt);
    for (const { to, kind, back } of edges) {
      const target = this.#idOf(to);
      if (back === true) this.#edge(target, id, kind);
      else this.#edge(id, target, kind);
    }
  }

  #set(id: number, flags: number, expireAt?: bigint): void {
    const [code = 0, , bits = 0, low = 0, high] = setOp(id, flags, expireAt);
    this.#push(code, id, bits, low, high);
  }

  /** Of a new one there is no node yet. */
  #add(key: Key): number {
    const { keys, places } = this.#filled;
    const id = keys.add(key);
    if (id === places.length) places.push(NO_PLACE);
    return id;
  }

  /** Makes a dangling node if need be. */
  #idOf(key: Key): number {
    const before = this.#filled.places.length;
    const id = this.#add(key);
    if (id === before) this.#set(id, this.#indexer.absent(key));
    return id;
  }

  #edge(from: number, to: number, kind: number): void {
    this.#push(GraphOp.add, from, to, kind);
  }

  /** @param last of operations that have so many words */
  #push(code: number, first: number, second: number, third: number, last?: number): void {
    if (this.#words + OP_WORDS > WORDS) this.#apply();
    const ops = this.#ops;
    let at = this.#words;
    ops[at++] = code;
    ops[at++] = first;
    ops[at++] = second;
    ops[at++] = third;
    if (last !== undefined) ops[at++] = last;
    this.#words = at;
  }

  #apply(): void {
    if (this.#words === 0) return;
    if (this.#graph === undefined) this.#partOps.push(this.#ops.slice(0, this.#words));
    else this.#graph.apply(this.#ops.subarray(0, this.#words));
    this.#words = 0;
  }
}
