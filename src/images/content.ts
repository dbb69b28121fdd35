/**
 * Blobs of an image in the content store: taken in under a lease, resumed where an earlier attempt stopped, kept
 * together by reference labels. Called by import and unpack.
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
import { copy, openWriter, type Source } from '../stores/content/content-helpers.js';
import type { ImageServices, LeasedContext } from './services.js';
import { unended } from './services.js';

/** Bytes to take in. */
export interface Incoming {
  /** Ref of the ingest; the same for the same bytes, so that a second attempt goes on where the first stopped. */
  ref: string;
  /** Digest and size where they are known beforehand. */
  descriptor: WriterDescriptor;
  source: Source;
  /** What messages call it. */
  name: string;
  /** Told the bytes taken in so far. */
  progress?: ((done: number) => void) | undefined;
}

export interface Taken {
  digest: string;
  /** Bytes. */
  size: number;
}

/** Ref under which a blob of a known digest is taken in. */
export const ingestRef = (digest: string): string => `import-${digest.replace(':', '-')}`;

/**
 * Writes one blob and has the context's lease hold it; a blob the namespace has already is only leased, its source
 * is not read. InvalidArgument when the bytes are not what the descriptor says; the ingest is gone then.
 */
export async function takeBlob(
  services: ImageServices,
  ctx: LeasedContext,
  incoming: Incoming,
): Promise<Taken> {
  const { descriptor, ref } = incoming;
  const { digest: expected = '', size = 0 } = descriptor;
  let writer: Awaited<ReturnType<typeof openWriter>>;
  try {
    writer = await openWriter(services.content, ctx, ref, descriptor);
  } catch (error) {
    if (!isAlreadyExists(error) || expected === '') throw error;
    return { digest: expected, size: (await services.content.info(ctx, expected)).size };
  }
  const watched = new WatchedSource(incoming);
  try {
    // Bytes of unknown digest could be anybody's: only what is checked at the end may be resumed.
    if (expected === '' || (await writer.status()).offset > (size || Number.MAX_SAFE_INTEGER))
      await writer.truncate(0);
    await copy(writer, ctx, watched.source, size, expected);
    const digest = expected === '' ? writer.digest() : expected;
    return { digest, size: (await services.content.info(ctx, digest)).size };
  } catch (error) {
    if (watched.failed || !isFailedPrecondition(error)) throw error;
    await writer.close();
    await services.content.abort(unended(ctx), ref).catch(ignoreNotFound);
    throw notAsPromised(incoming, error);
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

/** The source, telling of its progress and remembering whether an error came from it and not from the store. */
class WatchedSource {
  readonly source: Source;
  failed = false;

  constructor({ source, progress }: Incoming) {
    this.source =
      source instanceof Uint8Array || !(Symbol.asyncIterator in source)
        ? source
        : this.#watch(source, progress);
  }

  async *#watch(
    chunks: AsyncIterable<Uint8Array>,
    progress: Incoming['progress'],
  ): AsyncGenerator<Uint8Array, void, void> {
    let done = 0;
    const iterator = chunks[Symbol.asyncIterator]();
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
  }
}

/**
 * Has the lease hold a blob that should be there already; answers its size, undefined when the namespace does not
 * have it or its bytes are damaged.
 */
export async function holdBlob(
  services: ImageServices,
  ctx: LeasedContext,
  digest: string,
): Promise<number | undefined> {
  if (!isDigest(digest)) return undefined;
  // Leased before it is looked for: the other way round a collection could take it in between.
  await services.leases.addResource(ctx, ctx.lease, { type: 'content', id: digest });
  return sizeOf(services, ctx, digest);
}

async function sizeOf(
  services: ImageServices,
  ctx: LeasedContext,
  digest: string,
): Promise<number | undefined> {
  try {
    const { size } = await services.content.info(ctx, digest);
    await using reader = await services.content.readerAt(ctx, digest);
    // Also a daemon compares the file with the record then.
    if (size > 0) await reader.read(Buffer.alloc(1), size - 1);
    return size;
  } catch (error) {
    if (isNotFound(error) || isFailedPrecondition(error)) return undefined;
    throw error;
  }
}

/** Adds labels to a blob's record, unless it has them already. */
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
