/**
 * What takes the disk in a picture: blobs, snapshots, ingests and orphans, each once, under the names and with the bytes that
 * `du` reckons with. Called by picture.ts.
 */
import { NO_ITEM } from '../engine/graph.js';
import type { MeasuredDisk } from '../gc/report/disk-report.js';
import type { Items } from '../gc/report/items.js';

export const leafKinds = ['content', 'snapshot', 'ingest'] as const;
export type LeafKind = (typeof leafKinds)[number];

const SNAPSHOT = leafKinds.indexOf('snapshot');

/** The lists of the items. */
type Found = Pick<Items, 'names' | 'ofNode'> & { readonly sizes: ArrayLike<number> };

export class Leaves {
  readonly count: number;
  /** Bytes. */
  readonly sizes: Float64Array;
  /** Leaves from this one on are orphans. */
  readonly orphans: number;
  /** As the items have them. */
  readonly #names: string[];
  readonly #kinds: Uint8Array;
  /** Items by node: blobs and snapshots, and ingests, which are leaves from `#firstIngest` on. */
  readonly #ofNode: Uint32Array;
  readonly #ingestOfNode: Uint32Array | undefined;
  readonly #firstIngest: number;

  /** REQUIRES: every item of the measured disk was asked for. Takes over the lists of the items. */
  constructor(items: Found, ingests?: Found, disk?: Pick<MeasuredDisk, 'orphans'>) {
    const orphans = [...(disk?.orphans() ?? [])];
    this.#names = items.names;
    const ofIngests = ingests?.names ?? [];
    this.#ofNode = items.ofNode;
    this.#ingestOfNode = ingests?.ofNode;
    this.#firstIngest = this.#names.length;
    this.orphans = this.#names.length + ofIngests.length;
    this.count = this.orphans + orphans.length;
    this.sizes = new Float64Array(this.count);
    this.#kinds = new Uint8Array(this.count);
    const { sizes } = items;
    for (const [leaf, name] of this.#names.entries())
      this.#put(leaf, name.includes('\0') ? 'snapshot' : 'content', sizes[leaf]);
    const sizesOfIngests = ingests?.sizes;
    for (const [n, name] of ofIngests.entries())
      this.#put(this.#names.push(name) - 1, 'ingest', sizesOfIngests?.[n]);
    for (const { kind, name, bytes } of orphans) this.#put(this.#names.push(name) - 1, kind, bytes);
  }

  #put(leaf: number, kind: LeafKind, size: number | undefined): void {
    this.#kinds[leaf] = leafKinds.indexOf(kind);
    this.sizes[leaf] = size ?? 0;
  }

  sizeOf(leaf: number): number {
    return this.sizes[leaf] ?? 0;
  }

  kindOf(leaf: number): LeafKind {
    return leafKinds[this.#kinds[leaf] ?? 0] ?? 'content';
  }

  /** Digest, `<snapshotter>/<backend name>`, the backend's ref of an ingest; of orphans, the file's or directory's. */
  nameOf(leaf: number): string {
    const name = this.#names[leaf] ?? '';
    return this.#kinds[leaf] === SNAPSHOT ? name.replace('\0', '/') : name;
  }

  /** Calls `visit` for what a node of the graph names: an ingest has its own bytes, and the blob it expects. */
  forEachOf(node: number, visit: (leaf: number) => void): void {
    const item = this.#ofNode[node] ?? NO_ITEM;
    if (item !== NO_ITEM) visit(item);
    const ingest = this.#ingestOfNode?.[node] ?? NO_ITEM;
    if (ingest !== NO_ITEM) visit(this.#firstIngest + ingest);
  }
}
