/**
 * Limits on what one client may ask of the daemon, so that the others get their share. Set by the config
 * file; used everywhere.
 */
import { invalidArgument } from '../errors.js';
import { LAYERS_AT_ONCE_DEFAULT } from '../images/layers/chain.js';
import { TIMER_MS_MAX } from '../system/timers.js';

const MiB = 2 ** 20;

export interface Limits {
  /** Bytes of one message, either way; containerd's clients send and expect up to 16 MiB. */
  readonly messageBytes: number;
  /** Concurrent calls on one connection; further ones wait at the client. */
  readonly streamsPerConnection: number;
  /** Concurrent connections; further ones are closed at once. */
  readonly connections: number;
  /** Bytes of a call's headers. */
  readonly metadataBytes: number;
  /** Bytes that all clients together may make the daemon keep (ledger.ts). */
  readonly memoryBytes: number;
  /** Bytes of one ingest. */
  readonly ingestBytes: number;
  /** Events kept for a subscriber that does not read; beyond that it loses its subscription. */
  readonly subscriberEvents: number;
  /** Layers of an image that are unpacked at once; at most 16 of all images together, besides one each. */
  readonly layersAtOnce: number;
  /** Milliseconds a connection may take to begin as HTTP/2. */
  readonly helloMs: number;
  /**
   * Milliseconds between two signs of life of a connection, and the time limit for each: without them a
   * client that broke the protocol and disconnected would not be noticed (Node stops reading from it).
   */
  readonly keepaliveMs: number;
  /** Milliseconds that open calls have to finish when the daemon stops. */
  readonly shutdownMs: number;
}

export const defaultLimits: Limits = {
  messageBytes: 16 * MiB,
  streamsPerConnection: 1000,
  connections: 1000,
  metadataBytes: 64 * 1024,
  memoryBytes: 256 * MiB,
  ingestBytes: 2 ** 40,
  subscriberEvents: 10_000,
  layersAtOnce: LAYERS_AT_ONCE_DEFAULT,
  helloMs: 10_000,
  keepaliveMs: 30_000,
  shutdownMs: 5000,
};

/**
 * The defaults, with the given values. InvalidArgument names a limit that is unknown or is not a positive
 * whole number.
 */
export function limitsOf(set: Readonly<Record<string, unknown>> = {}): Limits {
  for (const [name, value] of Object.entries(set)) {
    if (!Object.hasOwn(defaultLimits, name)) {
      throw invalidArgument(`unknown limit "${name}"`, {
        object: name,
        remedy: `known: ${Object.keys(defaultLimits).join(', ')}`,
      });
    }
    if (!Number.isSafeInteger(value) || (value as number) <= 0) {
      throw invalidArgument(`limit ${name} is ${String(value)}`, {
        object: name,
        remedy: 'use a whole number above 0',
      });
    }
    if (name.endsWith('Ms') && (value as number) > TIMER_MS_MAX) {
      throw invalidArgument(`limit ${name} is ${String(value)}`, {
        object: name,
        remedy: `use ${TIMER_MS_MAX} at most`,
      });
    }
  }
  return { ...defaultLimits, ...set };
}
