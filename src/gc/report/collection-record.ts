/**
 * What is kept of a collection when it has ended: what it removed, with the first names of each kind. Made by collect.ts,
 * kept by src/history. Plain JSON; its size is bounded whatever was removed.
 */
import { type ErrorKind, kindOf } from '../../errors.js';
import { formatTimestamp, type Instant } from '../../model/time.js';
import { messageOf } from '../../system/system-errors.js';
import type { Counts, GCStats } from '../stats.js';

/** An object that a collection removed. */
export interface RemovedName {
  /** content, snapshot, image, lease, ingest, or the kind of a collector. */
  kind: string;
  /** Empty for an orphan, which has none. */
  namespace: string;
  /** Digest, name, id or ref; `<snapshotter>/<key>` for snapshots. */
  key: string;
  /** An item of a backend that no record named. */
  orphan?: true;
}

/** One collection of the past. */
export interface CollectionRecord {
  /** When it began, RFC 3339. */
  startedAt: string;
  /** Milliseconds from its start to the end of the backends' work. */
  durationMs: number;
  /** `ok`, or the kind of the error that ended it. */
  outcome: 'ok' | ErrorKind;
  /** The message of that error. */
  error?: string;
  /** Records removed, and collectors' resources, by kind. */
  removed: Counts;
  /** Items of backends removed that no record named, by kind. */
  orphans: Counts;
  /** Bytes of disk that it freed. */
  bytesFreed: number;
  /** Failures of backends, which the next one tried again. */
  backendErrors: number;
  /** It applied a plan. */
  planned: boolean;
  /** The first of each kind that were removed. */
  names: RemovedName[];
  /** How many were removed beside these. */
  unnamed: number;
}

/** Names kept of a kind, their length as JSON, and that of all kinds. */
const NAMES_OF_KIND_MAX = 64;
const CHARACTERS_OF_KIND_MAX = 8192;
const CHARACTERS_MAX = 65_536;

/** Names of a kind that are looked at: a collection may remove a million that are too long. */
const TRIED_MAX = 2 * NAMES_OF_KIND_MAX;

/** Gathers the first names of each kind. */
export class RemovedNames {
  readonly #names: RemovedName[] = [];
  readonly #kinds = new Map<string, { names: number; tried: number; characters: number }>();
  #characters = 0;

  /** Whether a name of this kind could be kept. */
  wants(kind: string): boolean {
    const of = this.#kinds.get(kind);
    return of === undefined || (of.names < NAMES_OF_KIND_MAX && of.tried < TRIED_MAX);
  }

  add(name: RemovedName): void {
    if (!this.wants(name.kind)) return;
    const of = this.#kinds.get(name.kind) ?? { names: 0, tried: 0, characters: 0 };
    this.#kinds.set(name.kind, of);
    of.tried++;
    const length = JSON.stringify(name).length;
    if (of.characters + length > CHARACTERS_OF_KIND_MAX || this.#characters + length > CHARACTERS_MAX) return;
    of.names++;
    of.characters += length;
    this.#characters += length;
    this.#names.push(name);
  }

  get all(): RemovedName[] {
    return this.#names;
  }
}

const total = (counts: Counts): number => Object.values(counts).reduce((sum, n) => sum + n, 0);
const some = (counts: Counts): Counts => Object.fromEntries(Object.entries(counts).filter(([, n]) => n > 0));
const ERROR_CHARACTERS_MAX = 1000;

/** @param failed what it rejects with, if it does */
export function recordOf(
  run: { startedAt: Instant; durationMs: number; stats: GCStats; names: RemovedNames; planned: boolean },
  failed?: { error: unknown },
): CollectionRecord {
  const { startedAt, durationMs, stats, planned } = run;
  const { removed, orphans, bytesFreed, backendErrors } = stats;
  const names = run.names.all;
  return {
    startedAt: formatTimestamp(startedAt),
    durationMs,
    outcome: failed === undefined ? 'ok' : kindOf(failed.error),
    ...(failed && { error: messageOf(failed.error).slice(0, ERROR_CHARACTERS_MAX) }),
    ...{ removed, orphans: some(orphans), bytesFreed, backendErrors, planned },
    names,
    unnamed: Math.max(0, total(removed) + total(orphans) - names.length),
  };
}

/** Whether it is worth keeping: most runs of a schedule find nothing to do. */
export const isNotable = ({
  outcome,
  removed,
  orphans,
  bytesFreed,
  backendErrors,
}: CollectionRecord): boolean =>
  (outcome !== 'ok' && outcome !== 'Canceled') ||
  total(removed) + total(orphans) + bytesFreed + backendErrors > 0;
