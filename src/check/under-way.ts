/** One check under way: what check.ts, which begins it, and the files of its phases share. */
import type { InFlightHost } from '../gc/sweep/backend-sweeper.js';
import type { SweepHost } from '../gc/sweep/sweep.js';
import type { StoreHost } from '../stores/host.js';
import type { MountManager } from '../stores/mounts/manager.js';
import type { Findings } from './findings.js';

/** What a check is looking at. */
export type CheckPhase = 'blobs' | 'files' | 'ingests' | 'snapshots' | 'layers' | 'graph';

/** What a check works on. */
export type CheckHost = SweepHost &
  Pick<StoreHost, 'update'> &
  InFlightHost & { readonly mounts: Pick<MountManager, 'leftovers'> };

/** One check under way. */
export interface Check {
  readonly host: CheckHost;
  readonly parts: Parts;
  readonly findings: Findings;
  readonly hash: boolean;
  readonly repair: boolean;
  readonly signal: AbortSignal | undefined;
  readonly sound: SoundItems;
  progress(phase: CheckPhase, done: number): void;
}

/**
 * What takes long to look at, and was found sound: a blob by its digest, size and change, a layer by its directory and
 * archive.
 */
export interface SoundItems {
  has(item: string): boolean;
  add(item: string): void;
}

/** What the DB knows of its parts. */
export interface Parts {
  /** Whether all that records of blobs, and of snapshots, name is in this host's backends. */
  readonly hasAllContent: boolean;
  readonly hasAllSnapshots: boolean;
  /** Differences between graph and records, found while no collection marks. */
  verifyGraph(): Promise<string[]>;
}
