/**
 * The graph core in TypeScript: what runs where the C++ core cannot load, and the oracle it is tested against.
 * Created by graph.ts; the contract, with every rule about marks, is engine/graph.ts.
 *
 * Threading: everything happens on the JavaScript thread. `mark` gives the event loop a turn between slices, and
 * ops applied meanwhile take effect at once: the write barrier makes marking beside them safe. `save` is one step.
 * Durability: none, memory.
 *
 * Marks are closures, not visits, so they do not depend on any order: `plain` is the least set that holds the roots
 * and the targets of the label and structural edges of its members; `flat` is the least set that holds the targets
 * of flat edges of plain nodes and of the structural edges of its members. A node can be both.
 */
import { NodeFlag } from '../engine/contract.js';
import {
  checkStep,
  type GraphCore,
  GraphOp,
  type GraphStats,
  MarkBit,
  type MarkOptions,
  type MarkResult,
  type RetainedQuery,
  type RetainedSizes,
} from '../engine/graph.js';
import { abortError, canceled, type EbbtideError, failedPrecondition, invalidArgument } from '../errors.js';
import { decodeGraph, encodeGraph } from './graph-checkpoint.js';
import { removalOrder } from './graph-order.js';
import { shortestPath } from './graph-path.js';
import { PictureTaker } from './graph-picture.js';
import { copiedQuery, retainedSums } from './graph-retained.js';
import { MAX_EDGES, MAX_NODES, NodeTable } from './graph-ts-nodes.js';

/** Nodes expanded before the event loop gets a turn; smaller graphs are marked within the call. */
const SLICE_NODES = 16_384;
/** Most ids that `unusedIds` answers in one call. */
const MAX_UNUSED = 1 << 20;
const KINDS = 3;
/** A type is 31 at most. */
const MAX_FLAGS = 0x1fff;
/** Set beside the public bits once a node was counted in the result. */
const COUNTED = 8;
const PUBLIC_BITS = MarkBit.plain | MarkBit.flat | MarkBit.born;
const REACHED = MarkBit.plain | MarkBit.flat;
const STRUCTURAL = 1;

interface Run {
  readonly now: bigint;
  /** Whether ops change marks; a late barrier comes up at the end of marking. */
  barrier: boolean;
  /** Nodes whose edges are still to be followed: id × 2, + 1 for the flat variant. */
  readonly work: number[];
  readonly result: MarkResult;
  /** Undefined until marking has finished. */
  order: Uint32Array | undefined;
  ended: boolean;
}

/** What an op of a batch found, so that a batch which turns out invalid can be taken back. */
interface Before {
  existed: boolean;
  flags: number;
  expiry: bigint | undefined;
  marks: number;
}

const aTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class TypeScriptGraph implements GraphCore {
  readonly kind = 'typescript';
  readonly #nodes = new NodeTable();
  /** Who copies the graph, and is to know what changes. */
  readonly #takers = new Set<PictureTaker>();
  #freeable: number[] = [];
  #run: Run | undefined;

  apply(ops: Uint32Array): void {
    checkWords(ops, 'ops');
    const before: Before[] = [];
    const freeable = this.#freeable.length;
    let at = 0;
    try {
      while (at < ops.length) at = this.#applyOne(ops, at, before);
    } catch (error) {
      this.#takeBack(ops, at, before);
      this.#freeable.length = freeable;
      throw error;
    }
    if (this.#run?.barrier) this.#keepClosed(this.#run, ops);
  }

  async mark(now: bigint, options: MarkOptions = {}): Promise<MarkResult> {
    const { signal, barrier = true, stepNodes = SLICE_NODES } = options;
    checkTime(now);
    checkStep(stepNodes);
    if (this.#run !== undefined) {
      throw failedPrecondition('mark: a run is in progress', { remedy: 'end it with endRun first' });
    }
    if (signal?.aborted) throw abortError(signal);
    const started = performance.now();
    const result = { markedByType: new Uint32Array(32), marked: 0, edgesFollowed: 0, durationMs: 0 };
    const run: Run = { now, barrier: barrier === true, work: [], result, order: undefined, ended: false };
    this.#run = run;
    for (const id of this.#nodes.ids()) if (this.#isRoot(id, now)) this.#reach(run, id, MarkBit.plain);
    while (!this.#drain(run, stepNodes)) {
      await aTurn();
      if (run.ended) throw canceled('mark: the run was ended');
      if (signal?.aborted) {
        this.endRun();
        throw abortError(signal);
      }
    }
    run.order = removalOrder(this.#unmarked(), (id, visit) =>
      this.#nodes.forEachEdge(id, (word) => visit(word >>> 2)),
    );
    if (barrier === 'late') run.barrier = true;
    result.durationMs = performance.now() - started;
    return { ...result, markedByType: result.markedByType.slice() };
  }

  markFrom(ids: Uint32Array): number {
    checkWords(ids, 'ids');
    const run = this.#finishedRun('markFrom');
    for (const id of ids) checkId(id);
    const before = run.result.marked;
    for (const id of ids) if (this.#nodes.exists(id)) this.#reach(run, id, MarkBit.plain);
    this.#drain(run, Number.POSITIVE_INFINITY);
    return run.result.marked - before;
  }

  marksOf(id: number): number {
    checkCount(id);
    return this.#nodes.marks(id) & PUBLIC_BITS;
  }

  places(): number {
    return this.#finishedRun('places').order!.length;
  }

  candidates(from = 0, count = this.places()): Uint32Array {
    checkCount(from);
    checkCount(count);
    const { order } = this.#finishedRun('candidates');
    return order!.subarray(from, from + count).filter((id) => this.#isCandidate(id));
  }

  stillCandidates(ids: Uint32Array): Uint32Array {
    checkWords(ids, 'ids');
    this.#finishedRun('stillCandidates');
    return ids.filter((id) => this.#isCandidate(id));
  }

  endRun(): void {
    if (this.#run === undefined) return;
    this.#run.ended = true;
    this.#run = undefined;
    this.#nodes.clearMarks();
  }

  takeFreeable(): Uint32Array {
    const ids = new Set(this.#freeable.filter((id) => this.#isFreeable(id)));
    this.#freeable = [];
    return Uint32Array.from(ids).sort();
  }

  unusedIds(from: number, max: number): Uint32Array {
    return Uint32Array.from(this.#nodes.unused(checkCount(from), Math.min(checkCount(max), MAX_UNUSED)));
  }

  withFlags(flags: number): Uint32Array {
    checkCount(flags);
    const found: number[] = [];
    for (const id of this.#nodes.ids()) if ((this.#nodes.flags(id) & flags) === flags) found.push(id);
    return Uint32Array.from(found);
  }

  flagsOf(id: number): number {
    checkCount(id);
    return this.#nodes.flags(id);
  }

  inDegreeOf(id: number): number {
    checkCount(id);
    return Math.min(this.#nodes.inDegree(id), 255);
  }

  expiryOf(id: number): bigint | undefined {
    checkCount(id);
    return this.#nodes.expiry(id);
  }

  edgesOf(id: number): Uint32Array {
    checkCount(id);
    const words = this.#nodes.sortedEdges(id);
    const pairs = new Uint32Array(words.length * 2);
    words.forEach((word, i) => {
      pairs[2 * i] = word >>> 2;
      pairs[2 * i + 1] = word & 3;
    });
    return pairs;
  }

  path(id: number, now: bigint): Uint32Array | undefined {
    checkCount(id);
    checkTime(now);
    if (!this.#nodes.exists(id)) return undefined;
    const roots: number[] = [];
    for (const root of this.#nodes.ids()) if (this.#isRoot(root, now)) roots.push(root);
    return shortestPath(this.#nodes, roots, id);
  }

  async retained(
    query: RetainedQuery,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<RetainedSizes> {
    if (signal?.aborted) throw abortError(signal);
    checkTime(query.now);
    const copied = copiedQuery(query);
    const started = performance.now();
    const taker = new PictureTaker(this.#nodes, (id) => this.#isRoot(id, query.now));
    this.#takers.add(taker);
    try {
      const work = retainedSums(taker, copied);
      for (;;) {
        const { done, value } = work.next();
        if (done) return { ...value, durationMs: performance.now() - started };
        await aTurn();
        if (signal?.aborted) throw abortError(signal);
        if (taker.cancelled) throw canceled('retained: the graph was forgotten');
      }
    } finally {
      this.#takers.delete(taker);
    }
  }

  async save(): Promise<Buffer> {
    return encodeGraph(this.#nodes);
  }

  load(bytes: Uint8Array): boolean {
    this.clear();
    const whole = decodeGraph(bytes, this.#nodes);
    if (!whole) this.#nodes.clear();
    for (const id of this.#nodes.ids()) if (this.#isFreeable(id)) this.#freeable.push(id);
    return whole;
  }

  stats(): GraphStats {
    const { nodes, edges, limit } = this.#nodes;
    return { nodes, edges, limit, bytes: this.#nodes.bytes() };
  }

  clear(): void {
    this.endRun();
    for (const taker of this.#takers) taker.cancelled = true;
    this.#nodes.clear();
    this.#freeable = [];
  }

  // ------------------------------------------------------------------------------------------------------ ops

  /** Applies the op at `at`, or throws without effect; answers where the next one is. */
  #applyOne(ops: Uint32Array, at: number, before: Before[]): number {
    const code = ops[at]!;
    const end = at + opLength(code);
    if (end > ops.length) throw badOp(at, 'is cut short or unknown');
    const [a, b, c] = [ops[at + 1]!, ops[at + 2]!, ops[at + 3]!];
    if (a >= MAX_NODES) throw badOp(at, `has a node id beyond the limit: ${a}`);
    for (const taker of this.#takers) taker.beforeChange(a);
    switch (code) {
      case GraphOp.set:
        if (b > MAX_FLAGS) throw badOp(at, `has flags beyond 13 bits: ${b}`);
        this.#set(a, b, toInt64(c, ops[at + 4]!), before);
        break;
      case GraphOp.free:
        if (!this.#isFreeable(a)) throw badOp(at, `frees node ${a}, which is not free-able`);
        before.push(this.#stateOf(a));
        this.#nodes.free(a);
        break;
      default:
        if (b >= MAX_NODES) throw badOp(at, `has a node id beyond the limit: ${b}`);
        if (c >= KINDS) throw badOp(at, `has an unknown edge kind: ${c}`);
        if (code === GraphOp.add) this.#add(at, a, b, c);
        else this.#remove(at, a, b, c);
    }
    return end;
  }

  #set(id: number, flags: number, expiry: bigint, before: Before[]): void {
    const state = this.#stateOf(id);
    before.push(state);
    const wasFreeable = this.#isFreeable(id);
    this.#nodes.set(id, flags, flags & NodeFlag.expires ? expiry : undefined);
    const appeared = (flags & ~state.flags & NodeFlag.present) !== 0;
    if (appeared && this.#run?.barrier) this.#nodes.setMarks(id, state.marks | MarkBit.born);
    if (!wasFreeable && this.#isFreeable(id)) this.#freeable.push(id);
  }

  #add(at: number, from: number, to: number, kind: number): void {
    for (const id of [from, to]) {
      if (!this.#nodes.exists(id)) throw badOp(at, `names node ${id}, which does not exist`);
    }
    if (this.#nodes.edges >= MAX_EDGES) throw badOp(at, 'would exceed the limit of edges');
    this.#nodes.addEdge(from, to, kind);
  }

  #remove(at: number, from: number, to: number, kind: number): void {
    if (!this.#nodes.removeEdge(from, to, kind)) {
      throw badOp(at, `removes an edge that is not there: ${from} to ${to}, kind ${kind}`);
    }
    for (const id of from === to ? [from] : [from, to]) if (this.#isFreeable(id)) this.#freeable.push(id);
  }

  /** Undoes the ops before `end`, the last first. */
  #takeBack(ops: Uint32Array, end: number, before: Before[]): void {
    const starts: number[] = [];
    for (let at = 0; at < end; at += opLength(ops[at]!)) starts.push(at);
    for (const at of starts.reverse()) {
      const [code, a, b, c] = [ops[at]!, ops[at + 1]!, ops[at + 2]!, ops[at + 3]!];
      if (code === GraphOp.add) this.#nodes.removeEdge(a, b, c);
      else if (code === GraphOp.remove) this.#nodes.addEdge(a, b, c);
      else this.#restore(a, before.pop()!);
    }
  }

  #restore(id: number, state: Before): void {
    if (!state.existed) {
      this.#nodes.free(id);
      return;
    }
    this.#nodes.set(id, state.flags, state.expiry);
    this.#nodes.setMarks(id, state.marks);
  }

  #stateOf(id: number): Before {
    const nodes = this.#nodes;
    return {
      existed: nodes.exists(id),
      flags: nodes.flags(id),
      expiry: nodes.expiry(id),
      marks: nodes.marks(id),
    };
  }

  // ---------------------------------------------------------------------------------------------------- marks

  /** The write barrier: marks what the applied batch made reachable. Runs when all of the batch is in the graph. */
  #keepClosed(run: Run, ops: Uint32Array): void {
    for (let at = 0; at < ops.length; at += opLength(ops[at]!)) {
      const [code, a, b, c] = [ops[at]!, ops[at + 1]!, ops[at + 2]!, ops[at + 3]!];
      if (code === GraphOp.set && this.#isRoot(a, run.now)) this.#reach(run, a, MarkBit.plain);
      if (code === GraphOp.add && this.#nodes.exists(b)) this.#follow(run, this.#nodes.marks(a), b, c);
    }
    if (run.order !== undefined) this.#drain(run, Number.POSITIVE_INFINITY);
  }

  /** Follows an edge of a node that carries these marks. */
  #follow(run: Run, marks: number, to: number, kind: number): void {
    if (marks & MarkBit.plain) this.#reach(run, to, kind <= STRUCTURAL ? MarkBit.plain : MarkBit.flat);
    if (marks & MarkBit.flat && kind === STRUCTURAL) this.#reach(run, to, MarkBit.flat);
  }

  #reach(run: Run, id: number, bit: number): void {
    const marks = this.#nodes.marks(id);
    if (marks & bit) return;
    this.#nodes.setMarks(id, marks | bit | COUNTED);
    run.work.push(id * 2 + (bit === MarkBit.flat ? 1 : 0));
    if (marks & COUNTED) return;
    run.result.marked++;
    const flags = this.#nodes.flags(id);
    if (flags & NodeFlag.present) run.result.markedByType[flags >>> 8]!++;
  }

  /** Expands up to `max` nodes; true when none is left. */
  #drain(run: Run, max: number): boolean {
    for (let n = 0; n < max; n++) {
      const state = run.work.pop();
      if (state === undefined) return true;
      const id = state >>> 1;
      const bit = state & 1 ? MarkBit.flat : MarkBit.plain;
      if ((this.#nodes.marks(id) & bit) === 0) continue; // freed while it waited
      this.#nodes.forEachEdge(id, (word, times) => {
        const kind = word & 3;
        if (bit === MarkBit.flat && kind !== STRUCTURAL) return;
        run.result.edgesFollowed += times;
        this.#follow(run, bit, word >>> 2, kind);
      });
    }
    return run.work.length === 0;
  }

  #unmarked(): Uint32Array {
    const found: number[] = [];
    for (const id of this.#nodes.ids()) if (this.#isCandidate(id)) found.push(id);
    return Uint32Array.from(found);
  }

  #isCandidate(id: number): boolean {
    const wanted = NodeFlag.present | NodeFlag.collectible;
    return (
      (this.#nodes.flags(id) & wanted) === wanted && (this.#nodes.marks(id) & (REACHED | MarkBit.born)) === 0
    );
  }

  #isFreeable(id: number): boolean {
    const nodes = this.#nodes;
    return (
      nodes.exists(id) &&
      (nodes.flags(id) & NodeFlag.present) === 0 &&
      nodes.degree(id) === 0 &&
      nodes.inDegree(id) === 0
    );
  }

  #isRoot(id: number, now: bigint): boolean {
    const flags = this.#nodes.flags(id);
    if ((flags & NodeFlag.root) === 0) return false;
    return (flags & NodeFlag.expires) === 0 || now <= (this.#nodes.expiry(id) ?? now);
  }

  #finishedRun(what: string): Run {
    if (this.#run?.order === undefined) {
      throw failedPrecondition(`${what}: there is no run whose marking has finished`, {
        remedy: 'await mark first',
      });
    }
    return this.#run;
  }
}

// --------------------------------------------------------------------------------------------------- operands

/** Words of an op; past any array's end when the code is unknown. */
function opLength(code: number): number {
  if (code === GraphOp.set) return 5;
  if (code === GraphOp.free) return 2;
  return code === GraphOp.add || code === GraphOp.remove ? 4 : Number.MAX_SAFE_INTEGER;
}

const badOp = (at: number, why: string): EbbtideError => invalidArgument(`graph op at word ${at} ${why}`);

const toInt64 = (low: number, high: number): bigint => BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low));

function checkWords(words: Uint32Array, name: string): void {
  if (!(words instanceof Uint32Array) || !(words.buffer instanceof ArrayBuffer)) {
    throw invalidArgument(`${name} must be a Uint32Array that is not shared between threads`);
  }
}

function checkId(id: number): void {
  if (id >= MAX_NODES) throw invalidArgument(`node id ${id} is beyond the limit`);
}

function checkTime(now: bigint): void {
  if (BigInt.asIntN(64, now) !== now) throw invalidArgument(`time ${now} is outside 64 bits`);
}

function checkCount(n: number): number {
  if (!Number.isSafeInteger(n) || n < 0) throw invalidArgument(`expected a count, got ${n}`);
  return n;
}
