/**
 * Keeps the graph beside the records: turns the changes of one commit into new entries, ids and graph ops.
 * Called by engine.ts inside the commit step, so everything here is synchronous and sees the newest state.
 *
 * A key has a node while it has a record that the indexer knows, or while anything refers to it. The node of a
 * deleted record goes at once when nothing refers to it, else as soon as a later commit finds it free.
 */
import { type Indexer, type Key, NodeFlag } from '../contract.js';
import type { GraphCore } from '../graph.js';
import { GraphLost } from './graph-lost.js';
import { Ids } from './ids.js';
import { type Plan, Planner, type RecordChange, undoing } from './planner.js';
import type { Entry, LinkKey, Storage } from './storage.js';

/** Nodes one commit takes away at most, so that a slice of a collection stays short. */
const FREED_PER_COMMIT = 4096;

export class Nodes {
  readonly #graph: GraphCore;
  readonly #indexer: Indexer;
  readonly #storage: Storage;
  #ids: Ids;
  /** Free ones that one commit was not enough for. */
  #freeable: number[] = [];
  /** Whether the graph may know of free nodes; a loaded one may. */
  #mayFree = true;

  constructor(graph: GraphCore, indexer: Indexer, storage: Storage) {
    this.#graph = graph;
    this.#indexer = indexer;
    this.#storage = storage;
    this.#ids = new Ids(graph);
  }

  /**
   * Works out one commit and applies it to the graph; the storage still has the state before it. Throws with the graph as it was
   * before, or else a `GraphLost`.
   */
  commit(
    records: Iterable<[Key, RecordChange]>,
    links: ReadonlyMap<LinkKey, boolean>,
    known: ReadonlyMap<Key, Entry | undefined>,
  ): Plan {
    const planner = new Planner(this.#indexer, this.#storage, this.#ids, known);
    // A batch that the graph refuses changes nothing in it, so only whole batches have to be taken back.
    let applied = 0;
    try {
      planner.change(records, links);
      const changes = Uint32Array.from(planner.ops);
      if (changes.length > 0) this.#graph.apply(changes);
      applied = planner.undone;
      this.#mayFree ||= planner.mayFree;
      if (this.#mayFree) planner.free(this.#takeFreeable());
      const frees = Uint32Array.from(planner.ops.slice(changes.length));
      if (frees.length > 0) this.#graph.apply(frees);
      applied = planner.undone;
      return planner.plan();
    } catch (error) {
      this.takeBack(planner.takingBack(applied), error);
      throw error;
    }
  }

  /** After a commit that was applied and cannot be handed over, because of `cause`. GraphLost: the graph has it still. */
  takeBack({ inverse, taken }: Pick<Plan, 'inverse' | 'taken'>, cause: unknown): void {
    try {
      if (inverse.length > 0) this.#graph.apply(Uint32Array.from(undoing(inverse)));
    } catch {
      throw new GraphLost(cause);
    }
    // Without memory for that, the core gives up all of it.
    if (this.#graph.stats().limit === 0 && this.#storage.records() > 0) throw new GraphLost(cause);
    this.undone({ freed: [], taken });
  }

  /** After the commit was handed over. */
  done(plan: Plan): void {
    for (const id of plan.freed.keys()) this.#ids.giveBack(id);
  }

  /** After the commit was lost, and every later one was undone. */
  undone({ freed, taken }: { readonly freed: readonly number[]; readonly taken: readonly number[] }): void {
    for (const id of taken) this.#ids.giveBack(id);
    this.#ids.forget(new Set(freed));
    this.#freeable = [];
    this.#mayFree = true;
  }

  /** Ids that are free now. */
  #takeFreeable(): number[] {
    const fresh = Array.from(this.#graph.takeFreeable());
    this.#mayFree = this.#freeable.length + fresh.length > FREED_PER_COMMIT;
    if (this.#freeable.length === 0 && fresh.length <= FREED_PER_COMMIT) return fresh;
    this.#freeable = this.#freeable.concat(fresh);
    // What an earlier commit left over may be in use again.
    return [...new Set(this.#freeable.splice(-FREED_PER_COMMIT))].filter((id) => this.#isFree(id));
  }

  #isFree(id: number): boolean {
    if ((this.#graph.flagsOf(id) & NodeFlag.present) !== 0) return false;
    return this.#graph.inDegreeOf(id) === 0 && this.#graph.edgesOf(id).length === 0;
  }
}
