/**
 * Content: a namespace's view of the blobs and unfinished uploads (ingests) of the content backend. Called by
 * db.ts, the servers and image import. A namespace sees what it has records of; deleting a record leaves the
 * bytes to a collection.
 *
 * Durability of writes is the DB's. Reads of records are synchronous underneath; no call scope a lock that a
 * call for other content waits for.
 */
import type {
  BlobReader,
  ContentBackend,
  ContentInfo,
  IngestStatus,
  WriterDescriptor,
} from '../../backends/contract.js';
import { wrongSize } from '../../backends/damaged.js';
import { type CallContext, requireNamespace } from '../../context.js';
import type { Reader } from '../../engine/contract.js';
import { blobKey, ingestKey, key, leaf } from '../../engine/schema/keys.js';
import { type EbbtideError, isKind, isNotFound, notFound, throwIfAborted } from '../../errors.js';
import { isDigest, validateDigest } from '../../model/digest.js';
import { maskedLabels } from '../../model/fieldpaths.js';
import { type Adaptor, adaptLabels, type Filter, parseFilters } from '../../model/filters.js';
import { compactMap, copyMap, validateLabels } from '../../model/labels.js';
import type { BlobRecord, IngestRecord, StringMap } from '../../model/records.js';
import { messageOf } from '../../system/system-errors.js';
import { namedIn } from '../caller-names.js';
import { putRecord, readRecord, scanRecords, updateTime } from '../common.js';
import type { StoreHost } from '../host.js';
import { removeFromLease } from '../lease-context.js';
import { Pace } from '../listing.js';
import { InFlight } from '../write-scope.js';
import { hasBlob } from './content-bytes.js';
import { abortUnrecorded, deleteIngest } from './content-ingests.js';
import { openContentWriter } from './content-open.js';
import type { ContentWriter } from './content-writer.js';

/** Input of update: everything but the digest and the labels is ignored. */
export interface ContentInput {
  /** Which blob. */
  digest: string;
  /** Labels by key. */
  labels?: StringMap | undefined;
}

/** Records that a walk reads at once; it yields between batches. */
const WALK_BATCH = 2000;

/** The blobs and ingests of the namespaces. */
export class ContentStore {
  readonly #host: StoreHost;
  readonly #inFlight = new InFlight();

  constructor(host: StoreHost) {
    this.#host = host;
  }

  /** The namespace's record of a blob; NotFound without a record, even if the bytes exist. */
  async info(ctx: CallContext, digest: string): Promise<ContentInfo> {
    const ns = requireNamespace(ctx);
    if (digest === '') validateDigest(digest);
    return this.#host.read(ctx, (reader) => {
      const record = readRecord<BlobRecord>(reader, blobKey(ns, digest));
      if (record !== undefined) return infoOf(digest, record);
      // Only well-formed digests are ever stored.
      validateDigest(digest);
      throw contentNotFound(digest);
    });
  }

  /**
   * Whether the namespace has a blob with its bytes: a record, and a file of the record's size. If not, the
   * blob can be written again under its digest.
   */
  async has(ctx: CallContext, digest: string): Promise<boolean> {
    const ns = requireNamespace(ctx);
    validateDigest(digest);
    return this.#host.read(ctx, (reader) => hasBlob(this.#host, reader, ns, digest));
  }

  /**
   * Opens a blob for reading; the caller closes it. NotFound without a record or when the bytes are missing;
   * FailedPrecondition when the file does not have the record's size.
   */
  async readerAt(ctx: CallContext, content: string | { readonly digest: string }): Promise<BlobReader> {
    const ns = requireNamespace(ctx);
    const digest = typeof content === 'string' ? content : content.digest;
    const { size } = await this.#host.read(ctx, (reader) => {
      const record = readRecord<BlobRecord>(reader, blobKey(ns, digest));
      if (record === undefined) throw contentNotFound(digest);
      return record;
    });
    const reader = await this.#host.content.readerAt(digest);
    if (reader.size === size) return reader;
    await reader.close();
    throw wrongSize(digest, reader.size, size);
  }

  /** Replaces the labels, or what the paths `labels` and `labels.<key>` name. NotFound, InvalidArgument. */
  async update(ctx: CallContext, info: ContentInput, ...paths: string[]): Promise<ContentInfo> {
    const ns = requireNamespace(ctx);
    const { digest } = info;
    const k = blobKey(ns, digest);
    const record = await this.#host.update(ctx, (tx) => {
      const stored = readRecord<BlobRecord>(tx, k);
      if (stored === undefined) throw contentNotFound(digest);
      const labels = compactMap(maskedLabels('content', digest, stored.labels, info.labels, paths));
      validateLabels(labels);
      const { createdat, size } = stored;
      const updated: BlobRecord = {
        createdat,
        updatedat: updateTime(stored),
        size,
        ...(labels && { labels }),
      };
      putRecord(tx, k, updated);
      return updated;
    });
    return infoOf(digest, { ...record, labels: copyMap(record.labels) });
  }

  /**
   * Calls `fn` for every blob that matches any of the filters (all without filters), by digest. The blobs are
   * those of one revision; `fn` runs afterwards and may write. Its first error ends the walk and is rethrown.
   */
  async walk(
    ctx: CallContext,
    fn: (info: ContentInfo) => Promise<void> | void,
    ...filters: string[]
  ): Promise<void> {
    const ns = requireNamespace(ctx);
    const matches = parseFilters(filters);
    const infos = await this.#host.view(ctx, (reader) => gather(reader, ns, matches, ctx));
    const pace = new Pace(ctx);
    for (const info of infos) {
      await fn(info);
      if (pace.isOver) await pace.pass();
    }
  }

  /** Removes the namespace's record and its entry in the context's lease. The bytes stay until a collection. */
  async delete(ctx: CallContext, digest: string): Promise<void> {
    const ns = requireNamespace(ctx);
    const k = blobKey(ns, digest);
    await this.#host.update(ctx, (tx) => {
      if (!tx.delete(k)) throw contentNotFound(digest);
      removeFromLease(tx, ctx, ns, k);
      this.#host.countDeletion(tx);
      this.#host.markContentDirty(tx, { kind: 'blob', digest });
    });
    await this.#host.publish(ctx, ns, '/content/delete', { digest });
  }

  /** The progress of an ingest. NotFound without a record, or without bytes of its own (a shared blob). */
  async status(ctx: CallContext, ref: string): Promise<IngestStatus> {
    const ns = requireNamespace(ctx);
    return this.#host.read(ctx, async (reader) => {
      const record = readRecord<IngestRecord>(reader, ingestKey(ns, ref));
      if (record === undefined || record.ref === '') throw ingestNotFound(ref);
      return { ...(await namedIn(ns, this.#host.content).status(record.ref)), ref };
    });
  }

  /** The namespace's ingests that match any of the filters (field `ref`), by ref. */
  async listStatuses(ctx: CallContext, ...filters: string[]): Promise<IngestStatus[]> {
    const ns = requireNamespace(ctx);
    const matches = parseFilters(filters);
    const records = await this.#host.read(ctx, (reader) => [
      ...scanRecords<IngestRecord>(reader, key('ingests', ns)),
    ]);
    const content = namedIn(ns, this.#host.content);
    const pace = new Pace(ctx);
    const statuses: IngestStatus[] = [];
    for (const [k, record] of records) {
      const ref = leaf(k);
      if (pace.isOver) await pace.pass();
      if (record.ref === '' || !matches((path) => (path[0] === 'ref' ? ref : undefined))) continue;
      const status = await this.#statusOrNone(content, record.ref);
      if (status !== undefined) statuses.push({ ...status, ref });
    }
    return statuses;
  }

  /**
   * Undefined for an ingest that has ended, or whose files are damaged: one of those must not hide the
   * others.
   */
  async #statusOrNone(
    content: Pick<ContentBackend, 'status'>,
    backendRef: string,
  ): Promise<IngestStatus | undefined> {
    try {
      return await content.status(backendRef);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      if (!isKind(error, 'Unknown')) throw error;
      this.#host.log('warn', 'cannot read an ingest: left out of the list', {
        ref: backendRef,
        error: messageOf(error),
      });
      return undefined;
    }
  }

  /**
   * Deletes an ingest's record and removes its bytes (after the commit; in a context transaction in the
   * background). NotFound without a record. Does not wait for an open writer of the ref, which can no longer
   * commit.
   */
  async abort(ctx: CallContext, ref: string): Promise<void> {
    const ns = requireNamespace(ctx);
    const k = ingestKey(ns, ref);
    const drop = (backendRef: string): Promise<void> => abortUnrecorded(this.#host, ns, ref, backendRef);
    const backendRef = await this.#host.update(ctx, (tx) => {
      const record = readRecord<IngestRecord>(tx, k);
      if (record === undefined || record.ref === '') throw ingestNotFound(ref);
      deleteIngest(this.#host, tx, ns, ref);
      removeFromLease(tx, ctx, ns, k);
      if (ctx.tx !== undefined) {
        tx.onCommit(() => {
          drop(record.ref).catch((error: unknown) => {
            this.#host.log('warn', 'aborting an ingest failed', { ref, error: String(error) });
          });
        });
      }
      return record.ref;
    });
    if (ctx.tx === undefined) await drop(backendRef);
  }

  /**
   * Opens a writer for a ref; a ref that was closed before is continued. AlreadyExists if the namespace has
   * the given digest (which is then added to the context's lease). If the namespace may share the blob from
   * others, the writer is complete at once. Unavailable: the ref is locked; NotFound: no such lease.
   */
  async writer(ctx: CallContext, ref: string, descriptor: WriterDescriptor = {}): Promise<ContentWriter> {
    return openContentWriter(this.#host, this.#inFlight, ctx, ref, descriptor);
  }

  /** @internal Backend refs that a call is about to record: not orphans, although they have no record yet. */
  inFlightIngests(): ReadonlySet<string> {
    return this.#inFlight.names();
  }
}

const contentNotFound = (digest: string): EbbtideError =>
  notFound(`content "${digest}" not found`, { object: digest });
const ingestNotFound = (ref: string): EbbtideError => notFound(`ingest "${ref}" not found`, { object: ref });

/** The public form; takes over the record's map. */
const infoOf = (digest: string, record: BlobRecord): ContentInfo => ({
  digest,
  size: record.size,
  createdAt: record.createdat,
  updatedAt: record.updatedat,
  labels: record.labels ?? {},
});

/**
 * The blobs of a namespace at the reader's revision. A key that is not a valid digest (old data) is skipped.
 */
async function gather(
  reader: Reader,
  ns: string,
  matches: Filter,
  context: Pick<CallContext, 'signal' | 'yieldTurn'>,
): Promise<ContentInfo[]> {
  const prefix = key('blobs', ns);
  const infos: ContentInfo[] = [];
  const pace = new Pace(context);
  let after: string | undefined;
  for (let read = WALK_BATCH; read === WALK_BATCH; ) {
    read = 0;
    const batch = reader.scan(prefix, { limit: WALK_BATCH, ...(after !== undefined && { after }) });
    for (const [k, value] of batch) {
      read++;
      after = k;
      const digest = leaf(k);
      if (!isDigest(digest)) continue;
      // Blob records are written by this store alone.
      const info = infoOf(digest, value as unknown as BlobRecord);
      if (matches(adapt(info))) infos.push(info);
      if (pace.isOver) await pace.pass();
    }
    throwIfAborted(context.signal);
  }
  return infos;
}

/** Filter fields: digest, labels.*; size is known but never present. */
const adapt =
  (info: ContentInfo): Adaptor =>
  (path) => {
    switch (path[0]) {
      case 'digest':
        return info.digest;
      case 'labels':
        return adaptLabels(info.labels, path, 1);
      default:
        return undefined;
    }
  };
