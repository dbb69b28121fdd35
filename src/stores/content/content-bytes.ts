/**
 * Checks whether the bytes of a blob's record exist. A record whose file is missing or of another size counts
 * as absent for a writer of the blob, so that a second import or fetch restores it. Called by the content
 * store and its writers.
 */
import type { Reader } from '../../engine/contract.js';
import { blobKey, key, leaf } from '../../engine/schema/keys.js';
import { isNotFound, throwIfAborted } from '../../errors.js';
import { Digester, parseDigest } from '../../model/digest.js';
import type { BlobRecord } from '../../model/records.js';
import { readRecord, scanRecords } from '../common.js';
import type { StoreHost } from '../host.js';

type Backend = Pick<StoreHost, 'content'>;

/** Size of the backend's blob in bytes; undefined when it has none. */
export async function backendSize({ content }: Backend, digest: string): Promise<number | undefined> {
  try {
    return (await content.info(digest)).size;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** Whether the namespace has a record of the blob, and the backend all of its bytes. */
export async function hasBlob(
  host: Backend,
  reader: Reader,
  namespace: string,
  digest: string,
): Promise<boolean> {
  const record = readRecord<BlobRecord>(reader, blobKey(namespace, digest));
  return record !== undefined && (await backendSize(host, digest)) === record.size;
}

/**
 * Whether the backend's blob, of `found` bytes, is complete: it has the size of any namespace's record or,
 * when there is no record, the digest.
 */
export async function isWhole(
  host: Backend,
  reader: Reader,
  digest: string,
  found: number,
): Promise<boolean> {
  for (const [k] of scanRecords(reader, key('namespaces'))) {
    const record = readRecord<BlobRecord>(reader, blobKey(leaf(k), digest));
    if (record !== undefined) return record.size === found;
  }
  return (await digestOfBackend(host, digest)) === digest;
}

/** The digest, by the same algorithm, of the bytes that the backend has under a digest. Reads all of them. */
export async function digestOfBackend(
  { content }: Backend,
  digest: string,
  signal?: AbortSignal,
): Promise<string> {
  const digester = new Digester(parseDigest(digest).algorithm);
  await using reader = await content.readerAt(digest);
  for await (const chunk of reader.stream()) {
    throwIfAborted(signal);
    digester.update(chunk);
  }
  return digester.digest();
}
