/**
 * A request to a registry's host until it has a usable answer: authorized, redirected, and sent again where that may help, each a
 * bounded number of times. Used by resolve.ts, blob.ts and push.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { abortError, type EbbtideError, notFound, unknownError } from '../errors.js';
import { Authorizer } from './authorizer.js';
import type { GetCredentials } from './credentials.js';
import type { RegistryHost, Scheme } from './host.js';
import { isProxy } from './hosts.js';
import {
  Connections,
  type Headers,
  type HttpRequest,
  type HttpResponse,
  isBroken,
  isWrongPort,
  type Method,
  readAll,
  shownUrl,
  speaksNoTls,
} from './http.js';
import { FAILURE_BYTES_MAX, FAILURE_SHOWN_MAX, type RegistryLimits } from './limits.js';

export interface ExchangeOptions {
  /** The registry's name in references. */
  name: string;
  repository: string;
  limits: RegistryLimits;
  userAgent: string;
  /** Sent to the host with every request. */
  headers: Headers;
  getCredentials?: GetCredentials | undefined;
  signal?: AbortSignal | undefined;
}

export interface RegistryRequest {
  method: Method;
  /** Below the repository: `manifests/latest`, or an address that the registry gave. */
  path: string | URL;
  headers?: Headers | undefined;
  body?: HttpRequest['body'];
  /** For the token. */
  scopes: readonly string[];
  /** Whether failures are worth another try: there is no other host. */
  isLast?: boolean | undefined;
  /** Whether the caller goes on by itself when the connection breaks. */
  goesOn?: boolean | undefined;
}

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
const BUSY: ReadonlySet<number> = new Set([408, 429]);
const FAILURES: ReadonlySet<number> = new Set([500, 502, 503, 504]);

/** What has happened to a request so far. */
interface Past {
  attempts: number;
  /** 401s. */
  refusals: number;
  lastStatus: number;
  /** The last value of Authorization. */
  authorization: string | undefined;
}

export class Exchange implements AsyncDisposable {
  readonly host: RegistryHost;
  readonly #options: ExchangeOptions;
  readonly #connections: Connections;
  readonly #authorizer: Authorizer;
  #scheme: Scheme;

  constructor(host: RegistryHost, options: ExchangeOptions) {
    this.host = host;
    this.#options = options;
    this.#scheme = host.scheme;
    this.#connections = new Connections(options.limits, host);
    this.#authorizer = new Authorizer(this.#connections, options);
  }

  /** The response, whatever its status; the caller reads or drops its body. Unavailable: it could not be sent. */
  async send(request: RegistryRequest): Promise<HttpResponse> {
    const past: Past = { attempts: 0, refusals: 0, lastStatus: 0, authorization: undefined };
    for (let { method } = request; ; ) {
      past.attempts++;
      const response = await this.#tried(request, method, past);
      if (response === undefined) continue;
      const { status } = response;
      if (past.attempts > this.#options.limits.attempts) return response;
      if (status === 405 && method === 'HEAD' && response.url.pathname.includes('/manifests/'))
        method = 'GET';
      else if (!(await this.#isWorthAnother(request, response, past))) return response;
      past.lastStatus = status;
      await response.drop();
    }
  }

  /** Undefined: the connection broke, and it is tried again. */
  async #tried(request: RegistryRequest, method: Method, past: Past): Promise<HttpResponse | undefined> {
    try {
      return await this.#followed(request, method, past);
    } catch (error) {
      const { signal, limits } = this.#options;
      if (signal?.aborted) throw abortError(signal);
      const { isLast, goesOn, body } = request;
      const repeats = isLast && !goesOn && body === undefined && past.attempts < limits.breaks;
      if (!repeats || !isBroken(error)) throw error;
      await this.#pause(past.attempts);
      return undefined;
    }
  }

  async #isWorthAnother(request: RegistryRequest, response: HttpResponse, past: Past): Promise<boolean> {
    const { status } = response;
    if (status === 401) {
      // A second refusal may be of a token that is over; a third is an answer.
      if (past.refusals++ >= 2) return false;
      const asked = response.all('www-authenticate');
      return this.#authorizer.answer(response.url, asked, past.authorization, request.scopes);
    }
    const isFailure = FAILURES.has(status) && past.lastStatus !== status && request.isLast === true;
    if (!BUSY.has(status) && !isFailure) return false;
    await this.#pause(past.attempts, retryAfter(response));
    return true;
  }

  async #pause(attempt: number, wanted?: number): Promise<void> {
    const { limits, signal } = this.#options;
    const ms = Math.min(wanted ?? limits.pauseMs * 2 ** (attempt - 1), limits.pauseMsMax);
    await sleep(ms, undefined, signal && { signal }).catch(() => undefined);
    if (signal?.aborted) throw abortError(signal);
  }

  async #followed(request: RegistryRequest, first: Method, past: Past): Promise<HttpResponse> {
    let method = first;
    let url = this.#urlOf(request);
    for (let redirects = 0; ; redirects++) {
      const response = await this.#sent(request, method, url, past);
      const location = response.header('location');
      const isRedirect = REDIRECTS.has(response.status) && location !== undefined;
      if (!isRedirect || (request.body !== undefined && response.status < 307)) return response;
      await response.drop();
      if (redirects >= this.#options.limits.redirects)
        throw refused(url, `redirects more than ${redirects} times`);
      if (response.status === 303 && method !== 'HEAD') method = 'GET';
      url = targetOf(url, location);
    }
  }

  async #sent(request: RegistryRequest, method: Method, url: URL, past: Past): Promise<HttpResponse> {
    const { signal } = this.#options;
    past.authorization = await this.#authorizer.header(url, request.scopes);
    const headers = this.#headersFor(url, request, past.authorization);
    try {
      return await this.#connections.send({ method, url, headers, body: request.body, signal });
    } catch (error) {
      const isOurs =
        this.host.fallback && url.protocol === 'https:' && url.host === this.#urlOf(request).host;
      if (!isOurs || !(speaksNoTls(error) || isWrongPort(error, this.host.host))) throw error;
      this.#scheme = 'http';
      const plain = new URL(url);
      plain.protocol = 'http:';
      return await this.#sent(request, method, plain, past);
    }
  }

  /** Only the host itself gets what the client wants sent to it. */
  #headersFor(url: URL, { headers }: RegistryRequest, authorization: string | undefined): Headers {
    const isHost = url.host === this.#urlOf({ path: '' }).host;
    return {
      'user-agent': this.#options.userAgent,
      'accept-encoding': 'identity',
      ...(isHost && { ...this.#options.headers, ...this.host.headers }),
      ...headers,
      ...(authorization !== undefined && { authorization }),
    };
  }

  #urlOf({ path }: Pick<RegistryRequest, 'path'>): URL {
    if (path instanceof URL) return path;
    const { host, path: base } = this.host;
    const url = new URL(`${this.#scheme}://${host}${base}/${this.#options.repository}/${path}`);
    if (isProxy(this.#options.name, this.host)) url.searchParams.append('ns', this.#options.name);
    return url;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connections.close();
  }
}

/** Milliseconds; undefined: not said, or over. */
function retryAfter(response: HttpResponse): number | undefined {
  const text = response.header('retry-after') ?? '';
  // A moment is one of the registry's clock: ours may be another.
  const ms = /^\d+$/.test(text)
    ? Number(text) * 1000
    : Date.parse(text) - (Date.parse(response.header('date') ?? '') || Date.now());
  return ms > 0 ? ms : undefined;
}

/**
 * Where a registry sends its client on to. What came over TLS goes on over TLS: a host that is behind a proxy of its own may not know
 * that it has it.
 */
export function targetOf(from: URL, location: string): URL {
  const url = location !== '' && URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  if (url?.protocol === 'http:' && from.protocol === 'https:' && url.host === from.host)
    url.protocol = 'https:';
  const isFit = url?.protocol === 'https:' || (url?.protocol === 'http:' && from.protocol === 'http:');
  if (url !== undefined && isFit) return url;
  throw refused(from, `sends on to "${location.slice(0, 100)}", which is refused`);
}

const refused = (url: URL, why: string): EbbtideError =>
  unknownError(`${shownUrl(url)} ${why}`, { object: url.host, remedy: 'do not use this registry' });

/** Why a response is none that can be used: NotFound for a 404. Reads a bounded part of its body. */
export async function failureOf(method: Method, response: HttpResponse): Promise<EbbtideError> {
  const { status, url } = response;
  const where = shownUrl(url);
  if (status === 404) {
    await response.drop();
    return notFound(`content at ${where} not found`, { object: where });
  }
  const bytes = await readAll(response, FAILURE_BYTES_MAX, () => refused(url, 'says too much')).catch(
    () => undefined,
  );
  const reason = bytes === undefined ? '' : reasonIn(bytes);
  if (status === 401 || status === 403) {
    const said = reason === '' ? '' : `: ${reason}`;
    return unknownError(
      `access denied: ${where} does not exist or may require authorization: authorization failed (${status})${said}`,
      { object: where, remedy: 'check the name, and the user and secret' },
    );
  }
  return unknownError(
    `unexpected status from ${method} request to ${where}: ${status}${reason === '' ? '' : `: ${reason}`}`,
    { object: where, remedy: 'see what the registry says, and try again' },
  );
}

/** Codes and messages of a registry's errors. */
function reasonIn(bytes: Buffer): string {
  try {
    const { errors } = JSON.parse(bytes.toString()) as { errors?: { code?: unknown; message?: unknown }[] };
    const texts = (errors ?? []).map(({ code, message }) => `${code}: ${message}`);
    return texts
      .join('; ')
      .replace(/[^\x20-\x7e]/g, '?')
      .slice(0, FAILURE_SHOWN_MAX);
  } catch {
    return '';
  }
}
