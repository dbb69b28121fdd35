/**
 * One open ingest: bytes are appended to its file and hashed at the same time; a commit makes it a blob.
 * Created by the content directory, used by one owner; overlapping calls run one after another.
 *
 * Memory: nothing is buffered, a write resolves when the system has the bytes. Durability: `sync`, `close`
 * and `commit` resolve when they are on disk. The ref stays locked until close or commit, whatever their
 * outcome.
 */
import { fstatSync } from 'node:fs';
import { type FileHandle, rename } from 'node:fs/promises';
import { alreadyExists, EbbtideError, failedPrecondition, invalidArgument, notFound } from '../../errors.js';
import { shown } from '../../held-paths.js';
import { type Algorithm, type Digester, parseDigest } from '../../model/digest.js';
import { type Instant, nowAfter } from '../../model/time.js';
import { Serial } from '../../system/serial.js';
import { syncDirectory } from '../../system/sync-directory.js';
import { fsError, isAbsent, messageOf } from '../../system/system-errors.js';
import type { BackendWriter, BlobFile, IngestStatus } from '../contract.js';
import { type FileStep, FileSteps, runSteps, type StepFailure } from '../file-steps.js';
import { orAbsent } from '../files.js';
import type { BackendLog } from '../log.js';
import type { ObjectLocks } from '../object-locks.js';
import { lookAtBlob, setAside } from './blob-file.js';
import { CHUNK_BYTES, hashFile } from './hash-file.js';
import { dataPath, writeTimestamp } from './ingest.js';
import { BLOB_MODE, blobsName, type ContentLayout } from './layout.js';
import type { Trash } from './trash.js';

/** What writers need of the content directory. */
export interface WriterHome {
  layout: ContentLayout;
  /** Lock, by digest, the check for a blob together with its creation. */
  digests: ObjectLocks;
  trash: Trash;
  log: BackendLog;
}

export interface OpenIngest {
  ref: string;
  directory: string;
  handle: FileHandle;
  digester: Digester;
  offset: number;
  total: number;
  startedAt: Instant;
  updatedAt: Instant;
  /** Unlocks the ref; only the first call counts. */
  release: () => void;
}

export class FileWriter implements BackendWriter {
  readonly ref: string;
  readonly #home: WriterHome;
  readonly #ingest: OpenIngest;
  readonly #serial = new Serial();
  #closed = false;
  #unsynced = true;
  #committed: string | undefined;

  constructor(home: WriterHome, ingest: OpenIngest) {
    this.ref = ingest.ref;
    this.#home = home;
    this.#ingest = ingest;
  }

  async status(): Promise<IngestStatus> {
    const { ref, offset, total, startedAt, updatedAt } = this.#ingest;
    return { ref, offset, total, startedAt, updatedAt };
  }

  digest(): string {
    return this.#committed ?? this.#ingest.digester.digest();
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#serial.run(async () => {
      this.#assertOpen();
      for (let at = 0; at < bytes.length; at += CHUNK_BYTES)
        await this.#append(bytes.subarray(at, at + CHUNK_BYTES));
      return bytes.length;
    });
  }

  /** Hashes while the system writes the bytes. */
  async #append(piece: Uint8Array): Promise<void> {
    const ingest = this.#ingest;
    const writing = writeAll(ingest.handle, piece, ingest.offset);
    ingest.digester.update(piece);
    this.#unsynced = true;
    try {
      await writing;
    } catch (error) {
      await this.#undoWrite();
      throw fsError('write', dataPath(ingest.directory), error);
    }
    ingest.offset += piece.length;
    ingest.updatedAt = nowAfter(ingest.updatedAt);
  }

  /** After a failed write: restores file and digest. */
  async #undoWrite(): Promise<void> {
    const ingest = this.#ingest;
    try {
      await ingest.handle.truncate(ingest.offset);
      ingest.digester = (await hashFile(ingest.handle, ingest.digester.algorithm, ingest.offset)).digester;
    } catch (error) {
      this.#home.log('error', `cannot continue ingest "${this.ref}"`, { error: messageOf(error) });
      await this.#end();
    }
  }

  truncate(size: number): Promise<void> {
    return this.#serial.run(async () => {
      this.#assertOpen();
      if (size !== 0) {
        throw invalidArgument(`cannot truncate ingest "${this.ref}" to ${size} bytes, only to 0`, {
          object: this.ref,
        });
      }
      const ingest = this.#ingest;
      await this.#onFile('truncate', () => ingest.handle.truncate(0));
      ingest.digester = (await hashFile(ingest.handle, ingest.digester.algorithm, 0)).digester;
      ingest.offset = 0;
      ingest.updatedAt = nowAfter(ingest.updatedAt);
      this.#unsynced = true;
    });
  }

  sync(): Promise<void> {
    return this.#serial.run(() => {
      this.#assertOpen();
      return this.#sync();
    });
  }

  async #sync(): Promise<void> {
    if (!this.#unsynced) return;
    try {
      await this.#ingest.handle.sync();
    } catch (error) {
      await this.#syncFailed(error);
    }
    this.#unsynced = false;
  }

  async #syncFailed(error: unknown): Promise<never> {
    await this.#dropUnsynced();
    throw fsError('sync', dataPath(this.#ingest.directory), error);
  }

  /**
   * Bytes of a failed flush may never reach the disk, although they can be read and the next flush succeeds.
   * So they are dropped: the next writer of the ref writes them again.
   */
  async #dropUnsynced(): Promise<void> {
    const ingest = this.#ingest;
    try {
      await ingest.handle.truncate(0);
      ingest.digester = (await hashFile(ingest.handle, ingest.digester.algorithm, 0)).digester;
      ingest.offset = 0;
      ingest.updatedAt = nowAfter(ingest.updatedAt);
    } catch {
      await this.#home.trash.discard(ingest.directory).catch((error: unknown) =>
        this.#home.log('error', `ingest "${this.ref}" has bytes that may be lost: abort it`, {
          error: messageOf(error),
        }),
      );
      await this.#end();
    }
  }

  async #onFile<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw fsError(what, dataPath(this.#ingest.directory), error);
    }
  }

  close(): Promise<void> {
    return this.#serial.run(async () => {
      if (this.#closed) return;
      const { directory, updatedAt } = this.#ingest;
      try {
        await this.#sync();
        await writeTimestamp(directory, 'updatedat', updatedAt);
      } catch (error) {
        // An aborted ingest has no directory any more.
        if (!isAbsent(error))
          throw error instanceof EbbtideError ? error : fsError('close', directory, error);
      } finally {
        await this.#end();
      }
    });
  }

  /** The writer is unusable afterwards, and its ref is unlocked. */
  async #end(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.#ingest.handle.close();
    } finally {
      this.#ingest.release();
    }
  }

  commit(size: number, expected: string): Promise<void> {
    return this.#serial.run(async () => {
      if (this.#closed) {
        throw failedPrecondition(`cannot commit ingest "${this.ref}": its writer is closed`, {
          object: this.ref,
        });
      }
      try {
        const digest = await this.#verify(size, expected);
        await this.#home.digests.with(digest, 'exclusive', () => this.#publish(digest));
        this.#committed = digest;
      } finally {
        await this.#end();
      }
    });
  }

  /** The digest of what was written; FailedPrecondition unless size and digest match. */
  async #verify(size: number, expected: string): Promise<string> {
    const { handle, digester, offset } = this.#ingest;
    const wanted = expected === '' ? digester.algorithm : parseDigest(expected).algorithm;
    // Of an open file: no disk is asked, but a file system of the network may be.
    const { size: stored } = await this.#onFile('look at', async () => fstatSync(handle.fd));
    if ((size > 0 && size !== stored) || stored !== offset) {
      throw failedPrecondition(`unexpected commit size ${stored}, expected ${size > 0 ? size : offset}`, {
        object: this.ref,
        remedy: 'reopen the ref and write the missing bytes, or truncate it',
      });
    }
    const actual = await this.#digestBy(wanted);
    if (expected !== '' && expected !== actual) {
      throw failedPrecondition(`unexpected commit digest ${actual}, expected ${expected}`, {
        object: this.ref,
        remedy: 'reopen the ref, truncate it and write the right bytes',
      });
    }
    return actual;
  }

  async #digestBy(algorithm: Algorithm): Promise<string> {
    const { handle, digester } = this.#ingest;
    if (digester.algorithm === algorithm) return digester.digest();
    const { digester: other } = await this.#onFile('read', () => hashFile(handle, algorithm));
    return other.digest();
  }

  /** Flushes the bytes, and gives them the blob's name. */
  async #publish(digest: string): Promise<void> {
    const { layout, trash } = this.#home;
    const { directory, handle } = this.#ingest;
    const [data, target] = [dataPath(directory), layout.blob(digest)];
    const sync = FileSteps.syncFile(data, handle);
    const name = FileSteps.syncDirectory(layout.blobs(parseDigest(digest).algorithm));
    const discard = trash.discarding(directory);
    const failures = await runSteps([
      ...(this.#unsynced ? [sync] : []),
      FileSteps.absent(target),
      FileSteps.rename(data, target),
      ...this.#attributes(target),
      name,
      FileSteps.optional(discard.step),
    ]);
    const failed = failures.find(({ step }) => !step.isOptional);
    if (failed?.step === sync) await this.#syncFailed(failed.error);
    this.#unsynced = false;
    if (failed?.step === name) throw this.#notDurable(target, failed.error);
    if (failed !== undefined) await this.#publishOver(digest);
    else if (failures.some(({ step }) => step.path === directory)) await this.#finish(target);
    else discard.made();
    this.#logFailures(target, failures);
  }

  /** Where something has the blob's name, or a directory is missing. */
  async #publishOver(digest: string): Promise<void> {
    const { layout } = this.#home;
    const { directory, offset } = this.#ingest;
    const target = layout.blob(digest);
    const there = await lookAtBlob(target);
    if (there.kind === 'file' && there.size === offset) {
      // The writer that renamed it may not have flushed the name yet, and the caller is about to rely on it.
      await this.#syncName(digest);
      await this.#home.trash.discard(directory);
      throw alreadyExists(`content ${digest} already exists`, { object: digest });
    }
    if (there.kind !== 'absent') await this.#replaceDamaged(digest, there);
    await this.#moveTo(digest);
    await this.#syncName(digest);
    this.#logFailures(target, await runSteps(this.#attributes(target)));
    await this.#finish(target);
  }

  /** The rename itself replaces a file of the wrong size, so that readers find a file at every moment. */
  async #replaceDamaged(digest: string, { path, kind, size }: BlobFile): Promise<void> {
    const { layout, log } = this.#home;
    log('warn', `content ${digest} was damaged and is replaced`, { path: shown(path), kind, size });
    if (kind === 'other') await setAside(layout, digest);
  }

  /** A blob whose name may not be durable must not be acknowledged; committing the ref again is safe. */
  async #syncName(digest: string): Promise<void> {
    const { layout } = this.#home;
    try {
      await syncDirectory(layout.blobs(parseDigest(digest).algorithm));
    } catch (error) {
      throw this.#notDurable(layout.blob(digest), error);
    }
  }

  #notDurable(target: string, error: unknown): Error {
    return fsError('make the name durable of', target, error);
  }

  /** Time and mode of a blob. They may fail, because the bytes are right. */
  #attributes(target: string): FileStep[] {
    const { handle } = this.#ingest;
    const time = BigInt(Date.now()) * 1_000_000n;
    return [FileSteps.times(target, handle, time), FileSteps.mode(target, handle, BLOB_MODE)].map(
      FileSteps.optional,
    );
  }

  /** ENOENT means that `blobs` is missing, or that the ingest was aborted. */
  async #moveTo(digest: string): Promise<void> {
    const { layout } = this.#home;
    const data = dataPath(this.#ingest.directory);
    try {
      if ((await orAbsent(rename(data, layout.blob(digest)))) !== null) return;
      await layout.make(blobsName(parseDigest(digest).algorithm));
      await rename(data, layout.blob(digest));
    } catch (error) {
      if (!isAbsent(error)) throw fsError('commit to', layout.blob(digest), error);
      throw notFound(`ingest "${this.ref}" was aborted`, { object: this.ref, cause: error });
    }
  }

  /** The blob exists: a failure is only logged. */
  async #finish(target: string): Promise<void> {
    // Before the ref is unlocked: its next owner would find a directory without data.
    await this.#home.trash
      .discard(this.#ingest.directory)
      .catch((error: unknown) => this.#logged(target, error));
  }

  #logFailures(target: string, failures: readonly StepFailure[]): void {
    for (const { step, error } of failures) {
      if (step.path === target && step.isOptional) this.#logged(target, error);
    }
  }

  #logged(target: string, error: unknown): void {
    this.#home.log('error', `while committing ${target}`, { error: messageOf(error) });
  }

  #assertOpen(): void {
    if (!this.#closed) return;
    throw failedPrecondition(`the writer of ingest "${this.ref}" is closed`, {
      object: this.ref,
      remedy: 'open the ref again',
    });
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
