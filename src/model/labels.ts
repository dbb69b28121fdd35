/**
 * Labels: small string maps on every object, and the keys that have a meaning to the store, the collector or
 * a snapshotter. Called by stores/ (validation, copies), gc/ (keys) and filters; pure.
 *
 * A key may be any string, also `__proto__` or `constructor`. Read maps through `labelOf`, and build them
 * with the functions here, which see and create own properties only.
 */
import { invalidArgument } from '../errors.js';
import type { StringMap } from './records.js';

/** Bytes of a label's key and value together. */
export const MAX_LABEL_BYTES = 4096;
/**
 * Limits on the labels of one object: their number, and their bytes in total. A record also has to fit into
 * one request of etcd.
 */
export const MAX_LABELS = 10_000;
export const MAX_LABELS_BYTES = 2 ** 20;
/** Bytes of the key that the error for an overlong label shows. */
const SHOWN_KEY_BYTES = 64;

/**
 * Keys, or constant prefixes of keys. No prefix includes the `.` or `/` that may follow it, except
 * snapshotPrefix.
 */
export const Label = {
  /** Prefix: content or a snapshot with such a label is a root. */
  gcRoot: 'containerd.io/gc.root',
  /** Followed by `.<word>`: a forward reference. */
  gcRef: 'containerd.io/gc.ref',
  /** A reference to a blob. */
  gcRefContent: 'containerd.io/gc.ref.content',
  /** Followed by `.<snapshotter>`. */
  gcRefSnapshot: 'containerd.io/gc.ref.snapshot',
  /** A reference to an image. */
  gcRefImage: 'containerd.io/gc.ref.image',
  /** Followed by `.<word>`: a back reference. */
  gcBref: 'containerd.io/gc.bref',
  /** A back reference: the object is kept with this container. */
  gcBrefContainer: 'containerd.io/gc.bref.container',
  /** A back reference: the object is kept with this blob. */
  gcBrefContent: 'containerd.io/gc.bref.content',
  /** A back reference: the object is kept with this image. */
  gcBrefImage: 'containerd.io/gc.bref.image',
  /** Followed by `.<snapshotter>`. */
  gcBrefSnapshot: 'containerd.io/gc.bref.snapshot',
  /** Instant after which a lease or an image is no longer a root. */
  gcExpire: 'containerd.io/gc.expire',
  /** Any value: what the lease refers to is kept, but not what that refers to. */
  gcFlat: 'containerd.io/gc.flat',
  /** Prefix: a conditional reference to a snapshot. */
  gcCondSnapshot: 'containerd.io/gc.cond.snapshot',
  /** Prefix: an instant that `usedat` conditions are compared with. */
  gcCondUsedat: 'containerd.io/gc.cond.value-usedat',
  /** Prefix of the keys that are passed on to snapshotters. */
  snapshotPrefix: 'containerd.io/snapshot/',
  /** Key under which a remote snapshotter may provide the snapshot; passed on too. */
  snapshotRef: 'containerd.io/snapshot.ref',
  /** How user ids of a snapshot are mapped. */
  snapshotUidMapping: 'containerd.io/snapshot/uidmapping',
  /** How group ids of a snapshot are mapped. */
  snapshotGidMapping: 'containerd.io/snapshot/gidmapping',
  /** The upper directory of an overlay. */
  overlayUpperdir: 'containerd.io/snapshot/overlay.upperdir',
  /** On a namespace, value `true`: other namespaces may share its content. */
  namespaceShareable: 'containerd.io/namespace.shareable',
  /** On a compressed layer: the digest of its uncompressed bytes. */
  uncompressed: 'containerd.io/uncompressed',
  /** Followed by `.<registry host>`: repositories the blob came from. */
  distributionSource: 'containerd.io/distribution.source',
  /** On a lease that the store created for its own work: the purpose. */
  leaseFor: 'ebbtide/lease-for',
} as const;

/**
 * @throws InvalidArgument when key and value exceed 4096 bytes together, or the key is empty or contains a
 * NUL
 */
export function validateLabel(key: string, value: string): void {
  if (typeof value !== 'string') throw invalidArgument(`value of label "${shownKey(key)}" must be text`);
  if (key === '' && value !== '') throw invalidArgument('label key must not be empty');
  if (key.includes('\0')) throw invalidArgument('label key must not contain NUL', { object: shownKey(key) });
  // A UTF-16 unit is at most 3 bytes, so only long labels need counting.
  if ((key.length + value.length) * 3 <= MAX_LABEL_BYTES) return;
  const keyBytes = Buffer.byteLength(key);
  const bytes = keyBytes + Buffer.byteLength(value);
  if (bytes <= MAX_LABEL_BYTES) return;
  const shown = shownKey(key);
  throw invalidArgument(
    `label key and value of ${bytes} bytes exceed the limit of ${MAX_LABEL_BYTES} bytes, key: ${shown}`,
    { object: shown, remedy: `shorten the label by ${bytes - MAX_LABEL_BYTES} bytes` },
  );
}

/** @throws InvalidArgument for each label, and as `checkMapSize` */
export function validateLabels(labels: StringMap | undefined): void {
  if (labels === undefined) return;
  checkMapSize('labels', labels);
  for (const key of Object.keys(labels)) validateLabel(key, labels[key] ?? '');
}

/** @throws InvalidArgument for more entries or bytes (labels, annotations) than one object may have */
export function checkMapSize(what: string, map: StringMap | undefined): void {
  if (map === undefined) return;
  const keys = Object.keys(map);
  let units = 0;
  for (const key of keys) units += key.length + (map[key]?.length ?? 0);
  // A UTF-16 unit is at most 3 bytes, so only large maps need counting.
  if (keys.length <= MAX_LABELS && units * 3 <= MAX_LABELS_BYTES) return;
  let bytes = 0;
  for (const key of keys) bytes += Buffer.byteLength(key) + Buffer.byteLength(map[key] ?? '');
  if (keys.length <= MAX_LABELS && bytes <= MAX_LABELS_BYTES) return;
  throw invalidArgument(
    `${keys.length} ${what} of ${bytes} bytes are over the limits of ${MAX_LABELS} and ${MAX_LABELS_BYTES} bytes`,
    { remedy: `give the object fewer or shorter ${what}` },
  );
}

/** At most the first 64 bytes of a key, without a character cut in two. */
function shownKey(key: string): string {
  if (key.length * 3 <= SHOWN_KEY_BYTES) return key;
  const bytes = Buffer.from(key);
  if (bytes.length <= SHOWN_KEY_BYTES) return key;
  let end = SHOWN_KEY_BYTES;
  // 10xxxxxx continues a character.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}

/** The value of one label; undefined when there is none (also for names that every object inherits). */
export const labelOf = <T>(map: Readonly<Record<string, T>> | undefined, key: string): T | undefined =>
  map !== undefined && Object.hasOwn(map, key) ? map[key] : undefined;

/** A copy without empty values (an empty value means deletion); undefined when nothing is left. */
export function compactMap(map: StringMap | undefined): StringMap | undefined {
  if (map === undefined) return undefined;
  let kept = 0;
  let dropped = 0;
  for (const key of Object.keys(map)) {
    if (map[key]) kept++;
    else dropped++;
  }
  if (kept === 0) return undefined;
  // Spread and fromEntries define own properties, so `__proto__` is a key like any other.
  return dropped === 0 ? { ...map } : Object.fromEntries(Object.entries(map).filter(([, value]) => value));
}

/** A fresh copy; `{}` for undefined. */
export const copyMap = (map: StringMap | undefined): Record<string, string> => ({ ...map });

/** The labels of a snapshot that are passed on to its backend; undefined stays undefined. */
export function inheritedSnapshotLabels(labels: StringMap | undefined): StringMap | undefined {
  if (labels === undefined) return undefined;
  return Object.fromEntries(
    Object.entries(labels).filter(
      ([key]) => key.startsWith(Label.snapshotPrefix) || key === Label.snapshotRef,
    ),
  );
}
