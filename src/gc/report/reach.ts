/**
 * A snapshot of the graph for reports (why.ts, retained.ts): read from a packed copy of the core, so that writers
 * go on and every result belongs to one moment. Memory about 10 bytes a node and 4 an edge; nothing is stored.
 *
 * A state is (id, variant) as id × 2, + 1 when reached flat. Label edges are followed from plain states only, flat
 * edges lead from plain to flat ones, structural edges keep the variant: the rules the core marks by.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import { EdgeKind, NodeFlag } from '../../engine/contract.js';
import type { GraphCore } from '../../engine/graph.js';
import { throwIfAborted, unknownError } from '../../errors.js';
import { createGraph } from '../../graph/carriers.js';
import type { Instant } from '../../model/time.js';

/** Edges and roots that the core does not know (marked-run.ts). */
export interface ExtraEdges {
  /** From a node to what it keeps under a condition that holds now. */
  readonly edges: ReadonlyMap<number, readonly number[]>;
  /** What collectors say is in use. */
  readonly roots: ReadonlySet<number>;
}

export const noExtraEdges: ExtraEdges = { edges: new Map(), roots: new Set() };

export const plainState = (id: number): number => id * 2;
const flatState = (id: number): number => id * 2 + 1;
export const idOfState = (state: number): number => state >>> 1;

/** Nodes read between two pauses. */
const NODES_PER_PAUSE = 8192;
const KIND_BITS = 2;
const NOTHING: readonly number[] = [];

interface Edges {
  readonly first: Uint32Array;
  readonly words: Uint32Array;
}

export class GraphView {
  /** Highest id + 1. */
  readonly limit: number;
  /** `NodeFlag` bits | resource type << 8, by id; 0 when there is no such node. */
  readonly flags: Uint16Array;
  /** Ids of the roots, ascending. */
  readonly roots: readonly number[];
  /** Edges of node n are the words from first[n] to first[n + 1]: target << 2 | kind. */
  readonly #first: Uint32Array;
  readonly #words: Uint32Array;
  /** 1 for each node that a record refers to. */
  readonly #targets: Uint8Array;
  /** Edges by target, once it was needed: source << 2 | kind. */
  #into: Edges | undefined;

  private constructor(
    flags: Uint16Array,
    roots: readonly number[],
    { first, words }: Edges,
    targets: Uint8Array,
  ) {
    this.limit = flags.length;
    this.flags = flags;
    this.roots = roots;
    this.#first = first;
    this.#words = words;
    this.#targets = targets;
  }

  /** The graph as it is at the time of the call, with the roots of an instant. */
  static async read(
    graph: GraphCore,
    time: Instant,
    extra: ExtraEdges = noExtraEdges,
    signal?: AbortSignal,
  ): Promise<GraphView> {
    const copy = createGraph(graph.kind);
    if (!copy.load(await graph.save())) throw unknownError('the copy of the graph cannot be read');
    const { limit, edges } = copy.stats();
    const flags = new Uint16Array(limit);
    const first = new Uint32Array(limit + 1);
    const words = new Uint32Array(edges + edgesIn(extra));
    const targets = new Uint8Array(limit);
    let length = 0;
    const roots: number[] = [];
    for (let id = 0; id < limit; ) {
      const rows = copy.rows(id, NODES_PER_PAUSE);
      for (let at = 0; at < rows.length; id++) {
        const bits = rows[at++]!;
        const end = at + 1 + rows[at]!;
        flags[id] = bits;
        const expiry = (bits & NodeFlag.expires) === 0 ? undefined : copy.expiryOf(id);
        if (isRootAt(bits, expiry, time) || extra.roots.has(id)) roots.push(id);
        for (at++; at < end; at++) {
          const word = rows[at]!;
          words[length++] = word;
          targets[word >>> KIND_BITS] = 1;
        }
        for (const to of extra.edges.get(id) ?? NOTHING) {
          if (to < limit) words[length++] = (to << KIND_BITS) | EdgeKind.label;
        }
        first[id + 1] = length;
      }
      await yieldToEventLoop();
      throwIfAborted(signal);
    }
    copy.clear();
    return new GraphView(flags, roots, { first, words: words.subarray(0, length) }, targets);
  }

  isPresent(id: number): boolean {
    return (this.flags[id]! & NodeFlag.present) !== 0;
  }

  typeOf(id: number): number {
    return this.flags[id]! >> 8;
  }

  /** Whether a record refers to the node; not: a condition or a collector. */
  isTarget(id: number): boolean {
    return this.#targets[id] === 1;
  }

  /** Nodes that a node refers to, in whatever way. */
  forEachTarget(id: number, visit: (to: number) => void): void {
    const end = this.#first[id + 1]!;
    for (let at = this.#first[id]!; at < end; at++) visit(this.#words[at]! >>> KIND_BITS);
  }

  /** States that a state leads to. */
  forEachStep(state: number, visit: (to: number) => void): void {
    const id = idOfState(state);
    const end = this.#first[id + 1]!;
    for (let at = this.#first[id]!; at < end; at++) {
      const to = stepOver(state, this.#words[at]!);
      if (to !== undefined) visit(to);
    }
  }

  /**
   * Gives a state, and those it leads to, the mark `mark`, where they have `unmarked`; those that have another are not followed. The
   * walk's list is the caller's, empty before and after.
   */
  follow(
    start: number,
    marks: Int32Array | Uint8Array,
    unmarked: number,
    mark: number,
    open: number[],
  ): void {
    const first = this.#first;
    const words = this.#words;
    if (marks[start] !== unmarked) return;
    marks[start] = mark;
    open.push(start);
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      const id = idOfState(state);
      const end = first[id + 1]!;
      for (let at = first[id]!; at < end; at++) {
        const to = stepOver(state, words[at]!);
        if (to === undefined || marks[to] !== unmarked) continue;
        marks[to] = mark;
        open.push(to);
      }
    }
  }

  /** 1 for each state that is reached from these. */
  reach(starts: Iterable<number>): Uint8Array {
    const seen = new Uint8Array(this.limit * 2);
    const open: number[] = [];
    const enter = (state: number): void => {
      if (seen[state]) return;
      seen[state] = 1;
      open.push(state);
    };
    for (const state of starts) enter(state);
    for (let state = open.pop(); state !== undefined; state = open.pop()) this.forEachStep(state, enter);
    return seen;
  }

  /** What keeps the node, found backwards: for each state that leads to it, the next one on a shortest way. */
  waysTo(id: number): Int32Array {
    const next = new Int32Array(this.limit * 2).fill(NO_WAY);
    let level = [plainState(id), flatState(id)];
    for (const state of level) next[state] = END_OF_WAY;
    while (level.length > 0) {
      const further: number[] = [];
      for (const state of level) {
        this.someBefore(state, (before) => {
          if (next[before] === NO_WAY) {
            next[before] = state;
            further.push(before);
          }
          return false;
        });
      }
      level = further;
    }
    return next;
  }

  /** Whether `test` says so of a state that leads to this one in a step; ends with the first. */
  someBefore(state: number, test: (before: number) => boolean): boolean {
    this.#into ??= this.#reversed();
    const { first, words } = this.#into;
    const to = idOfState(state);
    for (let at = first[to]!; at < first[to + 1]!; at++) {
      const from = words[at]! >>> KIND_BITS;
      const word = (to << KIND_BITS) | (words[at]! & 3);
      if (stepOver(plainState(from), word) === state && test(plainState(from))) return true;
      if (stepOver(flatState(from), word) === state && test(flatState(from))) return true;
    }
    return false;
  }

  #reversed(): Edges {
    const first = new Uint32Array(this.limit + 1);
    for (const word of this.#words) first[(word >>> KIND_BITS) + 1]!++;
    for (let id = 0; id < this.limit; id++) first[id + 1]! += first[id]!;
    const filled = first.slice();
    const words = new Uint32Array(this.#words.length);
    for (let from = 0; from < this.limit; from++) {
      for (let at = this.#first[from]!; at < this.#first[from + 1]!; at++) {
        const word = this.#words[at]!;
        words[filled[word >>> KIND_BITS]!++] = (from << KIND_BITS) | (word & 3);
      }
    }
    return { first, words };
  }
}

function edgesIn({ edges }: ExtraEdges): number {
  let count = 0;
  for (const targets of edges.values()) count += targets.length;
  return count;
}

/** In the result of `waysTo`: the state does not lead there; the state is there. */
export const NO_WAY = -2;
export const END_OF_WAY = -1;

/** The state an edge leads to from a state, if it is followed from there. */
function stepOver(state: number, word: number): number | undefined {
  const to = word >>> KIND_BITS;
  const kind = word & 3;
  if (state & 1) return kind === EdgeKind.structural ? flatState(to) : undefined;
  return kind === EdgeKind.flat ? flatState(to) : plainState(to);
}

/** A root counts until its expiry has passed; without one, always. */
export function isRootAt(flags: number, expiry: Instant | undefined, at: Instant): boolean {
  if ((flags & NodeFlag.root) === 0) return false;
  return (flags & NodeFlag.expires) === 0 || expiry === undefined || at <= expiry;
}
