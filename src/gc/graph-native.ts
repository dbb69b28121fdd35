/**
 * The C++ graph core as a GraphCore: turns calls into batched calls of the addon (native/addon.cc) and its errors
 * into EbbtideErrors. Created by graph.ts; the contract is engine/graph.ts.
 *
 * Threading: one instance belongs to one JavaScript thread. `mark`, `save` and `retained` run on the thread pool; ops
 * applied meanwhile take effect at once (they wait some microseconds for the other thread to pause) under the write barrier.
 */
import {
  checkStep,
  type GraphCore,
  type GraphStats,
  type MarkOptions,
  type MarkResult,
  type RetainedQuery,
  type RetainedSizes,
} from '../engine/graph.js';
import { abortError, EbbtideError, errorKinds, unknownError } from '../errors.js';

/** What native/addon.cc exports as `Graph`. */
interface Addon {
  apply(ops: Uint32Array): void;
  mark(now: bigint, barrier: number): Promise<MarkResult>;
  /** Undefined until marking has ended. */
  markInSteps(now: bigint, barrier: number): (nodes: number) => MarkResult | undefined;
  markFrom(ids: Uint32Array): number;
  marksOf(id: number): number;
  places(): number;
  candidates(from: number, count: number): Uint32Array;
  stillCandidates(ids: Uint32Array): Uint32Array;
  endRun(): void;
  takeFreeable(): Uint32Array;
  unusedIds(from: number, max: number): Uint32Array;
  withFlags(flags: number): Uint32Array;
  flagsOf(id: number): number;
  inDegreeOf(id: number): number;
  expiryOf(id: number): bigint | undefined;
  edgesOf(id: number): Uint32Array;
  path(id: number, now: bigint): Uint32Array | undefined;
  retained(
    now: bigint,
    itemOf: Uint32Array,
    sizes: Float64Array,
    members: Uint32Array,
    ends: Uint32Array,
    roots: Uint32Array,
    edges: Uint32Array,
  ): { promise: Promise<RetainedSizes>; cancel(): void };
  save(): Promise<Buffer>;
  load(bytes: Uint8Array): boolean;
  stats(): { nodes: number; edges: number; limit: number; bytes: number };
  clear(): void;
}

const NONE = new Uint32Array();

export class NativeGraph implements GraphCore {
  readonly kind = 'native';
  readonly #core: Addon;

  /** @param addon what loading ebbtide_core answered */
  constructor(addon: object) {
    const { Graph } = addon as { Graph: new () => Addon };
    this.#core = new Graph();
  }

  apply(ops: Uint32Array): void {
    translate(() => this.#core.apply(ops));
  }

  async mark(now: bigint, options: MarkOptions = {}): Promise<MarkResult> {
    const { signal, barrier = true, stepNodes } = options;
    if (signal?.aborted) throw abortError(signal);
    if (stepNodes !== undefined) checkStep(stepNodes);
    const how = barrier === 'late' ? 2 : barrier === true ? 1 : 0;
    const running =
      stepNodes === undefined
        ? translate(() => this.#core.mark(now, how))
        : inSteps(
            translate(() => this.#core.markInSteps(now, how)),
            stepNodes,
          );
    const cancel = (): void => this.#core.endRun();
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      const counts = await running;
      if (signal?.aborted) throw abortError(signal);
      return counts;
    } catch (error) {
      throw signal?.aborted ? abortError(signal) : translated(error);
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  markFrom(ids: Uint32Array): number {
    return translate(() => this.#core.markFrom(ids));
  }

  marksOf(id: number): number {
    return translate(() => this.#core.marksOf(id));
  }

  places(): number {
    return translate(() => this.#core.places());
  }

  candidates(from = 0, count = this.places()): Uint32Array {
    return translate(() => this.#core.candidates(from, count));
  }

  stillCandidates(ids: Uint32Array): Uint32Array {
    return translate(() => this.#core.stillCandidates(ids));
  }

  endRun(): void {
    this.#core.endRun();
  }

  takeFreeable(): Uint32Array {
    return this.#core.takeFreeable();
  }

  unusedIds(from: number, max: number): Uint32Array {
    return translate(() => this.#core.unusedIds(from, max));
  }

  withFlags(flags: number): Uint32Array {
    return translate(() => this.#core.withFlags(flags));
  }

  flagsOf(id: number): number {
    return translate(() => this.#core.flagsOf(id));
  }

  inDegreeOf(id: number): number {
    return translate(() => this.#core.inDegreeOf(id));
  }

  expiryOf(id: number): bigint | undefined {
    return translate(() => this.#core.expiryOf(id));
  }

  edgesOf(id: number): Uint32Array {
    return translate(() => this.#core.edgesOf(id));
  }

  path(id: number, now: bigint): Uint32Array | undefined {
    return translate(() => this.#core.path(id, now));
  }

  async retained(
    { now, itemOf, sizes, members, ends, roots = NONE, edges = NONE }: RetainedQuery,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<RetainedSizes> {
    if (signal?.aborted) throw abortError(signal);
    const { promise, cancel } = translate(() =>
      this.#core.retained(now, itemOf, sizes, members, ends, roots, edges),
    );
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      return await promise;
    } catch (error) {
      throw signal?.aborted ? abortError(signal) : translated(error);
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  async save(): Promise<Buffer> {
    try {
      return await this.#core.save();
    } catch (error) {
      throw translated(error);
    }
  }

  load(bytes: Uint8Array): boolean {
    return translate(() => this.#core.load(bytes));
  }

  stats(): GraphStats {
    return this.#core.stats();
  }

  clear(): void {
    this.#core.clear();
  }
}

async function inSteps(step: (nodes: number) => MarkResult | undefined, nodes: number): Promise<MarkResult> {
  for (;;) {
    const result = step(nodes);
    if (result !== undefined) return result;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function translate<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw translated(error);
  }
}

/** The addon's errors carry their kind as a property. */
function translated(error: unknown): EbbtideError {
  if (error instanceof EbbtideError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const given: unknown = error instanceof Error && 'kind' in error ? error.kind : undefined;
  const kind = errorKinds.find((k) => k === given);
  if (kind === undefined) return unknownError(message, { cause: error });
  return new EbbtideError(kind, message, { cause: error });
}
