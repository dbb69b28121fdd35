/**
 * What the root takes on its disk, by what it is for: every entry is in one line, so that the lines add up to what `du`
 * says. Called by retained.ts; reads only, and goes through all directories.
 */
import type { Stats } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { INGESTS, ingestName } from '../../backends/content/layout.js';
import { BLOCK_BYTES, diskUsage } from '../../backends/disk-usage.js';
import { isSnapshotNumber } from '../../backends/snapshotters/numbered-directories.js';
import { SNAPSHOTS } from '../../backends/snapshotters/snapshot-driver.js';
import { throwIfAborted } from '../../errors.js';
import { isDigest } from '../../model/digest.js';
import type { CollectHost } from '../host.js';

const diskLines = [
  'kept',
  'garbage',
  'orphans',
  'unfinished',
  'trash',
  'damaged',
  'store',
  'elsewhere',
] as const;
/** What bytes of the disk are for. */
export type DiskLine = (typeof diskLines)[number];

/** Bytes. Of `lines`, the sum is `total`. */
export interface DiskReport {
  /** The directory. */
  root: string;
  /** Bytes that the root takes, as `du` says. */
  total: number;
  /**
   * Blobs and snapshots with a record: `kept` and `garbage`, which has ingests too; `orphans`: all those without one.
   * `unfinished`: the other ingests, and snapshots under construction; `trash`: what is being deleted; `damaged`: what a repair has put aside; `store`: own files and
   * directories. `elsewhere`: what of the first two is not under the root, below 0.
   */
  lines: Record<DiskLine, number>;
  /** Bytes of the file system that the root is on. */
  fileSystem: { size: number; used: number; free: number };
}

/** What `gc --full` would free. The trash goes by itself. */
export const reclaimable = ({ lines }: DiskReport): number => lines.garbage + lines.orphans;

/** Bytes of the file system that a path is on; a file takes whole blocks. */
export async function fileSystemOf(path: string): Promise<DiskReport['fileSystem'] & { block: number }> {
  const { bsize, blocks, bfree, bavail } = await statfs(path);
  return { size: blocks * bsize, used: (blocks - bfree) * bsize, free: bavail * bsize, block: bsize };
}

type PlainLine = 'unfinished' | 'trash' | 'damaged' | 'store';

/** What is in the directories at one moment. Records that are read later name what is in it: they come after the bytes. */
export class MeasuredDisk {
  readonly #root: string;
  readonly #lines: Record<PlainLine, number> = { unfinished: 0, trash: 0, damaged: 0, store: 0 };
  /** Bytes by digest, or by snapshotter and directory. */
  readonly #objects = new Map<string, number>();
  /** Bytes by the directory of an ingest. */
  readonly #ingests = new Map<string, number>();
  #total = 0;
  #elsewhere = 0;
  #fileSystem: DiskReport['fileSystem'] = { size: 0, used: 0, free: 0 };

  private constructor(root: string) {
    this.#root = root;
  }

  /** undefined where the content is in no directory. */
  static async read(host: CollectHost, signal?: AbortSignal): Promise<MeasuredDisk | undefined> {
    if (host.content.root === undefined) return undefined;
    const root = dirname(host.content.root);
    const measured = new MeasuredDisk(root);
    await measured.#walk(new Places(host, host.content.root), signal);
    for (const name of underWay(host)) measured.#lines.unfinished += measured.#take(name);
    const { size, used, free } = await fileSystemOf(root);
    measured.#fileSystem = { size, used, free };
    return measured;
  }

  async #walk(places: Places, signal: AbortSignal | undefined): Promise<void> {
    const counted = new Set<string>();
    const above = Buffer.byteLength(this.#root) + 1;
    const see = (path: Buffer, stats: Stats): void => {
      throwIfAborted(signal);
      if (stats.nlink > 1 && !stats.isDirectory()) {
        const inode = `${stats.dev}:${stats.ino}`;
        if (counted.has(inode)) return;
        counted.add(inode);
      }
      const bytes = stats.blocks * BLOCK_BYTES;
      const place = places.of(path.toString('latin1', above));
      if ('line' in place) this.#lines[place.line] += bytes;
      else if ('ingest' in place)
        this.#ingests.set(place.ingest, (this.#ingests.get(place.ingest) ?? 0) + bytes);
      else this.#objects.set(place.object, (this.#objects.get(place.object) ?? 0) + bytes);
    };
    const { size } = await diskUsage(this.#root, { see });
    this.#total = size;
  }

  /** Blocks of a blob. Each object is asked for once: what is never asked for is an orphan. */
  blob(digest: string): number {
    return this.#take(digest);
  }

  /** Of a snapshot by its directory. */
  snapshot(snapshotter: string, directory: string): number {
    return this.#take(objectName(snapshotter, directory));
  }

  /** Of an ingest, by the backend's ref. As of objects: what is never asked for is an orphan. */
  ingest(ref: string): number {
    const name = ingestName(ref);
    const bytes = this.#ingests.get(name) ?? 0;
    this.#ingests.delete(name);
    this.#lines.unfinished += bytes;
    return bytes;
  }

  /** Bytes that a record names and that are not among those of the root. */
  addElsewhere(bytes: number): void {
    this.#elsewhere += bytes;
  }

  #take(name: string): number {
    const bytes = this.#objects.get(name) ?? 0;
    this.#objects.delete(name);
    return bytes;
  }

  /** What no record has named: asked after all records. */
  *orphans(): Generator<{ kind: 'content' | 'snapshot' | 'ingest'; name: string; bytes: number }> {
    for (const [name, bytes] of this.#objects)
      yield { kind: isDigest(name) ? 'content' : 'snapshot', name, bytes };
    for (const [name, bytes] of this.#ingests) yield { kind: 'ingest', name, bytes };
  }

  /** Called after all records. `ingests`: of the garbage, what is unfinished. */
  report({ kept, garbage, ingests }: { kept: number; garbage: number; ingests: number }): DiskReport {
    let orphans = 0;
    for (const left of [this.#objects, this.#ingests]) for (const bytes of left.values()) orphans += bytes;
    this.#lines.unfinished -= ingests;
    // Not -0.
    const elsewhere = 0 - this.#elsewhere;
    return {
      root: this.#root,
      total: this.#total,
      lines: { kept, garbage, orphans, ...this.#lines, elsewhere },
      fileSystem: this.#fileSystem,
    };
  }
}

const objectName = (snapshotter: string, directory: string): string => `${snapshotter}/${directory}`;

/** Snapshots that an operation has made and whose record is not written yet. */
function* underWay({ backends, snapshotterStores }: CollectHost): Generator<string> {
  for (const [snapshotter, backend] of backends) {
    for (const name of snapshotterStores.get(snapshotter)?.inFlight() ?? []) {
      const directory = backend.directoryOf?.(name);
      if (directory !== undefined) yield objectName(snapshotter, directory);
    }
  }
}

type Place = { readonly line: PlainLine } | { readonly ingest: string } | { readonly object: string };

/** What the paths below the root belong to. */
class Places {
  readonly #content: string;
  /** Snapshotter by the name of its directory. */
  readonly #snapshotters = new Map<string, string>();

  constructor({ backends }: CollectHost, contentRoot: string) {
    this.#content = basename(contentRoot);
    for (const [name, { root, directoryOf }] of backends) {
      // What others keep cannot be told apart: not by their records, and not as what has none.
      if (directoryOf === undefined) continue;
      if (root !== undefined && dirname(root) === dirname(contentRoot))
        this.#snapshotters.set(basename(root), name);
    }
  }

  /** @param path below the root, '' for the root itself */
  of(path: string): Place {
    const [plugin = '', place = '', name = '', entry = ''] = path.split('/', 4);
    if (plugin === this.#content) return contentPlace(place, name, entry);
    const snapshotter = this.#snapshotters.get(plugin);
    if (snapshotter === undefined || place !== SNAPSHOTS || name === '') return { line: 'store' };
    if (isSnapshotNumber(name)) return { object: objectName(snapshotter, name) };
    if (name.startsWith('rm-')) return { line: 'trash' };
    return { line: name.startsWith('new-') ? 'unfinished' : 'store' };
  }
}

const lineOfPlace: Readonly<Record<string, PlainLine>> = {
  '.drafts': 'unfinished',
  '.trash': 'trash',
  '.damaged': 'damaged',
};

function contentPlace(place: string, name: string, entry: string): Place {
  const digest = `${name}:${entry}`;
  if (place === 'blobs' && isDigest(digest)) return { object: digest };
  if (place === INGESTS && name !== '') return { ingest: name };
  // The directories of these are there when nothing is in them.
  return { line: name === '' ? 'store' : (lineOfPlace[place] ?? 'store') };
}
