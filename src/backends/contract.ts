/**
 * Backends, which keep the bytes: the content backend and snapshotter backends. They are independent of
 * namespaces and of the store. Implemented here (content directory, native, overlayfs) and by embedders;
 * called by stores/ and gc/.
 */
import type { StringMap } from '../model/records.js';
import type { Instant } from '../model/time.js';

// ---------------------------------------------------------------------------------------------------- content

export interface ContentInfo {
  digest: string;
  /** Bytes. */
  size: number;
  createdAt: Instant;
  updatedAt: Instant;
  labels: StringMap;
}

export interface IngestStatus {
  ref: string;
  /** Bytes written so far. */
  offset: number;
  /** Expected size in bytes; 0 when unknown. */
  total: number;
  expected?: string | undefined;
  startedAt: Instant;
  updatedAt: Instant;
}

/**
 * Random access to one blob. `read` fills as much of `buffer` as there is up to `size` and returns the count;
 * 0 is the end. Bytes that are missing before `size` are an error.
 */
export interface BlobReader extends AsyncDisposable {
  readonly size: number;
  read(buffer: Uint8Array, position: number): Promise<number>;
  /** The bytes [start, end) as a stream of chunks. */
  stream(start?: number, end?: number): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

export interface WriterDescriptor {
  digest?: string | undefined;
  /** Bytes; 0 or absent when unknown. */
  size?: number | undefined;
  mediaType?: string | undefined;
}

export interface BackendWriter {
  readonly ref: string;
  status(): Promise<IngestStatus>;
  /** Digest of what was written so far. */
  digest(): string;
  write(bytes: Uint8Array): Promise<number>;
  /** Only 0 (D21). */
  truncate(size: number): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
  /** size 0 and expected '' mean unknown. FailedPrecondition: closed, size or digest differ; AlreadyExists. */
  commit(size: number, expected: string): Promise<void>;
}

export interface ContentBackend {
  /** Optional: its directory; also the default name of the host in a shared tree. */
  readonly root?: string | undefined;
  info(digest: string): Promise<ContentInfo>;
  readerAt(digest: string): Promise<BlobReader>;
  walk(fn: (info: ContentInfo) => Promise<void> | void): Promise<void>;
  /** Idempotent. */
  delete(digest: string): Promise<void>;
  status(ref: string): Promise<IngestStatus>;
  listStatuses(): Promise<IngestStatus[]>;
  /** Optional cheap form of listStatuses. */
  walkStatusRefs?(fn: (ref: string) => Promise<void> | void): Promise<void>;
  /** Removes an unfinished ingest; absent is success. */
  abort(ref: string): Promise<void>;
  /** Unavailable immediately when the ref is locked. */
  writer(ref: string, desc: WriterDescriptor): Promise<BackendWriter>;
  /**
   * Optional: removes many blobs: renames them at once and frees the disk space on the job pool. Absent ones
   * count as removed with 0 bytes.
   */
  deleteMany?(digests: string[]): Promise<RemovalReport>;
  /** Optional: deletes leftovers of crashes that are neither blobs nor ingests; returns what was freed. */
  cleanup?(): Promise<RemovalReport>;
  /**
   * Optional, both or none: a short text that is kept beside the blobs (src/gc/sweep/tree-mark.ts);
   * undefined: none yet.
   */
  readMark?(): Promise<string | undefined>;
  writeMark?(text: string): Promise<void>;
  /** Optional: describes the file at the blob's path. */
  inspect?(digest: string): Promise<BlobFile>;
  /** Optional: moves the file at the blob's path away and returns its new path; undefined: absent. */
  setAside?(digest: string): Promise<string | undefined>;
  /** Optional: paths of ingests that do not belong to a ref. */
  damagedIngests?(): Promise<string[]>;
  close?(): Promise<void>;
}

export interface BlobFile {
  path: string;
  /** `other`: not a regular file. */
  kind: 'file' | 'absent' | 'other';
  /** Bytes; 0 unless it is a file. */
  size: number;
}

// -------------------------------------------------------------------------------------------------- snapshotters

export type SnapshotKind = 'active' | 'view' | 'committed';

export interface SnapshotInfo {
  kind: SnapshotKind;
  name: string;
  /** '' when there is none. */
  parent: string;
  labels: StringMap;
  created: Instant;
  updated: Instant;
}

export interface Usage {
  inodes: number;
  /** Bytes. */
  size: number;
}

export interface Mount {
  type: string;
  source: string;
  target?: string | undefined;
  options: string[];
}

export interface MountOwner {
  key: string;
  /** As the backend itself returns them; for a committed snapshot those of a view of it. */
  mounts: Mount[];
  /** It is active and its mounts were given without `ro`. */
  writable: boolean;
}

export interface SnapshotOptions {
  labels?: StringMap | undefined;
  /** Commit only: sets the parent of an active snapshot that has none. */
  parent?: string | undefined;
}

export interface SnapshotterBackend {
  /** As for content. */
  readonly root?: string | undefined;
  stat(key: string): Promise<SnapshotInfo>;
  /** Labels only: paths `labels`, `labels.<k>`; none = all labels. */
  update(info: SnapshotInfo, ...paths: string[]): Promise<SnapshotInfo>;
  usage(key: string): Promise<Usage>;
  /**
   * Optional: the directory in `snapshots/` of its root that has all of a snapshot's files; undefined: it has
   * none.
   */
  directoryOf?(key: string): string | undefined;
  mounts(key: string): Promise<Mount[]>;
  prepare(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]>;
  view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]>;
  commit(name: string, key: string, options?: SnapshotOptions): Promise<void>;
  remove(key: string): Promise<void>;
  walk(fn: (info: SnapshotInfo) => Promise<void> | void, ...filters: string[]): Promise<void>;
  /**
   * Optional: the snapshot whose mounts these are: an active one or a view; for a view of a parent, the
   * parent. Recognised by their directories alone; undefined for any that this backend does not return,
   * whatever is there.
   */
  ownerOf?(mounts: readonly Mount[]): Promise<MountOwner | undefined>;
  /**
   * Optional: calls `work` with the mounts of an active snapshot, exclusively: other such work, a commit and
   * a removal of the key wait, and a removal aborts the signal. NotFound; FailedPrecondition: not active.
   */
  write?<T>(key: string, work: (mounts: Mount[], signal: AbortSignal) => Promise<T>): Promise<T>;
  /** Optional: reclaims the disk space of removed snapshots; returns what was freed, if known. */
  cleanup?(): Promise<RemovalReport | undefined>;
  /** Optional: compares its snapshots with its directories. */
  inspect?(fn: (problem: SnapshotProblem) => Promise<void> | void): Promise<void>;
  close(): Promise<void>;
}

export interface SnapshotProblem {
  /** A snapshot without its directory; one whose parent is missing or not committed; a directory without a snapshot. */
  kind: 'directory' | 'parent' | 'orphan';
  /** The snapshot's key, or the directory's name. */
  name: string;
  path: string;
  /** What is there instead. */
  found: string;
}

// ------------------------------------------------------------------------------------------------------ disk jobs

export interface RemovalReport {
  removed: number;
  /** Disk bytes freed (allocated blocks of files whose last link was removed). */
  bytes: number;
  errors: { path: string; message: string }[];
}

/**
 * Slow work on directories and files, off the main thread. Each stream is processed in order, independently
 * of the others. Implemented by gc/sweep/disk-pool.ts (piscina); without one, backends use the calling
 * thread.
 */
export interface DiskJobs {
  /** Deletes these trees (files or directories); absent ones are fine. */
  removeTrees(stream: string, paths: string[]): Promise<RemovalReport>;
}
