/**
 * All that a root reaches, what it shares with others too: the total of `du`. Called by the formats that show a leaf in the
 * branch of every root. Takes the time of what each root reaches, so it ends where that is too much.
 */
import { EbbtideError } from '../errors.js';
import { type GraphView, idOfState, plainState } from '../gc/report/reach.js';
import type { Leaves } from './leaves.js';

/** Of all roots together: states of the graph, and leaves, that are visited. */
export const VISITS_MAX = 40_000_000;

export class Reached {
  readonly #view: GraphView;
  readonly #leaves: Leaves;
  readonly #visitsMax: number;
  readonly #states: Uint32Array;
  readonly #seenLeaves: Uint32Array;
  #visits = 0;
  #walk = 0;

  constructor(view: GraphView, leaves: Leaves, visitsMax = VISITS_MAX) {
    this.#view = view;
    this.#leaves = leaves;
    this.#visitsMax = visitsMax;
    this.#states = new Uint32Array(view.limit * 2);
    this.#seenLeaves = new Uint32Array(leaves.count);
  }

  /** Calls `visit` for each leaf that the root reaches, once. ResourceExhausted when there are too many in all. */
  of(root: number, visit: (leaf: number) => void): void {
    const walk = ++this.#walk;
    const open = [plainState(root)];
    const enter = (state: number): void => {
      if (this.#states[state] === walk) return;
      this.#states[state] = walk;
      this.#count();
      open.push(state);
    };
    this.#states[plainState(root)] = walk;
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      this.#leaves.forEachOf(idOfState(state), (leaf) => {
        if (this.#seenLeaves[leaf] === walk) return;
        this.#seenLeaves[leaf] = walk;
        this.#count();
        visit(leaf);
      });
      this.#view.forEachStep(state, enter);
    }
  }

  #count(): void {
    if (++this.#visits <= this.#visitsMax) return;
    throw new EbbtideError(
      'ResourceExhausted',
      `the roots reach more than ${this.#visitsMax} objects in all`,
      {
        remedy: 'use --format json, which has every object once',
      },
    );
  }
}
