/**
 * The results of either side of a benchmark: ebbtide's child process (ours.ts) and the peer's (peer/*.go) print
 * these as JSON. Times are milliseconds, rates operations per second, sizes bytes.
 */
import type { Counts } from '../src/synth/shape.js';

export interface Memory {
  /** Memory of the process itself. */
  anonBytes: number;
  /** Mapped files. */
  fileBytes: number;
}

export interface Loaded {
  seconds: number;
  counts: Counts;
  fileBytes: number;
}

export interface Collection {
  totalMs: number;
  /** The longest time writers were kept out by the collection itself. */
  lockedMs: number;
  markMs: number;
  memory: Memory;
  removed: Counts;
}

export interface Collected {
  /** Until the store can be read; its first collection is `first`. */
  openMs: number;
  first: Collection;
  /** Further collections, which find nothing. */
  next: Collection[];
  /** ebbtide only: from the end of the first collection until the tree has what it removed. */
  drainedMs?: number;
  /** Part of the memory that stands in for backends. */
  backendBytes: number;
  /** ebbtide only: memory of the graph of references. */
  graphBytes?: number;
  graphNodes?: number;
}

export const writeKinds = ['imageCreate', 'leaseCreate', 'labelUpdate'] as const;
export type WriteKind = (typeof writeKinds)[number];

export interface Delays {
  collectionMs: number;
  lockedMs: number;
  delays: Record<WriteKind, { without: number[]; with: number[] }>;
}

export const rateNames = [
  'imageGet1',
  'imageGet8',
  'contentInfo1',
  'contentInfo8',
  'imageGetKept',
  'contentInfoKept',
  'imageList10k',
  'imageCreate1',
  'imageCreate64',
  'imageCreateVisible',
  'leaseCreate1',
  'labelUpdate1',
  'imageCreate1Collected',
  'imageCreate64Collected',
] as const;
export type Rates = Record<(typeof rateNames)[number], number>;

export const fileRateNames = ['blobWrite1', 'blobWrite16', 'snapshotCommit1'] as const;
export type FileRates = Record<(typeof fileRateNames)[number], number>;

/** All that was measured of one side. */
export interface Measured {
  loaded: Loaded;
  /** Each over a fresh copy of the store. */
  collected: Collected[];
  /** A collected store, opened again. */
  reopened: Collected;
  delays: Delays[];
  rates: Rates;
  files: FileRates;
  /** Per cent of the time in which something waited for a CPU, before the busiest measurement. */
  pressure: number;
}

/** The part of it that is looked at over several sizes. */
export interface Brief {
  loaded: Loaded;
  collected: Collected;
  reopened: Collected;
  delays: Delays;
}

/** Objects that delay and rates work on. */
export interface Target {
  namespace: string;
  image: string;
  index: string;
  manifest: string;
  layer: string;
}
