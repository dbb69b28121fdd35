/**
 * Converts store values to messages and back: instants, Any, descriptors, mounts, maps. Pure; used by
 * services and clients.
 */
import type { Mount } from '../../backends/contract.js';
import type { Any, AnyMap, RuntimeRecord } from '../../model/records.js';
import { type Instant, NANOS_PER_SECOND, zeroTime } from '../../model/time.js';
import type { Descriptor } from '../../stores/images.js';
import type {
  AnyMapMessage,
  AnyMessage,
  DescriptorMessage,
  MountMessage,
  RuntimeMessage,
  Timestamp,
} from './messages.js';

/** Before 1970, nanoseconds still count upwards from the second before. */
export function timestampOf(t: Instant): Timestamp {
  let seconds = t / NANOS_PER_SECOND;
  let nanos = Number(t - seconds * NANOS_PER_SECOND);
  if (nanos < 0) {
    seconds -= 1n;
    nanos += 1e9;
  }
  return { seconds: Number(seconds), nanos };
}

/** A missing timestamp is the zero time. */
export const instantOf = (t: Timestamp | null | undefined): Instant =>
  t ? BigInt(Math.trunc(t.seconds)) * NANOS_PER_SECOND + BigInt(t.nanos) : zeroTime;

/** The instant that was sent; undefined for none and for the zero time, which clients send for none. */
export function givenInstant(t: Timestamp | null | undefined): Instant | undefined {
  const instant = instantOf(t);
  return instant === zeroTime ? undefined : instant;
}

export const anyOf = (any: AnyMessage): Any => ({ typeUrl: any.typeUrl, value: any.value });
export const givenAny = (any: AnyMessage | null | undefined): Any | undefined =>
  any ? anyOf(any) : undefined;

export const anyMapOf = (map: AnyMapMessage): AnyMap =>
  Object.fromEntries(Object.entries(map).map(([name, any]) => [name, anyOf(any)]));

export const runtimeOf = (runtime: RuntimeMessage | null | undefined): RuntimeRecord | undefined =>
  runtime ? { name: runtime.name, ...(runtime.options && { options: anyOf(runtime.options) }) } : undefined;

export const descriptorMessage = ({
  mediaType,
  digest,
  size,
  annotations,
}: Descriptor): DescriptorMessage => ({
  mediaType,
  digest,
  size,
  annotations,
});

export const descriptorOf = (d: DescriptorMessage): Descriptor => ({
  mediaType: d.mediaType,
  digest: d.digest,
  size: d.size,
  annotations: d.annotations ?? {},
});

export const mountMessage = ({ type, source, target = '', options }: Mount): MountMessage => ({
  type,
  source,
  target,
  options,
});

export const mountOf = ({ type, source, target = '', options }: MountMessage): Mount => ({
  type,
  source,
  options,
  ...(target !== '' && { target }),
});

/** Creates the messages of a list while it is encoded: ten thousand of them never exist at a time. */
export function* mapped<T, M>(items: Iterable<T>, message: (item: T) => M): Generator<M> {
  for (const item of items) yield message(item);
}
