/**
 * The sweep of the content backend: removes blobs and ingests that no record names. Normally it is given the
 * items whose records went; after a start that was not clean, a failure or on request it walks the backend.
 *
 * Blobs are removed in batches under their guards. A digest whose guard is taken is put off, so a batch never
 * waits for one writer while it holds up others.
 */
import { breathe } from '../backends/files.js';
import { isNotFound } from '../errors.js';
import { isDigest } from '../model/digest.js';
import { blobGuard, ingestGuard } from '../stores/guards.js';
import type { SweepOrder } from './dirty.js';
import { Outstanding } from './outstanding.js';
import {
  BlobNames,
  emptyReport,
  type InFlight,
  IngestNames,
  MAX_SWEEP_ERRORS,
  messageOf,
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
/** Items only looked at before other work gets its turn. */
const LOOKS_PER_TURN = 256;

/** Removes what the order names, or walks. Never throws for a backend's failure: the report tells. */
export async function sweepContent(
  host: SweepHost,
  order: SweepOrder,
  inFlight: InFlight,
): Promise<SweepReport> {
  const sweep = new ContentSweep(host, inFlight);
  try {
    if (order.walk) await sweep.walk();
    else await sweep.remove(order);
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
  #batchSize = FIRST_BATCH;

  constructor(host: SweepHost, inFlight: InFlight) {
    this.#host = host;
    this.#inFlight = inFlight;
  }

  async remove({ items }: SweepOrder): Promise<void> {
    this.#asksInBulk = items.length >= ITEMS_FOR_THREAD;
    const batches = new Outstanding(BATCHES - 1);
    try {
      // In the order of their digests, in which neighbours are looked up several times as fast.
      for (const digests of items.digests(BATCH)) {
        if (digests === undefined) await breathe();
        else await this.#batches(digests.filter(isDigest), batches);
      }
    } finally {
      await batches.settle();
    }
    const refs = new Set<string>();
    for (const ref of items.refs()) {
      if (ref === undefined) await breathe();
      else if (ref !== '') refs.add(ref);
    }
    await this.#ingests(refs);
  }

  async #batches(digests: readonly string[], batches: Outstanding): Promise<void> {
    for (let at = 0; at < digests.length; ) {
      await breathe();
      await this.#host.engine.quiet();
      const batch = digests.slice(at, at + this.#batchSize);
      at += batch.length;
      this.#batchSize = Math.min(BATCH, Math.ceil(this.#batchSize * 1.25));
      await batches.add(this.#blobs(batch));
    }
  }

  /** Looks at every item of the backend; memory grows with what is removed, not with what there is. */
  async walk(): Promise<void> {
    const { content, engine } = this.#host;
    let orphans: string[] = [];
    let names = new BlobNames(engine);
    let visited = 0;
    await content.walk(async ({ digest }) => {
      // Answers grow old while the walk goes on; what looks like an orphan is asked about again under guard.
      if (++visited % LOOKS_PER_TURN === 0) {
        await breathe();
        names = new BlobNames(engine);
      }
      if (!isDigest(digest) || names.isNamed(digest)) return;
      orphans.push(digest);
      if (orphans.length < BATCH) return;
      const batch = orphans;
      orphans = [];
      await this.#blobs(batch);
    });
    await this.#blobs(orphans);
    await this.#ingests(await this.#backendRefs());
  }

  async #backendRefs(): Promise<Set<string>> {
    const { content } = this.#host;
    const refs = new Set<string>();
    if (content.walkStatusRefs) await content.walkStatusRefs((ref) => void refs.add(ref));
    else for (const { ref } of await content.listStatuses()) refs.add(ref);
    return refs;
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
    const names = new BlobNames(this.#host.engine);
    const asked = this.#asksInBulk ? await names.mayBeNamed(digests) : digests;
    await this.#host.engine.quiet();
    const named = new Set(asked.filter((digest) => names.isNamed(digest)));
    const unnamed = digests.filter((digest) => !named.has(digest));
    if (unnamed.length === 0) return;
    const { content, engine } = this.#host;
    // The record of one may have gone a moment ago, and would be back after a crash. The guard keeps new ones away.
    await engine.flush();
    if (content.deleteMany) {
      const { removed, bytes, errors } = await content.deleteMany(unnamed);
      this.report.removed += removed;
      this.report.bytes += bytes;
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
    } catch (error) {
      if (!isNotFound(error)) this.#failed(digest, messageOf(error));
    }
  }

  async #ingests(refs: ReadonlySet<string>): Promise<void> {
    if (refs.size === 0) return;
    const { guards, content, engine } = this.#host;
    const names = await IngestNames.read(engine);
    let visited = 0;
    for (const ref of refs) {
      if (++visited % LOOKS_PER_TURN === 0) await breathe();
      if (names.isNamed(ref)) continue;
      const done = await underGuard(guards, ingestGuard(ref), async () => {
        if (names.isNamed(ref) || this.#inFlight().has(ref)) return;
        await engine.flush();
        try {
          await content.abort(ref);
          this.report.removed++;
        } catch (error) {
          if (!isNotFound(error)) this.#failed(ref, messageOf(error));
        }
      });
      if (!done) this.report.postponed.push({ kind: 'ingest', ref });
    }
  }

  #failed(object: string, message: string): void {
    this.report.errors.push(`${object}: ${message}`);
    if (this.report.errors.length >= MAX_SWEEP_ERRORS) throw new Error('too many failures');
  }
}
