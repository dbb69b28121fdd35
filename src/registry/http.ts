/**
 * One HTTP request to a host, without redirects, with limits on everything that the other side chooses. undici, which is
 * loaded by the first request. Used by exchange.ts and token.ts.
 */
import type { Readable } from 'node:stream';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import type { Dispatcher } from 'undici';
import {
  type EbbtideError,
  failedPrecondition,
  isKind,
  orAborted,
  throwIfAborted,
  unavailable,
  unknownError,
} from '../errors.js';
import { errnoOf, messageOf } from '../system/system-errors.js';
import { type HostTls, isLocal, portOf, type RegistryHost } from './host.js';
import type { RegistryLimits } from './limits.js';
import { systemRoots } from './roots.js';

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT';
export type Headers = Readonly<Record<string, string | readonly string[]>>;

export interface HttpRequest {
  method: Method;
  url: URL;
  headers: Headers;
  /** Made anew for each attempt. */
  body?: (() => Uint8Array | string | Readable) | undefined;
  signal?: AbortSignal | undefined;
}

export interface HttpResponse {
  status: number;
  /** Where it came from. */
  url: URL;
  /** The first value; undefined without one. */
  header(name: string): string | undefined;
  /** All values. */
  all(name: string): readonly string[];
  /** To be read to its end, or dropped. */
  body: Readable;
  /** Resolves when the connection may be used again, or is gone. Idempotent. */
  drop(): Promise<void>;
}

const DROPPED_BYTES_MAX = 16 * 1024;

/** The connections to one host. Closed with its user. */
export class Connections {
  readonly #limits: RegistryLimits;
  readonly #host: RegistryHost;
  /** By how they are made. */
  readonly #dispatchers = new Map<string, Promise<Dispatcher>>();

  constructor(limits: RegistryLimits, host: RegistryHost) {
    this.#limits = limits;
    this.#host = host;
  }

  /** Unavailable: no connection, or it broke off. */
  async send({ method, url, headers, body, signal }: HttpRequest): Promise<HttpResponse> {
    throwIfAborted(signal);
    const { request } = await import('undici');
    const dispatcher = await this.#dispatcherFor(url);
    const sent = request(url, {
      // Otherwise a HEAD ends its connection.
      ...{ method, dispatcher, reset: false },
      headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, mutable(value)])),
      ...(body && { body: body() }),
      ...(signal && { signal }),
    });
    let response: Awaited<typeof sent>;
    try {
      response = await orAborted(sent, signal);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw connectionError(`${method} ${shownUrl(url)}`, error);
    }
    // What a response that is dropped still says has no reader.
    response.body.on('error', () => undefined);
    const all = (name: string): readonly string[] => [response.headers[name] ?? []].flat();
    return {
      ...{ status: response.statusCode, url, body: response.body, all },
      header: (name) => all(name)[0],
      drop: () => dropped(response, method === 'HEAD'),
    };
  }

  async close(): Promise<void> {
    const made = await Promise.allSettled(this.#dispatchers.values());
    await Promise.all(made.map((one) => (one.status === 'fulfilled' ? one.value.destroy() : undefined)));
  }

  /** This machine is never behind a proxy. */
  #dispatcherFor({ host, protocol }: URL): Promise<Dispatcher> {
    const { tls } = this.#host;
    const isProxied = !isLocal(host);
    const isInsecure = tls !== undefined && (host === this.#host.host ? tls.insecure : tls.insecureElsewhere);
    const key = `${protocol} ${isProxied} ${isInsecure}`;
    let made = this.#dispatchers.get(key);
    if (made === undefined) {
      made = this.#dispatcher(protocol === 'https:', isProxied, isInsecure);
      this.#dispatchers.set(key, made);
    }
    return made;
  }

  async #dispatcher(isTls: boolean, isProxied: boolean, isInsecure: boolean): Promise<Dispatcher> {
    const { Agent, EnvHttpProxyAgent } = await import('undici');
    const { connectMs: timeout = this.#limits.connectMs } = this.#host;
    const tls = isTls && { secureContext: await this.#secureContext(), rejectUnauthorized: !isInsecure };
    const connect = { timeout, ...tls };
    const options = {
      ...{ connect, maxHeaderSize: this.#limits.headerBytes },
      ...{ headersTimeout: this.#limits.idleMs, bodyTimeout: this.#limits.idleMs },
    };
    return isProxied ? new EnvHttpProxyAgent({ ...options, requestTls: connect }) : new Agent(options);
  }

  /** Made once for all connections: reading all certificates takes longer than a handshake. */
  async #secureContext(): Promise<SecureContext> {
    const { host, tls } = this.#host;
    const { ca = [], pairs = [] }: Partial<HostTls> = tls ?? {};
    const roots = await systemRoots();
    try {
      return createSecureContext({
        ...((roots !== undefined || ca.length > 0) && {
          ca: [...(roots ? [roots] : rootCertificates), ...ca],
        }),
        ...(pairs.length > 0 && { cert: pairs.map(({ cert }) => cert), key: pairs.map(({ key }) => key) }),
      });
    } catch (error) {
      throw failedPrecondition(`the certificates for ${host} cannot be used: ${messageOf(error)}`, {
        object: host,
        cause: error,
        remedy: 'correct those in the directory of hosts, or of the system',
      });
    }
  }
}

/** A short body is read, so that the connection can be used again; of a longer one it ends. */
async function dropped({ body, headers }: Dispatcher.ResponseData, isHead: boolean): Promise<void> {
  const length = isHead ? 0 : Number(headers['content-length'] ?? Number.NaN);
  if (body.readableDidRead || body.destroyed || !(length <= DROPPED_BYTES_MAX)) return void body.destroy();
  await body.dump().catch(() => undefined);
}

/** Of bytes that stop coming. */
export function connectionError(what: string, error: unknown): EbbtideError {
  const code = errnoOf(error) ?? '';
  const tooLarge = code === 'UND_ERR_HEADERS_OVERFLOW';
  return (tooLarge ? unknownError : unavailable)(`${what}: ${messageOf(error)}`, {
    cause: error,
    remedy: tooLarge ? 'do not use this registry' : 'check the address and the network, and try again',
  });
}

/** The port answered, but not in TLS. */
export const speaksNoTls = (error: unknown): boolean => {
  const code = errnoOf((error as Error).cause) ?? '';
  return code === 'EPROTO' || code.startsWith('ERR_SSL_');
};

/** Nobody listens, at a port that nobody named. */
export const isWrongPort = (error: unknown, host: string): boolean =>
  portOf(host) === '' && errnoOf((error as Error).cause) === 'ECONNREFUSED';

export const isBroken = (error: unknown): boolean => isKind(error, 'Unavailable');

/** Without its query, which may hold a secret. */
export const shownUrl = (url: URL): string => `${url.protocol}//${url.host}${url.pathname}`;

/** Reads all of a body; throws with `tooLarge` beyond `max` bytes. */
export async function readAll(
  response: HttpResponse,
  max: number,
  tooLarge: () => EbbtideError,
): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of response.body as AsyncIterable<Uint8Array>) {
      size += part.length;
      if (size > max) throw tooLarge();
      parts.push(part);
    }
  } finally {
    await response.drop();
  }
  return Buffer.concat(parts);
}

const mutable = (value: string | readonly string[]): string | string[] =>
  typeof value === 'string' ? value : [...value];
