/**
 * Which roots keep each leaf. Called by picture.ts.
 *
 * A root keeps what it reaches without passing another root: what lies behind that one goes when that one is removed, and only
 * then. So a leaf goes when all roots that keep it are removed, and a leaf that one root keeps is what `du` calls retained by it.
 * Which roots keep a leaf is counted up to a limit, so each state of the graph is visited a bounded number of times, whatever
 * the roots have in common. The ways back to the roots are the shortest ones of the first root that keeps the leaf.
 */
import { END_OF_WAY, type GraphView, idOfState, NO_WAY, plainState } from '../gc/report/reach.js';
import type { Pace } from '../stores/listing.js';
import type { Leaves } from './leaves.js';

/** A leaf with this count is kept by so many roots, or more. */
export const KEEPERS_MAX = 10;
/** No root keeps it. */
export const NOBODY = -1;
/** In place of a namespace: the roots are of several. */
export const SEVERAL = -2;

/** States that are followed before the clock is looked at. */
const STATES_AT_ONCE = 1024;

/** Roots in the order in which they are followed. */
export interface Keepers {
  readonly ids: readonly number[];
  /** The number of a root's namespace. */
  readonly namespaces: readonly number[];
}

/** How many roots keep something, and of which namespace they are. */
class Counts {
  readonly counts: Uint8Array;
  readonly namespaces: Int32Array;
  /** 1 + the root that counted last. */
  readonly #last: Uint32Array;

  constructor(length: number) {
    this.counts = new Uint8Array(length);
    this.namespaces = new Int32Array(length).fill(NOBODY);
    this.#last = new Uint32Array(length);
  }

  /** False when this root has counted here, or when it would change nothing, here and at what lies behind. */
  count(at: number, root: number, namespace: number): boolean {
    if (this.#last[at] === root + 1) return false;
    const count = this.counts[at] ?? 0;
    const before = this.namespaces[at];
    const isOther = before !== namespace && before !== SEVERAL;
    if (count === KEEPERS_MAX && !isOther) return false;
    this.#last[at] = root + 1;
    if (count < KEEPERS_MAX) this.counts[at] = count + 1;
    if (isOther) this.namespaces[at] = count === 0 ? namespace : SEVERAL;
    return true;
  }
}

export class Support {
  /** By leaf: the first of its roots, an index of `Keepers`; or NOBODY. */
  readonly first: Int32Array;
  /** By leaf: the state of the graph in which the first root reaches it. */
  readonly reachedIn: Int32Array;
  /** By state: the one before it on the way from its first root, END_OF_WAY there, or NO_WAY. */
  readonly before: Int32Array;
  readonly #view: GraphView;
  readonly #leaves: Leaves;
  readonly #ofLeaves: Counts;
  readonly #ofStates: Counts;
  readonly #isRoot: Uint8Array;
  readonly #queue: Uint32Array;
  #queued = 0;

  private constructor(view: GraphView, leaves: Leaves) {
    this.#view = view;
    this.#leaves = leaves;
    const states = view.limit * 2;
    this.#ofLeaves = new Counts(leaves.count);
    this.#ofStates = new Counts(states);
    this.first = new Int32Array(leaves.count).fill(NOBODY);
    this.reachedIn = new Int32Array(leaves.count).fill(NO_WAY);
    this.before = new Int32Array(states).fill(NO_WAY);
    this.#isRoot = new Uint8Array(view.limit);
    for (const id of view.roots) this.#isRoot[id] = 1;
    this.#queue = new Uint32Array(states);
  }

  static async find(view: GraphView, leaves: Leaves, keepers: Keepers, pace: Pace): Promise<Support> {
    const support = new Support(view, leaves);
    for (const [n, id] of keepers.ids.entries()) {
      await support.#follow(id, n, keepers.namespaces[n] ?? NOBODY, pace);
      if (pace.isOver) await pace.pass();
    }
    return support;
  }

  /** How many roots keep the leaf, KEEPERS_MAX at most. */
  countOf(leaf: number): number {
    return this.#ofLeaves.counts[leaf] ?? 0;
  }

  /** The namespace of its roots; SEVERAL, or NOBODY. */
  namespaceOf(leaf: number): number {
    return this.#ofLeaves.namespaces[leaf] ?? NOBODY;
  }

  isRoot(id: number): boolean {
    return this.#isRoot[id] === 1;
  }

  async #follow(root: number, n: number, namespace: number, pace: Pace): Promise<void> {
    this.#queued = 0;
    this.#enter(plainState(root), END_OF_WAY, n, namespace);
    for (let at = 0; at < this.#queued; at++) {
      // One root may keep most of the store.
      if (at % STATES_AT_ONCE === STATES_AT_ONCE - 1 && pace.isOver) await pace.pass();
      const state = this.#queue[at] ?? 0;
      this.#leaves.forEachOf(idOfState(state), (leaf) => this.#keep(leaf, state, n, namespace));
      this.#view.forEachStep(state, (to) => {
        if (this.#isRoot[idOfState(to)] === 0) this.#enter(to, state, n, namespace);
      });
    }
  }

  #enter(state: number, from: number, n: number, namespace: number): void {
    if (!this.#ofStates.count(state, n, namespace)) return;
    if (this.before[state] === NO_WAY) this.before[state] = from;
    this.#queue[this.#queued++] = state;
  }

  #keep(leaf: number, state: number, n: number, namespace: number): void {
    if (!this.#ofLeaves.count(leaf, n, namespace) || this.first[leaf] !== NOBODY) return;
    this.first[leaf] = n;
    this.reachedIn[leaf] = state;
  }
}
