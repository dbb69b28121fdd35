/** Brings the blobs that records name from one content directory to another. Called for a backup and to restore one. */
import { join } from 'node:path';
import { copyBlob } from '../backends/content/copy-blob.js';
import { algorithms, blobName, blobsName } from '../backends/content/layout.js';
import { eachLimit } from '../backends/files.js';
import type { TreeCopy } from '../engine/contract.js';
import { key, leaf } from '../engine/schema/keys.js';
import { throwIfAborted } from '../errors.js';
import { isDigest } from '../model/digest.js';
import { makeDirectory, recordsIn, type Transfer } from './transfer.js';

const PARALLEL = 6;

export interface BlobSources {
  /** Where the bytes are, in the order in which they are looked for. */
  sources: readonly ((digest: string) => string)[];
  /** A content directory, which is made. */
  target: string;
  /** Why what is at a path is not the blob, for a closer look than at its size. */
  examine?: ((path: string, digest: string) => Promise<string | undefined>) | undefined;
}

/** Blobs that cannot be had are problems of the transfer; the rest is copied all the same. */
export async function copyBlobs(tree: TreeCopy, transfer: Transfer, from: BlobSources): Promise<void> {
  const { signal } = transfer;
  const total = await countBytes(tree);
  let done = 0;
  await makeDirectory(from.target, 0o755);
  await makeDirectory(join(from.target, 'blobs'), 0o755);
  for (const algorithm of algorithms) await makeDirectory(join(from.target, blobsName(algorithm)), 0o755);
  for await (const batch of recordsIn(tree, key('blobs'))) {
    throwIfAborted(signal);
    // Several namespaces may have one; two of a batch must not be copied at once.
    const sizes = new Map(batch.map(([k, value]) => [leaf(k), sizeOf(value)]));
    await eachLimit([...sizes], PARALLEL, async ([digest, size]) => {
      if (size !== undefined && isDigest(digest)) await copyOne(digest, size, transfer, from);
    });
    for (const [, value] of batch) done += sizeOf(value) ?? 0;
    transfer.progress('blobs', done, total);
  }
}

async function countBytes(tree: TreeCopy): Promise<number> {
  let total = 0;
  for await (const batch of recordsIn(tree, key('blobs'))) {
    for (const [, value] of batch) total += sizeOf(value) ?? 0;
  }
  return total;
}

async function copyOne(
  digest: string,
  size: number,
  transfer: Transfer,
  { sources, target, examine }: BlobSources,
): Promise<void> {
  const { report } = transfer;
  const to = join(target, blobName(digest));
  let found = `no file of ${size} bytes`;
  for (const source of sources) {
    const path = source(digest);
    const wrong = await examine?.(path, digest);
    if (wrong !== undefined) {
      found = wrong;
      continue;
    }
    const outcome = await copyBlob(path, to, size, transfer.signal);
    if (outcome === 'missing') continue;
    if (outcome === 'present') return;
    report.blobs++;
    report.bytes += size;
    if (outcome === 'linked') report.linked++;
    else report.copiedBytes += size;
    return;
  }
  transfer.problem({ kind: 'blob', object: digest, found });
}

const sizeOf = (value: unknown): number | undefined => {
  const size = typeof value === 'object' && value !== null && 'size' in value ? value.size : undefined;
  return Number.isSafeInteger(size) && (size as number) >= 0 ? (size as number) : undefined;
};
