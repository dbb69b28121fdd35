/**
 * A namespace's writer of one ingest. It either has a backend writer (normal), or refers to a blob that the
 * backend already has (shared) until its bytes are changed. Created by the content store's `writer`.
 *
 * A writer has one owner; overlapping calls run one after another. It must be closed: closing keeps the
 * progress; a commit ends it whatever the outcome.
 */
import type { BackendWriter, IngestStatus } from '../../backends/contract.js';
import type { CallContext } from '../../context.js';
import type { Transaction } from '../../engine/contract.js';
import { blobKey, ingestKey } from '../../engine/schema/keys.js';
import { alreadyExists, failedPrecondition, invalidArgument, isAlreadyExists } from '../../errors.js';
import { isDigest, validateDigest } from '../../model/digest.js';
import { compactMap, validateLabels } from '../../model/labels.js';
import type { BlobRecord, StringMap } from '../../model/records.js';
import { now } from '../../model/time.js';
import { Serial } from '../../system/serial.js';
import { inCallersNames } from '../caller-names.js';
import { ensureNamespace, putRecord, readRecord } from '../common.js';
import { blobGuard } from '../guards.js';
import type { StoreHost } from '../host.js';
import { addToLease, removeFromLease } from '../lease-context.js';
import { beginWrite, type InFlight, WriteScope } from '../write-scope.js';
import { backendSize } from './content-bytes.js';
import { deleteIngest } from './content-ingests.js';
import { checkExpectations, type SharedBlob, sharedBlobGone, unshare } from './content-shared.js';

/** How an ingest becomes a blob. */
export interface CommitOptions {
  /** Labels of the new record; ignored when the namespace already has a record of the blob. */
  labels?: StringMap | undefined;
}

/** An open ingest. */
export interface ContentWriter extends AsyncDisposable {
  /** The name that the ingest was given. */
  readonly ref: string;
  /** Offset and total in bytes. */
  status(): Promise<IngestStatus>;
  /** Digest of what was written so far; of the whole blob while it is shared. */
  digest(): string;
  /** Appends; returns the number of bytes written. */
  write(bytes: Uint8Array): Promise<number>;
  /**
   * Cuts the ingest to its first `size` bytes: 0, or any part of a shared blob. Otherwise InvalidArgument.
   */
  truncate(size: number): Promise<void>;
  /** Waits until what was written is on disk. */
  sync(): Promise<void>;
  /** Unlocks the ref and keeps the progress. Idempotent. */
  close(): Promise<void>;
  /**
   * Commits the bytes as content of the writer's namespace. `size` 0 and `expected` '' mean unknown;
   * otherwise they must match (FailedPrecondition: the ref can be opened again and continued). AlreadyExists:
   * the namespace has the blob. Lease and transaction are those of `ctx`, by default of the context that
   * opened the writer.
   */
  commit(size: number, expected: string, options?: CommitOptions, ctx?: CallContext): Promise<void>;
}

export interface WriterTarget {
  readonly host: StoreHost;
  readonly inFlight: InFlight;
  /** The opener's context. */
  readonly ctx: CallContext;
  readonly namespace: string;
  readonly ref: string;
  readonly backendRef: string;
  readonly mediaType: string | undefined;
}

/** The result of the backend's part of a commit. */
interface BackendCommit {
  digest: string;
  /** Bytes. */
  size: number;
  /** The backend did not have the bytes before, or not all of them. */
  made: boolean;
  /**
   * The shared blob, whether the backend still has it, and whether an earlier opening of the ref left bytes.
   */
  shared?: { blob: SharedBlob; present: boolean; leftover: boolean };
}

let writers = 0;

export class NamespacedWriter implements ContentWriter {
  readonly ref: string;
  readonly #target: WriterTarget;
  /** Identifies the writer in transactions that run again. */
  readonly #id = ++writers;
  #source: BackendWriter | SharedBlob;
  #closed = false;
  #committed = false;
  readonly #serial = new Serial();

  constructor(target: WriterTarget, source: BackendWriter | SharedBlob) {
    this.#target = target;
    this.#source = source;
    this.ref = target.ref;
  }

  status(): Promise<IngestStatus> {
    return this.#serialize(async () => {
      const source = this.#source;
      if (!isShared(source)) return { ...(await source.status()), ref: this.ref };
      const { digest, size, openedAt } = source;
      return {
        ref: this.ref,
        offset: size,
        total: size,
        expected: digest,
        startedAt: openedAt,
        updatedAt: openedAt,
      };
    });
  }

  digest(): string {
    return isShared(this.#source) ? this.#source.digest : this.#source.digest();
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#serialize(async () => {
      this.#requireOpen();
      if (isShared(this.#source) && bytes.length === 0) return 0;
      return (await this.#own(undefined)).write(bytes);
    });
  }

  truncate(size: number): Promise<void> {
    return this.#serialize(async () => {
      this.#requireOpen();
      if (!isShared(this.#source)) return this.#source.truncate(size);
      if (!Number.isSafeInteger(size) || size < 0 || size > this.#source.size) {
        throw invalidArgument(`cannot cut ingest "${this.ref}" of ${this.#source.size} bytes to ${size}`, {
          object: this.ref,
        });
      }
      await this.#own(size);
    });
  }

  sync(): Promise<void> {
    return this.#serialize(async () => {
      this.#requireOpen();
      if (!isShared(this.#source)) await this.#source.sync();
    });
  }

  close(): Promise<void> {
    return this.#serialize(async () => {
      // A shared writer locks no ref, so there is nothing to release and it can still be committed.
      if (isShared(this.#source) || this.#closed) return;
      this.#closed = true;
      await this.#source.close();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  commit(size: number, expected: string, options: CommitOptions = {}, ctx?: CallContext): Promise<void> {
    const call = { ...(ctx ?? this.#target.ctx), namespace: this.#target.namespace };
    return this.#serialize(async () => {
      try {
        await this.#commit(call, size, expected, options);
      } finally {
        await this.#end();
      }
    });
  }

  async #commit(ctx: CallContext, size: number, expected: string, options: CommitOptions): Promise<void> {
    const { host, namespace: ns, mediaType } = this.#target;
    beginWrite(host, ctx);
    const scope = new WriteScope(host, ctx);
    try {
      // The backend decides which of the two names the blob.
      for (const digest of new Set([this.digest(), expected])) {
        if (isDigest(digest)) await scope.share(blobGuard(digest));
      }
      const commit = (): Promise<BackendCommit> => this.#commitInBackend(size, expected, options);
      const committed = await (ctx.tx === undefined
        ? commit()
        : ctx.tx.once(`content commit ${this.#id}`, commit));
      const labels = compactMap(options.labels);
      const existed = await this.#record(ctx, committed, labels);
      if (existed) {
        throw alreadyExists(`content "${committed.digest}" already exists`, { object: committed.digest });
      }
      await host.publish(ctx, ns, '/content/create', {
        digest: committed.digest,
        size: committed.size,
        ...(mediaType !== undefined && { mediaType }),
      });
    } finally {
      scope.release();
    }
  }

  /** The backend's part of a commit: afterwards the bytes are a blob, guarded until the record is visible. */
  async #commitInBackend(size: number, expected: string, options: CommitOptions): Promise<BackendCommit> {
    this.#requireOpen();
    this.#committed = true;
    if (expected !== '') validateDigest(expected);
    const source = this.#source;
    if (!isShared(source)) return this.#commitOwn(source, size, expected, options);
    validateLabels(options.labels);
    checkExpectations(source, this.ref, size, expected);
    const { host, backendRef } = this.#target;
    const [found, leftover] = await Promise.all([
      backendSize(host, source.digest),
      host.content.status(backendRef).then(Boolean, () => false),
    ]);
    const shared = { blob: source, present: found === source.size, leftover };
    return { digest: source.digest, size: source.size, made: false, shared };
  }

  async #commitOwn(
    writer: BackendWriter,
    size: number,
    expected: string,
    options: CommitOptions,
  ): Promise<BackendCommit> {
    await writer.sync();
    validateLabels(options.labels);
    const { offset } = await writer.status();
    if (size !== 0 && size !== offset) {
      throw failedPrecondition(`ingest "${this.ref}" has ${offset} bytes, expected ${size}`, {
        object: this.ref,
        remedy: 'open the ref again and continue at its offset',
      });
    }
    const made = await writer.commit(offset, expected).then(
      () => true,
      (error: unknown) => {
        if (!isAlreadyExists(error)) throw error;
        return false;
      },
    );
    // The backend has verified the bytes, even if it had them before.
    return { digest: expected === '' ? writer.digest() : expected, size: offset, made };
  }

  /** The store's part of a commit; returns whether the namespace already had the blob with its bytes. */
  async #record(ctx: CallContext, committed: BackendCommit, labels: StringMap | undefined): Promise<boolean> {
    const { host } = this.#target;
    try {
      return await host.update(ctx, (tx) => this.#write(tx, ctx, committed, labels));
    } catch (error) {
      if (committed.shared === undefined && ctx.tx === undefined) await this.#leaveToSweep(committed.digest);
      throw error;
    }
  }

  #write(
    tx: Transaction,
    ctx: CallContext,
    committed: BackendCommit,
    labels: StringMap | undefined,
  ): boolean {
    const { namespace: ns, host, backendRef } = this.#target;
    const { digest, size, made, shared } = committed;
    const blob = blobKey(ns, digest);
    const ingest = ingestKey(ns, this.ref);
    const record = readRecord<BlobRecord>(tx, blob);
    if (record !== undefined) {
      // The bytes match the digest, so the record was wrong.
      if (shared === undefined && record.size !== size) putRecord<BlobRecord>(tx, blob, { ...record, size });
    } else {
      if (shared && !(shared.present && tx.has(ingest))) throw sharedBlobGone(shared.blob, this.ref);
      ensureNamespace(tx, ns);
      const at = now();
      putRecord<BlobRecord>(tx, blob, { createdat: at, updatedat: at, size, ...(labels && { labels }) });
    }
    deleteIngest(host, tx, ns, this.ref, digest);
    if (shared?.leftover) host.markContentDirty(tx, { kind: 'ingest', ref: backendRef });
    removeFromLease(tx, ctx, ns, ingest);
    addToLease(tx, ctx, ns, blob);
    return record !== undefined && !made;
  }

  /** The backend has a blob now that this namespace has no record of: a sweep decides what becomes of it. */
  async #leaveToSweep(digest: string): Promise<void> {
    const { host, namespace } = this.#target;
    await host
      .update({ namespace }, (tx) => host.markContentDirty(tx, { kind: 'blob', digest }))
      .catch((error: unknown) => {
        host.log('warn', 'a blob without a record is left in the backend', { digest, error: String(error) });
      });
  }

  /**
   * The backend writer; a shared blob's first `size` bytes (by default all) are copied into a new one first.
   */
  async #own(size: number | undefined): Promise<BackendWriter> {
    const source = this.#source;
    if (!isShared(source)) return source;
    const { host, inFlight, backendRef } = this.#target;
    const writer = await unshare(host, inFlight, source, backendRef, size ?? source.size);
    this.#source = writer;
    return writer;
  }

  async #end(): Promise<void> {
    this.#committed = true;
    if (isShared(this.#source) || this.#closed) return;
    this.#closed = true;
    // The backend may have ended it already: only the owner of the ref can unlock it.
    await this.#source.close().catch(() => undefined);
  }

  #requireOpen(): void {
    if (!this.#closed && !this.#committed) return;
    throw failedPrecondition(`writer of ingest "${this.ref}" is closed`, {
      object: this.ref,
      remedy: 'open the ref again',
    });
  }

  #serialize<T>(fn: () => Promise<T>): Promise<T> {
    return this.#serial.run(fn).catch((error: unknown) => {
      throw inCallersNames(this.#target.namespace, error);
    });
  }
}

const isShared = (source: BackendWriter | SharedBlob): source is SharedBlob => 'openedAt' in source;
