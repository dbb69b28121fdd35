/**
 * Compares the graph with one derived again from every record and link, and its live marks with a walk over it: the
 * consistency check of an engine.
 * Called by `verifyGraph`; reads the whole store, and keeps about 100 bytes a record while it runs.
 */
import { present } from '../../errors.js';
import { type Indexer, NodeFlag, type Value } from '../contract.js';
import type { GraphCore } from '../graph.js';
import { decodeSlice, printable } from '../schema/codec.js';
import { type Storage, splitLink } from './storage.js';

/** Differences returned at most. */
const LINES_MAX = 100;
const CHUNK = 512;

interface Expected {
  readonly id: number;
  flags: number;
  expireAt: bigint | undefined;
  /** target * 4 + kind, in any order. */
  edges: number[];
}

export function verifyGraph(storage: Storage, graph: GraphCore, indexer: Indexer): string[] {
  const derived = new Derived(storage, indexer);
  derived.addRecords();
  derived.addLinks();
  return derived.compare(graph);
}

class Derived {
  readonly #storage: Storage;
  readonly #indexer: Indexer;
  readonly #nodes = new Map<number, Expected>();
  readonly #lines: string[] = [];
  /** Most edges of neighbouring records lead to few places. */
  #last: { key: string; node: Expected } | undefined;

  constructor(storage: Storage, indexer: Indexer) {
    this.#storage = storage;
    this.#indexer = indexer;
  }

  addRecords(): void {
    for (let after: string | undefined; ; ) {
      const { entries, more } = this.#storage.range('', after, CHUNK, decodeSlice);
      for (const [key, value] of entries) this.#addRecord(key, value);
      if (!more) return;
      after = present(entries.at(-1), 'the last entry')[0];
    }
  }

  addLinks(): void {
    for (const link of this.#storage.allLinks()) {
      const { from, relation, to } = splitLink(link);
      const kind = this.#indexer.link(from, relation, to);
      if (kind !== undefined) this.#addEdge(from, to, kind);
    }
  }

  #addRecord(key: string, value: Value): void {
    const wanted = this.#indexer.node(key, value);
    if (wanted === undefined) return;
    const node = this.#node(key);
    if (node === undefined) return;
    node.flags = (wanted.flags & ~NodeFlag.expires) | NodeFlag.present;
    node.expireAt = wanted.expireAt;
    if (wanted.expireAt !== undefined) node.flags |= NodeFlag.expires;
    for (const { to, kind, back } of wanted.edges) {
      if (back) this.#addEdge(to, key, kind);
      else this.#addEdge(key, to, kind);
    }
  }

  #addEdge(from: string, to: string, kind: number): void {
    const source = this.#node(from);
    const target = this.#node(to);
    if (source !== undefined && target !== undefined) source.edges.push(target.id * 4 + kind);
  }

  #node(key: string): Expected | undefined {
    if (this.#last?.key === key) return this.#last.node;
    const id = this.#storage.idOf(key);
    if (id === undefined) {
      this.#report(`${printable(key)} has no node`);
      return undefined;
    }
    let node = this.#nodes.get(id);
    if (node === undefined) {
      node = { id, flags: this.#indexer.absent(key), expireAt: undefined, edges: [] };
      this.#nodes.set(id, node);
      if (this.#storage.keyOf(id) !== key) this.#report(`node ${id} does not lead back to ${printable(key)}`);
    }
    this.#last = { key, node };
    return node;
  }

  compare(graph: GraphCore): string[] {
    const inDegrees = new Map<number, number>();
    for (const [id, node] of this.#nodes) {
      this.#compareNode(graph, id, node);
      for (const edge of node.edges) {
        const target = Math.floor(edge / 4);
        inDegrees.set(target, (inDegrees.get(target) ?? 0) + 1);
      }
    }
    const { limit } = graph.stats();
    const existing = new Set(this.#nodes.keys());
    for (let id = 0; id < limit; id++) {
      const known = graph.inDegreeOf(id);
      const derived = Math.min(inDegrees.get(id) ?? 0, 255);
      // A saturated in-degree stays so.
      if (known !== derived && known !== 255)
        this.#report(`node ${id} has in-degree ${known}, not ${derived}`);
      if (!existing.has(id) && (graph.flagsOf(id) & NodeFlag.present) !== 0) {
        this.#report(`node ${id} is present without a record`);
      }
      if (!existing.has(id) && graph.edgesOf(id).length > 0)
        this.#report(`node ${id} has edges of no record`);
    }
    for (const id of graph.wrongLive() ?? [])
      this.#report(`${this.#name(id)} has marks or counts that a walk does not find`);
    return this.#lines;
  }

  #compareNode(graph: GraphCore, id: number, node: Expected): void {
    const flags = graph.flagsOf(id);
    if (flags !== node.flags) this.#report(`${this.#name(id)} has flags ${flags}, not ${node.flags}`);
    const expireAt = graph.expiryOf(id);
    if (expireAt !== saturated(node.expireAt)) {
      this.#report(`${this.#name(id)} expires at ${expireAt}, not ${node.expireAt}`);
    }
    const edges = graph.edgesOf(id);
    const known: number[] = [];
    let target = 0;
    for (const [i, word] of edges.entries()) {
      if (i % 2 === 0) target = word;
      else known.push(target * 4 + word);
    }
    const derived = [...node.edges].sort((a, b) => a - b);
    if (known.length !== derived.length || derived.some((edge, i) => edge !== known[i])) {
      this.#report(`${this.#name(id)} has edges [${known.map(edgeText)}], not [${derived.map(edgeText)}]`);
    }
  }

  #name(id: number): string {
    const key = this.#storage.keyOf(id);
    return key === undefined ? `node ${id}` : printable(key);
  }

  #report(line: string): void {
    if (this.#lines.length < LINES_MAX) this.#lines.push(line);
  }
}

const edgeText = (edge: number): string => `${Math.floor(edge / 4)}/${edge % 4}`;

const I64_MIN = -(2n ** 63n);
const I64_MAX = 2n ** 63n - 1n;

/** As the graph keeps an expiry. */
function saturated(t: bigint | undefined): bigint | undefined {
  if (t === undefined) return undefined;
  return t < I64_MIN ? I64_MIN : t > I64_MAX ? I64_MAX : t;
}
