/**
 * The content directory: blobs as files named by their digest, and unfinished ingests that can be resumed.
 * Independent of namespaces; called by the content store and by content sweeps.
 *
 * Durability: a committed blob is on disk, name and bytes. Threading: everything may overlap; a ref has one
 * writer at a time in an instance, and a second one is refused, not delayed. Several instances on one
 * directory share no locks.
 */
import type { Dir } from 'node:fs';
import { chmod, type FileHandle, lstat, open, opendir, readdir, unlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import {
  alreadyExists,
  EbbtideError,
  invalidArgument,
  isNotFound,
  notFound,
  openedReadOnly,
  unavailable,
} from '../../errors.js';
import { shown } from '../../held-paths.js';
import { type Algorithm, Digester, isDigest, parseDigest } from '../../model/digest.js';
import { formatTimestamp, type Instant, now } from '../../model/time.js';
import { HeldDirectory } from '../../system/held-directory.js';
import { errnoOf, fsError, isAbsent, messageOf } from '../../system/system-errors.js';
import type {
  BackendWriter,
  BlobFile,
  BlobReader,
  ContentBackend,
  ContentInfo,
  DiskJobs,
  IngestStatus,
  RemovalReport,
  WriterDescriptor,
} from '../contract.js';
import { eachLimit, exists, makeRoot, orAbsent, readText } from '../files.js';
import { type BackendLog, namingLog, stderrLog } from '../log.js';
import { ObjectLocks } from '../object-locks.js';
import { emptyReport, inlineJobs } from '../remove-tree.js';
import { lookAtBlob, setAside } from './blob-file.js';
import { Drafts } from './drafts.js';
import { hashFile } from './hash-file.js';
import { dataPath, readIngest, readRef } from './ingest.js';
import { algorithms, blobsName, ContentLayout, DRAFTS, INGESTS, TRASH } from './layout.js';
import { writeMark } from './mark.js';
import { FileReader } from './reader.js';
import { DELETIONS, Trash } from './trash.js';
import { FileWriter, type OpenIngest } from './writer.js';

/** How a content directory is opened. */
export interface ContentOptions {
  /** Where blobs are deleted; on the calling thread if absent. */
  jobs?: DiskJobs | undefined;
  /** Gets what an operator should know; by default nobody. */
  log?: BackendLog | undefined;
  /**
   * The directory must exist, and others may write to it; changes are FailedPrecondition, and nothing is
   * written.
   */
  readOnly?: boolean | undefined;
}

const PARALLEL = 8;
/** Names that a walk reads, and stats, at a time. */
const WALK_BATCH = 64;
/** Attempts to create an ingest where another keeps appearing that cannot be resumed. */
const MAX_OPENINGS = 4;
/** Errors that mean that there is no such ingest. Any other may be temporary, and must not cost the bytes. */
const GONE_OR_OTHER: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR', 'EISDIR', 'ENXIO', 'ELOOP']);
/** Age from which an ingest directory without a ref of its own cannot be in use any more. */
const DAMAGED_AGE_MS = 3_600_000;

/** Opens (or creates, 0755) a content directory. A clear error when it cannot be used. */
export async function openContent(path: string, options: ContentOptions = {}): Promise<LocalContent> {
  const root = resolve(path);
  const { readOnly = false } = options;
  if (!readOnly) await makeRoot(root, 0o755);
  const directory = HeldDirectory.open(root);
  const log = namingLog(options.log ?? stderrLog);
  const layout = new ContentLayout(directory);
  const jobs = options.jobs ?? inlineJobs;
  try {
    directory.verify(...layout.directories);
    const trash = new Trash(layout, jobs, log);
    const drafts = new Drafts(layout, trash, log);
    if (!readOnly) {
      await closeToOthers(layout);
      await trash.recover();
      await drafts.sweep();
    }
    return new LocalContent({ layout, trash, drafts, jobs, log, directory, readOnly });
  } catch (error) {
    directory.release();
    throw error;
  }
}

/**
 * Work directories are private to the owner, also if an earlier version left them open. A directory of
 * another user keeps its mode.
 */
async function closeToOthers({ ingests, drafts, trash }: ContentLayout): Promise<void> {
  for (const path of [ingests, drafts, trash]) await chmod(path, 0o700).catch(() => undefined);
}

interface ContentParts {
  readonly layout: ContentLayout;
  readonly trash: Trash;
  readonly drafts: Drafts;
  readonly jobs: DiskJobs;
  readonly log: BackendLog;
  readonly directory: HeldDirectory;
  readonly readOnly: boolean;
}

/** Created by `openContent`. */
export class LocalContent implements ContentBackend {
  readonly #directory: HeldDirectory;
  readonly #layout: ContentLayout;
  readonly #trash: Trash;
  readonly #drafts: Drafts;
  readonly #jobs: DiskJobs;
  readonly #log: BackendLog;
  readonly #digests = new ObjectLocks();
  /** When the writer of each locked ref was opened. */
  readonly #openRefs = new Map<string, { since: Instant }>();
  readonly #readOnly: boolean;
  #isClosed = false;

  constructor(parts: ContentParts) {
    this.#directory = parts.directory;
    this.#layout = parts.layout;
    this.#trash = parts.trash;
    this.#drafts = parts.drafts;
    this.#jobs = parts.jobs;
    this.#log = parts.log;
    this.#readOnly = parts.readOnly;
  }

  /**
   * Called before blobs are listed, created or deleted. Unavailable: the directory, or one in it, is not the
   * one that was opened (another file system is mounted there, it was renamed or replaced).
   */
  verify(...directories: readonly string[]): void {
    this.#directory.verify(...directories);
  }

  /** The same before something is created or deleted. */
  #verifyWritable(...directories: readonly string[]): void {
    if (this.#readOnly) throw openedReadOnly();
    this.verify(...directories);
  }

  get root(): string {
    return this.#directory.path;
  }

  // ------------------------------------------------------------------------------------------------------- blobs

  async info(digest: string): Promise<ContentInfo> {
    // Waits for a commit in progress: a blob that is reported to exist also exists after a power loss.
    const info = await this.#digests.with(digest, 'shared', () => this.#look(digest));
    if (info === null) throw notFound(`content ${digest} does not exist`, { object: digest });
    return info;
  }

  async #look(digest: string): Promise<ContentInfo | null> {
    const path = this.#layout.blob(digest);
    try {
      const stats = await orAbsent(lstat(path, { bigint: true }));
      // Something other than a file at a blob's path is not a blob: writers replace it.
      if (!stats?.isFile()) return null;
      return {
        digest,
        size: Number(stats.size),
        createdAt: stats.mtimeNs,
        updatedAt: stats.atimeNs,
        labels: {},
      };
    } catch (error) {
      throw fsError('look at', path, error);
    }
  }

  async readerAt(digest: string): Promise<BlobReader> {
    return FileReader.open(this.#layout.blob(digest), digest);
  }

  /** In no particular order. Skips blobs that disappear during the walk, and files that are not blobs. */
  async walk(fn: (info: ContentInfo) => Promise<void> | void): Promise<void> {
    this.verify(...this.#layout.directories);
    for (const algorithm of algorithms) {
      const path = this.#layout.blobs(algorithm);
      let directory: Dir | null;
      try {
        directory = await orAbsent(opendir(path, { bufferSize: WALK_BATCH }));
      } catch (error) {
        throw fsError('list', path, error);
      }
      if (directory !== null) await this.#walkDirectory(algorithm, directory, fn);
    }
  }

  async #walkDirectory(
    algorithm: Algorithm,
    directory: Dir,
    fn: (info: ContentInfo) => Promise<void> | void,
  ): Promise<void> {
    let batch: string[] = [];
    const visit = async (): Promise<void> => {
      const infos = await Promise.all(batch.map((digest) => this.#look(digest)));
      batch = [];
      for (const info of infos) if (info !== null) await fn(info);
    };
    for await (const entry of directory) {
      const digest = `${algorithm}:${entry.name}`;
      if (!entry.isFile()) continue;
      if (isDigest(digest)) batch.push(digest);
      else this.#log('warn', `${join(directory.path, entry.name)} is not a blob: skipped`);
      if (batch.length >= WALK_BATCH) await visit();
    }
    await visit();
  }

  async delete(digest: string): Promise<void> {
    this.#verifyWritable(blobsName(parseDigest(digest).algorithm));
    const path = this.#layout.blob(digest);
    try {
      await orAbsent(unlink(path));
    } catch (error) {
      throw fsError('delete', path, error);
    }
  }

  async deleteMany(digests: string[]): Promise<RemovalReport> {
    this.#verifyWritable(...this.#layout.directories);
    const paths = digests.map((digest) => this.#layout.blob(digest));
    try {
      // On the jobs' threads, so that no commit waits for one of the few threads that Node has for files.
      return await this.#jobs.removeTrees(DELETIONS, paths);
    } catch (error) {
      return { ...emptyReport(), errors: [{ path: this.#directory.path, message: messageOf(error) }] };
    }
  }

  async readMark(): Promise<string | undefined> {
    return (await orAbsent(readText(this.#layout.mark))) ?? undefined;
  }

  async writeMark(text: string): Promise<void> {
    this.#verifyWritable();
    await writeMark(this.#layout.mark, text);
  }

  /** The path of a blob's file, to be opened at once; it may not exist. */
  blobPath(digest: string): string {
    return this.#layout.blob(digest);
  }

  async inspect(digest: string): Promise<BlobFile> {
    const file = await lookAtBlob(this.#layout.blob(digest));
    return { ...file, path: shown(file.path) };
  }

  async setAside(digest: string): Promise<string | undefined> {
    this.#verifyWritable(...this.#layout.directories);
    return this.#digests.with(digest, 'exclusive', () => setAside(this.#layout, digest));
  }

  // ----------------------------------------------------------------------------------------------------- ingests

  async status(ref: string): Promise<IngestStatus> {
    const directory = this.#layout.ingest(ref);
    try {
      return await readIngest(directory);
    } catch (error) {
      if (isNotFound(error)) throw notFound(`ingest "${ref}" does not exist`, { object: ref, cause: error });
      throw error instanceof EbbtideError ? error : fsError('read', directory, error);
    }
  }

  /** Incomplete and unreadable ingests are left out. */
  async listStatuses(): Promise<IngestStatus[]> {
    const statuses: IngestStatus[] = [];
    await eachLimit(await this.#ingestDirectories(), PARALLEL, async (directory) => {
      try {
        statuses.push(await readIngest(directory));
      } catch (error) {
        if (!isNotFound(error))
          this.#log('warn', `cannot read ingest ${directory}`, { error: messageOf(error) });
      }
    });
    return statuses;
  }

  async walkStatusRefs(fn: (ref: string) => Promise<void> | void): Promise<void> {
    for (const directory of await this.#ingestDirectories()) {
      let ref: string | null = null;
      try {
        ref = await readRef(directory);
      } catch (error) {
        this.#log('warn', `cannot read the ref of ingest ${directory}`, { error: messageOf(error) });
      }
      if (ref !== null) await fn(ref);
    }
  }

  async #ingestDirectories(): Promise<string[]> {
    this.verify(INGESTS);
    const { ingests } = this.#layout;
    try {
      const entries = (await orAbsent(readdir(ingests, { withFileTypes: true }))) ?? [];
      return entries.filter((entry) => entry.isDirectory()).map((entry) => join(ingests, entry.name));
    } catch (error) {
      throw fsError('list', ingests, error);
    }
  }

  async abort(ref: string): Promise<void> {
    this.#verifyWritable(INGESTS, TRASH);
    const directory = this.#layout.ingest(ref);
    try {
      await this.#trash.discard(directory);
    } catch (error) {
      throw fsError('abort the ingest in', directory, error);
    }
  }

  async writer(ref: string, desc: WriterDescriptor): Promise<BackendWriter> {
    if (ref === '') throw invalidArgument('ref must not be empty');
    const total = desc.size ?? 0;
    if (!Number.isSafeInteger(total) || total < 0)
      throw invalidArgument(`invalid size ${total}`, { object: ref });
    const algorithm = desc.digest ? parseDigest(desc.digest).algorithm : 'sha256';
    this.#verifyWritable(INGESTS, DRAFTS, blobsName(algorithm));
    const release = this.#lock(ref);
    try {
      await this.#layout.makeMissing(INGESTS, DRAFTS);
      if (desc.digest && (await this.#look(desc.digest)) !== null) {
        throw alreadyExists(`content ${desc.digest} already exists`, { object: desc.digest });
      }
      const ingest = await this.#openIngest(ref, total, algorithm);
      const home = {
        layout: this.#layout,
        digests: this.#digests,
        trash: this.#trash,
        log: this.#log,
      };
      return new FileWriter(home, { ...ingest, ref, release });
    } catch (error) {
      release();
      throw error instanceof EbbtideError
        ? error
        : fsError('open the ingest in', this.#layout.ingest(ref), error);
    }
  }

  #lock(ref: string): () => void {
    const open = this.#openRefs.get(ref);
    if (open !== undefined) {
      // The clock may have been set back since.
      const seconds = Math.max(0, Number((now() - open.since) / 1_000_000n) / 1000);
      throw unavailable(`ref ${ref} locked for ${seconds}s (since ${formatTimestamp(open.since)})`, {
        object: ref,
        remedy: 'wait until its writer is closed',
      });
    }
    const lock = { since: now() };
    this.#openRefs.set(ref, lock);
    // A late second release must not unlock another writer's ref.
    return () => {
      if (this.#openRefs.get(ref) !== lock) return;
      this.#openRefs.delete(ref);
      if (this.#isClosed) this.#releaseDirectories();
    };
  }

  async #openIngest(
    ref: string,
    total: number,
    algorithm: Algorithm,
  ): Promise<Omit<OpenIngest, 'ref' | 'release'>> {
    for (let attempt = 0; attempt < MAX_OPENINGS; attempt++) {
      const startedAt = now();
      const handle = await this.#drafts.publish({ ref, total, startedAt });
      const directory = this.#layout.ingest(ref);
      if (handle !== undefined) {
        const digester = new Digester(algorithm);
        return { directory, handle, digester, offset: 0, total, startedAt, updatedAt: startedAt };
      }
      const resumed = await this.#resume(directory, ref, total, algorithm);
      if (resumed !== undefined) return resumed;
      await this.#trash.discard(directory);
    }
    throw unavailable(`cannot open ref ${ref}: others keep creating it`, {
      object: ref,
      remedy: 'wait until its writer elsewhere is closed',
    });
  }

  /** Undefined, with a log entry, when the existing directory is not an ingest of the ref. */
  async #resume(
    directory: string,
    ref: string,
    total: number,
    algorithm: Algorithm,
  ): Promise<Omit<OpenIngest, 'ref' | 'release'> | undefined> {
    let handle: FileHandle | undefined;
    try {
      const status = await readIngest(directory);
      if (status.ref !== ref) throw new Error(`it belongs to ref "${status.ref}"`);
      if (total > 0 && status.total > 0 && total !== status.total) {
        throw new Error(`its total is ${status.total}, not ${total}`);
      }
      handle = await open(dataPath(directory), 'r+');
      const { digester, size } = await hashFile(handle, algorithm);
      const { startedAt, updatedAt } = status;
      return { directory, handle, digester, offset: size, total: status.total, startedAt, updatedAt };
    } catch (error) {
      await handle?.close();
      if (!GONE_OR_OTHER.has(errnoOf(error) ?? 'ENOENT')) throw error;
      const level = isNotFound(error) || isAbsent(error) ? 'info' : 'warn';
      this.#log(level, `cannot resume ingest "${ref}", restarting it`, { error: messageOf(error) });
      return undefined;
    }
  }

  /**
   * Deletes drafts of dead creators, and ingests that cannot belong to a ref, once they are an hour old:
   * another program may be creating a younger one. Returns what the latter freed.
   */
  async cleanup(): Promise<RemovalReport> {
    this.#verifyWritable(...this.#layout.directories);
    await this.#drafts.sweep();
    const moved: string[] = [];
    for (const directory of await this.#damagedIngests()) {
      const stats = await orAbsent(lstat(directory));
      if (stats === null || Date.now() - stats.mtimeMs < DAMAGED_AGE_MS) continue;
      const path = await this.#trash.take(directory);
      if (path !== undefined) moved.push(path);
    }
    return this.#trash.empty(moved);
  }

  /** Paths of ingest directories whose ref is missing or belongs to another directory. */
  async damagedIngests(): Promise<string[]> {
    return (await this.#damagedIngests()).map(shown);
  }

  async #damagedIngests(): Promise<string[]> {
    const damaged: string[] = [];
    await eachLimit(await this.#ingestDirectories(), PARALLEL, async (directory) => {
      // One that has ended has no directory either.
      const ref = await readRef(directory).catch(() => undefined);
      if (ref === null && (await exists(directory))) damaged.push(directory);
    });
    return damaged;
  }

  /** Waits for background deletions. Open writers and readers stay usable. */
  async close(): Promise<void> {
    await this.#trash.close();
    this.#isClosed = true;
    this.#releaseDirectories();
  }

  /** The last writer needs the directory for its commit. */
  #releaseDirectories(): void {
    if (this.#openRefs.size === 0) this.#directory.release();
  }
}
