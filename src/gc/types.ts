/**
 * Words of a collection: resource types, nodes and what names them. Used by every file of this room and by
 * programs that register collectors. Nothing here is stored but the type in the high byte of a node's flags.
 */
import type { Key } from '../engine/contract.js';
import {
  blobKey,
  containerKey,
  imageKey,
  ingestKey,
  leaseKey,
  mountKey,
  SEPARATOR,
  snapshotKey,
} from '../engine/schema/keys.js';
import { invalidArgument } from '../errors.js';

/** Types of resources, with the numbers of containerd 2.x. They live in memory and are never written out. */
export const ResourceType = {
  /** None of the others. */
  Unknown: 0,
  /** A blob. */
  Content: 1,
  /** A snapshot. */
  Snapshot: 2,
  /** A container. */
  Container: 3,
  /** A task. */
  Task: 4,
  /** An image. */
  Image: 5,
  /** A lease. */
  Lease: 6,
  /** An ingest. */
  Ingest: 7,
  /** A stream. */
  Stream: 9,
  /** A mount. */
  Mount: 10,
} as const;
/** One of the above, or the number a collector registered. */
export type ResourceType = number;

/** The type of what is none of the others; of the records only sandboxes. */
export const ResourceUnknown = ResourceType.Unknown;
/** The type of blobs. */
export const ResourceContent = ResourceType.Content;
/** The type of snapshots. */
export const ResourceSnapshot = ResourceType.Snapshot;
/** The type of containers. */
export const ResourceContainer = ResourceType.Container;
/** The type of tasks. */
export const ResourceTask = ResourceType.Task;
/** The type of images. */
export const ResourceImage = ResourceType.Image;
/** The type of leases. */
export const ResourceLease = ResourceType.Lease;
/** The type of ingests. */
export const ResourceIngest = ResourceType.Ingest;
/** The type of streams. */
export const ResourceStream = ResourceType.Stream;
/** The type of mounts. */
export const ResourceMount = ResourceType.Mount;

/** End marker of the built-in types: the first number a collector may register. */
export const RESOURCE_END = 8;
/** A registered type must be below this; also the mask that clears variant bits. */
export const ResourceMax = 0x1f;
/** Variant bit: kept with its structural parents, but not what its labels point at. */
export const FLAT_VARIANT = 0x20;

/** One object a collection decides about; equal when all three parts are. */
export interface Node {
  /** ResourceType, or a collector's; may carry FLAT_VARIANT while marking. */
  readonly type: number;
  /** Where the object is. */
  readonly namespace: string;
  /** Digest, image name, container, lease id, ingest ref, name of a mount; `<snapshotter>/<key>` for snapshots. */
  readonly key: string;
}

/** A text that two nodes share exactly when they are equal. */
export const nodeName = (node: Node): string => `${node.type}\0${node.namespace}\0${node.key}`;

const kindNames = new Map<number, string>([
  [ResourceContent, 'content'],
  [ResourceSnapshot, 'snapshot'],
  [ResourceContainer, 'container'],
  [ResourceTask, 'task'],
  [ResourceImage, 'image'],
  [ResourceLease, 'lease'],
  [ResourceIngest, 'ingest'],
  [ResourceStream, 'stream'],
  [ResourceMount, 'mount'],
  [ResourceUnknown, 'sandbox'],
]);

/** The word for a type in reports; sandboxes are the only records of type 0. */
export const kindName = (type: number): string => kindNames.get(type & ResourceMax) ?? `type${type}`;

/** Type of the records of a collection; undefined when they are not nodes. */
const typeOfCollection = new Map<string, number>([
  ['images', ResourceImage],
  ['containers', ResourceContainer],
  ['snapshots', ResourceSnapshot],
  ['blobs', ResourceContent],
  ['ingests', ResourceIngest],
  ['leases', ResourceLease],
  ['mounts', ResourceMount],
  ['sandboxes', ResourceUnknown],
]);

export const resourceTypeOf = (collection: string): number | undefined => typeOfCollection.get(collection);

/** The node a record's key stands for; undefined for keys of other collections. */
export function nodeOfKey(key: Key): Node | undefined {
  const first = key.indexOf(SEPARATOR);
  const second = key.indexOf(SEPARATOR, first + 1);
  const type = first < 0 || second < 0 ? undefined : typeOfCollection.get(key.slice(0, first));
  if (type === undefined) return undefined;
  const rest = key.slice(second + 1);
  // A snapshot's has its snapshotter before it.
  const name = rest.includes(SEPARATOR) ? rest.replaceAll(SEPARATOR, '/') : rest;
  return { type, namespace: key.slice(first + 1, second), key: name };
}

/**
 * The record a node stands for, variant bits ignored; undefined for types that are not records and for keys
 * that cannot exist (empty, with a NUL). A snapshot key without `/` is InvalidArgument.
 */
export function keyOfNode(node: Node): Key | undefined {
  const { namespace, key } = node;
  const type = node.type & ResourceMax;
  if (key === '' || key.includes(SEPARATOR) || namespace === '') return undefined;
  switch (type) {
    case ResourceContent:
      return blobKey(namespace, key);
    case ResourceContainer:
      return containerKey(namespace, key);
    case ResourceImage:
      return imageKey(namespace, key);
    case ResourceLease:
      return leaseKey(namespace, key);
    case ResourceIngest:
      return ingestKey(namespace, key);
    case ResourceMount:
      return mountKey(namespace, key);
    case ResourceSnapshot: {
      const slash = key.indexOf('/');
      if (slash < 0) throw invalidArgument(`invalid snapshot gc key "${key}"`, { object: key });
      if (slash === 0 || slash === key.length - 1) return undefined;
      return snapshotKey(namespace, key.slice(0, slash), key.slice(slash + 1));
    }
    default:
      return undefined;
  }
}
