/**
 * Blobs of an image in the content store: written under a lease, resumed where an earlier attempt stopped,
 * kept together by reference labels. Called by import and unpack.
 */
import type { WriterDescriptor } from '../backends/contract.js';
import {
  type EbbtideError,
  invalidArgument,
  isAlreadyExists,
  isFailedPrecondition,
  isNotFound,
} from '../errors.js';
import { isDigest } from '../model/digest.js';
import { copy, openWriter, type SeekableSource, type Source } from '../stores/content/content-helpers.js';
import { isOfSystem } from '../system/system-errors.js';
import type { ImageServices, LeasedContext } from './services.js';
import { unended, unlessFull } from './services.js';

/** Bytes to write. */
export interface Incoming {
  /** Ref of the ingest; the same for the same bytes, so that a second attempt resumes. */
  ref: string;
  /** Digest and size, where known in advance. */
  descriptor: WriterDescriptor;
  source: Source;
  /** The blob's name in messages. */
  name: string;
  /** Called with the number of bytes written so far. */
  progress?: ((done: number) => void) | undefined;
  /** Whether an ingest that was not completed is removed; default: only one whose bytes are wrong. */
  dropsUnfinished?: boolean | undefined;
}

export interface StoredBlob {
  digest: string;
  /** Bytes. */
  size: number;
  /** The namespace had it before. */
  existed?: boolean | undefined;
}

/** Ref of the ingest of a blob with a known digest. */
export const ingestRef = (digest: string): string => `import-${digest.replace(':', '-')}`;

/**
 * Writes one blob and adds it to the context's lease; a blob that the namespace already has is only leased,
 * and its source is not read. InvalidArgument when the bytes do not match the descriptor; the ingest is
 * removed then.
 */
export async function writeBlob(
  services: ImageServices,
  ctx: LeasedContext,
  incoming: Incoming,
): Promise<StoredBlob> {
  const { descriptor, ref } = incoming;
  const { digest: expected = '', size = 0 } = descriptor;
  let writer: Awaited<ReturnType<typeof openWriter>>;
  try {
    writer = await openWriter(services.content, ctx, ref, descriptor);
  } catch (error) {
    if (!isAlreadyExists(error) || expected === '') throw error;
    return { digest: expected, size: (await services.content.info(ctx, expected)).size, existed: true };
  }
  const observed = new ObservedSource(incoming);
  try {
    // An ingest without a digest could contain anything: resume only what is checked at the end.
    if (expected === '' || (await writer.status()).offset > (size || Number.MAX_SAFE_INTEGER))
      await writer.truncate(0);
    await copy(writer, ctx, observed.source, size, expected);
    const digest = expected === '' ? writer.digest() : expected;
    return { digest, size: (await services.content.info(ctx, digest)).size };
  } catch (error) {
    const isWrong = !observed.failed && isFailedPrecondition(error) && !isOfSystem(error);
    // While the writer has the ref, so that it is nobody else's ingest.
    if (isWrong || incoming.dropsUnfinished)
      await services.content.abort(unended(ctx), ref).catch(ignoreNotFound);
    throw isWrong ? notAsPromised(incoming, error) : error;
  } finally {
    await writer.close();
  }
}

const notAsPromised = ({ name, descriptor }: Incoming, cause: unknown): EbbtideError =>
  invalidArgument(`${name} is not what its digest and size promise`, {
    object: descriptor.digest ?? name,
    cause,
    remedy:
      'the source is damaged, or an earlier attempt left damaged bytes: fetch it again, then import again',
  });

const ignoreNotFound = (error: unknown): void => {
  if (!isNotFound(error)) throw error;
};

/**
 * Wraps the source: reports progress and records whether an error came from it rather than from the store.
 */
class ObservedSource {
  readonly source: Source;
  failed = false;

  constructor({ source, progress }: Incoming) {
    if (source instanceof Uint8Array || !(Symbol.asyncIterator in source)) this.source = source;
    else if ('seek' in source) this.source = this.#seekable(source, progress);
    else this.source = this.#watch(source, progress);
  }

  #seekable(source: SeekableSource, progress: Incoming['progress']): SeekableSource {
    let start = 0;
    return {
      seek: (offset) => {
        start = offset;
        return source.seek(offset);
      },
      [Symbol.asyncIterator]: () => this.#watch(source, progress, start),
    };
  }

  async *#watch(
    chunks: AsyncIterable<Uint8Array>,
    progress: Incoming['progress'],
    start = 0,
  ): AsyncGenerator<Uint8Array, void, void> {
    let done = start;
    const iterator = chunks[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await iterator.next().catch((error: unknown) => {
          this.failed = true;
          throw error;
        });
        if (next.done) return;
        done += next.value.length;
        progress?.(done);
        yield next.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
}

/**
 * Adds an existing blob to the lease. Returns its size; undefined when the namespace does not have it or its
 * bytes are damaged.
 */
export async function leaseBlob(
  services: ImageServices,
  ctx: LeasedContext,
  digest: string,
): Promise<number | undefined> {
  if (!isDigest(digest)) return undefined;
  // Leased before it is looked up, so that a collection cannot remove it in between.
  await services.leases.addResource(ctx, ctx.lease, { type: 'content', id: digest });
  return sizeOf(services, ctx, digest);
}

/** Keeps a blob, with what it refers to, while it is read, as far as there is a lease for that and room on the disk. */
export async function keepWhileRead(
  services: ImageServices,
  ctx: LeasedContext,
  digest: string,
): Promise<void> {
  if (ctx.lease === '' || !isDigest(digest)) return;
  await unlessFull(services.leases.addResource(ctx, ctx.lease, { type: 'content', id: digest }), undefined);
}

async function sizeOf(
  services: ImageServices,
  ctx: LeasedContext,
  digest: string,
): Promise<number | undefined> {
  try {
    const { size } = await services.content.info(ctx, digest);
    await using reader = await services.content.readerAt(ctx, digest);
    // Makes a daemon, too, compare the file with the record.
    if (size > 0) await reader.read(Buffer.alloc(1), size - 1);
    return size;
  } catch (error) {
    if (isNotFound(error) || (isFailedPrecondition(error) && !isOfSystem(error))) return undefined;
    throw error;
  }
}

/** Adds labels to a blob's record, unless it already has them. */
export async function addBlobLabels(
  services: ImageServices,
  ctx: LeasedContext,
  digest: string,
  labels: Readonly<Record<string, string>>,
): Promise<void> {
  const info = await services.content.info(ctx, digest);
  const news = Object.keys(labels).filter((key) => info.labels[key] !== labels[key]);
  if (news.length === 0) return;
  await services.content.update(ctx, { digest, labels }, ...news.map((key) => `labels.${key}`));
}
