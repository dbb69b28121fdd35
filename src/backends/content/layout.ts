/**
 * Where things are in a content directory. Called by everything in content/; pure. The layout is containerd's, but
 * for the directories whose names begin with a dot.
 *
 *   <root>/blobs/<algorithm>/<hex>          one read-only file per blob
 *   <root>/ingest/<sha256 of the ref>/      one directory per unfinished ingest: data, ref, startedat, updatedat, total
 *   <root>/.drafts/                         ingests that are being made
 *   <root>/.trash/                          what is being deleted
 *   <root>/.tree                            which tree of records the blobs belong to
 *   <root>/.damaged/                        what `check --repair` found in a blob's place
 */
import { createHash } from 'node:crypto';
import { basename, join } from 'node:path';
import { type Algorithm, parseDigest } from '../../model/digest.js';
import type { HeldDirectory } from '../../system/held-directory.js';

export const algorithms: readonly Algorithm[] = ['sha256', 'sha384', 'sha512'];

export class ContentLayout {
  readonly #directory: HeldDirectory;

  constructor(directory: HeldDirectory) {
    this.#directory = directory;
  }

  get root(): string {
    return this.#directory.at;
  }
  get ingests(): string {
    return join(this.root, 'ingest');
  }
  get drafts(): string {
    return join(this.root, '.drafts');
  }
  get trash(): string {
    return join(this.root, '.trash');
  }
  get mark(): string {
    return join(this.root, '.tree');
  }
  get damaged(): string {
    return join(this.root, '.damaged');
  }

  /** Those below the root that there may be. */
  readonly directories: readonly string[] = [
    'ingest',
    '.drafts',
    '.trash',
    '.damaged',
    'blobs',
    ...algorithms.map((algorithm) => join('blobs', algorithm)),
  ];

  blobs(algorithm: Algorithm): string {
    return join(this.root, 'blobs', algorithm);
  }

  /** InvalidArgument for a malformed digest: only well-formed ones ever become paths. */
  blob(digest: string): string {
    const { algorithm, hex } = parseDigest(digest);
    return join(this.blobs(algorithm), hex);
  }

  /** Directory of an ingest; the hash makes any text a safe name. */
  ingest(ref: string): string {
    return join(this.ingests, ingestName(ref));
  }
}

const ingestName = (ref: string): string => createHash('sha256').update(ref).digest('hex');

/** Whether a directory is where the ingest of a ref belongs. */
export const isIngestOf = (directory: string, ref: string): boolean =>
  ref !== '' && basename(directory) === ingestName(ref);
