/**
 * Opens a content writer: decides between "exists already", "share it from other namespaces" and "send the
 * bytes", opens the backend if bytes are to come, and records the ingest. Called by the content store.
 *
 * Order: guards, backend, then one short transaction that checks the decision again.
 */
import type { BackendWriter, WriterDescriptor } from '../../backends/contract.js';
import { type CallContext, requireNamespace } from '../../context.js';
import type { Reader, Transaction } from '../../engine/contract.js';
import { blobKey, ingestKey, key, leaf } from '../../engine/schema/keys.js';
import { alreadyExists, type EbbtideError, invalidArgument } from '../../errors.js';
import { validateDigest } from '../../model/digest.js';
import { Label, labelOf } from '../../model/labels.js';
import type { NamespaceRecord } from '../../model/records.js';
import { now } from '../../model/time.js';
import { namedIn } from '../caller-names.js';
import { checkNamespaceName, scanRecords } from '../common.js';
import { blobGuard, ingestGuard } from '../guards.js';
import type { StoreHost } from '../host.js';
import { addToLease, requireContextLease } from '../lease-context.js';
import { beginWrite, type InFlight, WriteScope } from '../write-scope.js';
import { backendSize, hasBlob, isWhole } from './content-bytes.js';
import { abortUnrecorded, backendRefOf, recordIngest } from './content-ingests.js';
import { type ContentWriter, NamespacedWriter } from './content-writer.js';

/** One call of `ContentStore.writer`. */
interface Opening {
  readonly host: StoreHost;
  readonly inFlight: InFlight;
  readonly ctx: CallContext;
  readonly ns: string;
  readonly ref: string;
  /** '' when unknown. */
  readonly digest: string;
  /** In bytes; 0 when unknown. */
  readonly size: number;
  readonly mediaType: string | undefined;
  readonly scope: WriteScope;
  readonly reader: Reader;
  /** The namespace has a record of the blob without its bytes, which have to be sent again. */
  readonly lost: boolean;
}

export async function openContentWriter(
  host: StoreHost,
  inFlight: InFlight,
  ctx: CallContext,
  ref: string,
  descriptor: WriterDescriptor,
): Promise<ContentWriter> {
  const { digest = '', size = 0, mediaType } = descriptor;
  if (!Number.isSafeInteger(size) || size < 0) {
    throw invalidArgument(`size ${size} of ingest "${ref}" is not a count of bytes`, { object: ref });
  }
  if (ref === '') throw invalidArgument('ingest ref must not be empty');
  const ns = requireNamespace(ctx);
  checkNamespaceName(ns);
  if (digest !== '') validateDigest(digest);
  beginWrite(host, ctx);
  const scope = new WriteScope(host, ctx);
  try {
    const reader = await host.read(ctx, (current) => current);
    const recorded = digest !== '' && reader.has(blobKey(ns, digest));
    const lost = recorded && !(await hasBlob(host, reader, ns, digest));
    return await open({ host, inFlight, ctx, ns, ref, digest, size, mediaType, scope, reader, lost });
  } finally {
    scope.release();
  }
}

async function open(opening: Opening): Promise<ContentWriter> {
  const { host, ctx, ns, digest, reader } = opening;
  if (digest !== '' && !opening.lost && reader.has(blobKey(ns, digest))) {
    const there = await host.update(ctx, (tx) => leaseExisting(tx, opening));
    if (there) throw blobExists(digest);
  }
  requireContextLease(reader, ctx, ns);
  const shared = await sharedSize(opening);
  return shared === undefined ? openNormal(opening) : openShared(opening, shared);
}

const blobExists = (digest: string): EbbtideError =>
  alreadyExists(`content "${digest}" already exists`, { object: digest });

/** Whether the namespace already has the blob; adds it to the context's lease then. */
function leaseExisting(tx: Transaction, { ctx, ns, digest, lost }: Opening): boolean {
  if (digest === '' || lost || !tx.has(blobKey(ns, digest))) return false;
  addToLease(tx, ctx, ns, blobKey(ns, digest));
  return true;
}

/**
 * The size of the blob if the namespace may share it without sending its bytes: the policy or a namespace's
 * label allows it, the backend has all of it, and the caller's size does not differ (a difference is reported
 * at commit). From here on the blob is guarded.
 */
async function sharedSize({ host, reader, digest, size, scope, lost }: Opening): Promise<number | undefined> {
  if (digest === '' || lost) return undefined;
  if (host.policy !== 'shared' && !isShareable(reader, digest)) return undefined;
  await scope.share(blobGuard(digest));
  const found = await backendSize(host, digest);
  if (found === undefined || (size !== 0 && size !== found)) return undefined;
  return (await isWhole(host, reader, digest, found)) ? found : undefined;
}

/** Whether a namespace that shares its content has the blob. */
function isShareable(reader: Reader, digest: string): boolean {
  for (const [k, record] of scanRecords<NamespaceRecord>(reader, key('namespaces'))) {
    if (labelOf(record.labels, Label.namespaceShareable) !== 'true') continue;
    if (reader.has(blobKey(leaf(k), digest))) return true;
  }
  return false;
}

async function openShared(opening: Opening, size: number): Promise<ContentWriter> {
  const { host, ctx, ns, ref, digest, reader } = opening;
  const backendRef = backendRefOf(reader, ns, ref);
  const there = await host.update(ctx, (tx) => {
    if (leaseExisting(tx, opening)) return true;
    recordIngest(tx, ctx, ns, ref, backendRef, digest);
    return false;
  });
  if (there) throw blobExists(digest);
  return new NamespacedWriter(target(opening, backendRef), { digest, size, openedAt: now() });
}

async function openNormal(opening: Opening): Promise<ContentWriter> {
  const { host, inFlight, ctx, ns, ref, digest, scope, reader } = opening;
  const backendRef = backendRefOf(reader, ns, ref);
  await scope.share(ingestGuard(backendRef));
  await scope.mark(inFlight, backendRef);
  const backend = await openBackend(opening, backendRef);
  try {
    if (abortedInThisTransaction(opening)) await backend.truncate(0);
    const there = await host.update(ctx, (tx) => {
      if (leaseExisting(tx, opening)) return true;
      recordIngest(tx, ctx, ns, ref, backendRef, undefined);
      return false;
    });
    if (there) throw blobExists(digest);
  } catch (error) {
    await giveUp(opening, backend, backendRef);
    throw error;
  }
  return new NamespacedWriter(target(opening, backendRef), backend);
}

const target = ({ host, inFlight, ctx, ns, ref, mediaType }: Opening, backendRef: string) => ({
  host,
  inFlight,
  ctx,
  namespace: ns,
  ref,
  backendRef,
  mediaType,
});

/**
 * An abort removes the bytes when its transaction commits, so a ref that is opened after it in the same
 * transaction starts empty.
 */
function abortedInThisTransaction({ host, ctx, ns, ref }: Opening): boolean {
  if (ctx.tx === undefined) return false;
  const k = ingestKey(ns, ref);
  return !ctx.tx.has(k) && host.engine.has(k);
}

/** Closes a writer whose record could not be written, and removes what it may have left in the backend. */
async function giveUp(opening: Opening, backend: BackendWriter, backendRef: string): Promise<void> {
  const { host, ctx, ns, ref, scope } = opening;
  await backend.close().catch(() => undefined);
  scope.release();
  if (ctx.tx !== undefined) return;
  await abortUnrecorded(host, ns, ref, backendRef).catch((error: unknown) => {
    host.log('warn', 'aborting an ingest that could not be recorded failed', { ref, error: String(error) });
  });
}

/** Backend writers opened for one ref by the attempts of a context transaction. */
interface OpenedWriters {
  attempt: number;
  writers: BackendWriter[];
}

/**
 * The digest is not passed to the backend, which would throw AlreadyExists for a blob that this namespace
 * does not have. When a context transaction runs again it finds the ref locked by its own earlier run: that
 * writer is closed first. If the transaction fails for good its writers are closed.
 */
async function openBackend(opening: Opening, backendRef: string): Promise<BackendWriter> {
  const { host, ctx, ns, size, mediaType } = opening;
  const descriptor = { ...(size > 0 && { size }), ...(mediaType !== undefined && { mediaType }) };
  const open = (): Promise<BackendWriter> => namedIn(ns, host.content).writer(backendRef, descriptor);
  if (ctx.tx === undefined) return open();
  const opened = await ctx.tx.once(
    `content writers ${backendRef}`,
    async (): Promise<OpenedWriters> => ({ attempt: 0, writers: [] }),
    closeAll,
  );
  if (opened.attempt !== ctx.tx.attempt) await closeAll(opened);
  opened.attempt = ctx.tx.attempt;
  const writer = await open();
  opened.writers.push(writer);
  return writer;
}

async function closeAll(opened: OpenedWriters): Promise<void> {
  for (const writer of opened.writers.splice(0)) await writer.close();
}
