/**
 * Backends, which keep the bytes: the content backend and snapshotter backends. They are independent of
 * namespaces and of the store. Implemented here (content directory, native, overlayfs) and by embedders;
 * called by stores/ and gc/.
 */
import type { StringMap } from '../model/records.js';
import type { Instant } from '../model/time.js';

// ---------------------------------------------------------------------------------------------------- content

/** A blob, as a namespace knows it. */
export interface ContentInfo {
  /** Its digest, `sha256:…`. */
  digest: string;
  /** Bytes. */
  size: number;
  /** When it was first there. */
  createdAt: Instant;
  /** When its labels were last changed. */
  updatedAt: Instant;
  /** Labels by key. */
  labels: StringMap;
}

/** An unfinished blob. */
export interface IngestStatus {
  /** The name that its writer gave it. */
  ref: string;
  /** Bytes written so far. */
  offset: number;
  /** Expected size in bytes; 0 when unknown. */
  total: number;
  /** The digest that it is to have, if that is known. */
  expected?: string | undefined;
  /** When it was begun. */
  startedAt: Instant;
  /** When something was last written. */
  updatedAt: Instant;
}

/**
 * Random access to one blob. `read` fills as much of `buffer` as there is up to `size` and returns the count;
 * 0 is the end. Bytes that are missing before `size` are an error.
 */
export interface BlobReader extends AsyncDisposable {
  /** Bytes of the blob. */
  readonly size: number;
  /** Reads from a position on; returns how many bytes, 0 at the end. */
  read(buffer: Uint8Array, position: number): Promise<number>;
  /** The bytes [start, end) as a stream of chunks. */
  stream(start?: number, end?: number): AsyncIterable<Uint8Array>;
  /** Closes the file. */
  close(): Promise<void>;
}

/** What a writer knows of its blob beforehand. */
export interface WriterDescriptor {
  /** The digest that it is to have. */
  digest?: string | undefined;
  /** Bytes; 0 or absent when unknown. */
  size?: number | undefined;
  /** Its media type, if that is known. */
  mediaType?: string | undefined;
}

/** An open ingest of a content backend. */
export interface BackendWriter {
  /** The backend's ref of the ingest. */
  readonly ref: string;
  /** How far it is. */
  status(): Promise<IngestStatus>;
  /** Digest of what was written so far. */
  digest(): string;
  /** Appends bytes; returns how many. */
  write(bytes: Uint8Array): Promise<number>;
  /** Only 0 (D21). */
  truncate(size: number): Promise<void>;
  /** Puts what was written on disk. */
  sync(): Promise<void>;
  /** Closes it; what was written stays, for a writer of the same ref. */
  close(): Promise<void>;
  /** size 0 and expected '' mean unknown. FailedPrecondition: closed, size or digest differ; AlreadyExists. */
  commit(size: number, expected: string): Promise<void>;
}

/** Where blobs and ingests live, without namespaces. */
export interface ContentBackend {
  /** Optional: its directory; also the default name of the host in a shared tree. */
  readonly root?: string | undefined;
  /** NotFound: there is no such blob. */
  info(digest: string): Promise<ContentInfo>;
  /** NotFound: there is no such blob. */
  readerAt(digest: string): Promise<BlobReader>;
  /** Visits every blob. */
  walk(fn: (info: ContentInfo) => Promise<void> | void): Promise<void>;
  /** Idempotent. */
  delete(digest: string): Promise<void>;
  /** NotFound: there is no such ingest. */
  status(ref: string): Promise<IngestStatus>;
  /** All ingests. */
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
  /** Stores the text that `readMark` returns. */
  writeMark?(text: string): Promise<void>;
  /** Optional: describes the file at the blob's path. */
  inspect?(digest: string): Promise<BlobFile>;
  /** Optional: moves the file at the blob's path away and returns its new path; undefined: absent. */
  setAside?(digest: string): Promise<string | undefined>;
  /** Optional: paths of ingests that do not belong to a ref. */
  damagedIngests?(): Promise<string[]>;
  /** Closes what is open. */
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

/** What a snapshot is for: to be written, to be read, or to be a parent. */
export type SnapshotKind = 'active' | 'view' | 'committed';

/** A snapshot. */
export interface SnapshotInfo {
  /** Active and views can be mounted, committed ones can be parents. */
  kind: SnapshotKind;
  /** Its key, or the name that it was committed under. */
  name: string;
  /** '' when there is none. */
  parent: string;
  /** Labels by key. */
  labels: StringMap;
  /** When it was made. */
  created: Instant;
  /** When its labels were last changed. */
  updated: Instant;
}

/** What something takes on disk. */
export interface Usage {
  /** Files and directories. */
  inodes: number;
  /** Bytes. */
  size: number;
}

/** A mount, as containerd describes it. */
export interface Mount {
  /** `bind`, `overlay` or another type of mount(8). */
  type: string;
  /** A directory or a device. */
  source: string;
  /** Where below the root of the mounts; default the root itself. */
  target?: string | undefined;
  /** Words of mount(8): `ro`, `rbind`, `lowerdir=…`. */
  options: string[];
}

export interface MountOwner {
  key: string;
  /** As the backend itself returns them; for a committed snapshot those of a view of it. */
  mounts: Mount[];
  /** It is active and its mounts were given without `ro`. */
  writable: boolean;
}

/** How a snapshot is made. */
export interface SnapshotOptions {
  /** Labels by key. */
  labels?: StringMap | undefined;
  /** Commit only: sets the parent of an active snapshot that has none. */
  parent?: string | undefined;
}

/** Where snapshots live, without namespaces. */
export interface SnapshotterBackend {
  /** As for content. */
  readonly root?: string | undefined;
  /** Optional: false if it cannot say which snapshots there are, so that none is taken for lost. */
  readonly isKnown?: boolean;
  /**
   * Optional: a snapshot without a parent can be given one by its commit, and then shows its files too. Its mounts are one bind before,
   * and overlays of its directory after.
   */
  readonly rebases?: boolean | undefined;
  /** NotFound: there is no such snapshot. */
  stat(key: string): Promise<SnapshotInfo>;
  /** Labels only: paths `labels`, `labels.<k>`; none = all labels. */
  update(info: SnapshotInfo, ...paths: string[]): Promise<SnapshotInfo>;
  /** Optional: whether there is such a snapshot; cheaper than the error of `stat`. */
  has?(key: string): boolean;
  /** What the snapshot itself takes on disk, without its parents. NotFound. */
  usage(key: string): Promise<Usage>;
  /**
   * Optional: the directory in `snapshots/` of its root that has all of a snapshot's files; undefined: it has
   * none.
   */
  directoryOf?(key: string): string | undefined;
  /** How to mount an active snapshot or a view. NotFound. */
  mounts(key: string): Promise<Mount[]>;
  /** Makes a writable snapshot on a parent, or on nothing (`''`). AlreadyExists, NotFound. */
  prepare(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]>;
  /** As `prepare`, read-only. */
  view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]>;
  /** Makes an active snapshot a committed one. AlreadyExists: the name is taken. */
  commit(name: string, key: string, options?: SnapshotOptions): Promise<void>;
  /** FailedPrecondition: it has children. NotFound. */
  remove(key: string): Promise<void>;
  /** Visits every snapshot that one of the filters matches; all without filters. */
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
  /**
   * Optional: makes the directory of a committed snapshot again. `fill` gets the mounts of a new one, with what the parents have where
   * they are copied; it takes the place of the old one when `fill` resolves. NotFound; FailedPrecondition: not committed, or
   * mounted by a process.
   */
  rebuild?(key: string, fill: (mounts: Mount[]) => Promise<void>): Promise<void>;
  /** Optional: reclaims the disk space of removed snapshots; returns what was freed, if known. */
  cleanup?(): Promise<RemovalReport | undefined>;
  /** Optional: compares its snapshots with its directories. */
  inspect?(fn: (problem: SnapshotProblem) => Promise<void> | void): Promise<void>;
  /** Closes what is open. */
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

/** What a removal has done. */
export interface RemovalReport {
  /** Items removed. */
  removed: number;
  /** Disk bytes freed (allocated blocks of files whose last link was removed). */
  bytes: number;
  /** What could not be removed, and why. */
  errors: { path: string; message: string }[];
}

/**
 * Slow work on directories and files, off the main thread but for the little that is not worth it. Each stream is processed in order, independently
 * of the others. Implemented by gc/sweep/disk-pool.ts (piscina); without one, backends use the calling
 * thread.
 */
export interface DiskJobs {
  /** Deletes these trees (files or directories); absent ones are fine. */
  removeTrees(stream: string, paths: string[]): Promise<RemovalReport>;
}
