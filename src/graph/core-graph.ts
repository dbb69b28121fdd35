/**
 * The C++ graph core (native/) as a GraphCore, whichever carrier brings it: makes calls batched calls of the carrier
 * and its errors into EbbtideErrors. Created by carriers.ts; the contract is engine/graph.ts.
 *
 * Threading: one instance belongs to one JavaScript thread. The addon does `mark`, `save` and `retained` on the thread pool,
 * and ops applied meanwhile wait some microseconds for the other thread to pause; WebAssembly does them between rounds of the
 * event loop. Either way ops take effect at once, under the write barrier.
 */
import {
  checkStep,
  type GraphCore,
  type GraphStats,
  liveFaults,
  type MarkOptions,
  type MarkResult,
  markings,
  type RetainedQuery,
  type RetainedSizes,
} from '../engine/graph.js';
import { abortError, EbbtideError, errorKinds, unknownError } from '../errors.js';

/** What a carrier takes and gives as GraphCore does. */
type Passed = Pick<
  GraphCore,
  | 'apply'
  | 'markFrom'
  | 'marksOf'
  | 'places'
  | 'stillCandidates'
  | 'wrongLive'
  | 'garbageByType'
  | 'garbage'
  | 'freshGarbage'
  | 'endRun'
  | 'takeFreeable'
  | 'unusedIds'
  | 'withFlags'
  | 'flagsOf'
  | 'inDegreeOf'
  | 'expiryOf'
  | 'edgesOf'
  | 'rows'
  | 'path'
  | 'save'
  | 'load'
  | 'stats'
  | 'clear'
>;

/** `marking` is an index of `markings`. */
export type CarriedResult = Omit<MarkResult, 'marking'> & { marking: number };

/**
 * One graph of the core: what native/addon.cc exports as `Graph`, and WasmGraph. Times are i64; `how` is that of `Core::markAs`
 * in native/core.h. Errors carry their kind as a property.
 */
export interface CarriedGraph extends Passed {
  mark(now: bigint, how: number): Promise<CarriedResult>;
  /** Undefined until marking has ended. */
  markInSteps(now: bigint, how: number): (nodes: number) => CarriedResult | undefined;
  checkLive(): Promise<Uint32Array | undefined>;
  catchUp(steps: number): boolean;
  bringUpToDate(steps: number): boolean;
  candidates(from: number, count: number): Uint32Array;
  retained(
    now: bigint,
    itemOf: Uint32Array,
    sizes: Float64Array,
    members: Uint32Array,
    ends: Uint32Array,
    roots: Uint32Array,
    edges: Uint32Array,
  ): { promise: Promise<RetainedSizes>; cancel(): void };
}

const NONE = new Uint32Array();
/** The first `how` of live marks; then come their faults. */
const LIVE = 3;
/** A fraction of a millisecond. */
const STEPS_OF_CATCH_UP = 32;

export class CoreGraph implements GraphCore {
  readonly kind: GraphCore['kind'];
  readonly #core: CarriedGraph;

  constructor(kind: GraphCore['kind'], core: CarriedGraph) {
    this.kind = kind;
    this.#core = core;
  }

  apply(ops: Uint32Array): void {
    translate(() => this.#core.apply(ops));
  }

  async mark(now: bigint, options: MarkOptions = {}): Promise<MarkResult> {
    const { signal, stepNodes } = options;
    if (signal?.aborted) throw abortError(signal);
    if (stepNodes !== undefined) checkStep(stepNodes);
    const how = wayToMark(options);
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
      return { ...counts, marking: markings[counts.marking] ?? 'from roots' };
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

  catchUp(steps = STEPS_OF_CATCH_UP): boolean {
    return translate(() => this.#core.catchUp(steps));
  }

  bringUpToDate(steps = STEPS_OF_CATCH_UP): boolean {
    return translate(() => this.#core.bringUpToDate(steps));
  }

  wrongLive(): Uint32Array | undefined {
    return translate(() => this.#core.wrongLive());
  }

  async checkLive(): Promise<Uint32Array | undefined> {
    try {
      return await this.#core.checkLive();
    } catch (error) {
      throw translated(error);
    }
  }

  garbageByType(): Uint32Array {
    return translate(() => this.#core.garbageByType());
  }

  garbage(from: number, count: number): Uint32Array {
    return translate(() => this.#core.garbage(from, count));
  }

  freshGarbage(): Uint32Array {
    return translate(() => this.#core.freshGarbage());
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

  rows(from: number, count: number): Uint32Array {
    return translate(() => this.#core.rows(from, count));
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

function wayToMark({ barrier = true, live = false }: MarkOptions): number {
  if (live !== false) return LIVE + (live === true ? 0 : 1 + liveFaults.indexOf(live));
  return barrier === 'late' ? 2 : barrier === true ? 1 : 0;
}

async function inSteps(
  step: (nodes: number) => CarriedResult | undefined,
  nodes: number,
): Promise<CarriedResult> {
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

function translated(error: unknown): EbbtideError {
  if (error instanceof EbbtideError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const given: unknown = error instanceof Error && 'kind' in error ? error.kind : undefined;
  const kind = errorKinds.find((k) => k === given);
  if (kind === undefined) return unknownError(message, { cause: error });
  return new EbbtideError(kind, message, { cause: error });
}
