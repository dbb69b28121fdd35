/**
 * Storage of the TypeScript graph core: nodes in blocks of typed arrays, one edge of a node in place, more of them
 * in a bag. Called by graph-ts.ts (which checks every operand first) and graph-checkpoint.ts.
 *
 * Threading: the JavaScript thread only. Durability: none, memory. Blocks exist only where ids are used, so a
 * single high id costs one block and not everything below it.
 */

const BLOCK_BITS = 13;
const BLOCK_SIZE = 1 << BLOCK_BITS;
const BLOCK_MASK = BLOCK_SIZE - 1;
/** From this many edges on a node's bag is a map, so that removing one of a million edges is not a search. */
const LIST_MAX = 48;

/** Ids that are stored together. */
export const BLOCK_IDS = BLOCK_SIZE;
/** Number of ids; the highest is one less. Leaves room for a kind in the two low bits of an edge word. */
export const MAX_NODES = 2 ** 30 - 1;
export const MAX_EDGES = 1_000_000_000;

/** An edge in one u32: target and kind. Ascending words are ascending by target, then kind. */
export const edgeWord = (to: number, kind: number): number => ((to << 2) | kind) >>> 0;

type Bag = number[] | Map<number, number>;

class Block {
  readonly exists = new Uint8Array(BLOCK_SIZE);
  readonly flags = new Uint16Array(BLOCK_SIZE);
  readonly inDegree = new Uint32Array(BLOCK_SIZE);
  readonly degree = new Uint32Array(BLOCK_SIZE);
  /** The only edge of a node with one. */
  readonly edge = new Uint32Array(BLOCK_SIZE);
  readonly marks = new Uint8Array(BLOCK_SIZE);
  used = 0;
}
const BLOCK_BYTES = BLOCK_SIZE * 16;

export class NodeTable {
  readonly #blocks: (Block | undefined)[] = [];
  readonly #bags = new Map<number, Bag>();
  readonly #expiries = new Map<number, bigint>();
  nodes = 0;
  edges = 0;
  /** Highest existing id + 1. */
  limit = 0;

  exists(id: number): boolean {
    return this.#block(id)?.exists[id & BLOCK_MASK] === 1;
  }

  flags(id: number): number {
    return this.#block(id)?.flags[id & BLOCK_MASK] ?? 0;
  }

  inDegree(id: number): number {
    return this.#block(id)?.inDegree[id & BLOCK_MASK] ?? 0;
  }

  degree(id: number): number {
    return this.#block(id)?.degree[id & BLOCK_MASK] ?? 0;
  }

  expiry(id: number): bigint | undefined {
    return this.#expiries.get(id);
  }

  marks(id: number): number {
    return this.#block(id)?.marks[id & BLOCK_MASK] ?? 0;
  }

  setMarks(id: number, marks: number): void {
    const block = this.#block(id);
    if (block !== undefined) block.marks[id & BLOCK_MASK] = marks;
  }

  clearMarks(): void {
    for (const block of this.#blocks) block?.marks.fill(0);
  }

  /** Creates the node if need be. */
  set(id: number, flags: number, expiry: bigint | undefined): void {
    const block = this.#makeBlock(id);
    const i = id & BLOCK_MASK;
    if (block.exists[i] === 0) {
      block.exists[i] = 1;
      block.used++;
      this.nodes++;
      this.limit = Math.max(this.limit, id + 1);
    }
    block.flags[i] = flags;
    if (expiry === undefined) this.#expiries.delete(id);
    else this.#expiries.set(id, expiry);
  }

  /** The caller has seen that the node exists and has no edges. */
  free(id: number): void {
    const block = this.#blocks[id >>> BLOCK_BITS]!;
    const i = id & BLOCK_MASK;
    block.exists[i] = 0;
    block.flags[i] = 0;
    block.marks[i] = 0;
    this.#expiries.delete(id);
    this.nodes--;
    if (--block.used === 0) this.#blocks[id >>> BLOCK_BITS] = undefined;
    if (id + 1 === this.limit) this.limit = this.#highest(id) + 1;
  }

  /** Both nodes exist. */
  addEdge(from: number, to: number, kind: number): void {
    const word = edgeWord(to, kind);
    const block = this.#blocks[from >>> BLOCK_BITS]!;
    const i = from & BLOCK_MASK;
    const degree = block.degree[i]!;
    if (degree === 0) block.edge[i] = word;
    else if (degree === 1) this.#bags.set(from, [block.edge[i]!, word]);
    else this.#bags.set(from, withWord(this.#bags.get(from)!, word));
    block.degree[i] = degree + 1;
    this.edges++;
    const target = this.#blocks[to >>> BLOCK_BITS]!;
    target.inDegree[to & BLOCK_MASK]!++;
  }

  /** False when there is no such edge. */
  removeEdge(from: number, to: number, kind: number): boolean {
    const word = edgeWord(to, kind);
    const block = this.#block(from);
    if (block === undefined) return false;
    const i = from & BLOCK_MASK;
    const degree = block.degree[i]!;
    if (degree === 0) return false;
    if (degree === 1) {
      if (block.edge[i] !== word) return false;
    } else {
      const bag = this.#bags.get(from)!;
      if (!withoutWord(bag, word)) return false;
      if (degree === 2) {
        block.edge[i] = bag instanceof Map ? bag.keys().next().value! : bag[0]!;
        this.#bags.delete(from);
      }
    }
    block.degree[i] = degree - 1;
    this.edges--;
    const target = this.#blocks[to >>> BLOCK_BITS]!;
    target.inDegree[to & BLOCK_MASK]!--;
    return true;
  }

  /** Each distinct edge of the node with the number of times it is there. */
  forEachEdge(id: number, visit: (word: number, times: number) => void): void {
    const block = this.#block(id);
    if (block === undefined) return;
    const degree = block.degree[id & BLOCK_MASK]!;
    if (degree === 0) return;
    if (degree === 1) {
      visit(block.edge[id & BLOCK_MASK]!, 1);
      return;
    }
    const bag = this.#bags.get(id)!;
    if (bag instanceof Map) for (const [word, times] of bag) visit(word, times);
    else for (const word of bag) visit(word, 1);
  }

  /** The node's edge words, ascending. */
  sortedEdges(id: number): Uint32Array {
    const words = new Uint32Array(this.degree(id));
    let n = 0;
    this.forEachEdge(id, (word, times) => {
      words.fill(word, n, n + times);
      n += times;
    });
    return words.sort();
  }

  /** False when none of the ids exists that are stored together with this one. */
  hasBlock(id: number): boolean {
    return this.#block(id) !== undefined;
  }

  /** Existing ids from `from`, ascending. */
  *ids(from = 0): Generator<number> {
    for (let b = from >>> BLOCK_BITS; b < this.#blocks.length; b++) {
      const block = this.#blocks[b];
      if (block === undefined) continue;
      const start = b << BLOCK_BITS;
      const end = Math.min(BLOCK_SIZE, this.limit - start);
      for (let i = Math.max(0, from - start); i < end; i++) if (block.exists[i] === 1) yield start + i;
    }
  }

  unused(from: number, max: number): number[] {
    const found: number[] = [];
    for (let id = from; id < this.limit && found.length < max; id++) {
      const block = this.#block(id);
      if (block !== undefined && block.used === BLOCK_SIZE) id |= BLOCK_MASK;
      else if (block === undefined || block.exists[id & BLOCK_MASK] === 0) found.push(id);
    }
    return found;
  }

  /** An estimate: bags and maps are counted by what V8 takes for an entry. */
  bytes(): number {
    let blocks = 0;
    for (const block of this.#blocks) if (block !== undefined) blocks++;
    return blocks * BLOCK_BYTES + this.#bags.size * 64 + this.edges * 8 + this.#expiries.size * 48;
  }

  clear(): void {
    this.#blocks.length = 0;
    this.#bags.clear();
    this.#expiries.clear();
    this.nodes = 0;
    this.edges = 0;
    this.limit = 0;
  }

  #block(id: number): Block | undefined {
    return this.#blocks[id >>> BLOCK_BITS];
  }

  #makeBlock(id: number): Block {
    const b = id >>> BLOCK_BITS;
    while (this.#blocks.length <= b) this.#blocks.push(undefined);
    let block = this.#blocks[b];
    if (block === undefined) {
      block = new Block();
      this.#blocks[b] = block;
    }
    return block;
  }

  /** The highest existing id at or below `id`, or -1. */
  #highest(id: number): number {
    for (let b = id >>> BLOCK_BITS; b >= 0; b--) {
      const block = this.#blocks[b];
      if (block === undefined) continue;
      const i = block.exists.lastIndexOf(1);
      if (i >= 0) return (b << BLOCK_BITS) + i;
    }
    return -1;
  }
}

function withWord(bag: Bag, word: number): Bag {
  if (bag instanceof Map) {
    bag.set(word, (bag.get(word) ?? 0) + 1);
    return bag;
  }
  bag.push(word);
  if (bag.length <= LIST_MAX) return bag;
  const counts = new Map<number, number>();
  for (const w of bag) counts.set(w, (counts.get(w) ?? 0) + 1);
  return counts;
}

function withoutWord(bag: Bag, word: number): boolean {
  if (bag instanceof Map) {
    const times = bag.get(word);
    if (times === undefined) return false;
    if (times === 1) bag.delete(word);
    else bag.set(word, times - 1);
    return true;
  }
  const i = bag.indexOf(word);
  if (i < 0) return false;
  bag[i] = bag[bag.length - 1]!;
  bag.pop();
  return true;
}
