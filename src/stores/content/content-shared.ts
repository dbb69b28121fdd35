/**
 * Shared blobs: content that a namespace takes over from the backend by knowing its digest. Called by the
 * writer when the owner of a shared writer changes the bytes after all, and when such a writer is committed.
 */
import type { BackendWriter } from '../../backends/contract.js';
import { type EbbtideError, failedPrecondition, notFound } from '../../errors.js';
import type { Instant } from '../../model/time.js';
import { blobGuard, ingestGuard } from '../guards.js';
import type { StoreHost } from '../host.js';
import { type InFlight, WriteScope } from '../write-scope.js';

/** A blob that a writer refers to without having bytes of its own. */
export interface SharedBlob {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly openedAt: Instant;
}

/**
 * Opens a backend writer that has the first `size` bytes of the blob. What an earlier attempt left under the
 * ref is truncated first. On failure the writer is closed and the caller's shared writer is unchanged.
 */
export async function unshare(
  host: StoreHost,
  inFlight: InFlight,
  blob: SharedBlob,
  backendRef: string,
  size: number,
): Promise<BackendWriter> {
  const scope = new WriteScope(host, {});
  let writer: BackendWriter | undefined;
  try {
    await scope.share(ingestGuard(backendRef));
    await scope.mark(inFlight, backendRef);
    await scope.share(blobGuard(blob.digest));
    writer = await host.content.writer(backendRef, {});
    if ((await writer.status()).offset > 0) await writer.truncate(0);
    if (size > 0) await copyBlob(host, blob, writer, size);
    return writer;
  } catch (error) {
    await writer?.close().catch(() => undefined);
    throw error;
  } finally {
    scope.release();
  }
}

async function copyBlob(
  host: StoreHost,
  { digest }: SharedBlob,
  writer: BackendWriter,
  size: number,
): Promise<void> {
  const reader = await host.content.readerAt(digest);
  try {
    let copied = 0;
    for await (const chunk of reader.stream(0, size)) {
      await writer.write(chunk);
      copied += chunk.length;
    }
    if (copied !== size) {
      throw failedPrecondition(`content "${digest}" has ${copied} of ${size} bytes`, { object: digest });
    }
  } finally {
    await reader.close();
  }
}

/**
 * FailedPrecondition unless the committer's size and digest match the shared blob (0 and '' match anything).
 */
export function checkExpectations(blob: SharedBlob, ref: string, size: number, expected: string): void {
  if (size !== 0 && size !== blob.size) {
    throw failedPrecondition(`ingest "${ref}" refers to ${blob.size} bytes, expected ${size}`, {
      object: ref,
    });
  }
  if (expected !== '' && expected !== blob.digest) {
    throw failedPrecondition(`ingest "${ref}" refers to ${blob.digest}, expected ${expected}`, {
      object: ref,
    });
  }
}

/** The error of a commit whose shared blob was removed while the writer was open. */
export const sharedBlobGone = (blob: SharedBlob, ref: string): EbbtideError =>
  notFound(`content "${blob.digest}" of ingest "${ref}" was collected`, {
    object: blob.digest,
    remedy: 'open the ref again and write the bytes',
  });
