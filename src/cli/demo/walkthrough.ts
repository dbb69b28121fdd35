/**
 * The steps of the demo. Every figure it prints is measured: the bytes freed according to the collection are
 * printed with the change of disk usage, which must return to where it began.
 */

import type { DB } from '../../db.js';
import { present } from '../../errors.js';
import type { GCStats } from '../../gc/stats.js';
import { importImage } from '../../images/import.js';
import { unpackImage } from '../../images/unpack.js';
import { layout as paths } from '../../open.js';
import type { Image } from '../../stores/images.js';
import { withId } from '../../stores/leases.js';
import { bytes, duration, type Output } from '../output/output.js';
import type { Progress } from '../output/progress.js';
import { counts, printDryRun } from '../verbs/disk/gc.js';
import { createContainer } from './container.js';
import { diskUsage } from './disk.js';
import { type KeptRow, keptBy } from './kept.js';

export interface WalkthroughParts {
  db: DB;
  root: string;
  snapshotter: string;
  out: Output;
  progress: Progress;
  signal: AbortSignal;
}

interface Step {
  step: string;
  /** The disk usage, where it was measured. */
  diskBytes?: number;
  [detail: string]: unknown;
}

const CONTAINER = 'demo-container';
const LEASE = 'demo-lease';
/** Directories that the store itself keeps (blobs/sha256 and the like), in whole blocks. */
const TOLERANCE_BYTES = 256 * 1024;

export class Walkthrough {
  readonly #p: WalkthroughParts;
  readonly #ctx;
  readonly #steps: Step[] = [];
  #baseline = 0;
  #problem: string | undefined;

  constructor(parts: WalkthroughParts) {
    this.#p = parts;
    this.#ctx = { namespace: 'demo', signal: parts.signal };
  }

  async run(source: string): Promise<void> {
    this.#baseline = await this.#disk();
    const images = await this.#import(source);
    const chains = await this.#unpack(images);
    await this.#use(images, chains);
    await this.#deleteOne(present(images.at(-1), 'an image'));
    await this.#releaseAll(images.slice(0, -1));
  }

  /** What went wrong, if anything. */
  problem(): string | undefined {
    return this.#problem;
  }
  report(): { steps: Step[]; problem: string | null } {
    return { steps: this.#steps, problem: this.#problem ?? null };
  }

  async #import(source: string): Promise<Image[]> {
    const { db, progress } = this.#p;
    const started = performance.now();
    const images = await importImage(db, this.#ctx, source, {
      progress: (p) => progress.report(p),
    });
    progress.end();
    await this.#step(`imported ${images.map((i) => i.name).join(', ')}`, {
      durationMs: performance.now() - started,
    });
    return images;
  }

  async #unpack(images: readonly Image[]): Promise<string[]> {
    const { db, snapshotter, progress } = this.#p;
    const started = performance.now();
    const chains: string[] = [];
    for (const image of images) {
      const { chainId } = await unpackImage(db, this.#ctx, image, snapshotter, {
        progress: (p) => progress.report(p),
      });
      chains.push(chainId);
    }
    progress.end();
    await this.#step(`unpacked with the ${snapshotter} snapshotter`, {
      chains,
      durationMs: performance.now() - started,
    });
    return chains;
  }

  async #use(images: readonly Image[], chains: readonly string[]): Promise<void> {
    const { db, snapshotter } = this.#p;
    const [first, last] = [present(images[0], 'an image'), present(images.at(-1), 'an image')];
    const [chain, top] = [present(chains[0], 'a chain'), present(chains.at(-1), 'a chain')];
    await db.update(async (tx) => {
      const ctx = db.withTransactionContext(this.#ctx, tx);
      await db.leases.create(ctx, withId(LEASE));
      const target = last.target.digest;
      await db.leases.addResource(ctx, { id: LEASE }, { type: `snapshots/${snapshotter}`, id: top });
      this.#steps.push({ step: `lease ${LEASE} holds the top snapshot of the last image`, target });
    });
    await createContainer(
      db,
      { ...this.#ctx, lease: LEASE },
      { id: CONTAINER, image: first.name, snapshotter, chainId: chain },
    );
    await db.leases.deleteResource(
      this.#ctx,
      { id: LEASE },
      { type: `snapshots/${snapshotter}`, id: CONTAINER },
    );
    await this.#step(`container ${CONTAINER} runs on ${first.name}; lease ${LEASE} holds a snapshot`);
  }

  async #deleteOne(image: Image): Promise<void> {
    const { db, out } = this.#p;
    await db.images.delete(this.#ctx, image.name);
    await this.#step(`deleted image ${image.name}; its bytes are still there`);
    const dry = await db.garbageCollect({ signal: this.#p.signal }, { dryRun: true });
    if (!out.json) printDryRun(out, dry);
    await this.#collect('collected');
    this.#kept();
  }

  async #releaseAll(images: readonly Image[]): Promise<void> {
    const { db } = this.#p;
    for (const image of images) await db.images.delete(this.#ctx, image.name);
    await db.containers.delete(this.#ctx, CONTAINER);
    await db.leases.delete(this.#ctx, { id: LEASE });
    await this.#step('deleted the other images, the container and the lease');
    await this.#collect('collected');
    const left = await this.#disk();
    if (left > this.#baseline + TOLERANCE_BYTES) {
      this.#problem = `${bytes(left - this.#baseline)} are still on the disk although nothing is kept`;
    } else if (!this.#p.out.json) {
      this.#p.out.line(
        `the disk is back to where it was: ${bytes(this.#baseline)} before, ${bytes(left)} now`,
      );
    }
  }

  async #collect(what: string): Promise<GCStats> {
    const before = await this.#disk();
    const stats = await this.#p.db.garbageCollect({ signal: this.#p.signal });
    const change = before - (await this.#disk());
    await this.#step(`${what}: removed ${counts(stats.removed)}`, {
      removed: stats.removed,
      bytesFreed: stats.bytesFreed,
      bytesFreedOnDisk: change,
      durationMs: stats.elapsed(),
    });
    if (!this.#p.out.json) {
      this.#p.out.line(`  reported freed ${bytes(stats.bytesFreed)}; the disk says ${bytes(change)}`);
    }
    if (Math.abs(change - stats.bytesFreed) > TOLERANCE_BYTES) {
      this.#problem = `the collection reports ${stats.bytesFreed} bytes freed, the disk says ${change}`;
    }
    return stats;
  }

  #kept(): void {
    const rows = keptBy(this.#p.db);
    this.#steps.push({ step: 'kept', kept: rows });
    if (this.#p.out.json) return;
    this.#p.out.table<KeptRow>(rows, [
      { title: 'KEPT BY', value: (r) => r.by },
      { title: 'BLOBS', value: (r) => r.blobs, right: true },
      { title: 'SNAPSHOTS', value: (r) => r.snapshots, right: true },
      { title: 'BLOB BYTES', value: (r) => bytes(r.bytes), right: true },
    ]);
  }

  /** Disk usage of blobs, ingests and snapshots, without the database's own file. */
  async #disk(): Promise<number> {
    const { root, snapshotter } = this.#p;
    return (
      (await diskUsage(paths.content(root))) +
      (await diskUsage(`${paths.snapshotter(root, snapshotter)}/snapshots`))
    );
  }

  async #step(step: string, details: Record<string, unknown> = {}): Promise<void> {
    const disk = await this.#disk();
    this.#steps.push({ step, diskBytes: disk, ...details });
    if (this.#p.out.json) return;
    const time = typeof details.durationMs === 'number' ? `, ${duration(details.durationMs)}` : '';
    this.#p.out.line(`${step} [disk ${bytes(disk)}${time}]`);
  }
}
