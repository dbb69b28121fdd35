/**
 * Sandboxes: what containers share. Called by db.ts and the servers. A collection never removes one; what its
 * reference labels name is kept while it exists.
 *
 * The size of labels is not limited here. Durability of writes is the DB's; reads are synchronous underneath.
 */
import { type CallContext, requireNamespace } from '../context.js';
import type { Transaction } from '../engine/contract.js';
import { key, sandboxKey } from '../engine/schema/keys.js';
import { alreadyExists, type EbbtideError, invalidArgument, notFound } from '../errors.js';
import { MaskedMap, maskPaths, unknownPath } from '../model/fieldpaths.js';
import { type Adaptor, adaptLabels } from '../model/filters.js';
import { validateIdentifier } from '../model/identifiers.js';
import { checkMapSize, compactMap, copyMap, labelOf } from '../model/labels.js';
import type { Any, AnyMap, RuntimeRecord, SandboxRecord, StringMap } from '../model/records.js';
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

/** The record of a sandbox. */
export interface Sandbox {
  /** Unique in the namespace. */
  id: string;
  /** Labels by key. */
  labels: StringMap;
  /** What runs it. */
  runtime: RuntimeRecord;
  /** How it is run, encoded. */
  spec?: Any;
  /** The controller that it is of. */
  sandboxer: string;
  /** Encoded values by name, for the client. */
  extensions: AnyMap;
  /** When it was created. */
  createdAt: Instant;
  /** When the record was last changed. */
  updatedAt: Instant;
}

/** Input of create and update; a missing string is "". Times are ignored. */
export interface SandboxInput {
  /** Unique in the namespace. */
  id: string;
  /** Labels by key. */
  labels?: StringMap | undefined;
  /** What runs it. */
  runtime?: RuntimeRecord | undefined;
  /** How it is run, encoded. */
  spec?: Any | undefined;
  /** The controller that it is of. */
  sandboxer?: string | undefined;
  /** Encoded values by name; undefined removes one. */
  extensions?: Readonly<Record<string, Any | undefined>> | undefined;
}

/** Input before validation: maps may still have empty values. */
type Draft = Omit<SandboxInput, 'id'>;

/** The records of sandboxes. */
export class SandboxStore {
  readonly #host: StoreHost;

  constructor(host: StoreHost) {
    this.#host = host;
  }

  /** NotFound when the namespace has no sandbox of that id. */
  async get(ctx: CallContext, id: string): Promise<Sandbox> {
    const ns = requireNamespace(ctx);
    return this.#host.read(ctx, (reader) => {
      const record = id === '' ? undefined : readRecord<SandboxRecord>(reader, sandboxKey(ns, id));
      if (record === undefined) throw sandboxNotFound(id);
      return sandboxOf(id, record);
    });
  }

  /**
   * Sandboxes that match any of the filters (all without filters), by id. InvalidArgument: a malformed
   * filter.
   */
  async list(ctx: CallContext, ...filters: string[]): Promise<Sandbox[]> {
    return [...(await this.listed(ctx, ...filters))];
  }

  /** As `list`, created lazily. */
  async listed(ctx: CallContext, ...filters: string[]): Promise<Iterable<Sandbox>> {
    const listing = { prefix: key('sandboxes', requireNamespace(ctx)), adapt, make: sandboxOf };
    return this.#host.read(ctx, (reader) => listed(reader, listing, filters, ctx));
  }

  /** InvalidArgument: the id is not a valid identifier. AlreadyExists. */
  async create(ctx: CallContext, sandbox: SandboxInput): Promise<Sandbox> {
    const ns = requireNamespace(ctx);
    const { id } = sandbox;
    validateIdentifier(id, 'sandbox id');
    const at = now();
    const record = recordOf(sandbox, at, at);
    const k = sandboxKey(ns, id);
    await this.#host.update(ctx, (tx) => {
      if (tx.has(k)) throw alreadyExists(`sandbox "${id}" already exists`, { object: id });
      ensureNamespace(tx, ns);
      putRecord(tx, k, record);
    });
    return sandboxOf(id, record);
  }

  /**
   * Replaces `labels`, `labels.<key>`, `extensions`, `extensions.<name>`, `runtime`, `spec`: those that the
   * paths name, or all of them without paths (then the runtime name must equal the stored one).
   * InvalidArgument, NotFound.
   */
  async update(ctx: CallContext, sandbox: SandboxInput, ...paths: string[]): Promise<Sandbox> {
    const ns = requireNamespace(ctx);
    const record = await this.#host.update(ctx, (tx) => replace(tx, ns, sandbox, paths));
    return sandboxOf(sandbox.id, record);
  }

  /** NotFound. */
  async delete(ctx: CallContext, id: string): Promise<void> {
    const ns = requireNamespace(ctx);
    await this.#host.update(ctx, (tx) => {
      if (id === '' || !tx.delete(sandboxKey(ns, id))) throw sandboxNotFound(id);
      this.#host.countDeletion(tx);
    });
  }
}

// ------------------------------------------------------------------------------- helpers on plain sandbox objects

/** A copy of the sandbox with the extension added. */
export const addExtension = <T extends SandboxInput>(sandbox: T, name: string, extension: Any): T => ({
  ...sandbox,
  extensions: { ...sandbox.extensions, [name]: copyAny(extension) },
});

/** NotFound when the sandbox has no extension of that name. */
export function getExtension(sandbox: SandboxInput, name: string): Any {
  const extension = labelOf(sandbox.extensions, name);
  if (extension === undefined) throw absent(sandbox, 'extension', name);
  return copyAny(extension);
}

/** A copy of the sandbox with the label added. */
export const addLabel = <T extends SandboxInput>(sandbox: T, label: string, value: string): T => ({
  ...sandbox,
  labels: { ...sandbox.labels, [label]: value },
});

/** NotFound when the sandbox has no label of that key. */
export function getLabel(sandbox: SandboxInput, label: string): string {
  const value = labelOf(sandbox.labels, label);
  if (value === undefined) throw absent(sandbox, 'label', label);
  return value;
}

const absent = (sandbox: SandboxInput, what: string, name: string): EbbtideError =>
  notFound(`sandbox "${sandbox.id}" has no ${what} "${name}"`, { object: name });

// --------------------------------------------------------------------------------------------------- record rules

const sandboxNotFound = (id: string): EbbtideError => notFound(`sandbox "${id}" not found`, { object: id });

function replace(
  tx: Transaction,
  ns: string,
  sandbox: SandboxInput,
  paths: readonly string[],
): SandboxRecord {
  const { id } = sandbox;
  const stored = id === '' ? undefined : readRecord<SandboxRecord>(tx, sandboxKey(ns, id));
  if (stored === undefined) throw sandboxNotFound(id);
  const draft = paths.length === 0 ? mergeAll(stored, sandbox) : mergePaths(stored, sandbox, paths);
  const record = recordOf(draft, stored.createdat, updateTime(stored));
  putRecord(tx, sandboxKey(ns, id), record);
  return record;
}

function mergeAll(stored: SandboxRecord, sandbox: SandboxInput): Draft {
  if ((sandbox.runtime?.name ?? '') !== stored.runtime.name) {
    throw invalidArgument(`sandbox.runtime.name of "${sandbox.id}" cannot be changed`, {
      object: sandbox.id,
      remedy: 'name the path `runtime` to change the runtime as a whole',
    });
  }
  return { ...sandbox, sandboxer: stored.sandboxer };
}

function mergePaths(stored: SandboxRecord, sandbox: SandboxInput, paths: readonly string[]): Draft {
  const draft: Draft = { ...stored };
  const labels = new MaskedMap('labels', draft.labels, sandbox.labels);
  const extensions = new MaskedMap('extensions', draft.extensions, sandbox.extensions);
  for (const path of maskPaths(paths)) {
    if (path === 'runtime') draft.runtime = sandbox.runtime;
    else if (path === 'spec') draft.spec = sandbox.spec;
    else if (!labels.apply(path) && !extensions.apply(path)) throw unknownPath('sandbox', path, sandbox.id);
  }
  return { ...draft, labels: labels.map, extensions: extensions.map };
}

/** The stored form; shares nothing with the draft. */
function recordOf(draft: Draft, createdat: Instant, updatedat: Instant): SandboxRecord {
  checkMapSize('labels', draft.labels);
  const labels = compactMap(draft.labels);
  const extensions = copyAnyMap(draft.extensions);
  return {
    createdat,
    updatedat,
    ...(labels && { labels }),
    ...(draft.spec && { spec: copyAny(draft.spec) }),
    sandboxer: draft.sandboxer ?? '',
    runtime: draft.runtime === undefined ? { name: '' } : copyRuntime(draft.runtime),
    ...(extensions && { extensions }),
  };
}

/** The public form; shares nothing with the record. */
const sandboxOf = (id: string, record: SandboxRecord): Sandbox => ({
  id,
  labels: copyMap(record.labels),
  runtime: copyRuntime(record.runtime),
  ...(record.spec && { spec: copyAny(record.spec) }),
  sandboxer: record.sandboxer,
  extensions: copyAnyMap(record.extensions) ?? {},
  createdAt: record.createdat,
  updatedAt: record.updatedat,
});

/** Filter fields: id, labels.*. */
const adapt =
  (id: string, record: SandboxRecord): Adaptor =>
  (path) => {
    if (path[0] === 'id') return id;
    return path[0] === 'labels' ? adaptLabels(record.labels, path.slice(1)) : undefined;
  };
