/**
 * Leases: named sets of resources that a collection must keep, for what is being built. Called by db.ts, the
 * servers and clients that pull. The other stores add to the context's lease through lease-context.ts.
 *
 * A lease's resources are links of its record: they are removed with it, and need not exist. Durability of
 * writes is the DB's.
 */
import { randomBytes } from 'node:crypto';
import { type CallContext, requireNamespace } from '../context.js';
import type { Key } from '../engine/contract.js';
import {
  blobKey,
  checkComponent,
  collectionOf,
  components,
  imageKey,
  ingestKey,
  key,
  leaf,
  Relation,
  snapshotKey,
} from '../engine/schema/keys.js';
import { alreadyExists, invalidArgument, notImplemented } from '../errors.js';
import { validateDigest } from '../model/digest.js';
import { type Adaptor, adaptLabels } from '../model/filters.js';
import { checkMapSize, compactMap, copyMap, Label } from '../model/labels.js';
import type { LeaseRecord, StringMap } from '../model/records.js';
import { formatSeconds, type Instant, NANOS_PER_SECOND, now } from '../model/time.js';
import { ensureNamespace, putRecord, readRecord } from './common.js';
import type { StoreHost } from './host.js';
import { leaseExists, leaseKeyIn, leaseNotFound, linkToLease, unlinkFromLease } from './lease-context.js';
import { dropLease, inPieces, isBeingRemoved } from './lease-links.js';
import { listed, Pace } from './listing.js';

/** A lease: it keeps its resources until it is deleted or expires. */
export interface Lease {
  /** Unique in the namespace. */
  id: string;
  /** When it was created. */
  createdAt: Instant;
  /** Labels by key. */
  labels: StringMap;
}

/** An object that a lease can keep. */
export interface Resource {
  /** A digest, ingest ref, image name or snapshot key. */
  id: string;
  /** `content`, `ingests`, `images` or `snapshots/<snapshotter>`. */
  type: string;
}

/** Properties of a new lease; of several options later ones win, and their labels are added. */
export interface LeaseOption {
  /** Its id. */
  readonly id?: string;
  /** A generated id. */
  readonly randomId?: boolean;
  /** Labels by key. */
  readonly labels?: StringMap;
  /**
   * Lets it expire after a duration from now, truncated to whole seconds: a bigint of nanoseconds (as `parseDuration` returns) or
   * a number of milliseconds. InvalidArgument: not finite, or over 1000 years.
   */
  readonly expiresAfter?: bigint | number;
}

/** How a lease is deleted. */
export interface LeaseDeleteOptions {
  /** For the services, which collect before they return; ignored by the store. */
  synchronous?: boolean | undefined;
}

/** A lease of this id. */
export const withId = (id: string): LeaseOption => ({ id });
/** A lease of a random id. */
export const withRandomId = (): LeaseOption => ({ randomId: true });
/** A lease with this label. */
export const withLabel = (label: string, value: string): LeaseOption => ({ labels: { [label]: value } });
/** A lease with these labels. */
export const withLabels = (labels: StringMap): LeaseOption => ({ labels });
/** A lease with an expiry: see `LeaseOption.expiresAfter`. */
export const withExpiration = (expiresAfter: bigint | number): LeaseOption => ({ expiresAfter });

/** Upper limit: a longer lease needs no expiry, and a label's time has four-digit years. */
const EXPIRATION_MAX = 1000n * 365n * 86_400n * NANOS_PER_SECOND;

/** Id and labels that the options come to; the id is '' when none gave one. */
export function leaseDraft(options: readonly LeaseOption[]): { id: string; labels: Record<string, string> } {
  let id = '';
  let labels: Record<string, string> = {};
  for (const option of options) {
    if (typeof option !== 'object') {
      throw invalidArgument('an option of a lease is not an object', {
        remedy: 'like { id: "a", labels: {} }',
      });
    }
    if (option.randomId) id = randomLeaseId();
    id = option.id ?? id;
    const { expiresAfter } = option;
    const expiry = expiresAfter !== undefined && { [Label.gcExpire]: expiryAfter(expiresAfter) };
    // No assignments: a label may be called `__proto__`.
    labels = { ...labels, ...option.labels, ...expiry };
  }
  return { id, labels };
}

/** `<nanosecond of the second>-<4 url-safe characters>`. */
const randomLeaseId = (): string => `${now() % NANOS_PER_SECOND}-${randomBytes(3).toString('base64url')}`;

function expiryAfter(duration: bigint | number): string {
  const nanos = typeof duration === 'bigint' ? duration : nanosOf(duration);
  if (nanos === undefined || nanos > EXPIRATION_MAX || nanos < -EXPIRATION_MAX) {
    throw invalidArgument(`${duration} is not a valid duration for a lease`);
  }
  return formatSeconds(now() + nanos);
}

const nanosOf = (milliseconds: number): bigint | undefined =>
  Number.isFinite(milliseconds) ? BigInt(Math.round(milliseconds * 1000)) * 1000n : undefined;

/** A lease, or just its id. */
export type LeaseRef = string | { readonly id: string };
const idOf = (lease: LeaseRef): string => (typeof lease === 'string' ? lease : lease.id);

/** The leases. */
export class LeaseManager {
  readonly #host: StoreHost;
  readonly #scope: string | undefined;

  /** @param scope the host whose own leases these are, '' for shared ones; default: the engine's setting */
  constructor(host: StoreHost, scope?: string) {
    this.#host = host;
    this.#scope = scope;
  }

  /** InvalidArgument: no option sets an id (any text). AlreadyExists. */
  async create(ctx: CallContext, ...options: LeaseOption[]): Promise<Lease> {
    const draft = leaseDraft(options);
    const { id } = draft;
    if (id === '')
      throw invalidArgument('a lease needs an id', {
        remedy: 'give one, or use a random id',
      });
    const ns = requireNamespace(ctx);
    checkComponent(id, 'lease id');
    checkMapSize('labels', draft.labels);
    const labels = compactMap(draft.labels);
    const record: LeaseRecord = { createdat: now(), ...(labels && { labels }) };
    await this.#host.update(ctx, (tx) => {
      const k = leaseKeyIn(tx, ns, id, this.#scope);
      if (tx.has(k)) throw alreadyExists(`lease "${id}" already exists`, { object: id });
      ensureNamespace(tx, ns);
      putRecord(tx, k, record);
    });
    return leaseOf(id, { ...record, labels: copyMap(labels) });
  }

  /**
   * Deletes the lease; the next collection removes what only it kept. NotFound. Outside of a transaction a lease with many
   * resources expires first and is then emptied in pieces: if the call ends early (`ctx.signal`, the end of the process), a
   * collection does the rest.
   */
  async delete(ctx: CallContext, lease: LeaseRef, _options: LeaseDeleteOptions = {}): Promise<void> {
    const ns = requireNamespace(ctx);
    const id = idOf(lease);
    await inPieces(this.#host, ctx, (tx, isFirst) => {
      if (id === '') throw leaseNotFound(id);
      const k = leaseKeyIn(tx, ns, id, this.#scope);
      const record = readRecord<LeaseRecord>(tx, k);
      if (isFirst && record === undefined) throw leaseNotFound(id);
      // A collection was faster; there may be another lease of its name by now.
      if (record === undefined || !(isFirst || isBeingRemoved(record))) return true;
      if (ctx.tx !== undefined) tx.delete(k);
      else if (!dropLease(tx, k, record)) return false;
      this.#host.countDeletion(tx);
      return true;
    });
  }

  /**
   * Leases that match any of the filters (all without filters), by id. InvalidArgument: a malformed filter.
   */
  async list(ctx: CallContext, ...filters: string[]): Promise<Lease[]> {
    return [...(await this.listed(ctx, ...filters))];
  }

  /** As `list`, created lazily. */
  async listed(ctx: CallContext, ...filters: string[]): Promise<Iterable<Lease>> {
    const prefix = key('leases', requireNamespace(ctx));
    return this.#host.read(ctx, (reader) => {
      const scope = this.#scope ?? reader.leaseScope ?? '';
      const end = scope === '' ? '' : `@${scope}`;
      const nameOf = (k: Key): string | undefined =>
        k.endsWith(end) ? leaf(k).slice(0, leaf(k).length - end.length) : undefined;
      return listed(reader, { prefix, adapt: leaseFields, make: leaseOf, nameOf }, filters, ctx);
    });
  }

  /**
   * Adds a resource, which need not exist, to the lease; idempotent. NotFound: no such lease.
   * InvalidArgument: malformed type or id. NotImplemented: a type that leases do not support.
   */
  async addResource(ctx: CallContext, lease: LeaseRef, resource: Resource): Promise<void> {
    const ns = requireNamespace(ctx);
    const id = idOf(lease);
    await this.#host.update(ctx, (tx) => {
      if (!leaseExists(tx, ns, id, this.#scope)) throw leaseNotFound(id);
      linkToLease(tx, ns, id, resourceKey(ns, resource), this.#scope);
    });
  }

  /** Removes a resource from the lease; nothing happens if it is not there. Throws as `addResource`. */
  async deleteResource(ctx: CallContext, lease: LeaseRef, resource: Resource): Promise<void> {
    const ns = requireNamespace(ctx);
    const id = idOf(lease);
    await this.#host.update(ctx, (tx) => {
      if (!leaseExists(tx, ns, id, this.#scope)) throw leaseNotFound(id);
      unlinkFromLease(tx, ns, id, resourceKey(ns, resource), this.#scope);
      this.#host.countDeletion(tx);
    });
  }

  /** The lease's resources: content, images, ingests, then snapshots, each in byte order. NotFound. */
  async listResources(ctx: CallContext, lease: LeaseRef): Promise<Resource[]> {
    const ns = requireNamespace(ctx);
    const id = idOf(lease);
    return this.#host.read(ctx, async (reader) => {
      if (!leaseExists(reader, ns, id, this.#scope)) throw leaseNotFound(id);
      const pace = new Pace(ctx);
      const byCollection: Record<string, Resource[]> = { blobs: [], images: [], ingests: [], snapshots: [] };
      for (const relation of [Relation.holds, Relation.holdsFlat]) {
        for (const target of reader.links(leaseKeyIn(reader, ns, id, this.#scope), relation)) {
          byCollection[collectionOf(target)]?.push(resourceOf(target));
          if (pace.isOver) await pace.pass();
        }
      }
      return Object.values(byCollection).flat();
    });
  }
}

const leaseOf = (id: string, record: LeaseRecord): Lease => ({
  id,
  createdAt: record.createdat,
  labels: record.labels ?? {},
});

/** The key of a resource's record. */
function resourceKey(ns: string, { type, id }: Resource): Key {
  const [kind, ...rest] = type.split('/');
  const [snapshotter = ''] = rest;
  if (kind !== 'content' && kind !== 'images' && kind !== 'ingests' && kind !== 'snapshots') {
    throw notImplemented(`lease resource type "${type}" is not supported`, { object: type });
  }
  if (rest.length !== (kind === 'snapshots' ? 1 : 0)) {
    throw invalidArgument(`invalid lease resource type "${type}"`, {
      object: type,
      remedy: 'use content, images, ingests or snapshots/<snapshotter>',
    });
  }
  checkComponent(id, 'lease resource id');
  switch (kind) {
    case 'content':
      validateDigest(id);
      return blobKey(ns, id);
    case 'images':
      return imageKey(ns, id);
    case 'ingests':
      return ingestKey(ns, id);
    case 'snapshots':
      checkComponent(snapshotter, 'snapshotter of a lease resource');
      return snapshotKey(ns, snapshotter, id);
  }
}

function resourceOf(target: Key): Resource {
  const [collection, , first = '', second = ''] = components(target);
  if (collection === 'snapshots') return { id: second, type: `snapshots/${first}` };
  return { id: first, type: collection === 'blobs' ? 'content' : (collection ?? '') };
}

/** Filter fields: id, labels.*. */
export const leaseFields =
  (id: string, record: LeaseRecord): Adaptor =>
  (path) => {
    if (path[0] === 'id') return id;
    return path[0] === 'labels' ? adaptLabels(record.labels, path.slice(1)) : undefined;
  };
