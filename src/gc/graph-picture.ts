/**
 * A copy of a graph as it was at one moment, for reports that walk it forwards and backwards while writers go on. Used by
 * the TypeScript graph core; native/picture.h is its twin.
 *
 * Nodes have dense numbers, in the order of their ids. Threading: the JavaScript thread; `gather` and `develop` yield
 * where other work may have its turn, and whoever changes the graph meanwhile calls `beforeChange` first. Memory: about
 * 25 bytes a node and 12 an edge while it is developed.
 */
import { EdgeKind } from '../engine/contract.js';
import { BLOCK_IDS, edgeWord, type NodeTable } from './graph-ts-nodes.js';

/** Nodes and edges looked at before other work gets its turn: a millisecond or so. */
export const STEPS_PER_TURN = 65_536;
const NOBODY = -1;

/** Words of node n: words[first[n]] … words[first[n + 1] - 1], number << 2 | kind. */
export interface Adjacency {
  readonly first: Uint32Array;
  readonly words: Uint32Array;
}

export interface Picture {
  /** By number, ascending. */
  readonly ids: Uint32Array;
  readonly isRoot: Uint8Array;
  /** Words hold targets. */
  readonly out: Adjacency;
  /** Words hold sources. */
  readonly into: Adjacency;
  /** -1 when there is no such node. */
  numberOf(id: number): number;
}

/** A node as it was when the picture was begun. */
interface Earlier {
  existed: boolean;
  isRoot: boolean;
  words: number[];
}

export class PictureTaker {
  /** Set by whoever forgets the graph. */
  cancelled = false;
  readonly #nodes: NodeTable;
  readonly #isRootId: (id: number) => boolean;
  readonly #limit: number;
  readonly #earlier = new Map<number, Earlier>();
  readonly #ids: Uint32Array;
  readonly #isRoot: Uint8Array;
  /** Of each node's words; these hold ids still. */
  readonly #ends: Uint32Array;
  readonly #words: Uint32Array;
  #next = 0;
  #size = 0;
  #used = 0;

  constructor(nodes: NodeTable, isRoot: (id: number) => boolean) {
    this.#nodes = nodes;
    this.#isRootId = isRoot;
    this.#limit = nodes.limit;
    this.#ids = new Uint32Array(nodes.nodes);
    this.#isRoot = new Uint8Array(nodes.nodes);
    this.#ends = new Uint32Array(nodes.nodes);
    this.#words = new Uint32Array(nodes.edges);
  }

  beforeChange(id: number): void {
    if (id < this.#next || id >= this.#limit || this.#earlier.has(id)) return;
    const words: number[] = [];
    this.#nodes.forEachEdge(id, (word) => words.push(word));
    this.#earlier.set(id, { existed: this.#nodes.exists(id), isRoot: this.#isRootId(id), words });
  }

  /** Copies the nodes. */
  *gather(): Generator<void> {
    for (let turnEnds = STEPS_PER_TURN; this.#next < this.#limit; this.#next++) {
      const id = this.#next;
      if (id % BLOCK_IDS === 0 && this.#earlier.size === 0 && !this.#nodes.hasBlock(id)) {
        this.#next += BLOCK_IDS - 1;
        continue;
      }
      this.#copy(id);
      if (this.#size + this.#used < turnEnds) continue;
      turnEnds = this.#size + this.#used + STEPS_PER_TURN;
      // Behind this node, so that nothing of it is copied twice.
      this.#next++;
      yield;
      this.#next--;
    }
  }

  #copy(id: number): void {
    const earlier = this.#earlier.get(id);
    if (earlier !== undefined) {
      this.#earlier.delete(id);
      for (const word of earlier.words) this.#words[this.#used++] = word;
      if (earlier.existed) this.#put(id, earlier.isRoot);
    } else if (this.#nodes.exists(id)) {
      this.#nodes.forEachEdge(id, (word) => {
        this.#words[this.#used++] = word;
      });
      this.#put(id, this.#isRootId(id));
    }
  }

  #put(id: number, isRoot: boolean): void {
    this.#ids[this.#size] = id;
    this.#isRoot[this.#size] = isRoot ? 1 : 0;
    this.#ends[this.#size] = this.#used;
    this.#size++;
  }

  /** Once all is gathered: the picture with these nodes as roots too, and with these edges (from, to) beside its own. */
  *develop(roots: Uint32Array, edges: Uint32Array): Generator<void, Picture> {
    const [ids, isRoot, size] = [this.#ids, this.#isRoot, this.#size];
    const numbers = yield* numbering(ids);
    const numberOf = (id: number): number => numbers[Math.floor(id / BLOCK_IDS)]?.[id % BLOCK_IDS] ?? NOBODY;
    for (const id of roots) {
      const number = numberOf(id);
      if (number !== NOBODY) isRoot[number] = 1;
    }
    const extra = bySource(edges, numberOf);
    const first = new Uint32Array(size + 1);
    const words = new Uint32Array(this.#used + edges.length / 2);
    let used = 0;
    let at = 0;
    for (let number = 0, turnEnds = STEPS_PER_TURN; number < size; number++) {
      for (; at < this.#ends[number]!; at++) {
        const word = this.#words[at]!;
        const to = numberOf(word >>> 2);
        if (to !== NOBODY) words[used++] = edgeWord(to, word & 3);
      }
      for (const to of extra.get(number) ?? []) words[used++] = edgeWord(to, EdgeKind.label);
      first[number + 1] = used;
      if (number + at < turnEnds) continue;
      turnEnds = number + at + STEPS_PER_TURN;
      yield;
    }
    const out = { first, words: words.subarray(0, used) };
    return { ids, isRoot, out, into: yield* reversed(out), numberOf };
  }
}

/** Numbers by id, in blocks: ids may lie far apart. */
function* numbering(ids: Uint32Array): Generator<void, (Int32Array | undefined)[]> {
  const blocks: (Int32Array | undefined)[] = [];
  for (let number = 0; number < ids.length; number++) {
    const b = Math.floor(ids[number]! / BLOCK_IDS);
    while (blocks.length <= b) blocks.push(undefined);
    blocks[b] ??= new Int32Array(BLOCK_IDS).fill(NOBODY);
    blocks[b]![ids[number]! % BLOCK_IDS] = number;
    if (number % STEPS_PER_TURN === 0) yield;
  }
  return blocks;
}

/** Targets of the pairs whose nodes both exist, as numbers, by the number of their source. */
function bySource(edges: Uint32Array, numberOf: (id: number) => number): Map<number, number[]> {
  const found = new Map<number, number[]>();
  for (let i = 0; i < edges.length; i += 2) {
    const [from, to] = [numberOf(edges[i]!), numberOf(edges[i + 1]!)];
    if (from === NOBODY || to === NOBODY) continue;
    const targets = found.get(from);
    if (targets === undefined) found.set(from, [to]);
    else targets.push(to);
  }
  return found;
}

function* reversed({ first: ends, words: outgoing }: Adjacency): Generator<void, Adjacency> {
  const size = ends.length - 1;
  const first = new Uint32Array(size + 1);
  for (const word of outgoing) first[(word >>> 2) + 1]!++;
  yield;
  for (let node = 0; node < size; node++) first[node + 1]! += first[node]!;
  const filled = first.slice();
  const words = new Uint32Array(outgoing.length);
  for (let from = 0, turnEnds = STEPS_PER_TURN; from < size; from++) {
    for (let at = ends[from]!; at < ends[from + 1]!; at++) {
      const word = outgoing[at]!;
      words[filled[word >>> 2]!++] = edgeWord(from, word & 3);
    }
    if (from + ends[from + 1]! < turnEnds) continue;
    turnEnds = from + ends[from + 1]! + STEPS_PER_TURN;
    yield;
  }
  return { first, words };
}
