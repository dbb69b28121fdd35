/**
 * Writes the difference between two trees as a layer blob: creates it, compresses it and writes it to the
 * content store in one pass. Called by diff.ts.
 */
import { once } from 'node:events';
import { createGzip } from 'node:zlib';
import { diffLayer } from '../../backends/archive/diff.js';
import type { Sink } from '../../backends/archive/tar/tar-writer.js';
import type { Mount } from '../../backends/contract.js';
import type { CallContext } from '../../context.js';
import { isAlreadyExists, unknownError } from '../../errors.js';
import { unended, uniquePart } from '../../images/services.js';
import { Label } from '../../model/labels.js';
import type { StringMap } from '../../model/records.js';
import type { ContentStore } from '../../stores/content/content.js';
import { openWriter } from '../../stores/content/content-helpers.js';
import type { ContentWriter } from '../../stores/content/content-writer.js';

export type LayerCompression = 'none' | 'gzip';
export const isLayerCompression = (value: unknown): value is LayerCompression =>
  value === 'none' || value === 'gzip';

export interface DiffJob {
  lower: readonly Mount[];
  upper: readonly Mount[];
  mediaType: string;
  compression: LayerCompression;
  /** '' for a ref of our own, which is removed on failure; a caller's ref is kept for inspection. */
  ref: string;
  labels: StringMap;
}

/** Returns the blob; its label has the digest of the uncompressed layer. */
export async function writeDiff(
  store: ContentStore,
  ctx: CallContext,
  job: DiffJob,
): Promise<{ digest: string; size: number }> {
  const ref = job.ref || uniquePart();
  const writer = await openWriter(store, ctx, ref, { mediaType: job.mediaType });
  try {
    // What an earlier attempt left under the ref is of no use.
    if ((await writer.status()).offset > 0) await writer.truncate(0);
    const diffId = await writeLayer(writer, ctx, job);
    const digest = writer.digest();
    const labels = { ...job.labels, [Label.uncompressed]: diffId };
    await writer.commit(0, '', { labels }).catch(unlessThere);
    return { digest, size: await sizeOf(store, ctx, digest, diffId) };
  } catch (error) {
    await writer.close();
    if (job.ref === '') await store.abort(unended(ctx), ref).catch(() => undefined);
    throw error;
  } finally {
    await writer.close();
  }
}

/** Returns the digest of the layer before compression. */
async function writeLayer(
  writer: ContentWriter,
  { signal }: CallContext,
  { lower, upper, compression }: DiffJob,
): Promise<string> {
  const write: Sink = async (bytes) => {
    await writer.write(bytes);
  };
  const options = signal ? { signal } : {};
  if (compression === 'none') return (await diffLayer(lower, upper, write, options)).digest;
  const gzip = createGzip();
  const written = (async () => {
    for await (const chunk of gzip) await write(chunk as Buffer);
  })();
  // Reported again below; an error here ends the compressor, and with it the creation of the layer.
  written.catch((error: Error) => gzip.destroy(error));
  try {
    const { digest } = await diffLayer(lower, upper, into(gzip), options);
    gzip.end();
    await written;
    return digest;
  } finally {
    gzip.destroy();
  }
}

const into =
  (gzip: ReturnType<typeof createGzip>): Sink =>
  async (bytes) => {
    if (gzip.destroyed) throw gzip.errored ?? unknownError('the compressor has ended');
    if (!gzip.write(bytes)) await once(gzip, 'drain');
  };

/** The same trees give the same layer, so the blob may exist already. */
const unlessThere = (error: unknown): void => {
  if (!isAlreadyExists(error)) throw error;
};

/**
 * Size of the blob; also labels it with its uncompressed digest. Other labels of an existing blob are not
 * changed.
 */
async function sizeOf(
  store: ContentStore,
  ctx: CallContext,
  digest: string,
  diffId: string,
): Promise<number> {
  const { size, labels } = await store.info(ctx, digest);
  if (labels[Label.uncompressed] === undefined) {
    const label = { [Label.uncompressed]: diffId };
    await store.update(ctx, { digest, labels: label }, `labels.${Label.uncompressed}`);
  }
  return size;
}
