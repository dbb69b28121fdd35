/**
 * Hands events to whoever subscribed. Each subscriber has a queue of its own, in memory of its own: one that does not keep
 * up loses its subscription, and neither publishers nor other subscribers wait for it. Fed by the stores (as the DB's publisher),
 * by services and by clients. Nothing is stored, and nothing is encoded unless somebody listens.
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

/** What a queued event takes besides its texts and its payload. */
const ENVELOPE_BYTES = 256;
/** Each of them looks at each event. */
const SUBSCRIBERS_MAX = 1000;

export class EventExchange implements EventsPublisher {
  readonly #subscriptions = new Set<Subscription>();
  readonly #queueMax: number;

  /** `queueMax`: events a subscriber may be behind. */
  constructor(queueMax: number) {
    this.#queueMax = queueMax;
  }

  /** An event of this program's own. Never fails and never waits. */
  publish(namespace: string, topic: string, payload: Readonly<Record<string, unknown>>): Promise<void> {
    if (this.#subscriptions.size > 0) {
      const event = encodeEvent(topic, payload);
      if (event !== undefined) this.#send({ timestamp: now(), namespace, topic, event });
    }
    return Promise.resolve();
  }

  /** An event that a client publishes; gets its time here. InvalidArgument: namespace or topic. */
  publishAny(namespace: string, topic: string, event: Any | undefined): void {
    this.forward({ timestamp: now(), namespace, topic, event });
  }

  /** An event that a client passes on. InvalidArgument: namespace, topic, or no time. */
  forward(envelope: Envelope): void {
    validateIdentifier(envelope.namespace, 'namespace');
    validateTopic(envelope.topic);
    if (envelope.timestamp === zeroTime) throw invalidArgument('a forwarded event must have a timestamp');
    if (this.#subscriptions.size === 0) return;
    const { event } = envelope;
    // A view would keep the whole of what was read together with it.
    this.#send(
      event === undefined ? envelope : { ...envelope, event: { ...event, value: kept(event.value) } },
    );
  }

  /**
   * Events from now on that match any of the filters (all without one), until the signal ends; what is queued is taken
   * from `memory`. InvalidArgument: the filters; ResourceExhausted: more than a thousand subscribers.
   */
  subscribe(filters: readonly string[], signal: AbortSignal, memory: Memory): Subscription {
    if (this.#subscriptions.size >= SUBSCRIBERS_MAX) {
      throw resourceExhausted(`there are ${SUBSCRIBERS_MAX} subscribers already`);
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

  get subscribers(): number {
    return this.#subscriptions.size;
  }

  #send(envelope: Envelope): void {
    const fields = adapt(envelope);
    const bytes = bytesOf(envelope);
    for (const subscription of this.#subscriptions) {
      if (!subscription.offer(envelope, fields, bytes)) this.#subscriptions.delete(subscription);
    }
  }
}

const bytesOf = ({ namespace, topic, event }: Envelope): number =>
  ENVELOPE_BYTES + 2 * (namespace.length + topic.length) + (event?.value.length ?? 0);

interface Queued {
  readonly envelope: Envelope;
  readonly bytes: number;
}

/** What one subscriber has yet to get. */
export class Subscription {
  readonly #matches: Filter;
  readonly #max: number;
  readonly #memory: Memory;
  #queue: Queued[] = [];
  #first = 0;
  /** Bytes of the event that was given out last, which is on its way. */
  #given = 0;
  #wake: (() => void) | undefined;
  #overrun = false;
  #closed = false;

  constructor(matches: Filter, max: number, memory: Memory) {
    this.#matches = matches;
    this.#max = max;
    this.#memory = memory;
  }

  /** False when the subscriber is too far behind: nothing more is kept for it. */
  offer(envelope: Envelope, fields: Adaptor, bytes: number): boolean {
    if (this.#closed || this.#overrun) return false;
    if (!this.#matches(fields)) return true;
    if (this.#queue.length - this.#first < this.#max && this.#memory.take(bytes)) {
      this.#queue.push({ envelope, bytes });
    } else {
      this.#overrun = true;
      this.#drop();
    }
    this.#wake?.();
    return !this.#overrun;
  }

  /** The next event, when the last one is sent; undefined at the end. ResourceExhausted: the subscriber was too far behind. */
  async next(): Promise<Envelope | undefined> {
    this.#memory.give(this.#given);
    this.#given = 0;
    while (this.#first === this.#queue.length && !this.#overrun && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    if (this.#closed) return undefined;
    if (this.#overrun) {
      throw resourceExhausted(
        `the subscriber is too far behind: more than ${this.#max} events, or more bytes than its connection may have`,
      );
    }
    return this.#shift();
  }

  close(): void {
    this.#closed = true;
    this.#memory.give(this.#given);
    this.#given = 0;
    this.#drop();
    this.#wake?.();
  }

  #shift(): Envelope {
    const { envelope, bytes } = this.#queue[this.#first]!;
    this.#first++;
    this.#given = bytes;
    if (this.#first === this.#queue.length) this.#forget();
    else if (this.#first >= COMPACT && this.#first * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#first);
      this.#first = 0;
    }
    return envelope;
  }

  #drop(): void {
    for (let i = this.#first; i < this.#queue.length; i++) this.#memory.give(this.#queue[i]!.bytes);
    this.#forget();
  }

  #forget(): void {
    this.#queue = [];
    this.#first = 0;
  }
}

/** Events that were given out and are still in the array, before it is made smaller. */
const COMPACT = 64;

function validateTopic(topic: string): void {
  const invalid = (how: string): EbbtideError =>
    invalidArgument(`envelope topic "${topic}": ${how}`, { object: topic });
  if (topic === '') throw invalid('must not be empty');
  if (!topic.startsWith('/')) throw invalid("must start with '/'");
  if (topic === '/') throw invalid('must have at least one component');
  for (const component of topic.slice(1).split('/')) validateIdentifier(component, 'topic component');
}

/** Filter fields: namespace, topic, event.<field of the payload>, which is decoded once at most. */
function adapt({ namespace, topic, event }: Envelope): Adaptor {
  let decoded: ReturnType<typeof decodeEvent> | undefined;
  let asked = false;
  return (path) => {
    switch (path[0]) {
      case 'namespace':
        return namespace || undefined;
      case 'topic':
        return topic || undefined;
      case 'event':
        if (!asked && event !== undefined) decoded = decodeEvent(event);
        asked = true;
        return fieldOf(decoded, path, 1);
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
