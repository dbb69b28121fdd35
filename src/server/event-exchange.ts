/**
 * Delivers events to subscribers. Each subscriber has its own queue, charged to its own memory: one that does
 * not keep up loses its subscription, and neither publishers nor other subscribers wait for it. Fed by the
 * stores (as the DB's publisher), by services and by clients. Nothing is stored, and nothing is encoded
 * unless there is a subscriber.
 */
import { type EbbtideError, invalidArgument } from '../errors.js';
import { type Adaptor, adaptLabels, type Filter, parseFilters } from '../model/filters.js';
import { validateIdentifier } from '../model/identifiers.js';
import type { Any, StringMap } from '../model/records.js';
import { type Instant, now, zeroTime } from '../model/time.js';
import type { EventsPublisher } from '../stores/host.js';
import type { Memory } from './call.js';
import { decodeEvent, encodeEvent } from './event-types.js';
import { kept } from './grpc/message-reader.js';
import { resourceExhausted } from './status.js';

export interface Envelope {
  readonly timestamp: Instant;
  readonly namespace: string;
  readonly topic: string;
  readonly event: Any | undefined;
}

/** What a queued event takes, not counting its strings and its payload. */
const ENVELOPE_BYTES = 256;
/** Every subscription is matched against every event. */
const SUBSCRIPTIONS_MAX = 1000;

/** For subscribers in this process. */
const UNBOUNDED: Memory = { take: () => true, give: () => undefined };

export class EventExchange implements EventsPublisher {
  readonly #subscriptions = new Set<Subscription>();
  readonly #queueMax: number;

  /** @param queueMax events a subscriber may lag */
  constructor(queueMax: number) {
    this.#queueMax = queueMax;
  }

  /** Publishes an event of this program. Never fails and never waits. */
  publish(namespace: string, topic: string, payload: Readonly<Record<string, unknown>>): Promise<void> {
    if (this.#subscriptions.size > 0) {
      const event = encodeEvent(topic, payload);
      if (event !== undefined) this.#send({ timestamp: now(), namespace, topic, event });
    }
    return Promise.resolve();
  }

  /** Publishes a client's event, with the current time. InvalidArgument: namespace or topic. */
  publishAny(namespace: string, topic: string, event: Any | undefined): void {
    this.forward({ timestamp: now(), namespace, topic, event });
  }

  /** Forwards a client's event. InvalidArgument: namespace, topic, or no time. */
  forward(envelope: Envelope): void {
    validateIdentifier(envelope.namespace, 'namespace');
    validateTopic(envelope.topic);
    if (envelope.timestamp === zeroTime) throw invalidArgument('a forwarded event must have a timestamp');
    if (this.#subscriptions.size === 0) return;
    const { event } = envelope;
    // Copied, because a view would keep the whole buffer it was read into.
    this.#send(
      event === undefined ? envelope : { ...envelope, event: { ...event, value: kept(event.value) } },
    );
  }

  /**
   * Events from now on that match any of the filters (all events without filters), until the signal is
   * aborted. Queued events are charged to `memory`. InvalidArgument: the filters; ResourceExhausted: more
   * than a thousand subscriptions.
   */
  subscribe(filters: readonly string[], signal: AbortSignal, memory: Memory = UNBOUNDED): Subscription {
    if (this.#subscriptions.size >= SUBSCRIPTIONS_MAX) {
      throw resourceExhausted(`there are ${SUBSCRIPTIONS_MAX} subscriptions already`);
    }
    const subscription = new Subscription(parseFilters(filters), this.#queueMax, memory);
    if (signal.aborted) subscription.close();
    else this.#subscriptions.add(subscription);
    const end = (): void => {
      subscription.close();
      this.#subscriptions.delete(subscription);
    };
    signal.addEventListener('abort', end, { once: true });
    return subscription;
  }

  get isIdle(): boolean {
    return this.#subscriptions.size === 0;
  }

  get subscribers(): number {
    return this.#subscriptions.size;
  }

  #send(envelope: Envelope): void {
    // Shared by all subscriptions, so that the payload is decoded once.
    const fields = adapt(envelope);
    const bytes = bytesOf(envelope);
    for (const subscription of this.#subscriptions) {
      if (!subscription.offer(envelope, fields, bytes)) this.#subscriptions.delete(subscription);
    }
  }
}

const bytesOf = ({ namespace, topic, event }: Envelope): number =>
  ENVELOPE_BYTES + 2 * (namespace.length + topic.length) + (event?.value.length ?? 0);

/** The queue of one subscriber. */
export class Subscription {
  readonly #matches: Filter;
  readonly #max: number;
  readonly #memory: Memory;
  #queue: Envelope[] = [];
  /** Bytes taken for the queue, and for the events returned last, which are still being sent. */
  #bytes = 0;
  #givenBytes = 0;
  #wake: (() => void) | undefined;
  #overrun = false;
  #failure: unknown;
  #closed = false;

  constructor(matches: Filter, max: number, memory: Memory) {
    this.#matches = matches;
    this.#max = max;
    this.#memory = memory;
  }

  /**
   * Returns false if the subscriber lags too far behind, or its filters cost too much: nothing more is queued
   * for it.
   */
  offer(envelope: Envelope, adaptor: Adaptor, bytes: number): boolean {
    if (this.#closed || this.#overrun) return false;
    try {
      if (!this.#matches(adaptor)) return true;
    } catch (error) {
      this.#failure = error;
      this.#wake?.();
      return false;
    }
    if (this.#queue.length < this.#max && this.#memory.take(bytes)) {
      this.#bytes += bytes;
      this.#queue.push(envelope);
    } else {
      this.#overrun = true;
      this.#drop();
    }
    this.#wake?.();
    return !this.#overrun;
  }

  /**
   * The next events, at least one, once the previous ones are sent; [] at the end. ResourceExhausted: the
   * subscriber lagged too far behind. InvalidArgument: a value is too long for a pattern of its filters.
   */
  async next(): Promise<Envelope[]> {
    this.#memory.give(this.#givenBytes);
    this.#givenBytes = 0;
    while (this.#queue.length === 0 && !this.#overrun && !this.#closed && this.#failure === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    if (this.#closed) return [];
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#overrun) {
      throw resourceExhausted(
        `the subscriber lags too far behind: more than ${this.#max} events, or more bytes than its connection may have`,
      );
    }
    const events = this.#queue;
    this.#queue = [];
    this.#givenBytes = this.#bytes;
    this.#bytes = 0;
    return events;
  }

  close(): void {
    this.#closed = true;
    this.#memory.give(this.#givenBytes);
    this.#givenBytes = 0;
    this.#drop();
    this.#wake?.();
  }

  #drop(): void {
    this.#memory.give(this.#bytes);
    this.#bytes = 0;
    this.#queue = [];
  }
}

function validateTopic(topic: string): void {
  const invalid = (how: string): EbbtideError =>
    invalidArgument(`envelope topic "${topic}": ${how}`, { object: topic });
  if (topic === '') throw invalid('must not be empty');
  if (!topic.startsWith('/')) throw invalid("must start with '/'");
  if (topic === '/') throw invalid('must have at least one component');
  for (const component of topic.slice(1).split('/')) validateIdentifier(component, 'topic component');
}

/** Filter fields: namespace, topic, event.<field of the payload>. */
function adapt({ namespace, topic, event }: Envelope): Adaptor {
  let payload: ReturnType<typeof decodeEvent> | null = null;
  return (path) => {
    switch (path[0]) {
      case 'namespace':
        return namespace || undefined;
      case 'topic':
        return topic || undefined;
      case 'event':
        if (event === undefined) return undefined;
        if (payload === null) payload = decodeEvent(event);
        return fieldOf(payload, path, 1);
      default:
        return undefined;
    }
  };
}

function fieldOf(
  fields: Readonly<Record<string, unknown>> | undefined,
  path: readonly string[],
  from: number,
): string | undefined {
  const name = camelCase(path[from] ?? '');
  if (fields === undefined || !(name in fields)) return undefined;
  const value = fields[name];
  if (typeof value === 'function') return undefined;
  if (name === 'labels') return adaptLabels(value as StringMap, path, from + 1);
  if (typeof value === 'object' && value !== null) {
    return fieldOf(value as Record<string, unknown>, path, from + 1);
  }
  return value === undefined || value === null || value === '' ? undefined : String(value);
}

const camelCase = (name: string): string =>
  name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
