/**
 * One open ingest: bytes are appended to its file and hashed on the way; commit makes it a blob. Made by the content
 * directory, used by one owner; calls that overlap run one after another.
 *
 * Memory: nothing is buffered, a write resolves when the system has the bytes. Durability: `sync`, `close` and
 * `commit` resolve when they are on disk. The ref stays locked until close or commit, whatever their outcome.
 */
import { alreadyExists, EbbtideError, failedPrecondition, invalidArgument, notFound } from '../../errors.js';
import { type Algorithm, type Digester, parseDigest } from '../../model/digest.js';
import { type Instant, now } from '../../model/time.js';
import type { BackendWriter, IngestStatus } from '../contract.js';
import { makeDurableDirectory, syncDirectory } from '../files.js';
import { errnoOf, fsError, isAbsent, messageOf } from '../fs-errors.js';
import type { BackendLog } from '../log.js';
import type { ObjectLocks } from '../object-locks.js';
import { optional, runSteps, type Step, step, stepError } from '../steps.js';
import type { DataFile } from './data-file.js';
import { hashFile, PIECE_BYTES } from './hash-file.js';
import { dataPath, removalSteps, removeIngest, writeTimestamp } from './ingest.js';
import type { ContentLayout } from './layout.js';

/** What the content directory hands its writers. */
export interface WriterHome {
  layout: ContentLayout;
  /** Guard "is there such a blob" and its making, by digest. */
  digests: ObjectLocks;
  log: BackendLog;
}

export interface OpenIngest {
  ref: string;
  directory: string;
  file: DataFile;
  digester: Digester;
  offset: number;
  total: number;
  startedAt: Instant;
  updatedAt: Instant;
  /** Gives the ref free; only the first call counts. */
  release: () => void;
}

export class FileWriter implements BackendWriter {
  readonly ref: string;
  readonly #home: WriterHome;
  readonly #ingest: OpenIngest;
  #tail: Promise<unknown> = Promise.resolve();
  #closed = false;
  /** Bytes of the file when it was last flushed; undefined when something came after that. */
  #synced: number | undefined;
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
    return this.#inTurn(async () => {
      this.#assertOpen();
      for (let at = 0; at < bytes.length; at += PIECE_BYTES)
        await this.#append(bytes.subarray(at, at + PIECE_BYTES));
      return bytes.length;
    });
  }

  /** Hashes while the system takes the bytes. */
  async #append(piece: Uint8Array): Promise<void> {
    const ingest = this.#ingest;
    const writing = ingest.file.write(piece, ingest.offset);
    ingest.digester.update(piece);
    this.#synced = undefined;
    try {
      await writing;
    } catch (error) {
      await this.#takeBack();
      throw fsError('write', dataPath(ingest.directory), error);
    }
    ingest.offset += piece.length;
    ingest.updatedAt = now();
  }

  /** After a failed write: the file and the digest as they were before it. */
  async #takeBack(): Promise<void> {
    const ingest = this.#ingest;
    try {
      await ingest.file.truncate(ingest.offset);
      ingest.digester = (await hashFile(ingest.file, ingest.digester.algorithm, ingest.offset)).digester;
    } catch (error) {
      this.#home.log('error', `cannot go on with ingest "${this.ref}"`, { error: messageOf(error) });
      await this.#end();
    }
  }

  truncate(size: number): Promise<void> {
    return this.#inTurn(async () => {
      this.#assertOpen();
      if (size !== 0) {
        throw invalidArgument(`cannot truncate ingest "${this.ref}" to ${size} bytes, only to 0`, {
          object: this.ref,
        });
      }
      const ingest = this.#ingest;
      await this.#onFile('truncate', () => ingest.file.truncate(0));
      ingest.digester = (await hashFile(ingest.file, ingest.digester.algorithm, 0)).digester;
      ingest.offset = 0;
      ingest.updatedAt = now();
      this.#synced = undefined;
    });
  }

  sync(): Promise<void> {
    return this.#inTurn(async () => {
      this.#assertOpen();
      await this.#sync();
    });
  }

  /** Answers the bytes of the file. */
  async #sync(): Promise<number> {
    if (this.#synced !== undefined) return this.#synced;
    const stored = await this.#onFile('sync', async () => {
      const { fd } = this.#ingest.file;
      const { results, error } = await runSteps([step.sync(fd), step.size(fd)]);
      if (error !== undefined) throw error;
      return results[1]!;
    });
    this.#synced = stored;
    return stored;
  }

  async #onFile<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw fsError(what, dataPath(this.#ingest.directory), error);
    }
  }

  close(): Promise<void> {
    return this.#inTurn(async () => {
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

  /** The writer is of no use afterwards, and its ref is free. */
  async #end(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.#ingest.file.close();
    } finally {
      this.#ingest.release();
    }
  }

  commit(size: number, expected: string): Promise<void> {
    return this.#inTurn(async () => {
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

  /** The digest of what is on disk now; FailedPrecondition unless size and digest are the expected ones. */
  async #verify(size: number, expected: string): Promise<string> {
    const { digester, offset } = this.#ingest;
    const wanted = expected === '' ? digester.algorithm : parseDigest(expected).algorithm;
    const stored = await this.#sync();
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
    const { file, digester } = this.#ingest;
    if (digester.algorithm === algorithm) return digester.digest();
    const { digester: other } = await this.#onFile('read', () => hashFile(file, algorithm));
    return other.digest();
  }

  /**
   * Gives the flushed bytes their name, makes the name durable, and puts the rest in order. Only then is anybody told. In
   * this order: a name must not last where its bytes may not, and an ingest goes when its data has.
   */
  async #publish(digest: string): Promise<void> {
    const { layout } = this.#home;
    const { directory, file } = this.#ingest;
    const target = layout.blob(digest);
    const blobs = layout.blobs(parseDigest(digest).algorithm);
    const naming = [step.absent(target), step.rename(dataPath(directory), target), step.syncDirectory(blobs)];
    const finishing = [
      ...[optional(step.touch(file.fd)), optional(step.readOnly(file.fd))],
      ...[...removalSteps(directory), optional(file.closing())],
    ];
    const steps = [...naming, ...finishing];
    let { results, error } = await runSteps(steps);
    if (results.length === 2 && isAbsent(error)) {
      // Either nothing of this algorithm was ever stored, or the ingest was aborted.
      await this.#makeBlobs(blobs, target);
      ({ results, error } = await runSteps(steps));
    }
    if (error !== undefined) throw await this.#unpublished(digest, results.length, error);
    file.closed();
    await this.#lookAfter(target, steps, results);
  }

  /** The blob is there: what failed behind that is logged. */
  async #lookAfter(target: string, steps: readonly Step[], results: readonly number[]): Promise<void> {
    for (const [i, result] of results.entries()) {
      if (result >= 0) continue;
      let failure: unknown = stepError(steps[i]!, result);
      if (isAbsent(failure)) continue;
      // Somebody put something into the ingest that is not ours.
      if (errnoOf(failure) === 'ENOTEMPTY') {
        failure = await removeIngest(this.#ingest.directory).catch((error: unknown) => error);
      }
      if (failure === undefined) continue;
      this.#home.log('error', `after committing ${target}`, { error: messageOf(failure) });
    }
  }

  async #makeBlobs(blobs: string, target: string): Promise<void> {
    try {
      await makeDurableDirectory(blobs, 0o755);
    } catch (error) {
      throw fsError('commit to', target, error);
    }
  }

  /** What a commit fails with whose last step was the `steps`-th of naming. */
  async #unpublished(digest: string, steps: number, error: NodeJS.ErrnoException): Promise<Error> {
    const { layout } = this.#home;
    const { directory } = this.#ingest;
    const target = layout.blob(digest);
    if (steps === 1) {
      if (errnoOf(error) !== 'EEXIST') return fsError('look at', target, error);
      // Whoever renamed it may not have got to the flush yet, and the caller is about to rely on the name.
      await this.#syncName(target, layout.blobs(parseDigest(digest).algorithm));
      await removeIngest(directory);
      return alreadyExists(`content ${digest} already exists`, { object: digest });
    }
    if (steps === 2 && isAbsent(error)) {
      return notFound(`ingest "${this.ref}" was aborted`, { object: this.ref, cause: error });
    }
    if (steps === 2) return fsError('commit to', target, error);
    return unnamed(target, error);
  }

  async #syncName(target: string, blobs: string): Promise<void> {
    try {
      await syncDirectory(blobs);
    } catch (error) {
      throw unnamed(target, error);
    }
  }

  #assertOpen(): void {
    if (!this.#closed) return;
    throw failedPrecondition(`the writer of ingest "${this.ref}" is closed`, {
      object: this.ref,
      remedy: 'open the ref again',
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#tail.then(work);
    this.#tail = run.catch(() => undefined);
    return run;
  }
}

/** A blob whose name may not last must not be acknowledged; committing the ref again is safe. */
const unnamed = (target: string, error: unknown): EbbtideError =>
  fsError('make the name durable of', target, error);
