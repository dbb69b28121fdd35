/** Payloads of events as containerd's clients know them: message types by topic, and their fields for filters. Pure. */
import type { Any } from '../model/records.js';
import { codecOf } from './schema.js';

const types: Readonly<Record<string, string>> = {
  '/containers/create': 'containerd.events.ContainerCreate',
  '/containers/update': 'containerd.events.ContainerUpdate',
  '/containers/delete': 'containerd.events.ContainerDelete',
  '/content/create': 'containerd.events.ContentCreate',
  '/content/delete': 'containerd.events.ContentDelete',
  '/images/create': 'containerd.services.images.v1.ImageCreate',
  '/images/update': 'containerd.services.images.v1.ImageUpdate',
  '/images/delete': 'containerd.services.images.v1.ImageDelete',
  '/namespaces/create': 'containerd.events.NamespaceCreate',
  '/namespaces/update': 'containerd.events.NamespaceUpdate',
  '/namespaces/delete': 'containerd.events.NamespaceDelete',
  '/snapshot/prepare': 'containerd.events.SnapshotPrepare',
  '/snapshot/commit': 'containerd.events.SnapshotCommit',
  '/snapshot/remove': 'containerd.events.SnapshotRemove',
};

const typeUrls = new Set(Object.values(types));

/** The encoded payload of one of our topics; undefined for any other topic. */
export function encodeEvent(topic: string, payload: Readonly<Record<string, unknown>>): Any | undefined {
  const typeUrl = types[topic];
  if (typeUrl === undefined) return undefined;
  return { typeUrl, value: codecOf(typeUrl).encode(payload) };
}

/** The fields of an event of the types above; undefined for other types and for damaged ones. */
export function decodeEvent({ typeUrl, value }: Any): Readonly<Record<string, unknown>> | undefined {
  if (!typeUrls.has(typeUrl)) return undefined;
  try {
    return codecOf<Record<string, unknown>>(typeUrl).decode(Buffer.from(value));
  } catch {
    return undefined;
  }
}
