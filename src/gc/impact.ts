/**
 * What would go if some nodes were removed. Used by retained.ts, once for each row of its report; each call costs what
 * is reached from the nodes and the edges into it, not the size of the store. Pure, over a picture of the graph.
 *
 * Everything that depends on the nodes is among what they reach. Of that, a state stays if it is a root or has a
 * predecessor that is reached from elsewhere, or one that stays; the rest goes.
 */
import { type Items, NO_ITEM } from './items.js';
import { flatState, type GraphView, idOfState, plainState } from './reach.js';

export interface Impact {
  /** Bytes reached from the nodes. */
  total: number;
  /** Bytes that nothing would keep without them. */
  retained: number;
}

export class Removals {
  readonly #view: GraphView;
  readonly #items: Items;
  /** By state: whether anything keeps it now. */
  readonly #reached: Uint8Array;
  readonly #isRoot: Uint8Array;
  /** Round in which a state was reached from the nodes, was found to stay; in which an item was counted. */
  readonly #below: Int32Array;
  readonly #stays: Int32Array;
  readonly #counted: Int32Array;
  /** Round in which a node is one of those removed. */
  readonly #member: Int32Array;
  #round = 0;

  constructor(view: GraphView, items: Items, reached: Uint8Array) {
    this.#view = view;
    this.#items = items;
    this.#reached = reached;
    this.#isRoot = new Uint8Array(view.limit);
    for (const id of view.roots) this.#isRoot[id] = 1;
    this.#below = new Int32Array(view.limit * 2);
    this.#stays = new Int32Array(view.limit * 2);
    this.#member = new Int32Array(view.limit);
    this.#counted = new Int32Array(items.sizes.length);
  }

  of(ids: Iterable<number>): Impact {
    this.#round++;
    const starts: number[] = [];
    for (const id of ids) {
      this.#member[id] = this.#round;
      for (const state of [plainState(id), flatState(id)]) if (this.#reached[state]) starts.push(state);
    }
    const below = this.#spread(starts, this.#below, () => true);
    const held = below.filter((state) => this.#isHeld(state));
    this.#spread(held, this.#stays, (state) => !this.#isMember(state));
    return this.#bytes(below);
  }

  /** Marks the states and all they lead to; answers them. */
  #spread(starts: readonly number[], marks: Int32Array, enters: (state: number) => boolean): number[] {
    const round = this.#round;
    const found: number[] = [];
    const enter = (state: number): void => {
      if (marks[state] === round || !enters(state)) return;
      marks[state] = round;
      found.push(state);
    };
    for (const state of starts) enter(state);
    for (let at = 0; at < found.length; at++) this.#view.forEachStep(found[at]!, enter);
    return found;
  }

  #isMember(state: number): boolean {
    return this.#member[idOfState(state)] === this.#round;
  }

  /** Kept by something that does not depend on the nodes. */
  #isHeld(state: number): boolean {
    if (this.#isMember(state)) return false;
    const id = idOfState(state);
    if (state === plainState(id) && this.#isRoot[id]) return true;
    return this.#view.someBefore(
      state,
      (before) => this.#reached[before] === 1 && this.#below[before] !== this.#round,
    );
  }

  #bytes(below: readonly number[]): Impact {
    const { ofNode, sizes } = this.#items;
    const impact: Impact = { total: 0, retained: 0 };
    for (const state of below) {
      const item = ofNode[idOfState(state)]!;
      if (item === NO_ITEM || this.#counted[item] === this.#round) continue;
      this.#counted[item] = this.#round;
      impact.total += sizes[item]!;
      const kept = this.#items.someNamer(
        item,
        (id) => this.#survives(plainState(id)) || this.#survives(flatState(id)),
      );
      if (!kept) impact.retained += sizes[item]!;
    }
    return impact;
  }

  #survives(state: number): boolean {
    if (!this.#reached[state]) return false;
    return this.#below[state] !== this.#round || this.#stays[state] === this.#round;
  }
}
