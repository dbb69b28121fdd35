/**
 * Answers the 401s of registries, host by host: with the credentials that `getCredentials` has for a host, which is asked once for
 * each; basic, a bearer token, or a header as it is. Used by exchange.ts.
 */
import { type EbbtideError, unknownError } from '../errors.js';
import { type Challenge, parseChallenges } from './challenge.js';
import type { Credentials, GetCredentials } from './credentials.js';
import type { Connections } from './http.js';
import { basic, fetchToken, type Token } from './token.js';

/** What is known of a host that has asked for something. */
interface Known {
  challenge: Challenge;
  credentials: Credentials;
  /** By scopes. */
  tokens: Map<string, Kept>;
}

interface Kept {
  token: Promise<Token>;
  /** Infinity while it is on its way. */
  until: number;
}

/** Tokens of a host that are kept. */
const TOKENS_MAX = 100;

export class Authorizer {
  readonly #getCredentials: GetCredentials | undefined;
  readonly #connections: Connections;
  readonly #userAgent: string;
  readonly #signal: AbortSignal | undefined;
  readonly #hosts = new Map<string, Promise<Known>>();

  constructor(
    connections: Connections,
    options: {
      getCredentials?: GetCredentials | undefined;
      userAgent: string;
      signal?: AbortSignal | undefined;
    },
  ) {
    this.#connections = connections;
    this.#getCredentials = options.getCredentials;
    this.#userAgent = options.userAgent;
    this.#signal = options.signal;
  }

  /** The value of `Authorization` for a request; undefined while the host has not asked for one. */
  async header(url: URL, scopes: readonly string[]): Promise<string | undefined> {
    const known = await this.#hosts.get(url.host);
    if (known === undefined) return undefined;
    const { challenge, credentials } = known;
    if (credentials.header !== '') return credentials.header;
    if (challenge.scheme === 'basic') return basic(credentials.username, credentials.secret);
    return `Bearer ${(await this.#token(url, known, scopes)).text}`;
  }

  /** Takes a 401 of a host, and what was refused; returns false when there is nothing else to be said to it. */
  async answer(
    url: URL,
    values: readonly string[],
    refused: string | undefined,
    scopes: readonly string[],
  ): Promise<boolean> {
    const before = await this.#hosts.get(url.host);
    // Another request may have been answered in the meantime.
    if (before !== undefined && (await this.header(url, scopes)) !== refused) return true;
    const challenge = parseChallenges(values).find(
      ({ scheme }) => scheme === 'bearer' || this.#takes(scheme),
    );
    if (challenge === undefined) return false;
    // Only a token can be over.
    const isSaid = before !== undefined && (challenge.scheme === 'basic' || before.credentials.header !== '');
    if (isSaid) return false;
    const next = this.#know(url.host, challenge, values, before);
    this.#hosts.set(url.host, next);
    await next;
    return true;
  }

  #takes(scheme: string): boolean {
    return scheme === 'basic' && this.#getCredentials !== undefined;
  }

  /** The client is asked once for a host. */
  async #know(host: string, challenge: Challenge, values: readonly string[], before?: Known): Promise<Known> {
    const credentials = before?.credentials ??
      (await this.#getCredentials?.(host, values)) ?? { username: '', secret: '', header: '' };
    const { username, secret, header } = credentials;
    if (challenge.scheme === 'basic' && header === '' && (username === '' || secret === ''))
      throw noCredentials(host);
    return { challenge, credentials, tokens: new Map() };
  }

  async #token(
    origin: URL,
    { challenge, credentials, tokens }: Known,
    scopes: readonly string[],
  ): Promise<Token> {
    const asked = challenge.parameters.get('scope')?.split(' ') ?? [];
    const all = [...new Set([...scopes, ...asked.filter((one) => one !== '')])].sort();
    const key = all.join(' ');
    const known = tokens.get(key);
    if (known !== undefined && known.until > performance.now()) return known.token;
    if (tokens.size >= TOKENS_MAX) tokens.clear();
    const { userAgent, signal } = { userAgent: this.#userAgent, signal: this.#signal };
    const token = fetchToken(this.#connections, {
      challenge,
      credentials,
      scopes: all,
      origin,
      userAgent,
      signal,
    });
    const kept: Kept = { token, until: Number.POSITIVE_INFINITY };
    tokens.set(key, kept);
    try {
      kept.until = (await token).until ?? Number.POSITIVE_INFINITY;
    } catch (error) {
      tokens.delete(key);
      throw error;
    }
    return token;
  }
}

const noCredentials = (host: string): EbbtideError =>
  unknownError(`authorization failed: no basic auth credentials for ${host}`, {
    object: host,
    remedy: 'give a user and its secret (`ctr`: --user)',
  });
