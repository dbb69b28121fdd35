/**
 * What would go if some nodes were removed: bytes that a set of nodes reaches, and those that nothing else keeps. Used by
 * the TypeScript graph core; native/retained.cc is its twin and must give the same numbers. The rules are those of
 * `retained` in engine/graph.ts.
 *
 * Everything that depends on a set is among what its members reach. Of that, a state stays if it is a root or has a
 * predecessor that is kept from elsewhere, or one that stays; the rest goes. A state is (node, variant) as number × 2,
 * + 1 when reached flat. Threading: the JavaScript thread, yielding where other work may have its turn.
 */
import { EdgeKind } from '../engine/contract.js';
import { NO_ITEM, type RetainedQuery } from '../engine/graph.js';
import { invalidArgument } from '../errors.js';
import { type Picture, type PictureTaker, STEPS_PER_TURN } from './graph-picture.js';
import { MAX_EDGES, MAX_NODES } from './graph-ts-nodes.js';

export type CopiedQuery = Required<RetainedQuery>;

/** A copy of the question, which its owner may change. InvalidArgument when it does not consist of the right arrays. */
export function copiedQuery(query: RetainedQuery): CopiedQuery {
  const { now, roots = new Uint32Array(), edges = new Uint32Array() } = query;
  return {
    now,
    itemOf: copied(query.itemOf, Uint32Array),
    sizes: copied(query.sizes, Float64Array),
    members: copied(query.members, Uint32Array),
    ends: copied(query.ends, Uint32Array),
    roots: copied(roots, Uint32Array),
    edges: copied(edges, Uint32Array),
  };
}

function copied<T extends Uint32Array | Float64Array>(
  array: T,
  type: abstract new (...args: never[]) => T,
): T {
  if (!(array instanceof type) || !(array.buffer instanceof ArrayBuffer)) {
    throw invalidArgument(`expected a ${type.name} that is not shared between threads`);
  }
  return array.slice() as T;
}

/** InvalidArgument unless every number is in its range. */
function* check({ itemOf, sizes, members, ends, roots, edges }: CopiedQuery): Generator<void> {
  let sum = 0;
  for (let item = 0; item < sizes.length; item++) {
    const size = sizes[item]!;
    if (!Number.isInteger(size) || size < 0) throw invalidArgument(`the size ${size} is no number of bytes`);
    sum += size;
    if (sum > Number.MAX_SAFE_INTEGER) throw invalidArgument('sizes add up to more than 2^53 - 1 bytes');
    if (item % STEPS_PER_TURN === 0) yield;
  }
  for (let id = 0; id < itemOf.length; id++) {
    const item = itemOf[id]!;
    if (item !== NO_ITEM && item >= sizes.length) throw invalidArgument(`item ${item} has no size`);
    if (id % STEPS_PER_TURN === 0) yield;
  }
  let before = 0;
  for (const end of ends) {
    if (end < before || end > members.length) throw invalidArgument('the ends of the sets are not ascending');
    before = end;
  }
  if (before !== members.length) throw invalidArgument('there are members that belong to no set');
  if (edges.length % 2 !== 0 || edges.length / 2 > MAX_EDGES) {
    throw invalidArgument('extra edges must be pairs');
  }
  for (const ids of [members, roots, edges]) {
    yield;
    for (const id of ids) if (id >= MAX_NODES) throw invalidArgument(`node id ${id} is beyond the limit`);
  }
}

/** Bits of a state. */
const Bit = {
  /** Something keeps it now. */
  kept: 1,
  /** Reached from the set at hand. */
  below: 2,
  /** Of those, kept without the set. */
  stays: 4,
  /** Of the set; both variants. */
  member: 8,
} as const;

export interface Sums {
  kept: number;
  total: Float64Array;
  retained: Float64Array;
  reached: Uint32Array;
}

/** Gathers the graph, then answers. InvalidArgument when a number of the question is out of its range. */
export function* retainedSums(taker: PictureTaker, query: CopiedQuery): Generator<void, Sums> {
  const { members, ends, roots, edges } = query;
  yield* taker.gather();
  yield* check(query);
  const removals = new Removals(yield* taker.develop(roots, edges), query);
  yield* removals.prepare(query.itemOf);
  const sums: Sums = {
    kept: yield* removals.kept(),
    total: new Float64Array(ends.length),
    retained: new Float64Array(ends.length),
    reached: new Uint32Array(ends.length),
  };
  let start = 0;
  for (const [set, end] of ends.entries()) {
    const { total, retained, reached } = yield* removals.of(members.subarray(start, end));
    sums.total[set] = total;
    sums.retained[set] = retained;
    sums.reached[set] = reached;
    start = end;
  }
  return sums;
}

class Removals {
  readonly #picture: Picture;
  readonly #sizes: Float64Array;
  readonly #bits: Uint8Array;
  /** Item by node. */
  readonly #itemOf: Uint32Array;
  /** Nodes by item: namers[firstNamer[i]] … namers[firstNamer[i + 1] - 1]. */
  readonly #firstNamer: Uint32Array;
  readonly #namers: Uint32Array;
  readonly #counted: Uint8Array;
  /** Looked at since the last turn. */
  #steps = 0;

  constructor(picture: Picture, { sizes }: CopiedQuery) {
    this.#picture = picture;
    this.#sizes = sizes;
    this.#bits = new Uint8Array(picture.ids.length * 2);
    this.#itemOf = new Uint32Array(picture.ids.length);
    this.#firstNamer = new Uint32Array(sizes.length + 1);
    this.#namers = new Uint32Array(picture.ids.length);
    this.#counted = new Uint8Array(sizes.length);
  }

  /** Finds who names what, and what is kept now. */
  *prepare(itemOfId: Uint32Array): Generator<void> {
    const { ids, isRoot } = this.#picture;
    const first = this.#firstNamer;
    for (let node = 0; node < ids.length; node++) {
      const item = itemOfId[ids[node]!] ?? NO_ITEM;
      this.#itemOf[node] = item;
      if (item !== NO_ITEM) first[item + 1]!++;
      if (this.#isTurn()) yield;
    }
    for (let item = 0; item < this.#sizes.length; item++) first[item + 1]! += first[item]!;
    const filled = first.slice();
    yield;
    for (let node = 0; node < ids.length; node++) {
      const item = this.#itemOf[node]!;
      if (item !== NO_ITEM) this.#namers[filled[item]!++] = node;
      if (this.#isTurn()) yield;
    }
    const roots: number[] = [];
    for (let node = 0; node < ids.length; node++) if (isRoot[node]) this.#enter(node * 2, Bit.kept, roots);
    yield* this.#spread(roots, Bit.kept, 0);
  }

  /** Bytes of what is kept now. */
  *kept(): Generator<void, number> {
    const isKept = (node: number): boolean =>
      ((this.#bits[node * 2]! | this.#bits[node * 2 + 1]!) & Bit.kept) !== 0;
    let bytes = 0;
    for (let item = 0; item < this.#sizes.length; item++) {
      if (this.#isNamed(item, isKept)) bytes += this.#sizes[item]!;
      if (this.#isTurn()) yield;
    }
    return bytes;
  }

  *of(ids: Uint32Array): Generator<void, { total: number; retained: number; reached: number }> {
    const bits = this.#bits;
    const members: number[] = [];
    const below: number[] = [];
    let reached = 0;
    for (const id of ids) {
      if (this.#isTurn()) yield;
      const node = this.#picture.numberOf(id);
      if (node < 0 || bits[node * 2]! & Bit.member) continue;
      members.push(node);
      if ((bits[node * 2]! | bits[node * 2 + 1]!) & Bit.kept) reached++;
      for (const state of [node * 2, node * 2 + 1]) {
        bits[state]! |= Bit.member;
        if (bits[state]! & Bit.kept) this.#enter(state, Bit.below, below);
      }
    }
    yield* this.#spread(below, Bit.below, 0);
    const stays: number[] = [];
    for (const state of below) {
      if (this.#isHeld(state)) this.#enter(state, Bit.stays, stays);
      if (this.#isTurn()) yield;
    }
    yield* this.#spread(stays, Bit.stays, Bit.member);
    const bytes = this.#bytes(below);
    // What the set leaves behind is taken back.
    for (const state of below) bits[state]! &= Bit.kept;
    for (const node of members) {
      bits[node * 2]! &= Bit.kept;
      bits[node * 2 + 1]! &= Bit.kept;
    }
    return { ...bytes, reached };
  }

  #isTurn(): boolean {
    if (++this.#steps < STEPS_PER_TURN) return false;
    this.#steps = 0;
    return true;
  }

  #enter(state: number, bit: number, list: number[]): void {
    if (this.#bits[state]! & bit) return;
    this.#bits[state]! |= bit;
    list.push(state);
  }

  /** Gives the bit to all that the listed states lead to, but for states with a bit of `shut`. */
  *#spread(list: number[], bit: number, shut: number): Generator<void> {
    const { first, words } = this.#picture.out;
    for (let n = 0; n < list.length; n++) {
      const state = list[n]!;
      const end = first[(state >>> 1) + 1]!;
      for (let at = first[state >>> 1]!; at < end; at++) {
        if (this.#isTurn()) yield;
        const kind = words[at]! & 3;
        if (state & 1 && kind !== EdgeKind.structural) continue;
        const isFlat = state & 1 || kind === EdgeKind.flat ? 1 : 0;
        const to = (words[at]! >>> 2) * 2 + isFlat;
        if ((this.#bits[to]! & shut) === 0) this.#enter(to, bit, list);
      }
    }
  }

  /** Kept by something that does not depend on the set: a root, or with a predecessor that is kept from elsewhere. */
  #isHeld(state: number): boolean {
    if (this.#bits[state]! & Bit.member) return false;
    const node = state >>> 1;
    const isFlat = (state & 1) === 1;
    if (!isFlat && this.#picture.isRoot[node]) return true;
    const { first, words } = this.#picture.into;
    for (let at = first[node]!; at < first[node + 1]!; at++) {
      this.#steps++;
      const kind = words[at]! & 3;
      const from = (words[at]! >>> 2) * 2;
      if (!isFlat && kind !== EdgeKind.flat && this.#isElsewhere(from)) return true;
      if (isFlat && kind === EdgeKind.flat && this.#isElsewhere(from)) return true;
      if (isFlat && kind === EdgeKind.structural && this.#isElsewhere(from + 1)) return true;
    }
    return false;
  }

  #isElsewhere(state: number): boolean {
    return (this.#bits[state]! & (Bit.kept | Bit.below)) === Bit.kept;
  }

  #bytes(below: readonly number[]): { total: number; retained: number } {
    const survives = (state: number): boolean =>
      this.#isElsewhere(state) || (this.#bits[state]! & Bit.stays) !== 0;
    const items: number[] = [];
    const bytes = { total: 0, retained: 0 };
    for (const state of below) {
      const item = this.#itemOf[state >>> 1]!;
      if (item === NO_ITEM || this.#counted[item]) continue;
      this.#counted[item] = 1;
      items.push(item);
      const size = this.#sizes[item]!;
      bytes.total += size;
      const stays = this.#isNamed(item, (node) => survives(node * 2) || survives(node * 2 + 1));
      if (!stays) bytes.retained += size;
    }
    for (const item of items) this.#counted[item] = 0;
    return bytes;
  }

  /** Whether `test` says so of a node that names the item; ends with the first. */
  #isNamed(item: number, test: (node: number) => boolean): boolean {
    for (let at = this.#firstNamer[item]!; at < this.#firstNamer[item + 1]!; at++) {
      this.#steps++;
      if (test(this.#namers[at]!)) return true;
    }
    return false;
  }
}
