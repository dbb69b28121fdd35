/**
 * Sends one blob or document to a registry, if it does not have it: a blob from another repository of the host where that is known,
 * else as one upload; begun anew, a bounded number of times, where the registry or the connection fails. Used by client.ts.
 */
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { abortError, EbbtideError, isKind, unknownError } from '../errors.js';
import { isIndexType, isManifestType } from '../images/media-types.js';
import type { RemoteDescriptor } from './blob.js';
import { type Exchange, failureOf, targetOf } from './exchange.js';
import { type HttpResponse, isBroken, type Method, shownUrl } from './http.js';
import type { RegistryLimits } from './limits.js';
import { type RegistryReference, scopeOf } from './reference.js';

export interface Outgoing {
  /** Repositories of the host that have it, or had. */
  sources: readonly string[];
  /** Its bytes, anew each time. */
  read(): AsyncIterable<Uint8Array>;
}

interface Options {
  reference: RegistryReference;
  limits: RegistryLimits;
  signal?: AbortSignal | undefined;
}

/** There is no other host; it is begun anew when the connection breaks. */
const last = { isLast: true, goesOn: true } as const;
const DENIED: ReadonlySet<number> = new Set([401, 403]);
const FAILED: ReadonlySet<number> = new Set([500, 502, 503, 504]);

/** The registry failed in a way that may pass. */
class Failed extends Error {
  override readonly cause: EbbtideError;
  constructor(cause: EbbtideError) {
    super(cause.message);
    this.cause = cause;
  }
}

/** Returns false when the registry has it. Unknown: it does not take it. */
export async function sendBlob(
  exchange: Exchange,
  descriptor: RemoteDescriptor,
  outgoing: Outgoing,
  options: Options,
): Promise<boolean> {
  const { limits, signal } = options;
  for (let attempt = 1; ; attempt++) {
    try {
      return await new Sending(exchange, descriptor, outgoing, options).run();
    } catch (error) {
      if (signal?.aborted) throw abortError(signal);
      const cause = error instanceof Failed ? error.cause : error;
      if (attempt > limits.breaks || !(error instanceof Failed || isBroken(error))) throw cause;
      await sleep(limits.pauseMs * 2 ** (attempt - 1), undefined, signal && { signal }).catch(
        () => undefined,
      );
    }
  }
}

class Sending {
  readonly #exchange: Exchange;
  readonly #descriptor: RemoteDescriptor;
  readonly #outgoing: Outgoing;
  readonly #reference: RegistryReference;
  readonly #scope: string;

  constructor(exchange: Exchange, descriptor: RemoteDescriptor, outgoing: Outgoing, { reference }: Options) {
    this.#exchange = exchange;
    this.#descriptor = descriptor;
    this.#outgoing = outgoing;
    this.#reference = reference;
    this.#scope = scopeOf(reference, true);
  }

  async run(): Promise<boolean> {
    const { mediaType } = this.#descriptor;
    const isDocument = isIndexType(mediaType) || isManifestType(mediaType);
    const path = isDocument ? this.#manifestPath() : `blobs/${this.#descriptor.digest}`;
    if (await this.#has(path)) return false;
    if (!isDocument) return this.#upload();
    await this.#put(path, mediaType);
    return true;
  }

  /** By the tag where it is what the tag is to name. */
  #manifestPath(): string {
    const { tag, digest } = this.#reference;
    const { digest: own } = this.#descriptor;
    return `manifests/${tag !== undefined && digest === own ? tag : own}`;
  }

  async #has(path: string): Promise<boolean> {
    const { digest, mediaType } = this.#descriptor;
    const headers = { accept: `${mediaType}, */*` };
    const scopes = [this.#scope];
    const response = await this.#exchange.send({ method: 'HEAD', path, headers, scopes, ...last });
    await response.drop();
    if (response.status === 200)
      return path.endsWith(digest) || response.header('docker-content-digest') === digest;
    // Whoever may not look may still send.
    if (response.status !== 404 && !DENIED.has(response.status)) throw await failure('HEAD', response);
    return false;
  }

  /** Returns false when the registry took it from another repository. */
  async #upload(): Promise<boolean> {
    const response = await this.#begin();
    await response.drop();
    if (response.status === 201) return false;
    const location = targetOf(response.url, response.header('location') ?? '');
    location.searchParams.append('digest', this.#descriptor.digest);
    await this.#put(location, 'application/octet-stream');
    return true;
  }

  /** The response that says where the bytes go, or that they need not. */
  async #begin(): Promise<HttpResponse> {
    const { digest } = this.#descriptor;
    const source = sourceFor(this.#reference.repository, this.#outgoing.sources);
    if (source !== undefined) {
      const query = new URLSearchParams({ mount: digest, from: source });
      const path = `blobs/uploads/?${query}`;
      const scopes = [this.#scope, `repository:${source}:pull`];
      // Without a token for that repository it is sent.
      const response = await this.#exchange
        .send({ method: 'POST', path, scopes, ...last })
        .catch((error: unknown) => {
          if (isKind(error, 'Unknown')) return undefined;
          throw error;
        });
      if (response !== undefined && isBegun(response)) return response;
      await response?.drop();
    }
    const path = 'blobs/uploads/';
    const response = await this.#exchange.send({ method: 'POST', path, scopes: [this.#scope], ...last });
    if (isBegun(response)) return response;
    throw await failure('POST', response);
  }

  async #put(path: string | URL, type: string): Promise<void> {
    const { digest, size } = this.#descriptor;
    let wrong: unknown;
    const body = (): Readable => {
      const bytes = Readable.from(this.#outgoing.read(), { objectMode: false });
      // What the connection says of it is only that it broke.
      bytes.on('error', (error) => {
        wrong ??= error;
      });
      return bytes;
    };
    const headers = { 'content-type': type, 'content-length': String(size) };
    let response: HttpResponse;
    try {
      response = await this.#exchange.send({ method: 'PUT', path, headers, body, scopes: [this.#scope] });
    } catch (error) {
      throw wrong instanceof EbbtideError ? wrong : error;
    }
    if (response.status < 200 || response.status > 204) throw await failure('PUT', response);
    await response.drop();
    const taken = response.header('docker-content-digest') ?? digest;
    if (taken !== digest) throw otherDigest(response, taken.slice(0, 140), digest);
  }
}

const isBegun = ({ status }: HttpResponse): boolean => status >= 200 && status <= 204;

async function failure(method: Method, response: HttpResponse): Promise<Error> {
  const error = await failureOf(method, response);
  return FAILED.has(response.status) ? new Failed(error) : error;
}

/** The one that has most of its path in common with the target; undefined: none but the target itself. */
function sourceFor(repository: string, sources: readonly string[]): string | undefined {
  const parts = repository.split('/');
  const common = (other: string): number => {
    const others = other.split('/');
    const at = parts.findIndex((part, i) => part !== others[i]);
    return at < 0 ? parts.length : at;
  };
  return sources
    .filter((one) => one !== repository)
    .sort((a, b) => common(a) - common(b))
    .at(-1);
}

const otherDigest = ({ url }: HttpResponse, got: string, digest: string): EbbtideError =>
  unknownError(`${shownUrl(url)}: got digest ${got}, expected ${digest}`, {
    object: digest,
    remedy: 'do not use this registry',
  });
