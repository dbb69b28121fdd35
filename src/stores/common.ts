/**
 * What all stores share: typed access to records, implicit namespaces, timestamps of an update, opaque
 * messages. Called by the stores only; nothing here starts a transaction or waits.
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
  MountRecord,
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
  | LeaseRecord
  | MountRecord;

/**
 * The record under a key. The engine returns fresh values, so the record may be returned or changed. The key
 * justifies the cast: each collection is written through `putRecord` by one store only.
 */
export function readRecord<T extends StoredRecord>(reader: Pick<Reader, 'get'>, k: Key): T | undefined {
  return reader.get(k) as T | undefined;
}

/** Stores a record; the caller must not change it, or anything in it, afterwards. */
export function putRecord<T extends StoredRecord>(tx: Transaction, k: Key, record: T): void {
  // Interfaces have no index signature, which is the only difference between a record and a Value.
  tx.put(k, record as unknown as Value);
}

/** Typed scan; as `readRecord`. */
export function scanRecords<T extends StoredRecord>(reader: Reader, prefix: Key): Iterable<[Key, T]> {
  return reader.scan(prefix) as Iterable<[Key, unknown]> as Iterable<[Key, T]>;
}

/** `version` under the schema's root is its revision, so no namespace can have that name. */
const RESERVED_NAMESPACE = 'version';

/** Creates the namespace's record if it is missing: a write into a namespace creates it. */
export function ensureNamespace(tx: Transaction, ns: string): void {
  checkNamespaceName(ns);
  const k = namespaceKey(ns);
  if (!tx.has(k)) putRecord<NamespaceRecord>(tx, k, {});
}

/** @throws InvalidArgument for the reserved name */
export function checkNamespaceName(ns: string): void {
  if (ns !== RESERVED_NAMESPACE) return;
  throw invalidArgument(`namespace "${ns}" is reserved`, { object: ns, remedy: 'choose another namespace' });
}

/**
 * The timestamp of an update: the current time, but later than every timestamp of the record, even if the
 * clock was set back.
 */
export const updateTime = (record: { createdat: Instant; updatedat: Instant }): Instant =>
  nowAfter(record.createdat, record.updatedat);

/** Always a plain Uint8Array, whatever kind of buffer was given. */
export const copyAny = (any: Any): Any => ({ typeUrl: any.typeUrl, value: Uint8Array.from(any.value) });

/** A deep copy; undefined when it is empty. Entries without a value are left out. */
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
