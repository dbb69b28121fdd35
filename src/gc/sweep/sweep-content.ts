/**
 * The sweep of the content backend: removes blobs and ingests that no record names. It is given the items whose records
 * went and, after a start that was not clean, a failure or on request, the orphans that a survey found.
 *
 * Blobs are removed in batches under their guards. A digest whose guard is taken is put off, so a batch never
 * waits for one writer while it delays others.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import { isNotFound } from '../../errors.js';
import { isDigest } from '../../model/digest.js';
import { blobGuard, ingestGuard } from '../../stores/guards.js';
import { messageOf } from '../../system/system-errors.js';
import { ingestBytes } from '../report/dry-run.js';
import { count } from '../stats.js';
import type { SweepWork } from './dirty.js';
import type { OrphanCandidates } from './orphan-candidates.js';
import { Outstanding } from './outstanding.js';
import {
  BlobNames,
  checkCertain,
  emptyReport,
  type InFlight,
  IngestNames,
  isRefusal,
  MAX_SWEEP_ERRORS,
  ORPHAN_NAMES_MAX,
  type SweepHost,
  type SweepReport,
  underGuard,
} from './sweep.js';

/** Blobs removed under guards at a time; fewer at first, when the code is slow. */
const BATCH = 256;
const FIRST_BATCH = 8;
/** Batches under way at a time: while one is asked about, another is removed. */
const BATCHES = 3;
/** So many are worth a thread that looks them up. */
export const ITEMS_FOR_THREAD = 2048;
/** Items only looked at between two pauses. */
const LOOKS_PER_PAUSE = 256;

/** Removes what the order names. Never throws for a backend's failure: the report has it. */
export async function sweepContent(
  host: SweepHost,
  work: SweepWork,
  inFlight: InFlight,
): Promise<SweepReport> {
  const sweep = new ContentSweep(host, inFlight);
  try {
    if (work.orphans) await sweep.removeOrphans(work.orphans);
    await sweep.remove(work.items);
    if (work.orphans) await sweep.cleanup();
  } catch (error) {
    sweep.report.errors.push(messageOf(error));
  }
  return sweep.report;
}

class ContentSweep {
  readonly report = emptyReport();
  readonly #host: SweepHost;
  readonly #inFlight: InFlight;
  #asksInBulk = false;
  /** What is being removed was found by a survey. */
  #isOrphan = false;
  #names: BlobNames | undefined;
  #batchSize = FIRST_BATCH;

  constructor(host: SweepHost, inFlight: InFlight) {
    this.#host = host;
    this.#inFlight = inFlight;
  }

  async removeOrphans(orphans: OrphanCandidates): Promise<void> {
    const { report } = this;
    this.#isOrphan = true;
    await this.#removeBlobs(orphans);
    count(report.orphans, 'content', report.removed);
    count(report.orphanBytes, 'content', report.bytes);
    const blobs = report.removed;
    await this.#removeIngests(orphans);
    count(report.orphans, 'ingest', report.removed - blobs);
    this.#isOrphan = false;
  }

  async remove(items: OrphanCandidates): Promise<void> {
    await this.#removeBlobs(items);
    await this.#removeIngests(items);
  }

  /** What a crash left that is neither a blob nor an ingest. */
  async cleanup(): Promise<void> {
    const { bytes = 0, errors = [] } = (await this.#host.content.cleanup?.()) ?? {};
    this.report.bytes += bytes;
    for (const { path, message } of errors) this.#failed(path, message);
  }

  async #removeBlobs(items: OrphanCandidates): Promise<void> {
    this.#asksInBulk = items.length >= ITEMS_FOR_THREAD;
    const batches = new Outstanding(BATCHES - 1);
    try {
      // In the order of their digests, in which neighbours are looked up several times as fast.
      for (const digests of items.digests(BATCH)) {
        if (digests === undefined) await yieldToEventLoop();
        else await this.#batches(digests.filter(isDigest), batches);
      }
    } finally {
      await batches.drain();
    }
  }

  async #removeIngests(items: OrphanCandidates): Promise<void> {
    const refs = new Set<string>();
    for (const ref of items.refs()) {
      if (ref === undefined) await yieldToEventLoop();
      else if (ref !== '') refs.add(ref);
    }
    await this.#ingests(refs);
  }

  async #batches(digests: readonly string[], batches: Outstanding): Promise<void> {
    for (let at = 0; at < digests.length; ) {
      await yieldToEventLoop();
      await this.#host.engine.foregroundDone();
      const batch = digests.slice(at, at + this.#batchSize);
      at += batch.length;
      this.#batchSize = Math.min(BATCH, Math.ceil(this.#batchSize * 1.25));
      await batches.add(this.#blobs(batch));
    }
  }

  async #blobs(digests: readonly string[]): Promise<void> {
    const { guards } = this.#host;
    const { taken, release } = guards.tryAcquireMany(digests.map(blobGuard));
    try {
      await this.#guarded(digests.filter((_, i) => taken[i]));
    } finally {
      release();
    }
    for (const digest of digests.filter((_, i) => !taken[i])) {
      const done = await underGuard(guards, blobGuard(digest), () => this.#guarded([digest]));
      if (!done) this.report.postponed.push({ kind: 'blob', digest });
    }
  }

  /** Removes those of the digests that nothing names; the caller holds their guards. */
  async #guarded(digests: readonly string[]): Promise<void> {
    const names = this.#names?.isCurrent === true ? this.#names : new BlobNames(this.#host.engine);
    this.#names = names;
    const asked = this.#asksInBulk ? await names.mayBeNamed(digests) : digests;
    await this.#host.engine.foregroundDone();
    const named = new Set(asked.filter((digest) => names.isNamed(digest)));
    const unnamed = digests.filter((digest) => !named.has(digest));
    if (unnamed.length === 0) return;
    checkCertain(this.#host);
    const { content, engine } = this.#host;
    // The record of one may have gone a moment ago, and would be back after a crash. The guard keeps new ones away.
    await engine.flush();
    if (content.deleteMany) {
      const { removed, bytes, errors } = await content.deleteMany(unnamed);
      this.report.removed += removed;
      this.report.bytes += bytes;
      if (removed === unnamed.length) this.#named('content', unnamed);
      for (const { path, message } of errors) this.#failed(path, message);
    } else for (const digest of unnamed) await this.#deleteOne(digest);
  }

  async #deleteOne(digest: string): Promise<void> {
    const { content } = this.#host;
    try {
      const { size } = await content.info(digest);
      await content.delete(digest);
      this.report.removed++;
      this.report.bytes += size;
      this.#named('content', [digest]);
    } catch (error) {
      if (isRefusal(error)) this.report.refused.push({ kind: 'blob', digest });
      else if (!isNotFound(error)) this.#failed(digest, messageOf(error));
    }
  }

  async #ingests(refs: ReadonlySet<string>): Promise<void> {
    if (refs.size === 0) return;
    const { guards, content, engine } = this.#host;
    const names = await IngestNames.read(engine);
    let visited = 0;
    for (const ref of refs) {
      if (++visited % LOOKS_PER_PAUSE === 0) await yieldToEventLoop();
      if (names.isNamed(ref)) continue;
      const done = await underGuard(guards, ingestGuard(ref), async () => {
        if (names.isNamed(ref) || this.#inFlight().has(ref)) return;
        checkCertain(this.#host);
        await engine.flush();
        try {
          const bytes = await ingestBytes(content, ref);
          await content.abort(ref);
          this.report.removed++;
          this.report.bytes += bytes;
          this.#named('ingest', [ref]);
        } catch (error) {
          if (isRefusal(error)) this.report.refused.push({ kind: 'ingest', ref });
          else if (!isNotFound(error)) this.#failed(ref, messageOf(error));
        }
      });
      if (!done) this.report.postponed.push({ kind: 'ingest', ref });
    }
  }

  /** Of what was removed. */
  #named(kind: string, keys: readonly string[]): void {
    const { orphanNames } = this.report;
    if (!this.#isOrphan) return;
    for (const key of keys.slice(0, ORPHAN_NAMES_MAX - orphanNames.length)) orphanNames.push({ kind, key });
  }

  #failed(object: string, message: string): void {
    this.report.errors.push(`${object}: ${message}`);
    if (this.report.errors.length >= MAX_SWEEP_ERRORS) throw new Error('too many failures');
  }
}
