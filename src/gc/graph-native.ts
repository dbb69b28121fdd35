/**
 * The C++ graph core as a GraphCore: turns calls into batched calls of the addon (native/addon.cc) and its errors
 * into EbbtideErrors. Created by graph.ts; the contract is engine/graph.ts.
 *
 * Threading: one instance belongs to one JavaScript thread. `mark` and `save` run on the thread pool; ops applied
 * meanwhile take effect at once (they wait some microseconds for the other thread to pause) under the write barrier.
 */
import type { GraphCore, GraphStats, MarkOptions, MarkResult } from '../engine/graph.js';
import { abortError, EbbtideError, errorKinds, notImplemented, unknownError } from '../errors.js';

interface MarkCounts {
  markedByType: Uint32Array;
  marked: number;
  edgesFollowed: number;
  durationMs: number;
}

/** What native/addon.cc exports as `Graph`. */
interface Addon {
  apply(ops: Uint32Array): void;
  mark(now: bigint, barrier: boolean): Promise<MarkCounts>;
  markFrom(ids: Uint32Array): number;
  marksOf(id: number): number;
  candidates(): Uint32Array;
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
  save(): Promise<Buffer>;
  load(bytes: Uint8Array): boolean;
  stats(): { nodes: number; edges: number; limit: number; bytes: number };
  clear(): void;
}

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
    const { signal, barrier = true } = options;
    if (barrier === 'late') throw notImplemented('mark: only the TypeScript core has a late barrier');
    if (signal?.aborted) throw abortError(signal);
    const running = translate(() => this.#core.mark(now, barrier));
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

  candidates(): Uint32Array {
    return translate(() => this.#core.candidates());
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
    return { ...this.#core.stats(), queuedWords: 0 };
  }

  clear(): void {
    this.#core.clear();
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
