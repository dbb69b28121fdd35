/**
 * Paths in a content directory. Called by everything in content/; pure. The layout is containerd's, except
 * for the directories whose names begin with a dot.
 *
 *   <root>/blobs/<algorithm>/<hex>          one read-only file per blob
 *   <root>/ingest/<sha256 of the ref>/      one directory per unfinished ingest: data, ref, startedat,
 *   updatedat, total
 *   <root>/.drafts/                         ingests under construction
 *   <root>/.trash/                          files being deleted
 *   <root>/.tree                            the tree of records that the blobs belong to
 *   <root>/.damaged/                        files that `check --repair` found in place of blobs
 */
import { createHash } from 'node:crypto';
import { basename, join } from 'node:path';
import { type Algorithm, parseDigest } from '../../model/digest.js';
import type { HeldDirectory } from '../../system/held-directory.js';
import { makeDurableDirectory } from '../files.js';

export const algorithms: readonly Algorithm[] = ['sha256', 'sha384', 'sha512'];

/** Mode of a committed blob, whatever the umask. */
export const BLOB_MODE = 0o444;

export const INGESTS = 'ingest';
export const DRAFTS = '.drafts';
export const TRASH = '.trash';
export const DAMAGED = '.damaged';
/** Path of a blob relative to the root of a content directory. InvalidArgument for a malformed digest. */
export function blobName(digest: string): string {
  const { algorithm, hex } = parseDigest(digest);
  return join(blobsName(algorithm), hex);
}
export const blobsName = (algorithm: Algorithm): string => join('blobs', algorithm);

export class ContentLayout {
  readonly #directory: HeldDirectory;

  constructor(directory: HeldDirectory) {
    this.#directory = directory;
  }

  get root(): string {
    return this.#directory.at;
  }
  get ingests(): string {
    return this.#directory.entry(INGESTS);
  }
  get drafts(): string {
    return this.#directory.entry(DRAFTS);
  }
  get trash(): string {
    return this.#directory.entry(TRASH);
  }
  get mark(): string {
    return join(this.root, '.tree');
  }
  get damaged(): string {
    return this.#directory.entry(DAMAGED);
  }

  /** The possible directories below the root. */
  readonly directories: readonly string[] = [
    INGESTS,
    DRAFTS,
    TRASH,
    DAMAGED,
    'blobs',
    ...algorithms.map(blobsName),
  ];

  /** Creates directories that are missing or were removed. Unavailable: one was replaced. */
  async make(...names: readonly string[]): Promise<void> {
    this.#directory.verify(...names);
    await this.makeMissing(...names);
  }

  /**
   * Creates (durably) the directories that the last `verify` did not find; later calls do not use their
   * names.
   */
  async makeMissing(...names: readonly string[]): Promise<void> {
    const missing = names.filter((name) => !this.#directory.holds(name));
    if (missing.length === 0) return;
    for (const name of missing)
      await makeDurableDirectory(join(this.root, name), name.startsWith('blobs') ? 0o755 : 0o700);
    this.#directory.verify(...missing);
  }

  blobs(algorithm: Algorithm): string {
    return this.#directory.entry(blobsName(algorithm));
  }

  /** InvalidArgument for a malformed digest: only valid ones ever become paths. */
  blob(digest: string): string {
    const { algorithm, hex } = parseDigest(digest);
    return join(this.blobs(algorithm), hex);
  }

  /** Directory of an ingest; the hash makes any text a safe name. */
  ingest(ref: string): string {
    return join(this.ingests, ingestName(ref));
  }
}

export const ingestName = (ref: string): string => createHash('sha256').update(ref).digest('hex');

/** Whether a directory is the one of a ref's ingest. */
export const isIngestOf = (directory: string, ref: string): boolean =>
  ref !== '' && basename(directory) === ingestName(ref);
