/**
 * The C++ graph core as WebAssembly, for hosts where its addon does not load: native/wasm/carrier.cc called as
 * native/addon.cc would be. Used by carriers.ts.
 *
 * Threading: the JavaScript thread does everything, half a millisecond at a time; only a report of retained sizes, which
 * cannot pause, goes to a thread of its own with a copy of the graph. Graphs of some thousand nodes are done with at once.
 * Memory: each graph has one of its own, which grows by blocks up to 4 GiB (some 250 million nodes) and is given back when
 * the graph is cleared or forgotten. At the ceiling: ResourceExhausted, with the graph as it was.
 */
import { readFileSync } from 'node:fs';
import type { Worker } from 'node:worker_threads';
import { NodeFlag } from '../engine/contract.js';
import type { GraphStats, RetainedSizes } from '../engine/graph.js';
import { canceled, EbbtideError, type ErrorKind, errorKinds, unavailable } from '../errors.js';
import { packageFile } from '../system/addon.js';
import { startThread } from '../system/threads.js';
import type { CarriedGraph, CarriedResult } from './core-graph.js';
import { checkArray, doubles, time, u32, words } from './wasm-operands.js';

const PAGE_BYTES = 65_536;
/** The module's own need; it asks for more as the graph grows. */
const FIRST_PAGES = 16;
const MOST_PAGES = 65_536;
const TYPES = 32;
/** How long the core works before it yields to the event loop. */
const RUN_MS = 0.5;

/** Where something of the core is; 0 for nothing. Signed, as the engine gives it. */
type Pointer = number;

/** What native/wasm/carrier.cc exports. Booleans are 0 and 1. */
interface Exports {
  _initialize(): void;
  begin(): number;
  input(bytes: number): Pointer;
  resultAt(): Pointer;
  resultBytes(): number;
  resultNumber(): number;
  errorKind(): Pointer;
  errorMessage(): Pointer;
  apply(words: number): number;
  isSmall(): number;
  markBegin(now: bigint, how: number): Pointer;
  markStep(job: Pointer, nodes: number): number;
  markSteps(job: Pointer): number;
  markEnd(job: Pointer): number;
  markFrom(words: number): number;
  marksOf(id: number): number;
  places(): number;
  candidates(from: number, count: number): number;
  stillCandidates(words: number): number;
  catchUp(steps: number): number;
  bringUpToDate(steps: number): number;
  wrongLive(): number;
  checkBegin(): Pointer;
  checkStep(job: Pointer): number;
  checkEnd(job: Pointer): number;
  garbageByType(): number;
  garbage(from: number, count: number): number;
  freshGarbage(): number;
  endRun(): void;
  takeFreeable(): number;
  unusedIds(from: number, max: number): number;
  withFlags(flags: number): number;
  flagsOf(id: number): number;
  inDegreeOf(id: number): number;
  expiryOf(id: number): bigint;
  edgesOf(id: number): number;
  rows(from: number, count: number): number;
  path(id: number, now: bigint): number;
  retainedBegin(
    now: bigint,
    items: number,
    sizes: number,
    members: number,
    ends: number,
    roots: number,
    edges: number,
  ): Pointer;
  retainedIsSmall(call: Pointer): number;
  retainedStep(call: Pointer): number;
  retainedEnd(call: Pointer): number;
  retainedDrop(call: Pointer): void;
  saveBegin(): Pointer;
  saveStep(job: Pointer): number;
  saveEnd(job: Pointer): number;
  load(bytes: number): number;
  clear(): void;
  nodeCount(): number;
  edgeCount(): number;
  limit(): number;
  byteCount(): number;
  hasLive(): number;
}

interface Memory {
  readonly buffer: ArrayBuffer;
}

/** The part of WebAssembly that is used: its types come with a browser's otherwise. */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Memory: new (size: { initial: number; maximum: number }) => Memory;
  Instance: new (module: object, imports: object) => { readonly exports: unknown };
};

export const wasmPath = (): string => packageFile('native', 'wasm', 'ebbtide_core.wasm');

let compiled: { module?: object; error?: string } | undefined;

/** The compiled module; undefined when it cannot be had. */
function moduleOf(): object | undefined {
  try {
    compiled ??= { module: new WebAssembly.Module(readFileSync(wasmPath())) };
  } catch (error) {
    compiled = { error: error instanceof Error ? error.message : String(error) };
  }
  return compiled.module;
}

/** Why the module cannot be used; empty when it can. */
export function wasmError(): string {
  moduleOf();
  return compiled?.error ?? '';
}

/** The operands of `retained`. */
export type RetainedWords = Parameters<CarriedGraph['retained']>;

const aTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Takes steps until one says that it was the last, yielding to the event loop; at once when `isSmall`. */
async function runSteps(isSmall: boolean, step: () => unknown): Promise<void> {
  let start = performance.now();
  while (!step()) {
    if (isSmall || performance.now() - start < RUN_MS) continue;
    await aTurn();
    start = performance.now();
  }
}

export class WasmGraph implements CarriedGraph {
  readonly #mostPages: number;
  #memory!: Memory;
  #wasm!: Exports;
  /** Ends reports that are under way on threads of their own. */
  readonly #reports = new Set<(error: EbbtideError) => void>();

  /** @param mostBytes of its memory, for tests of what happens there */
  constructor(mostBytes = MOST_PAGES * PAGE_BYTES) {
    this.#mostPages = Math.ceil(mostBytes / PAGE_BYTES);
    this.#renew();
  }

  /** Begins with fresh memory. Jobs of the old graph keep theirs until they end. */
  #renew(): void {
    const module = moduleOf();
    if (module === undefined) throw unavailable(wasmError(), { object: wasmPath() });
    try {
      this.#memory = new WebAssembly.Memory({ initial: FIRST_PAGES, maximum: this.#mostPages });
      const { exports } = new WebAssembly.Instance(module, { env: { memory: this.#memory } });
      this.#wasm = exports as Exports;
    } catch (error) {
      throw new EbbtideError('ResourceExhausted', `a graph has no memory: ${String(error)}`, {
        cause: error,
      });
    }
    this.#wasm._initialize();
    this.#must(this.#wasm.begin());
  }

  apply(ops: Uint32Array): void {
    this.#must(this.#wasm.apply(this.#put(words(ops))));
  }

  async mark(now: bigint, how: number): Promise<CarriedResult> {
    const wasm = this.#wasm;
    const { job, end } = this.#begin(now, how);
    await runSteps(wasm.isSmall() !== 0, () => wasm.markSteps(job));
    return end();
  }

  markInSteps(now: bigint, how: number): (nodes: number) => CarriedResult | undefined {
    const wasm = this.#wasm;
    const { job, end } = this.#begin(now, how);
    return (nodes) => (wasm.markStep(job, u32(nodes)) === 0 ? undefined : end());
  }

  #begin(now: bigint, how: number): { job: Pointer; end(): CarriedResult } {
    // A graph that is cleared meanwhile leaves the job its memory.
    const [wasm, memory] = [this.#wasm, this.#memory];
    const started = performance.now();
    const job = this.#must(wasm.markBegin(time(now), u32(how)));
    const end = (): CarriedResult => {
      must(wasm, memory, wasm.markEnd(job));
      const { buffer } = resultOf(wasm, memory);
      const [marked = 0, edgesFollowed = 0, marking = 0] = new Float64Array(buffer, 4 * TYPES);
      return {
        markedByType: new Uint32Array(buffer.slice(0, 4 * TYPES)),
        marked,
        edgesFollowed,
        durationMs: performance.now() - started,
        marking,
      };
    };
    return { job, end };
  }

  markFrom(ids: Uint32Array): number {
    this.#must(this.#wasm.markFrom(this.#put(words(ids))));
    return this.#wasm.resultNumber();
  }

  marksOf(id: number): number {
    this.#must(this.#wasm.marksOf(u32(id)));
    return this.#wasm.resultNumber();
  }

  places(): number {
    this.#must(this.#wasm.places());
    return this.#wasm.resultNumber();
  }

  candidates(from: number, count: number): Uint32Array {
    return this.#words(this.#wasm.candidates(u32(from), u32(count)));
  }

  stillCandidates(ids: Uint32Array): Uint32Array {
    return this.#words(this.#wasm.stillCandidates(this.#put(words(ids))));
  }

  catchUp(steps: number): boolean {
    this.#must(this.#wasm.catchUp(u32(steps)));
    return this.#wasm.resultNumber() === 1;
  }

  bringUpToDate(steps: number): boolean {
    this.#must(this.#wasm.bringUpToDate(u32(steps)));
    return this.#wasm.resultNumber() === 1;
  }

  wrongLive(): Uint32Array | undefined {
    const wrong = this.#words(this.#wasm.wrongLive());
    return this.#wasm.resultNumber() === 1 ? wrong : undefined;
  }

  async checkLive(): Promise<Uint32Array | undefined> {
    const [wasm, memory] = [this.#wasm, this.#memory];
    const job = this.#must(wasm.checkBegin());
    await runSteps(wasm.isSmall() !== 0, () => wasm.checkStep(job));
    must(wasm, memory, wasm.checkEnd(job));
    return wasm.resultNumber() === 1 ? new Uint32Array(resultOf(wasm, memory).buffer) : undefined;
  }

  garbageByType(): Uint32Array {
    return this.#words(this.#wasm.garbageByType());
  }

  garbage(from: number, count: number): Uint32Array {
    return this.#words(this.#wasm.garbage(u32(from), u32(count)));
  }

  freshGarbage(): Uint32Array {
    return this.#words(this.#wasm.freshGarbage());
  }

  endRun(): void {
    this.#wasm.endRun();
  }

  takeFreeable(): Uint32Array {
    return this.#words(this.#wasm.takeFreeable());
  }

  unusedIds(from: number, max: number): Uint32Array {
    return this.#words(this.#wasm.unusedIds(u32(from), u32(max)));
  }

  withFlags(flags: number): Uint32Array {
    return this.#words(this.#wasm.withFlags(u32(flags)));
  }

  flagsOf(id: number): number {
    return this.#wasm.flagsOf(u32(id));
  }

  inDegreeOf(id: number): number {
    return this.#wasm.inDegreeOf(u32(id));
  }

  expiryOf(id: number): bigint | undefined {
    const expires = (this.#wasm.flagsOf(u32(id)) & NodeFlag.expires) !== 0;
    return expires ? this.#wasm.expiryOf(u32(id)) : undefined;
  }

  edgesOf(id: number): Uint32Array {
    return this.#words(this.#wasm.edgesOf(u32(id)));
  }

  rows(from: number, count: number): Uint32Array {
    return this.#words(this.#wasm.rows(u32(from), u32(count)));
  }

  path(id: number, now: bigint): Uint32Array | undefined {
    const path = this.#words(this.#wasm.path(u32(id), time(now)));
    return path.length === 0 ? undefined : path;
  }

  retained(...query: RetainedWords): { promise: Promise<RetainedSizes>; cancel(): void } {
    const started = performance.now();
    const call = this.#beginRetained(query);
    if (this.#wasm.retainedIsSmall(call) !== 0) {
      const sizes = this.#runRetained(call, query, started);
      return { promise: Promise.resolve(sizes), cancel: () => undefined };
    }
    this.#wasm.retainedDrop(call);
    const { promise, resolve, reject } = withResolvers<RetainedSizes>();
    let thread: Worker | undefined;
    const end = (error: EbbtideError): void => {
      this.#reports.delete(end);
      reject(error);
      void thread?.terminate();
    };
    this.#reports.add(end);
    const cancel = (): void => end(canceled('retained: no caller waits for it any more'));
    const run = async (): Promise<void> => {
      const bytes = await this.save();
      if (!this.#reports.has(end)) return;
      thread = startThread(new URL('./wasm-worker.js', import.meta.url), {
        workerData: { bytes, query, mostPages: this.#mostPages } satisfies Report,
      });
      thread.once('message', (sizes: RetainedSizes | Failure) => {
        if ('kind' in sizes) end(new EbbtideError(sizes.kind, sizes.message));
        this.#reports.delete(end);
        resolve({ ...(sizes as RetainedSizes), durationMs: performance.now() - started });
      });
      thread.once('error', (error) => end(unavailable(`retained: its thread ended: ${error.message}`)));
    };
    run().catch(end);
    return { promise, cancel };
  }

  /** As `retained`, on this thread, however long it takes. */
  retainedNow(...query: RetainedWords): RetainedSizes {
    return this.#runRetained(this.#beginRetained(query), query, performance.now());
  }

  #beginRetained([now, itemOf, sizes, members, ends, roots, edges]: RetainedWords): Pointer {
    const all = [itemOf, members, ends, roots, edges].map(words);
    this.#put(doubles(sizes), ...all);
    const [items = 0, m = 0, e = 0, r = 0, x = 0] = all.map(({ length }) => length);
    return this.#must(this.#wasm.retainedBegin(time(now), items, sizes.length, m, e, r, x));
  }

  #runRetained(call: Pointer, [, , , , { length }]: RetainedWords, started: number): RetainedSizes {
    while (this.#wasm.retainedStep(call) === 0);
    this.#must(this.#wasm.retainedEnd(call));
    const all = new Float64Array(this.#bytes().buffer);
    return {
      kept: all[0] ?? 0,
      total: all.slice(1, 1 + length),
      retained: all.slice(1 + length, 1 + 2 * length),
      reached: Uint32Array.from(all.subarray(1 + 2 * length)),
      durationMs: performance.now() - started,
    };
  }

  async save(): Promise<Buffer> {
    const [wasm, memory] = [this.#wasm, this.#memory];
    const job = this.#must(wasm.saveBegin());
    await runSteps(wasm.isSmall() !== 0, () => wasm.saveStep(job));
    must(wasm, memory, wasm.saveEnd(job));
    return Buffer.from(resultOf(wasm, memory).buffer);
  }

  load(bytes: Uint8Array): boolean {
    checkArray(bytes, Uint8Array);
    this.clear();
    const at = this.#room(bytes.length);
    new Uint8Array(this.#memory.buffer).set(bytes, at);
    this.#must(this.#wasm.load(bytes.length));
    const whole = this.#wasm.resultNumber() === 1;
    // What a damaged image took of the memory, too.
    if (!whole) this.#renew();
    return whole;
  }

  stats(): GraphStats {
    const wasm = this.#wasm;
    return {
      nodes: wasm.nodeCount(),
      edges: wasm.edgeCount(),
      limit: wasm.limit(),
      bytes: wasm.byteCount(),
      hasLiveMarks: wasm.hasLive() !== 0,
    };
  }

  clear(): void {
    this.#wasm.clear();
    for (const end of [...this.#reports]) end(canceled("retained: the graph's owner ended it"));
    this.#renew();
  }

  // ----------------------------------------------------------------------------------------------------- boundary

  #must(returned: number): number {
    return must(this.#wasm, this.#memory, returned);
  }

  /** Where so many bytes of operands go. */
  #room(bytes: number): Pointer {
    return this.#must(this.#wasm.input(bytes));
  }

  /** Passes operands, one after the other; returns how many words they are. */
  #put(...arrays: (Uint32Array | Float64Array)[]): number {
    const bytes = arrays.reduce((sum, { byteLength }) => sum + byteLength, 0);
    let at = this.#room(bytes);
    const memory = new Uint8Array(this.#memory.buffer);
    for (const { buffer, byteOffset, byteLength } of arrays) {
      memory.set(new Uint8Array(buffer, byteOffset, byteLength), at);
      at += byteLength;
    }
    return bytes / 4;
  }

  #bytes(): Uint8Array<ArrayBuffer> {
    return resultOf(this.#wasm, this.#memory);
  }

  #words(returned: number): Uint32Array {
    this.#must(returned);
    return new Uint32Array(this.#bytes().buffer);
  }
}

/** A copy of the last result. */
function resultOf(wasm: Exports, memory: Memory): Uint8Array<ArrayBuffer> {
  const at = wasm.resultAt() >>> 0;
  return new Uint8Array(memory.buffer.slice(at, at + wasm.resultBytes()));
}

/** What a report's thread is given. */
export interface Report {
  bytes: Uint8Array;
  query: RetainedWords;
  mostPages: number;
}

/** What it sends when it failed. */
export interface Failure {
  kind: ErrorKind;
  message: string;
}

/** Passes on a number that is not 0; otherwise throws the error that the core reports. */
function must(wasm: Exports, memory: Memory, returned: number): number {
  if (returned !== 0) return returned >>> 0;
  const text = (at: Pointer): string => {
    const bytes = Buffer.from(memory.buffer, at >>> 0);
    return bytes.toString('utf8', 0, bytes.indexOf(0));
  };
  const kind = errorKinds.find((known) => known === text(wasm.errorKind())) ?? 'Unknown';
  throw new EbbtideError(kind, text(wasm.errorMessage()), {
    ...(kind === 'ResourceExhausted' && {
      remedy: 'the graph may have 4 GiB of memory as WebAssembly; build the addon, which has no such limit',
    }),
  });
}

function withResolvers<T>(): {
  promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
} {
  let settle!: { resolve(value: T): void; reject(error: unknown): void };
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  return { promise, ...settle };
}
