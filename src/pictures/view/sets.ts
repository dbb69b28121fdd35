/**
 * Which listed roots keep a leaf together: what goes when several roots are removed at once. Called by data.ts.
 *
 * A leaf goes when all roots that keep it are removed (support.ts). The roots that keep most are listed, and each leaf gets the
 * set of those that keep it; sets are built root by root, as a tree in which a set is a shorter one and another root. What a root
 * keeps that is not listed has no set: it stays. The walks take the time of what each root keeps, and give up beyond a limit.
 */
import { type GraphView, idOfState, plainState } from '../../gc/report/reach.js';
import type { Pace } from '../../stores/listing.js';
import type { Leaves } from '../leaves.js';
import type { Support } from '../support.js';

const VISITS_MAX = 20_000_000;
/** Roots that are listed, sets, and their members in all. */
const ROOTS_MAX = 1000;
const SETS_MAX = 20_000;
const MEMBERS_MAX = 200_000;
/** Sets while they are built, which have all shorter ones of them too. */
const BUILT_MAX = 1_000_000;

/** The empty set, and that of what stays. */
const EMPTY = 0;
const STAYS = -1;

export interface RootSets {
  /** Indices of the listed roots, those that keep most first, and what they keep. */
  readonly listed: readonly number[];
  readonly keeps: readonly number[];
  readonly sets: readonly [bytes: number, ...roots: number[]][];
  readonly isAtLeast: boolean;
  /** The index of a leaf's set; undefined: it has none, or that is left out. */
  setOf(leaf: number): number | undefined;
}

interface Kept {
  readonly view: GraphView;
  readonly leaves: Leaves;
  readonly support: Support;
  readonly roots: readonly { readonly id: number }[];
  readonly pace: Pace;
}

/** Undefined: the roots have too much in common. */
export async function rootSets(kept: Kept): Promise<RootSets | undefined> {
  const { roots, leaves, pace } = kept;
  const walks = new Walks(kept);
  const keeps = new Float64Array(roots.length);
  for (const [n, { id }] of roots.entries()) {
    walks.from(id, (leaf) => {
      keeps[n] = (keeps[n] ?? 0) + leaves.sizeOf(leaf);
    });
    if (walks.areTooMany) return undefined;
    if (pace.isOver) await pace.pass();
  }
  const order = [...roots.keys()].sort((a, b) => (keeps[b] ?? 0) - (keeps[a] ?? 0));
  const listed = order.slice(0, ROOTS_MAX);
  const tree = new SetTree(leaves.count);
  for (const [place, n] of order.entries()) {
    const root = place < ROOTS_MAX ? place : STAYS;
    walks.from(roots[n]?.id ?? 0, (leaf) => tree.add(leaf, root));
    if (walks.areTooMany) return undefined;
    if (pace.isOver) await pace.pass();
  }
  return { listed, keeps: listed.map((n) => keeps[n] ?? 0), ...tree.largest(leaves) };
}

/** What a root reaches without passing another one. */
class Walks {
  readonly #kept: Kept;
  readonly #states: Uint32Array;
  readonly #seen: Uint32Array;
  #walk = 0;
  #visits = 0;

  constructor(kept: Kept) {
    this.#kept = kept;
    this.#states = new Uint32Array(kept.view.limit * 2);
    this.#seen = new Uint32Array(kept.leaves.count);
  }

  get areTooMany(): boolean {
    return this.#visits > VISITS_MAX;
  }

  from(root: number, visit: (leaf: number) => void): void {
    const { view, leaves, support } = this.#kept;
    const walk = ++this.#walk;
    const open = [plainState(root)];
    this.#states[plainState(root)] = walk;
    const enter = (state: number): void => {
      if (this.#states[state] === walk || support.isRoot(idOfState(state))) return;
      this.#states[state] = walk;
      open.push(state);
    };
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      if (++this.#visits > VISITS_MAX) return;
      leaves.forEachOf(idOfState(state), (leaf) => {
        if (this.#seen[leaf] === walk) return;
        this.#seen[leaf] = walk;
        visit(leaf);
      });
      view.forEachStep(state, enter);
    }
  }
}

/** Sets of roots, in the order in which roots are added. */
class SetTree {
  readonly #ofLeaf: Int32Array;
  readonly #shorter: number[] = [EMPTY];
  readonly #last: number[] = [STAYS];
  readonly #sizes: number[] = [0];
  readonly #known = new Map<string, number>();
  readonly #indices = new Map<number, number>();
  #isCut = false;

  constructor(leaves: number) {
    this.#ofLeaf = new Int32Array(leaves);
  }

  add(leaf: number, root: number): void {
    const set = this.#ofLeaf[leaf] ?? EMPTY;
    if (set === STAYS) return;
    this.#ofLeaf[leaf] = root === STAYS ? STAYS : this.#with(set, root);
  }

  #with(set: number, root: number): number {
    const name = `${set} ${root}`;
    let longer = this.#known.get(name);
    if (longer === undefined) {
      if (this.#shorter.length >= BUILT_MAX) {
        this.#isCut = true;
        return STAYS;
      }
      longer = this.#shorter.push(set) - 1;
      this.#last.push(root);
      this.#sizes.push((this.#sizes[set] ?? 0) + 1);
      this.#known.set(name, longer);
    }
    return longer;
  }

  largest(leaves: Leaves): Pick<RootSets, 'sets' | 'isAtLeast' | 'setOf'> {
    const bytes = new Float64Array(this.#shorter.length);
    for (const [leaf, set] of this.#ofLeaf.entries()) {
      if (set !== EMPTY && set !== STAYS) bytes[set] = (bytes[set] ?? 0) + leaves.sizeOf(leaf);
    }
    const order = [...bytes.keys()].filter((set) => (bytes[set] ?? 0) > 0);
    order.sort((a, b) => (bytes[b] ?? 0) - (bytes[a] ?? 0));
    const sets: [bytes: number, ...roots: number[]][] = [];
    let members = 0;
    for (const set of order) {
      members += this.#sizes[set] ?? 0;
      if (sets.length === SETS_MAX || members > MEMBERS_MAX) break;
      this.#indices.set(set, sets.length);
      sets.push([bytes[set] ?? 0, ...this.#members(set)]);
    }
    const setOf = (leaf: number): number | undefined => this.#indices.get(this.#ofLeaf[leaf] ?? EMPTY);
    return { sets, isAtLeast: this.#isCut || sets.length < order.length, setOf };
  }

  #members(set: number): number[] {
    const members: number[] = [];
    for (let at = set; at !== EMPTY; at = this.#shorter[at] ?? EMPTY) members.push(this.#last[at] ?? 0);
    return members.reverse();
  }
}
