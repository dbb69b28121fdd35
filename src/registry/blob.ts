/**
 * The bytes of a manifest or a blob as a stream that goes on where it broke off, by a range, a bounded number of times. It never has
 * more bytes than its descriptor says. Made by client.ts; what the bytes are is checked where they are written.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  abortError,
  type EbbtideError,
  invalidArgument,
  isNotFound,
  notFound,
  unavailable,
} from '../errors.js';
import { isIndexType, isManifestType } from '../images/media-types.js';
import type { SeekableSource } from '../stores/content/content-helpers.js';
import { type Exchange, failureOf } from './exchange.js';
import { connectionError, type HttpResponse, isBroken, shownUrl } from './http.js';
import type { RegistryLimits } from './limits.js';

export interface RemoteDescriptor {
  mediaType: string;
  digest: string;
  /** Bytes. */
  size: number;
}

interface Options {
  /** Those with the capability to pull. */
  exchanges: readonly Exchange[];
  scopes: readonly string[];
  limits: RegistryLimits;
  signal?: AbortSignal | undefined;
}

export class RemoteBlob implements SeekableSource {
  readonly #descriptor: RemoteDescriptor;
  readonly #options: Options;
  #offset = 0;

  constructor(descriptor: RemoteDescriptor, options: Options) {
    this.#descriptor = descriptor;
    this.#options = options;
  }

  seek(offset: number): void {
    this.#offset = offset;
  }

  /** NotFound: no host has it. Unavailable: it broke off too often. InvalidArgument: it is longer than it should be. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, void> {
    const { size } = this.#descriptor;
    const { limits, signal } = this.#options;
    let breaks = 0;
    for (let start = this.#offset; this.#offset < size || start === size; ) {
      try {
        yield* this.#rest();
        if (this.#offset >= size) return;
        throw unavailable(`${this.#descriptor.digest} ended at ${this.#offset} of ${size} bytes`, {
          object: this.#descriptor.digest,
          remedy: 'try again',
        });
      } catch (error) {
        if (signal?.aborted) throw abortError(signal);
        if (!isBroken(error)) throw error;
        if (this.#offset - start >= limits.progressBytes) breaks = 0;
        if (++breaks > limits.breaks) throw error;
        start = this.#offset;
        await sleep(limits.pauseMs * 2 ** (breaks - 1), undefined, signal && { signal }).catch(
          () => undefined,
        );
      }
    }
  }

  async *#rest(): AsyncGenerator<Uint8Array, void, void> {
    const { size } = this.#descriptor;
    if (this.#offset >= size) return;
    const response = await this.#open();
    try {
      let skip = skipOf(response, this.#offset);
      for await (const chunk of chunksOf(response)) {
        const dropped = Math.min(skip, chunk.length);
        skip -= dropped;
        const rest = chunk.subarray(dropped);
        if (rest.length === 0) continue;
        if (this.#offset + rest.length > size) throw tooLong(this.#descriptor, response);
        this.#offset += rest.length;
        yield rest;
      }
    } finally {
      await response.drop();
    }
  }

  /** Of the first host that has it. */
  async #open(): Promise<HttpResponse> {
    const { digest, mediaType } = this.#descriptor;
    const isDocument = isIndexType(mediaType) || isManifestType(mediaType);
    const path = `${isDocument ? 'manifests' : 'blobs'}/${digest}`;
    const headers = {
      accept: mediaType === '' ? '*/*' : `${mediaType}, */*`,
      ...(this.#offset > 0 && { range: `bytes=${this.#offset}-` }),
    };
    const { exchanges, scopes } = this.#options;
    let first: unknown;
    for (const [i, exchange] of exchanges.entries()) {
      try {
        const isLast = i === exchanges.length - 1;
        const response = await exchange.send({ method: 'GET', path, headers, scopes, isLast, goesOn: true });
        if (response.status <= 299) return response;
        throw await failureOf('GET', response);
      } catch (error) {
        first ??= error;
      }
    }
    if (first !== undefined && !isNotFound(first)) throw first;
    throw notFound(`could not fetch content descriptor ${digest} (${mediaType}) from remote: not found`, {
      object: digest,
      cause: first,
    });
  }
}

/** Bytes to drop of a response that begins before the offset. */
function skipOf(response: HttpResponse, offset: number): number {
  const encoding = response.header('content-encoding') ?? 'identity';
  if (encoding !== 'identity') throw odd(response, `content encoding ${encoding}`);
  if (offset === 0 || response.status !== 206) return offset;
  const begins = /^bytes (\d+)-/.exec(response.header('content-range') ?? '')?.[1];
  if (Number(begins) === offset) return 0;
  throw odd(response, 'another range than it was asked for');
}

const odd = ({ url }: HttpResponse, what: string): EbbtideError =>
  invalidArgument(`${shownUrl(url)} answers with ${what}`, {
    object: url.host,
    remedy: 'do not use this registry',
  });

async function* chunksOf(response: HttpResponse): AsyncGenerator<Uint8Array, void, void> {
  try {
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    throw connectionError(`GET ${shownUrl(response.url)}`, error);
  }
}

const tooLong = ({ digest, size }: RemoteDescriptor, { url }: HttpResponse): EbbtideError =>
  invalidArgument(`${url.host} has more than ${size} bytes for ${digest}, which has no more`, {
    object: digest,
    remedy: 'do not use this registry',
  });
