/**
 * What a collection reports. All times are milliseconds, all sizes bytes.
 */

/** An object that a collection would remove (dry run). */
export interface Candidate {
  /** content, snapshot, image, lease, ingest, or the kind of a collector. */
  kind: string;
  /** Empty for an orphan. */
  namespace: string;
  /** Digest, name, id or ref; `<snapshotter>/<key>` for snapshots. */
  key: string;
  /** Bytes the object itself takes in its backend; 0 where that is not known or nothing is. */
  size: number;
  /** Distinguishes the object from a later one of the same name. */
  identity: string;
  /**
   * An item of a backend that no record names: `namespace` and `identity` are '', `key` is the digest, the backend's ref
   * of the ingest, or `<snapshotter>/<backend name>`.
   */
  orphan?: true;
}

/** Counts by kind: content, snapshot, container, image, lease, ingest, sandbox, and collectors' kinds. */
export type Counts = Record<string, number>;

/** What a collection has done. */
export interface GCStats {
  /** From the start to the last record's removal, made durable; backends come after. */
  metaD: number;
  /** Sweep of the content backend; 0 when it was not swept. */
  contentD: number;
  /** Sweep of each snapshotter that was swept, deferred cleanup included. */
  snapshotD: Record<string, number>;
  /** metaD. */
  elapsed(): number;
  /** Records reached from the roots by references the store itself knows. */
  marked: Counts;
  /** Records and collectors' resources removed. */
  removed: Counts;
  /** Disk bytes freed, as far as the backends know. */
  bytesFreed: number;
  /** Backends that were looked through for orphans: `content`, snapshotters by name. Empty: lists were enough. */
  walked: string[];
  /** Orphans found in these and removed, by kind (content, ingest, snapshot), and their bytes. */
  orphans: Counts;
  /** Bytes of the orphans removed, by kind. */
  orphanBytes: Counts;
  /** Items that a backend refused to remove (FailedPrecondition): they are tried again, after longer and longer waits. */
  refused: number;
  /** Milliseconds until such items are tried again by the next run; undefined when there are none. */
  retryInMs?: number | undefined;
  /** Longest time the run kept the main thread at a stretch, and the sum of such times. */
  pauseMax: number;
  /** The sum of the times that the run kept the main thread. */
  pauseTotal: number;
  /** Transactions the removal took. */
  slices: number;
  /** How long each part took. */
  phases: { collectors: number; mark: number; sweep: number; backends: number };
  /** Failures of backends; they are logged and tried again by the next run. */
  backendErrors: number;
  /** Revision of the store when the run began. */
  revision: number;
  /** A backup was under way: bytes stay until it has ended, for the run after it. */
  sweepsHeld?: true;
  /** More was garbage than the run was allowed to remove (maxObjects, maxBytes). */
  limited: boolean;
  /** How far behind the wall clock expiries were judged: 0 but for the grace after the clock was set forward. */
  expiryHeldBackMs: number;
  /** Dry run only: what would be removed, referrers before what they refer to, orphans last. */
  wouldRemove?: Candidate[];
}

export function emptyStats(): GCStats {
  return {
    metaD: 0,
    contentD: 0,
    snapshotD: {},
    elapsed() {
      return this.metaD;
    },
    marked: {},
    removed: {},
    bytesFreed: 0,
    walked: [],
    orphans: {},
    orphanBytes: {},
    refused: 0,
    pauseMax: 0,
    pauseTotal: 0,
    slices: 0,
    phases: { collectors: 0, mark: 0, sweep: 0, backends: 0 },
    backendErrors: 0,
    revision: 0,
    limited: false,
    expiryHeldBackMs: 0,
  };
}

export function count(counts: Counts, kind: string, n = 1): void {
  counts[kind] = (counts[kind] ?? 0) + n;
}
