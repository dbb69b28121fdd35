/**
 * Containers: what to run, and the snapshot it runs on. Called by db.ts and the servers. Containers are
 * roots: a collection never removes one, and keeps its snapshot chain until it is deleted.
 *
 * Image, snapshot and sandbox need not exist. Durability of writes is the DB's; reads are synchronous
 * underneath.
 */
import { type CallContext, requireNamespace } from '../context.js';
import type { Transaction } from '../engine/contract.js';
import { containerKey, imageKey, key, MAX_COMPONENT_BYTES, SEPARATOR } from '../engine/schema/keys.js';
import { alreadyExists, type EbbtideError, invalidArgument, notFound } from '../errors.js';
import { MaskedMap, maskPaths, unknownPath } from '../model/fieldpaths.js';
import { type Adaptor, adaptLabels } from '../model/filters.js';
import { validateIdentifier } from '../model/identifiers.js';
import { compactMap, copyMap, validateLabels } from '../model/labels.js';
import type { Any, AnyMap, ContainerRecord, RuntimeRecord, StringMap } from '../model/records.js';
import { type Instant, now } from '../model/time.js';
import {
  copyAny,
  copyAnyMap,
  copyRuntime,
  ensureNamespace,
  putRecord,
  readRecord,
  updateTime,
} from './common.js';
import type { StoreHost } from './host.js';
import { listed } from './listing.js';

/** The record of a container. */
export interface Container {
  /** Unique in the namespace. */
  id: string;
  /** Labels by key. */
  labels: StringMap;
  /** Name of the image it was created from; not a reference, so it keeps nothing. */
  image: string;
  /** What runs it. */
  runtime: RuntimeRecord;
  /** How it is run, encoded. */
  spec: Any;
  /** The snapshot with its root; kept while the container is. */
  snapshotKey: string;
  /** The snapshotter of that. */
  snapshotter: string;
  /** Encoded values by name, for the client. */
  extensions: AnyMap;
  /** The sandbox that it is in; empty: none. */
  sandboxId: string;
  /** When it was created. */
  createdAt: Instant;
  /** When the record was last changed. */
  updatedAt: Instant;
}

/** Input of create and update; a missing string is "". Times are ignored. */
export interface ContainerInput {
  /** Unique in the namespace. */
  id: string;
  /** Labels by key. */
  labels?: StringMap | undefined;
  /** Name of the image. */
  image?: string | undefined;
  /** What runs it. */
  runtime?: RuntimeRecord | undefined;
  /** How it is run, encoded. */
  spec?: Any | undefined;
  /** The snapshot with its root. */
  snapshotKey?: string | undefined;
  /** The snapshotter of that. */
  snapshotter?: string | undefined;
  /** Encoded values by name; undefined removes one. */
  extensions?: Readonly<Record<string, Any | undefined>> | undefined;
  /** The sandbox that it is in. */
  sandboxId?: string | undefined;
}

/** Input before validation: maps may still have empty values. */
type Draft = Omit<ContainerInput, 'id'>;

/** The records of containers. */
export class ContainerStore {
  readonly #host: StoreHost;

  constructor(host: StoreHost) {
    this.#host = host;
  }

  /** NotFound when the namespace has no container of that id. */
  async get(ctx: CallContext, id: string): Promise<Container> {
    const ns = requireNamespace(ctx);
    return this.#host.read(ctx, (reader) => {
      const record = id === '' ? undefined : readRecord<ContainerRecord>(reader, containerKey(ns, id));
      if (record === undefined) throw containerNotFound(id);
      return containerOf(id, record);
    });
  }

  /**
   * Containers that match any of the filters (all without filters), by id. InvalidArgument: a malformed
   * filter.
   */
  async list(ctx: CallContext, ...filters: string[]): Promise<Container[]> {
    return [...(await this.listed(ctx, ...filters))];
  }

  /** As `list`, created lazily. */
  async listed(ctx: CallContext, ...filters: string[]): Promise<Iterable<Container>> {
    const listing = {
      prefix: key('containers', requireNamespace(ctx)),
      adapt: containerFields,
      make: containerOf,
    };
    return this.#host.read(ctx, (reader) => listed(reader, listing, filters, ctx));
  }

  /** InvalidArgument, AlreadyExists. */
  async create(ctx: CallContext, container: ContainerInput): Promise<Container> {
    const ns = requireNamespace(ctx);
    const { id } = container;
    const at = now();
    const record = recordOf(id, container, at, at);
    const k = containerKey(ns, id);
    await this.#host.update(ctx, (tx) => {
      if (tx.has(k)) throw alreadyExists(`container "${id}" already exists`, { object: id });
      ensureNamespace(tx, ns);
      putRecord(tx, k, record);
      this.#noteUse(ns, record);
    });
    return containerOf(id, record);
  }

  /**
   * Replaces `labels`, `labels.<key>`, `spec`, `extensions`, `extensions.<name>`, `image`, `snapshotkey`:
   * those that the paths name, or all of them without paths (then snapshotter and runtime name must equal the
   * stored ones). InvalidArgument: unknown path, or the result is not valid. NotFound.
   */
  async update(ctx: CallContext, container: ContainerInput, ...paths: string[]): Promise<Container> {
    const ns = requireNamespace(ctx);
    if (container.id === '') throw invalidArgument('container id is required for update');
    const record = await this.#host.update(ctx, (tx) => {
      const replaced = replace(tx, ns, container, paths);
      if (container.image) this.#noteUse(ns, replaced);
      return replaced;
    });
    return containerOf(container.id, record);
  }

  /** In the body, so that no transaction sees the container and not the use: a policy would retire the image between them. */
  #noteUse(ns: string, { image }: ContainerRecord): void {
    if (mayBeImage(image)) this.#host.lastUse.note(imageKey(ns, image));
  }

  /** Deletes the record, which frees its snapshot for collection. NotFound. */
  async delete(ctx: CallContext, id: string): Promise<void> {
    const ns = requireNamespace(ctx);
    await this.#host.update(ctx, (tx) => {
      if (id === '' || !tx.delete(containerKey(ns, id))) throw containerNotFound(id);
      this.#host.countDeletion(tx);
    });
  }
}

/** A container may name anything. */
const mayBeImage = (name: string): boolean =>
  name !== '' && !name.includes(SEPARATOR) && name.length * 3 <= MAX_COMPONENT_BYTES;

const containerNotFound = (id: string): EbbtideError =>
  notFound(`container "${id}" not found`, { object: id });

function replace(
  tx: Transaction,
  ns: string,
  container: ContainerInput,
  paths: readonly string[],
): ContainerRecord {
  const { id } = container;
  const k = containerKey(ns, id);
  const stored = readRecord<ContainerRecord>(tx, k);
  if (stored === undefined) throw containerNotFound(id);
  const draft = paths.length === 0 ? mergeAll(stored, container) : mergePaths(stored, container, paths);
  const record = recordOf(id, draft, stored.createdat, updateTime(stored));
  putRecord(tx, k, record);
  return record;
}

const draftOf = ({ snapshotKey, sandboxid, ...stored }: ContainerRecord): Draft => ({
  ...stored,
  snapshotKey,
  sandboxId: sandboxid,
});

function mergeAll(stored: ContainerRecord, container: ContainerInput): Draft {
  const immutable = (field: string): EbbtideError =>
    invalidArgument(`container.${field} of "${container.id}" cannot be changed`, { object: container.id });
  if ((container.snapshotter ?? '') !== stored.snapshotter) throw immutable('snapshotter');
  if ((container.runtime?.name ?? '') !== stored.runtime.name) throw immutable('runtime.name');
  const { labels, spec, extensions, image, snapshotKey } = container;
  return { ...draftOf(stored), labels, spec, extensions, image, snapshotKey };
}

function mergePaths(stored: ContainerRecord, container: ContainerInput, paths: readonly string[]): Draft {
  const draft = draftOf(stored);
  const labels = new MaskedMap('labels', stored.labels, container.labels);
  const extensions = new MaskedMap('extensions', draft.extensions, container.extensions);
  for (const path of maskPaths(paths)) {
    if (path === 'spec') draft.spec = container.spec;
    else if (path === 'image') draft.image = container.image;
    else if (path === 'snapshotkey') draft.snapshotKey = container.snapshotKey;
    else if (!labels.apply(path) && !extensions.apply(path))
      throw unknownPath('container', path, container.id);
  }
  return { ...draft, labels: labels.map, extensions: extensions.map };
}

/** Validates the draft as a whole; the record shares nothing with it. */
function recordOf(id: string, draft: Draft, createdat: Instant, updatedat: Instant): ContainerRecord {
  const invalid = (what: string): EbbtideError =>
    invalidArgument(`container "${id}": ${what}`, { object: id });
  validateIdentifier(id, 'container id');
  const extensions = copyAnyMap(draft.extensions);
  if (extensions !== undefined && Object.hasOwn(extensions, ''))
    throw invalid('extension names must not be empty');
  validateLabels(draft.labels);
  const { runtime, spec, snapshotKey = '', snapshotter = '' } = draft;
  if (runtime === undefined || runtime.name === '') throw invalid('runtime name must not be empty');
  if (spec === undefined) throw invalid('spec must be given');
  if (snapshotKey !== '' && snapshotter === '') throw invalid('a snapshot key needs a snapshotter');
  const labels = compactMap(draft.labels);
  return {
    createdat,
    updatedat,
    ...(labels && { labels }),
    spec: copyAny(spec),
    image: draft.image ?? '',
    snapshotter,
    snapshotKey,
    sandboxid: draft.sandboxId ?? '',
    runtime: copyRuntime(runtime),
    ...(extensions && { extensions }),
  };
}

/** The public form; shares nothing with the record. */
const containerOf = (id: string, record: ContainerRecord): Container => ({
  id,
  labels: copyMap(record.labels),
  image: record.image,
  runtime: copyRuntime(record.runtime),
  spec: copyAny(record.spec),
  snapshotKey: record.snapshotKey,
  snapshotter: record.snapshotter,
  extensions: copyAnyMap(record.extensions) ?? {},
  sandboxId: record.sandboxid,
  createdAt: record.createdat,
  updatedAt: record.updatedat,
});

/** Filter fields: id, runtime.name, image, labels.*. */
export const containerFields =
  (id: string, record: ContainerRecord): Adaptor =>
  (path) => {
    switch (path[0]) {
      case 'id':
        return id;
      case 'runtime':
        return path[1] === 'name' ? record.runtime.name || undefined : undefined;
      case 'image':
        return record.image || undefined;
      case 'labels':
        return adaptLabels(record.labels, path.slice(1));
      default:
        return undefined;
    }
  };
