/**
 * Shared blobs: content a namespace takes over from the backend by knowing its digest. Called by the writer when
 * the owner of a shared writer changes the bytes after all, and when such a writer is committed.
 */
import type { BackendWriter } from '../../backends/contract.js';
import { type EbbtideError, failedPrecondition, notFound } from '../../errors.js';
import type { Instant } from '../../model/time.js';
import { blobGuard, ingestGuard } from '../guards.js';
import { Holds, type InFlight } from '../holds.js';
import type { StoreHost } from '../host.js';

/** A blob that a writer stands for without having bytes of its own. */
export interface SharedBlob {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly openedAt: Instant;
}

/**
 * A backend writer that holds the first `size` bytes of the blob. What an earlier attempt left under the ref is
 * cut off first. On failure the writer is closed; the caller's shared writer is as before.
 */
export async function unshare(
  host: StoreHost,
  inFlight: InFlight,
  blob: SharedBlob,
  backendRef: string,
  size: number,
): Promise<BackendWriter> {
  const holds = new Holds(host, {});
  let writer: BackendWriter | undefined;
  try {
    await holds.share(ingestGuard(backendRef));
    await holds.mark(inFlight, backendRef);
    await holds.share(blobGuard(blob.digest));
    writer = await host.content.writer(backendRef, {});
    if ((await writer.status()).offset > 0) await writer.truncate(0);
    if (size > 0) await copyBlob(host, blob, writer, size);
    return writer;
  } catch (error) {
    await writer?.close().catch(() => undefined);
    throw error;
  } finally {
    holds.release();
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

/** FailedPrecondition unless what the committer expects is the shared blob (0 and '' expect nothing). */
export function checkExpectations(blob: SharedBlob, ref: string, size: number, expected: string): void {
  if (size !== 0 && size !== blob.size) {
    throw failedPrecondition(`ingest "${ref}" stands for ${blob.size} bytes, expected ${size}`, {
      object: ref,
    });
  }
  if (expected !== '' && expected !== blob.digest) {
    throw failedPrecondition(`ingest "${ref}" stands for ${blob.digest}, expected ${expected}`, {
      object: ref,
    });
  }
}

/** The error of a commit whose shared blob was given up while the writer was open. */
export const sharedBlobGone = (blob: SharedBlob, ref: string): EbbtideError =>
  notFound(`content "${blob.digest}" of ingest "${ref}" was collected`, {
    object: blob.digest,
    remedy: 'open the ref again and write the bytes',
  });
