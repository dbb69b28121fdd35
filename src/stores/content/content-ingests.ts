/**
 * Ingest records: the namespaced side of unfinished uploads. Called by the content store and its writers.
 *
 * Guard rule: a caller that opens a backend ingest shares its guard until the record naming it is visible; a caller that
 * removes one scope the guard exclusively and looks for the record again under it.
 */
import type { CallContext } from '../../context.js';
import type { Reader, Transaction } from '../../engine/contract.js';
import { ingestKey } from '../../engine/schema/keys.js';
import { isNotFound, unavailable, wrap } from '../../errors.js';
import type { IngestRecord } from '../../model/records.js';
import { NANOS_PER_SECOND, now } from '../../model/time.js';
import { namedIn } from '../caller-names.js';
import { ensureNamespace, putRecord, readRecord } from '../common.js';
import { ingestGuard } from '../guards.js';
import type { StoreHost } from '../host.js';
import { addToLease } from '../lease-context.js';

/** Lifetime of an ingest without a lease. */
const INGEST_LIFETIME = 24n * 3600n * NANOS_PER_SECOND;

/**
 * The backend's ref of an ingest. It is the same each time a ref is opened again (the number is the record's
 * own counter, which restarts with the record), so bytes that are not swept yet are reused.
 */
export function backendRefOf(reader: Reader, ns: string, ref: string): string {
  const record = readRecord<IngestRecord>(reader, ingestKey(ns, ref));
  return record?.ref || `${ns}/1/${ref}`;
}

/**
 * Creates or renews the record of an ingest that is being opened; the context's lease keeps it, else it
 * expires after a day. `expected` is the digest of a shared blob, which the record then keeps in the backend.
 */
export function recordIngest(
  tx: Transaction,
  ctx: CallContext,
  ns: string,
  ref: string,
  backendRef: string,
  expected: string | undefined,
): void {
  const k = ingestKey(ns, ref);
  const stored = readRecord<IngestRecord>(tx, k);
  if (stored !== undefined && stored.ref !== '' && stored.ref !== backendRef) {
    throw unavailable(`ingest "${ref}" changed while it was opened`, {
      object: ref,
      remedy: 'open it again',
    });
  }
  ensureNamespace(tx, ns);
  addToLease(tx, ctx, ns, k);
  const record: IngestRecord = { ...stored, ref: backendRef };
  if (ctx.lease === undefined || ctx.lease === '') record.expireat = now() + INGEST_LIFETIME;
  if (expected !== undefined) record.expected = expected;
  putRecord(tx, k, record);
}

/**
 * Deletes the record of an ingest. A blob that it expected may now be without a record in any namespace,
 * unless it is the one `committed` in the same transaction.
 */
export function deleteIngest(
  host: StoreHost,
  tx: Transaction,
  ns: string,
  ref: string,
  committed?: string,
): void {
  const k = ingestKey(ns, ref);
  const expected = readRecord<IngestRecord>(tx, k)?.expected;
  tx.delete(k);
  if (expected !== undefined && expected !== committed)
    host.markContentDirty(tx, { kind: 'blob', digest: expected });
}

/** Removes the backend's bytes unless the ref was opened again; a failure leaves them to the next sweep. */
export async function abortUnrecorded(
  host: StoreHost,
  ns: string,
  ref: string,
  backendRef: string,
): Promise<void> {
  try {
    await host.guards.with(ingestGuard(backendRef), async () => {
      const record = readRecord<IngestRecord>(host.engine, ingestKey(ns, ref));
      if (record?.ref === backendRef) return;
      // The removal of the record must be durable before the bytes are removed.
      await host.engine.flush();
      await namedIn(ns, host.content).abort(backendRef);
    });
  } catch (error) {
    if (isNotFound(error)) return;
    await host
      .update({}, (tx) => host.markContentDirty(tx, { kind: 'ingest', ref: backendRef }))
      .catch(() => undefined);
    throw wrap(`cannot abort ingest "${ref}"`, error, {
      object: ref,
      remedy: 'the next collection tries again',
    });
  }
}
