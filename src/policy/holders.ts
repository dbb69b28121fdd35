/**
 * Which root holds each object last, when some roots retire in a given order. Called by plan.ts.
 *
 * An object goes with the last root that reaches it. So the roots that stay are followed first, then those that retire from
 * the last to the first, and each state of the graph belongs to the root that reaches it first: one walk over the graph,
 * whatever the number of roots, and the bytes that go are known after every one of them. Circles need no care.
 */
import { NO_ITEM } from '../engine/graph.js';
import type { Items } from '../gc/report/items.js';
import { type GraphView, idOfState, plainState } from '../gc/report/reach.js';
import type { Pace } from '../stores/listing.js';

/** The rank of what no root holds. */
const UNHELD = -1;
export const NO_RECORD = -2;
/** Between two looks at the clock. */
const NODES_AT_ONCE = 4096;
const ROOTS_AT_ONCE = 8;

export class Holders {
  /** Of the retiring roots; a higher rank is that of a root which stays. */
  readonly retiring: number;
  /** The rank by item; NO_RECORD: no record has it any more. */
  ranksOfItems: Int32Array = new Int32Array();
  readonly #view: GraphView;
  readonly #items: Items;
  /** By state. */
  readonly #ranks: Int32Array;
  readonly #open: number[] = [];

  private constructor(view: GraphView, items: Items, retiring: number) {
    this.#view = view;
    this.#items = items;
    this.retiring = retiring;
    this.#ranks = new Int32Array(view.limit * 2).fill(UNHELD);
  }

  static async find(
    { view, items, pace }: { readonly view: GraphView; readonly items: Items; readonly pace: Pace },
    retiring: readonly number[],
    staying: readonly number[],
  ): Promise<Holders> {
    const holders = new Holders(view, items, retiring.length);
    for (const [n, root] of staying.entries()) {
      holders.#follow(root, retiring.length + n);
      if (n % ROOTS_AT_ONCE === 0 && pace.isOver) await pace.pass();
    }
    for (let n = retiring.length - 1; n >= 0; n--) {
      holders.#follow(retiring[n] ?? 0, n);
      if (n % ROOTS_AT_ONCE === 0 && pace.isOver) await pace.pass();
    }
    holders.ranksOfItems = await holders.#rankItems(pace);
    return holders;
  }

  #follow(root: number, rank: number): void {
    this.#view.follow(plainState(root), this.#ranks, UNHELD, rank, this.#open);
  }

  /** Place among the retiring roots of the one that the node goes with; beyond them, that of a root that stays. */
  rankOf(id: number): number {
    return Math.max(this.#ranks[id * 2] ?? UNHELD, this.#ranks[id * 2 + 1] ?? UNHELD);
  }

  /**
   * Whether others keep all that a retiring root has, when all before `end` go. By the states of the graph: what others
   * keep flat only may have more that is kept by this root.
   */
  freesNothing(root: number, end: number): boolean {
    let frees = false;
    this.#view.forEachStep(plainState(root), (state) => {
      if ((this.#ranks[state] ?? UNHELD) < end && this.#view.isPresent(idOfState(state))) frees = true;
    });
    return !frees;
  }

  /** Whether the item goes with the retiring roots. */
  goes(item: number): boolean {
    const rank = this.ranksOfItems[item] ?? NO_RECORD;
    return rank !== NO_RECORD && rank < this.retiring;
  }

  /** Bytes that have gone when the first n retiring roots have, for each n from 0 on, and all bytes there are. */
  async bytesGone(pace: Pace): Promise<{ gone: Float64Array; total: number }> {
    const bytes = new Float64Array(this.retiring + 1);
    let total = 0;
    const { sizes } = this.#items;
    for (let item = 0; item < this.ranksOfItems.length; item++) {
      if (item % NODES_AT_ONCE === 0 && pace.isOver) await pace.pass();
      const rank = this.ranksOfItems[item] ?? NO_RECORD;
      if (rank === NO_RECORD) continue;
      const size = sizes[item] ?? 0;
      total += size;
      if (rank < this.retiring) bytes[rank + 1] = (bytes[rank + 1] ?? 0) + size;
    }
    let sum = 0;
    const gone = bytes.map((size) => {
      sum += size;
      return sum;
    });
    return { gone, total };
  }

  /** An item goes with the last node that names it. */
  async #rankItems(pace: Pace): Promise<Int32Array> {
    const { ofNode, sizes } = this.#items;
    const ranks = new Int32Array(sizes.length).fill(NO_RECORD);
    const nodes = Math.min(ofNode.length, this.#view.limit);
    for (let id = 0; id < nodes; id++) {
      if (id % NODES_AT_ONCE === 0 && pace.isOver) await pace.pass();
      const item = ofNode[id] ?? NO_ITEM;
      if (item === NO_ITEM || !this.#view.isPresent(id)) continue;
      const rank = this.rankOf(id);
      if ((ranks[item] ?? NO_RECORD) < rank) ranks[item] = rank;
    }
    return ranks;
  }
}
