/**
 * What all stores do alike: typed access to records, implicit namespaces, times of an update, opaque messages.
 * Called by the stores only; nothing here starts a transaction or waits.
 */
import type { Key, Reader, Transaction, Value } from '../engine/contract.js';
import { namespaceKey } from '../engine/schema/keys.js';
import { invalidArgument } from '../errors.js';
import type {
  Any,
  AnyMap,
  BlobRecord,
  ContainerRecord,
  ImageRecord,
  IngestRecord,
  LeaseRecord,
  NamespaceRecord,
  RuntimeRecord,
  SandboxRecord,
  SnapshotRecord,
} from '../model/records.js';
import { type Instant, nowAfter } from '../model/time.js';

export type StoredRecord =
  | NamespaceRecord
  | ImageRecord
  | ContainerRecord
  | SandboxRecord
  | BlobRecord
  | IngestRecord
  | SnapshotRecord
  | LeaseRecord;

/**
 * The record under a key. The engine hands out fresh values, so the record may be given away or changed.
 * The cast rests on the key: each collection is written through `putRecord` by one store only.
 */
export function readRecord<T extends StoredRecord>(reader: Pick<Reader, 'get'>, k: Key): T | undefined {
  return reader.get(k) as T | undefined;
}

/** Stores a record; the caller must not change it, or anything in it, afterwards. */
export function putRecord<T extends StoredRecord>(tx: Transaction, k: Key, record: T): void {
  // Interfaces have no index signature, which is all that parts a record from a Value.
  tx.put(k, record as unknown as Value);
}

/** Typed scan; as `readRecord`. */
export function scanRecords<T extends StoredRecord>(reader: Reader, prefix: Key): Iterable<[Key, T]> {
  return reader.scan(prefix) as Iterable<[Key, unknown]> as Iterable<[Key, T]>;
}

/** `version` under the schema's root is its revision, so no namespace can have that name. */
const RESERVED_NAMESPACE = 'version';

/** Creates the namespace's record when absent: writing anything into a namespace creates it. */
export function ensureNamespace(tx: Transaction, ns: string): void {
  checkNamespaceName(ns);
  const k = namespaceKey(ns);
  if (!tx.has(k)) putRecord<NamespaceRecord>(tx, k, {});
}

/** InvalidArgument for the name that no namespace can have. */
export function checkNamespaceName(ns: string): void {
  if (ns !== RESERVED_NAMESPACE) return;
  throw invalidArgument(`namespace "${ns}" is reserved`, { object: ns, remedy: 'choose another namespace' });
}

/** The time of an update: now, but later than everything the record knows, even if the clock was set back. */
export const updateTime = (record: { createdat: Instant; updatedat: Instant }): Instant =>
  nowAfter(record.createdat, record.updatedat);

/** Always plain bytes, whatever kind of buffer was given. */
export const copyAny = (any: Any): Any => ({ typeUrl: any.typeUrl, value: Uint8Array.from(any.value) });

/** A copy that shares nothing; undefined when nothing is in it. Entries without a value are left out. */
export function copyAnyMap(map: Readonly<Record<string, Any | undefined>> | undefined): AnyMap | undefined {
  if (map === undefined) return undefined;
  const entries: [string, Any][] = [];
  for (const [name, any] of Object.entries(map)) if (any !== undefined) entries.push([name, copyAny(any)]);
  return entries.length === 0 ? undefined : Object.fromEntries(entries);
}

export const copyRuntime = (runtime: RuntimeRecord): RuntimeRecord =>
  runtime.options === undefined
    ? { name: runtime.name }
    : { name: runtime.name, options: copyAny(runtime.options) };
