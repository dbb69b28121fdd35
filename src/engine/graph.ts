/**
 * The graph core: dense u32 ids, edges and bits; neither names nor namespaces. Implemented once, in C++ (native/), and
 * carried by an addon or as WebAssembly.
 *
 * Threading: called from one JavaScript thread. `mark`, `save` and `retained` go on beside what else it does: on a thread of
 * their own, or in turns of the event loop; ops applied meanwhile take effect at once, under the write barrier (a save or a
 * report is of the moment of its call all the same). ResourceExhausted when there is no memory.
 *
 * Node state: flags (contract.ts NodeFlag | type << 8, a type being 31 at most), expiry i64 nanoseconds (saturated), a multiset of
 * outgoing edges (target u32, kind 2 bits), an in-degree that saturates at 255. An id that was never set, or
 * was freed, does not exist.
 */

import { invalidArgument } from '../errors.js';

/** Ops are words of a Uint32Array: code, then operands. Unknown codes and ids beyond maxNodes are errors. */
export const GraphOp = {
  /** id, flags, expiry low word, expiry high word (i64; ignored without NodeFlag.expires). Creates the node if need be. */
  set: 1,
  /** id. The node must not be present, have no outgoing edges and in-degree 0. */
  free: 2,
  /** from, to, kind. Both nodes must exist. */
  add: 3,
  /** from, to, kind. Removes one such edge; an error when there is none. */
  remove: 4,
} as const;

export interface GraphStats {
  /** Existing nodes, present or dangling. */
  nodes: number;
  edges: number;
  /** Highest existing id + 1. */
  limit: number;
  /** Memory held by the graph outside the JavaScript heap (or estimated), bytes. */
  bytes: number;
  /** Marks live on (`MarkOptions.live`). */
  hasLiveMarks: boolean;
}

/**
 * How a run found what is reached: it followed all from the roots; it took up what had changed in the marks that live on; or
 * there were none to rely on, and it counted them (anew).
 */
export const markings = ['from roots', 'live', 'counted'] as const;
export type Marking = (typeof markings)[number];

export interface MarkResult {
  /** Present nodes reached (either variant), by resource type (index 0…31). */
  markedByType: Uint32Array;
  /** Existing nodes reached, dangling ones included. */
  marked: number;
  edgesFollowed: number;
  durationMs: number;
  marking: Marking;
}

/** What tests leave out of live marks, and must find. In the order of native/mark/live.h. */
export const liveFaults = ['no-revive', 'no-cascade', 'no-trial', 'edge-twice', 'no-root-weight'] as const;
export type LiveFault = (typeof liveFaults)[number];

export interface MarkOptions {
  signal?: AbortSignal;
  /**
   * The run relies on live marks, which every op updates (native/mark/live.h), instead of its own: it takes what
   * has changed since the last such run, and the first one counts everything. Then marks also go, some time after what kept
   * the node, and what ops have changed is to be caught up with (`catchUp`). A fault is for tests.
   */
  live?: boolean | LiveFault;
  /**
   * For tests that must fail without it. `false`: ops applied after the start change no mark; `'late'`: those applied
   * before the end of marking do not, as if the journal were followed only from there.
   */
  barrier?: boolean | 'late';
  /**
   * For tests that decide what happens beside marking: expands so many nodes at a time (1 or more) on the calling
   * thread, with a turn of the event loop between.
   */
  stepNodes?: number;
}

/** InvalidArgument unless marking can go on in steps of so many nodes. */
export function checkStep(stepNodes: number): void {
  if (!Number.isSafeInteger(stepNodes) || stepNodes < 1) {
    throw invalidArgument(`stepNodes is ${stepNodes}`, { remedy: 'use a whole number, 1 or more' });
  }
}

/** In `RetainedQuery.itemOf`: the node keeps nothing by itself. */
export const NO_ITEM = 0xffffffff;

/**
 * Which sizes are asked for. An item is something that takes space (a blob, a directory); it is there as long as one
 * of the nodes that name it. InvalidArgument when a number is out of its range.
 */
export interface RetainedQuery {
  /** Roots are those of this time, nanoseconds since 1970. */
  now: bigint;
  /** Item by node id; ids from its length on have none. */
  itemOf: Uint32Array;
  /** Bytes by item: whole numbers, 2^53 - 1 at most all together. */
  sizes: Float64Array;
  /** Ids of the nodes of the first set, then of the second, and so on; those that do not exist do not count. */
  members: Uint32Array;
  /** Where in `members` each set ends. */
  ends: Uint32Array;
  /** Nodes that are roots too. */
  roots?: Uint32Array;
  /** Pairs (from, to): edges beside those of the graph, followed like labels. */
  edges?: Uint32Array;
}

export interface RetainedSizes {
  /** Bytes of all items that a reached node names. */
  kept: number;
  /** By set: bytes of the items named by what is reached from its members, as far as those are reached. */
  total: Float64Array;
  /** By set: bytes of those items that nothing would keep if the members were no more. */
  retained: Float64Array;
  /** By set: members that are reached from a root. */
  reached: Uint32Array;
  durationMs: number;
}

/** Bits of a node's mark. */
export const MarkBit = { plain: 1, flat: 2, allocatedBlack: 4 } as const;

/** The graph of references, and marking it. */
export interface GraphCore {
  /** Which carrier it is. */
  readonly kind: 'native' | 'wasm';

  /** Applies ops atomically: an invalid batch throws InvalidArgument and changes nothing. */
  apply(ops: Uint32Array): void;

  /**
   * Begins a run: marks everything reachable from the roots at `now` (nanoseconds since 1970), off the main
   * thread. Afterwards, until `endRun`, every applied op keeps the marks closed: an edge added from a marked
   * node marks its target, a root added (or a raised expiry) is marked, each with what it reaches; a node that
   * becomes present is allocated black and never a candidate. One run at a time.
   */
  mark(now: bigint, options?: MarkOptions): Promise<MarkResult>;
  /** Marks these nodes (plain) and all they reach; returns how many nodes were newly marked. During a run. */
  markFrom(ids: Uint32Array): number;
  /** Mark bits of a node during a run; 0 when unmarked or non-existing. */
  marksOf(id: number): number;
  /**
   * Present, collectible nodes that are neither marked nor allocated black, referrers before what they refer to
   * (level by level, ascending within each; members of a cycle and what only they lead to last, ascending). The
   * order is that of the end of marking; later ops take nodes out of it but move and add none. During a run.
   *
   * With `from` and `count`, those among so many of its `places` only: looking at all of a large store's at once would
   * hold the thread for long.
   */
  candidates(from?: number, count?: number): Uint32Array;
  /** Length of that order. */
  places(): number;
  /** Those of `ids` that are candidates still, in the given order. */
  stillCandidates(ids: Uint32Array): Uint32Array;
  /**
   * Takes up what ops have changed in live marks since, for a fraction of a millisecond (or `steps` of some ten microseconds);
   * false when there is more that may mark nodes, which every other question about the run would take up at a stretch.
   * FailedPrecondition when there is no run whose marking has finished.
   */
  catchUp(steps?: number): boolean;
  /**
   * Takes up what ops have changed in live marks, for a fraction of a millisecond (or `steps`), run or no run; true when
   * nothing is left, or nothing lives. A save takes the marks along if that is so.
   */
  bringUpToDate(steps?: number): boolean;
  /**
   * Ids whose live marks or counts are not what a walk over the graph finds, the first 100; undefined when there are none.
   * What ops have changed is taken up first. Takes the time of the walk, at a stretch.
   */
  wrongLive(): Uint32Array | undefined;
  /**
   * The same beside the writers, with marks that are counted anew; undefined also when a run begins meanwhile. Marks of which
   * some differ live no longer. FailedPrecondition during a run.
   */
  checkLive(): Promise<Uint32Array | undefined>;
  /** Garbage by the live marks as far as they are up to date: how much there is of each type (index 0…31). */
  garbageByType(): Uint32Array;
  /** Ids of garbage among `count` places of a list from place `from` on, in no order. Empty where no marks live. */
  garbage(from: number, count: number): Uint32Array;
  /** Ids that have become garbage since the last call and still are; the first time all of them. Some 200,000 at most. */
  freshGarbage(): Uint32Array;
  /** Ends the run that `mark` began. */
  endRun(): void;

  /** Ids that have become free-able since the last call: existing, not present, no edges in or out. */
  takeFreeable(): Uint32Array;
  /** Ids below `limit` that do not exist, at most `max`, ascending from `from`. */
  unusedIds(from: number, max: number): Uint32Array;
  /** Existing ids whose flags have all bits of `flags`, ascending. */
  withFlags(flags: number): Uint32Array;

  /** 0 when the node does not exist. */
  flagsOf(id: number): number;
  /** Saturated at 255; 0 when the node does not exist. */
  inDegreeOf(id: number): number;
  /** When the node expires; undefined: never. */
  expiryOf(id: number): bigint | undefined;
  /** Pairs (target, kind) in insertion-independent order: ascending by target, then kind. */
  edgesOf(id: number): Uint32Array;
  /**
   * `count` ids from `from` on, those below the limit: of each its flags, its number of edges, and target << 2 | kind of each edge in
   * the order of `edgesOf`; flags and number are 0 where there is no node. For callers that read many: one call for all of them.
   */
  rows(from: number, count: number): Uint32Array;
  /** A shortest path root … id over followable edges at `now`, as ids; undefined when unreachable. */
  path(id: number, now: bigint): Uint32Array | undefined;

  /**
   * What the removal of each of some sets of nodes would free. Takes the time of one walk over the graph and, for each
   * set, of what is reached from it. A signal ends it.
   */
  retained(query: RetainedQuery, options?: { signal?: AbortSignal | undefined }): Promise<RetainedSizes>;

  /**
   * A packed, checksummed image of the whole graph, and of live marks that are up to date; load replaces the graph with one, and
   * with marks that fit it, which then live on.
   */
  save(): Promise<Buffer>;
  /** False, with the graph left empty, when the bytes are damaged or of another format. */
  load(bytes: Uint8Array): boolean;

  /** Sizes, for metrics. */
  stats(): GraphStats;
  /** Forgets everything. */
  clear(): void;
}
