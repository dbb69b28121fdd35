/**
 * Disk usage of the store, for metrics: the lines of `ebbtide du`. Measuring reads all directories, so
 * scrapes share a result for a while, and wait for a new one only for a limited time. Called by daemon.ts.
 */
import type { DB } from '../../db.js';
import { type DiskReport, fileSystemOf } from '../../gc/report/disk-report.js';
import type { UsageReport } from '../../gc/report/retained.js';

/**
 * A result is valid for this long or until the next collection, but at least for this multiple of the time it
 * took.
 */
const USED_MS = 60_000;
const USED_TIMES = 20;
/** How long a scrape waits for a result. */
const WAIT_MS = 2000;

export interface MeasuredUsage {
  /** Seconds since 1970. */
  readonly at: number;
  readonly report: UsageReport;
}

export class StoreUsage {
  readonly #db: DB;
  readonly #signal: AbortSignal;
  readonly #failed: (error: unknown) => void;
  #last: MeasuredUsage | undefined;
  /** When `#last` becomes invalid, and until when it is valid in any case. */
  #until = 0;
  #atLeastUntil = 0;
  #measuring: Promise<void> | undefined;

  constructor(db: DB, signal: AbortSignal, failed: (error: unknown) => void) {
    this.#db = db;
    this.#signal = signal;
    this.#failed = failed;
  }

  /** Undefined until the first measurement is complete. */
  async read(): Promise<MeasuredUsage | undefined> {
    if (performance.now() >= this.#until) this.#measuring ??= this.#measure();
    if (this.#measuring !== undefined) await Promise.race([this.#measuring, waited()]);
    return this.#last;
  }

  /** Never cached. */
  async fileSystem(): Promise<DiskReport['fileSystem'] | undefined> {
    const root = this.#db.host.content.root;
    return root === undefined ? undefined : fileSystemOf(root).catch(() => undefined);
  }

  /** A collection has ended: the next scrape measures again. */
  collected(): void {
    this.#until = this.#atLeastUntil;
  }

  async #measure(): Promise<void> {
    const started = performance.now();
    try {
      const report = await this.#db.du({ signal: this.#signal }, { by: 'none', disk: true });
      this.#last = { at: Date.now() / 1000, report };
    } catch (error) {
      if (!this.#signal.aborted) this.#failed(error);
    }
    const ended = performance.now();
    this.#atLeastUntil = ended + USED_TIMES * (ended - started);
    this.#until = Math.max(ended + USED_MS, this.#atLeastUntil);
    this.#measuring = undefined;
  }
}

const waited = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, WAIT_MS).unref());
