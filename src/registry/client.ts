/**
 * An image in a registry, for one transfer: what its reference names, the bytes of its blobs, and blobs sent there. Everything that
 * the registry chooses is bounded (limits.ts). Used by the daemon's transfers.
 */
import { notFound } from '../errors.js';
import { RemoteBlob, type RemoteDescriptor } from './blob.js';
import type { GetCredentials } from './credentials.js';
import { Exchange } from './exchange.js';
import { type HostOptions, hostsOf } from './hosts.js';
import type { Headers } from './http.js';
import { type RegistryLimits, registryLimits } from './limits.js';
import { type Outgoing, sendBlob } from './push.js';
import { parseReference, type RegistryReference, scopeOf } from './reference.js';
import { type Resolved, resolveReference } from './resolve.js';

export interface RegistryOptions extends HostOptions {
  userAgent: string;
  headers?: Headers | undefined;
  getCredentials?: GetCredentials | undefined;
  /** Ends everything under way. */
  signal?: AbortSignal | undefined;
  /** Defaults for those left out. */
  limits?: Partial<RegistryLimits> | undefined;
}

export class RegistryClient implements AsyncDisposable {
  readonly reference: RegistryReference;
  readonly #exchanges: readonly Exchange[];
  readonly #limits: RegistryLimits;
  readonly #signal: AbortSignal | undefined;

  private constructor(
    reference: RegistryReference,
    exchanges: readonly Exchange[],
    limits: RegistryLimits,
    signal: AbortSignal | undefined,
  ) {
    this.reference = reference;
    this.#exchanges = exchanges;
    this.#limits = limits;
    this.#signal = signal;
  }

  /** InvalidArgument: the reference, or the configuration of its host. No request is sent. */
  static async open(text: string, options: RegistryOptions): Promise<RegistryClient> {
    const reference = parseReference(text);
    const limits = { ...registryLimits, ...options.limits };
    const { host: name, repository } = reference;
    const { userAgent, headers = {}, getCredentials, signal } = options;
    const hosts = await hostsOf(name, options);
    const exchanges = hosts.map(
      (host) => new Exchange(host, { name, repository, limits, userAgent, headers, getCredentials, signal }),
    );
    return new RegistryClient(reference, exchanges, limits, signal);
  }

  resolve(): Promise<Resolved> {
    return resolveReference(this.#exchanges, this.reference);
  }

  /** The bytes of a blob or a manifest; asked for when they are read. */
  blob(descriptor: RemoteDescriptor): RemoteBlob {
    const exchanges = this.#exchanges.filter(({ host }) => host.capabilities.has('pull'));
    if (exchanges.length === 0) throw notFound('no pull hosts', { object: this.reference.text });
    const scopes = [scopeOf(this.reference)];
    return new RemoteBlob(descriptor, { exchanges, scopes, limits: this.#limits, signal: this.#signal });
  }

  /** Sends a blob or a document; returns false when the registry has it. */
  put(descriptor: RemoteDescriptor, outgoing: Outgoing): Promise<boolean> {
    const exchange = this.#exchanges.find(({ host }) => host.capabilities.has('push'));
    if (exchange === undefined) throw notFound('no push hosts', { object: this.reference.text });
    const options = { reference: this.reference, limits: this.#limits, signal: this.#signal };
    return sendBlob(exchange, descriptor, outgoing, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#exchanges.map((exchange) => exchange[Symbol.asyncDispose]()));
  }
}
