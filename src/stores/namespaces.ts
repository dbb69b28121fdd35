/**
 * Namespaces: their labels, and the conditions for removing one. Called by db.ts and the servers. The
 * context's namespace is ignored; its transaction and signal are used.
 *
 * A write into a namespace creates it, too. Durability of writes is the DB's.
 */
import type { CallContext } from '../context.js';
import type { Key, Reader, Transaction } from '../engine/contract.js';
import { components, key, leaf, namespaceKey, SEPARATOR } from '../engine/schema/keys.js';
import { alreadyExists, type EbbtideError, failedPrecondition, notFound } from '../errors.js';
import { validateIdentifier } from '../model/identifiers.js';
import { checkMapSize, compactMap, copyMap, validateLabel, validateLabels } from '../model/labels.js';
import type { IngestRecord, NamespaceRecord, StringMap } from '../model/records.js';
import { checkNamespaceName, putRecord, readRecord, scanRecords } from './common.js';
import type { StoreHost } from './host.js';

/**
 * Runs before a namespace is deleted, in the order given; throwing keeps the namespace. Runs once per call.
 */
export type NamespaceDeleteOption = (
  ctx: CallContext,
  namespace: { readonly name: string },
) => void | Promise<void>;

/** Collections that are removed with their namespace and never keep it. */
const dependents = ['leases', 'ingests', 'mounts', 'sandboxes', 'snapshotters'] as const;

/** What it needs of a DB: less than other stores, so that one can be created for a single transaction. */
export type NamespaceHost = Pick<StoreHost, 'update' | 'read' | 'countDeletion' | 'markContentDirty'>;

/** The namespaces and their labels. */
export class NamespaceStore {
  readonly #host: NamespaceHost;

  constructor(host: NamespaceHost) {
    this.#host = host;
  }

  /**
   * Creates a namespace with labels; unlike everywhere else an empty label value is stored. InvalidArgument:
   * malformed name or labels. AlreadyExists: also if a write has created it.
   */
  async create(ctx: CallContext, name: string, labels?: StringMap): Promise<void> {
    validateName(name);
    validateLabels(labels);
    const record: NamespaceRecord = labels === undefined ? {} : { labels: copyMap(labels) };
    await this.#host.update(ctx, (tx) => {
      if (tx.has(namespaceKey(name))) {
        throw alreadyExists(`namespace "${name}" already exists`, { object: name });
      }
      putRecord(tx, namespaceKey(name), record);
    });
  }

  /** The namespace's labels; empty for an unknown one. */
  async labels(ctx: CallContext, name: string): Promise<StringMap> {
    return this.#host.read(ctx, (reader) => {
      if (name === '') return {};
      return readRecord<NamespaceRecord>(reader, namespaceKey(name))?.labels ?? {};
    });
  }

  /** Sets one label, or deletes it if the value is "". Creates the namespace if necessary. */
  async setLabel(ctx: CallContext, name: string, label: string, value: string): Promise<void> {
    await this.setLabels(ctx, name, Object.fromEntries([[label, value]]));
  }

  /** Sets or deletes several labels. */
  async setLabels(ctx: CallContext, name: string, changes: StringMap): Promise<void> {
    validateName(name);
    for (const label of Object.keys(changes)) validateLabel(label, changes[label] ?? '');
    await this.#host.update(ctx, (tx) => {
      const stored = readRecord<NamespaceRecord>(tx, namespaceKey(name))?.labels ?? {};
      const kept = Object.entries(stored).filter(([label]) => !Object.hasOwn(changes, label));
      const labels = { ...Object.fromEntries(kept), ...compactMap(changes) };
      checkMapSize('labels', labels);
      putRecord<NamespaceRecord>(tx, namespaceKey(name), { labels });
    });
  }

  /** All names, in byte order. */
  async list(ctx: CallContext): Promise<string[]> {
    return this.#host.read(ctx, (reader) => {
      const names: string[] = [];
      for (const [k] of reader.scan(key('namespaces'))) names.push(leaf(k));
      return names;
    });
  }

  /**
   * Deletes a namespace that has no images, blobs, containers or snapshots; otherwise FailedPrecondition
   * names those it has. Its leases, ingests, mounts, sandboxes and sequences are removed with it. NotFound when there
   * is none.
   */
  async delete(ctx: CallContext, name: string, ...options: NamespaceDeleteOption[]): Promise<void> {
    await this.#host.update(ctx, (tx) => {
      if (options.length === 0) return this.#remove(tx, name);
      return this.#runOptions(tx, ctx, name, options).then(() => this.#remove(tx, name));
    });
  }

  async #runOptions(
    tx: Transaction,
    ctx: CallContext,
    name: string,
    options: readonly NamespaceDeleteOption[],
  ): Promise<void> {
    for (const [i, option] of options.entries()) {
      await tx.once(`delete namespace ${name}, option ${i}`, async () => option(ctx, { name }));
    }
  }

  #remove(tx: Transaction, name: string): void {
    if (name === '') throw namespaceNotFound(name);
    const remains = contents(tx, name);
    if (remains.length > 0) {
      throw failedPrecondition(`namespace "${name}" must be empty, but it still has ${remains.join(', ')}`, {
        object: name,
        remedy: 'delete them first, then collect (`ebbtide gc`)',
      });
    }
    if (!tx.delete(namespaceKey(name))) throw namespaceNotFound(name);
    for (const [, ingest] of scanRecords<IngestRecord>(tx, key('ingests', name))) this.#markDirty(tx, ingest);
    for (const collection of dependents) {
      // Collected before the first removal: a scan must not see its own range change.
      const keys: Key[] = [];
      for (const [k] of tx.scan(key(collection, name))) keys.push(k);
      for (const k of keys) tx.delete(k);
    }
    tx.dropCounters(key('snapshotters', name));
    this.#host.countDeletion(tx);
  }

  /**
   * What an ingest leaves in the backend: its bytes so far, or a shared blob that may have lost its last
   * reference.
   */
  #markDirty(tx: Transaction, ingest: IngestRecord): void {
    const { ref, expected } = ingest;
    if (ref === '') this.#host.markContentDirty(tx);
    else this.#host.markContentDirty(tx, { kind: 'ingest', ref });
    if (expected !== undefined) this.#host.markContentDirty(tx, { kind: 'blob', digest: expected });
  }
}

function validateName(name: string): void {
  validateIdentifier(name, 'namespace');
  checkNamespaceName(name);
}

const namespaceNotFound = (name: string): EbbtideError =>
  notFound(`namespace "${name}" not found`, { object: name });

/** The kinds of objects that keep a namespace from being deleted, for the message. */
function contents(reader: Reader, ns: string): string[] {
  const kinds: string[] = [];
  const has = (collection: string): boolean => !isEmpty(reader, key(collection, ns));
  if (has('images')) kinds.push('images');
  if (has('blobs')) kinds.push('blobs');
  if (has('containers')) kinds.push('containers');
  for (const snapshotter of snapshottersInUse(reader, ns))
    kinds.push(`snapshots on "${snapshotter}" snapshotter`);
  return kinds;
}

function isEmpty(reader: Reader, prefix: Key): boolean {
  for (const _ of reader.scan(prefix, { limit: 1 })) return false;
  return true;
}

/** Snapshotters that have a snapshot in the namespace, in byte order; one read for each. */
function* snapshottersInUse(reader: Reader, ns: string): Generator<string> {
  const prefix = key('snapshots', ns);
  let after: Key | undefined;
  for (;;) {
    const [entry] = [...reader.scan(prefix, after === undefined ? { limit: 1 } : { limit: 1, after })];
    const snapshotter = entry === undefined ? undefined : components(entry[0])[2];
    if (snapshotter === undefined) return;
    yield snapshotter;
    // U+0001 is the lowest character of a component, so this is after every snapshot of this snapshotter and
    // before those of any other.
    after = `${prefix}${SEPARATOR}${snapshotter}\u0001`;
  }
}
