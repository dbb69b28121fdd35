/**
 * The content of an image source, in any form: entries to be named, and blobs that either are in the store
 * already or can still be opened. Created by layout.ts (directories) and archive.ts (tar files); used by
 * import.
 */
import type { Source } from '../stores/content/content-helpers.js';
import type { Index } from './documents.js';

export interface OpenBlob {
  source: Source;
  /** Bytes. */
  size: number;
  close(): Promise<void>;
}

export interface ImageSource {
  /** Top-level entries with their annotations, in the source's order. */
  index: Index;
  /** The index itself, as it was written, or would be. */
  document: Buffer;
  /** A blob that was not written to the store yet; undefined when the source does not have it. */
  open(digest: string): Promise<OpenBlob | undefined>;
}

export const LAYOUT_FILE = 'oci-layout';
export const INDEX_FILE = 'index.json';
/** Docker's list of the images in an archive. */
export const DOCKER_FILE = 'manifest.json';
export const LAYOUT_VERSION = '1.0.0';
