/**
 * The demo on two hosts: two roots, one tree in etcd, one directory of blobs on a shared file system. An
 * image made on A is unpacked and used on B, deleted on A and collected by B. Called by verbs/demo.ts.
 */
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { DB } from '../../db.js';
import type { SnapshotterName } from '../../db-options.js';
import type { EtcdConfig } from '../../engine/etcd/client/options.js';
import { present } from '../../errors.js';
import { importImage } from '../../images/import.js';
import { unpackImage } from '../../images/unpack.js';
import { layout, openDB } from '../../open.js';
import type { Image } from '../../stores/images.js';
import { bytes, type Output } from '../output/output.js';
import { counts } from '../verbs/disk/gc.js';
import { createContainer } from './container.js';
import { diskUsage } from './disk.js';

export interface TwoHostsParts {
  /** The demo's directory: the hosts' roots and the shared blobs are created in it. */
  dir: string;
  etcd: EtcdConfig;
  snapshotter: SnapshotterName;
  out: Output;
  signal: AbortSignal;
}

interface Step {
  host: string;
  step: string;
  diskBytes: number;
}

const CONTAINER = 'web';
/** Bytes are removed once each host has seen the removal of the records. */
const SWEEP_MS = 10_000;
/** Directories that the stores themselves keep. */
const TOLERANCE_BYTES = 256 * 1024;

export class TwoHosts {
  readonly #p: TwoHostsParts;
  readonly #ctx;
  readonly #steps: Step[] = [];
  #problem: string | undefined;

  constructor(parts: TwoHostsParts) {
    this.#p = parts;
    this.#ctx = { namespace: 'demo', signal: parts.signal };
  }

  async run(source: string): Promise<void> {
    await using a = await this.#open('a');
    await using b = await this.#open('b');
    const before = await this.#disk();
    const images = await this.#make(a, source);
    await this.#use(b, images);
    for (const { name } of images) await a.images.delete(this.#ctx, name);
    await this.#step('A', 'deleted the images');
    await this.#collect(b, 'the container keeps its snapshots');
    await a.containers.delete(this.#ctx, CONTAINER);
    await this.#step('A', `deleted container ${CONTAINER} of B`);
    await this.#collect(b, 'nothing is left');
    await this.#swept(before);
  }

  problem(): string | undefined {
    return this.#problem;
  }
  report(): { steps: Step[]; problem: string | null } {
    return { steps: this.#steps, problem: this.#problem ?? null };
  }

  async #open(name: string): Promise<DB> {
    const { dir, etcd, snapshotter } = this.#p;
    const root = join(dir, name);
    const content = join(dir, 'content');
    await mkdir(root, { recursive: true });
    await mkdir(content, { recursive: true });
    await symlink(content, layout.content(root));
    // Both use one name for the directory of blobs.
    const own = { hostId: `demo-${name}-${process.pid}`, backendId: 'demo-shared' };
    // A snapshotter's directory has one owner.
    const snapshotters = name === 'b' ? [snapshotter] : [];
    return openDB({ root, snapshotters, enableEtcdGC: true, etcd: { ...etcd, ...own } });
  }

  async #make(a: DB, source: string): Promise<Image[]> {
    const images = await importImage(a, this.#ctx, source);
    await this.#step('A', `imported ${images.map(({ name }) => name).join(', ')}`);
    return images;
  }

  async #use(b: DB, made: readonly Image[]): Promise<void> {
    const { snapshotter } = this.#p;
    const seen = await b.images.list(this.#ctx);
    if (seen.length !== made.length) this.#problem = `B sees ${seen.length} of ${made.length} images`;
    await this.#step('B', `sees ${seen.map(({ name }) => name).join(', ')}`);
    const image = present(seen[0], 'an image');
    const { chainId } = await unpackImage(b, this.#ctx, image, snapshotter);
    await createContainer(b, this.#ctx, { id: CONTAINER, image: image.name, snapshotter, chainId });
    await this.#step('B', `container ${CONTAINER} runs on ${image.name}`);
  }

  async #collect(b: DB, then: string): Promise<void> {
    const { removed } = await b.garbageCollect({ signal: this.#p.signal });
    await this.#step('B', `collected, ${then}: removed ${counts(removed)}`);
  }

  /** Bytes are removed shortly after their records; at the end the disk usage is what it was. */
  async #swept(before: number): Promise<void> {
    const until = performance.now() + SWEEP_MS;
    while ((await this.#disk()) > before + TOLERANCE_BYTES && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const left = await this.#disk();
    if (left > before + TOLERANCE_BYTES) {
      this.#problem = `${bytes(left - before)} are still on the disk although nothing is kept`;
    } else if (!this.#p.out.json) {
      this.#p.out.line(`the disk is back to where it was: ${bytes(before)} before, ${bytes(left)} now`);
    }
  }

  async #disk(): Promise<number> {
    const { dir, snapshotter } = this.#p;
    const snapshots = (name: string): string =>
      `${layout.snapshotter(join(dir, name), snapshotter)}/snapshots`;
    const places = [join(dir, 'content'), snapshots('a'), snapshots('b')];
    return (await Promise.all(places.map(diskUsage))).reduce((sum, size) => sum + size, 0);
  }

  async #step(host: string, step: string): Promise<void> {
    const disk = await this.#disk();
    this.#steps.push({ host, step, diskBytes: disk });
    if (!this.#p.out.json) this.#p.out.line(`${host}: ${step} [disk ${bytes(disk)}]`);
  }
}
