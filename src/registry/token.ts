/**
 * Tokens of a registry's token server: with credentials by OAuth's POST, or by GET where that is not served; else anonymously.
 * Called by authorizer.ts.
 */
import { type EbbtideError, invalidArgument, unknownError } from '../errors.js';
import type { Challenge } from './challenge.js';
import type { Credentials } from './credentials.js';
import { type Connections, type HttpResponse, readAll, shownUrl } from './http.js';
import { TOKEN_ANSWER_BYTES_MAX, TOKEN_BYTES_MAX } from './limits.js';

export interface Token {
  text: string;
  /** Of the clock of `performance.now()`; undefined: the registry did not say. */
  until?: number | undefined;
}

export interface TokenRequest {
  challenge: Challenge;
  credentials: Credentials;
  scopes: readonly string[];
  /** Of the registry that asks for it. */
  origin: URL;
  userAgent: string;
  signal?: AbortSignal | undefined;
}

const CLIENT_ID = 'containerd-client';
/** Token servers without POST answer it with these. */
const NO_POST: ReadonlySet<number> = new Set([400, 401, 404, 405]);

/** Unknown: the server has none for these credentials. InvalidArgument: a realm that no token is fetched from. */
export async function fetchToken(connections: Connections, request: TokenRequest): Promise<Token> {
  const realm = realmOf(request);
  const { secret } = request.credentials;
  if (secret !== '') {
    const response = await post(connections, realm, request);
    if (isSuccess(response)) return tokenIn(response);
    await response.drop();
    if (!NO_POST.has(response.status)) throw noToken(response);
  }
  const response = await get(connections, realm, request);
  if (isSuccess(response)) return tokenIn(response);
  await response.drop();
  throw noToken(response);
}

/** A secret that came over TLS does not leave without it. */
function realmOf({ challenge, origin }: TokenRequest): URL {
  const text = challenge.parameters.get('realm') ?? '';
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (
    url !== undefined &&
    (url.protocol === 'https:' || (url.protocol === 'http:' && origin.protocol === 'http:'))
  )
    return url;
  throw invalidArgument(`${origin.host} names "${text.slice(0, 100)}" for tokens, which is refused`, {
    object: origin.host,
    remedy: 'use a registry whose token server has an address of https',
  });
}

function post(connections: Connections, url: URL, request: TokenRequest): Promise<HttpResponse> {
  const { username, secret } = request.credentials;
  const form = new URLSearchParams({
    ...(request.scopes.length > 0 && { scope: request.scopes.join(' ') }),
    service: request.challenge.parameters.get('service') ?? '',
    client_id: CLIENT_ID,
    ...(username === ''
      ? { grant_type: 'refresh_token', refresh_token: secret }
      : { grant_type: 'password', username, password: secret }),
  });
  const headers = {
    'user-agent': request.userAgent,
    'content-type': 'application/x-www-form-urlencoded; charset=utf-8',
  };
  return connections.send({
    method: 'POST',
    url,
    headers,
    body: () => form.toString(),
    signal: request.signal,
  });
}

function get(connections: Connections, realm: URL, request: TokenRequest): Promise<HttpResponse> {
  const url = new URL(realm);
  const service = request.challenge.parameters.get('service');
  if (service) url.searchParams.append('service', service);
  for (const scope of request.scopes) url.searchParams.append('scope', scope);
  const { username, secret } = request.credentials;
  const headers = {
    'user-agent': request.userAgent,
    ...(secret !== '' && { authorization: basic(username, secret) }),
  };
  return connections.send({ method: 'GET', url, headers, signal: request.signal });
}

export const basic = (username: string, secret: string): string =>
  `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`;

const isSuccess = ({ status }: HttpResponse): boolean => status >= 200 && status < 300;

async function tokenIn(response: HttpResponse): Promise<Token> {
  const where = shownUrl(response.url);
  const bad = (why: string): EbbtideError =>
    unknownError(`the token server ${where} ${why}`, { object: where, remedy: 'do not use this registry' });
  const bytes = await readAll(response, TOKEN_ANSWER_BYTES_MAX, () =>
    bad(`answers with more than ${TOKEN_ANSWER_BYTES_MAX} bytes`),
  );
  let answer: { token?: unknown; access_token?: unknown; expires_in?: unknown } | null;
  try {
    answer = JSON.parse(bytes.toString());
  } catch {
    throw bad('answers with something else than JSON');
  }
  const text = answer?.access_token || answer?.token;
  if (typeof text !== 'string') throw bad('did not include a token');
  if (text.length > TOKEN_BYTES_MAX) throw bad(`has a token of more than ${TOKEN_BYTES_MAX} bytes`);
  if (!/^[\x21-\x7e]+$/.test(text)) throw bad('has a token that is none');
  const seconds = answer?.expires_in;
  const isTimed = typeof seconds === 'number' && seconds > 0;
  return { text, ...(isTimed && { until: performance.now() + seconds * 1000 }) };
}

function noToken({ status, url }: HttpResponse): EbbtideError {
  return unknownError(`authorization failed: no token from ${shownUrl(url)}: status ${status}`, {
    object: url.host,
    remedy: 'check the name, and the user and secret',
  });
}
