/** Store values as messages and back: instants, Any, descriptors, mounts, maps. Pure; used by services and clients. */
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

/** Also times before 1970: nanoseconds count upwards from the second before. */
export function timestampOf(t: Instant): Timestamp {
  let seconds = t / NANOS_PER_SECOND;
  let nanos = Number(t - seconds * NANOS_PER_SECOND);
  if (nanos < 0) {
    seconds -= 1n;
    nanos += 1e9;
  }
  return { seconds: Number(seconds), nanos };
}

/** A timestamp that was not sent is the zero time. */
export const instantOf = (t: Timestamp | null | undefined): Instant =>
  t ? BigInt(Math.trunc(t.seconds)) * NANOS_PER_SECOND + BigInt(t.nanos) : zeroTime;

/** What was sent, or undefined: also for the zero time, which clients send for no time. */
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

/** Messages of a list that are made while it is written: ten thousand of them are never there at a time. */
export function* mapped<T, M>(items: Iterable<T>, message: (item: T) => M): Generator<M> {
  for (const item of items) yield message(item);
}
