/** What collections, and questions about the graph, need of the DB. Implemented by db-host.ts. */
import type { DiskJobs } from '../backends/contract.js';
import type { EventsPublisher, StoreHost } from '../stores/host.js';
import type { CollectorRegistry } from './collectors.js';
import type { LiveMarks } from './mark/live-marks.js';
import type { CollectionRecord } from './report/collection-record.js';
import type { ExpiryClock } from './schedule/expiry-clock.js';
import type { BackendSweepHost } from './sweep/backend-sweeper.js';

export interface CollectHost extends StoreHost, BackendSweepHost {
  readonly collectors: CollectorRegistry;
  readonly publisher?: EventsPublisher | undefined;
  readonly jobs: DiskJobs;
  readonly expiryClock: ExpiryClock;
  /** Called when a run has ended that was not a dry one. Must not throw. */
  collected(record: CollectionRecord): void;
  readonly liveMarks: LiveMarks;
  /** Unmounts what no record names; returns what went wrong. */
  readonly mounts: { sweep(): Promise<string[]> };
}
