/**
 * Leases: named holds on resources, so that what is being built is not collected. Called by db.ts, the servers
 * and whoever pulls. The other stores add to the context's lease through lease-context.ts.
 *
 * What a lease holds are links of its record: they go with it, and need not exist. Writes are durable as the DB is.
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
import { holdByLease, leaseExists, leaseKeyIn, leaseNotFound, releaseByLease } from './lease-context.js';
import { dropFirstLinks } from './lease-links.js';
import { listed, Pace } from './listing.js';

export interface Lease {
  id: string;
  createdAt: Instant;
  labels: StringMap;
}

/** Something a lease can hold. */
export interface Resource {
  /** A digest, ingest ref, image name or snapshot key. */
  id: string;
  /** `content`, `ingests`, `images` or `snapshots/<snapshotter>`. */
  type: string;
}

/** A lease on its way into the store. */
export interface LeaseDraft {
  id: string;
  labels: Record<string, string>;
}

/** Changes the draft; options apply in the order given. */
export type LeaseOption = (draft: LeaseDraft) => void;

export interface LeaseDeleteOptions {
  /** For the services, which collect before they answer; the store does not look at it. */
  synchronous?: boolean | undefined;
}

export const withId =
  (id: string): LeaseOption =>
  (draft) => {
    draft.id = id;
  };

/** `<nanosecond of the second>-<4 url-safe characters>`. */
export const withRandomId = (): LeaseOption => (draft) => {
  draft.id = `${now() % NANOS_PER_SECOND}-${randomBytes(3).toString('base64url')}`;
};

export const withLabel =
  (label: string, value: string): LeaseOption =>
  (draft) => {
    draft.labels = { ...draft.labels, [label]: value };
  };

/** Adds the labels to those given before. */
export const withLabels =
  (labels: StringMap): LeaseOption =>
  (draft) => {
    draft.labels = { ...draft.labels, ...labels };
  };

/** Leases that live longer need no expiry; a label's time has years of four digits. */
const EXPIRATION_MAX = 1000n * 365n * 86_400n * NANOS_PER_SECOND;

/**
 * Lets the lease expire after a duration from now, cut to the whole second: a bigint of nanoseconds (as
 * `parseDuration` answers) or a number of milliseconds. InvalidArgument: not finite, or over 1000 years.
 */
export const withExpiration =
  (duration: bigint | number): LeaseOption =>
  (draft) => {
    const nanos = typeof duration === 'bigint' ? duration : nanosOf(duration);
    if (nanos === undefined || nanos > EXPIRATION_MAX || nanos < -EXPIRATION_MAX) {
      throw invalidArgument(`${duration} is no duration a lease can expire after`);
    }
    withLabel(Label.gcExpire, formatSeconds(now() + nanos))(draft);
  };

const nanosOf = (milliseconds: number): bigint | undefined =>
  Number.isFinite(milliseconds) ? BigInt(Math.round(milliseconds * 1000)) * 1000n : undefined;

/** Of a lease that is being deleted. */
const EXPIRED = formatSeconds(0n);

/** A lease, or just its id. */
export type LeaseRef = string | { readonly id: string };
const idOf = (lease: LeaseRef): string => (typeof lease === 'string' ? lease : lease.id);

export class LeaseManager {
  readonly #host: StoreHost;
  readonly #scope: string | undefined;

  /** `scope`: the host whose own leases these are, '' for shared ones; unless told, as the engine is set. */
  constructor(host: StoreHost, scope?: string) {
    this.#host = host;
    this.#scope = scope;
  }

  /** InvalidArgument: no option gave an id (free text). AlreadyExists. */
  async create(ctx: CallContext, ...options: LeaseOption[]): Promise<Lease> {
    const draft: LeaseDraft = { id: '', labels: {} };
    for (const option of options) option(draft);
    const { id } = draft;
    if (id === '')
      throw invalidArgument('a lease needs an id', {
        remedy: 'name one, or leave it out where that means a random one',
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
   * Deletes the lease; what only it held goes with the next collection. NotFound. Outside of a transaction one that holds
   * much expires first, and then lets go in pieces: where the call ends early (`ctx.signal`, the end of the process), a
   * collection does the rest.
   */
  async delete(ctx: CallContext, lease: LeaseRef, _options: LeaseDeleteOptions = {}): Promise<void> {
    const ns = requireNamespace(ctx);
    const id = idOf(lease);
    for (let piece = 0; ; piece++) {
      const isGone = await this.#host.update(ctx, (tx) => {
        if (id === '') throw leaseNotFound(id);
        const k = leaseKeyIn(tx, ns, id, this.#scope);
        const record = readRecord<LeaseRecord>(tx, k);
        if (record === undefined) {
          if (piece === 0) throw leaseNotFound(id);
          // A collection was faster.
          return true;
        }
        if (ctx.tx === undefined && !dropFirstLinks(tx, k)) {
          if (record.labels?.[Label.gcExpire] !== EXPIRED) {
            putRecord(tx, k, { ...record, labels: { ...record.labels, [Label.gcExpire]: EXPIRED } });
          }
          return false;
        }
        tx.delete(k);
        this.#host.countDeletion(tx);
        return true;
      });
      if (isGone) return;
    }
  }

  /** Leases that match any of the filters (all without one), by id. InvalidArgument: a bad filter. */
  async list(ctx: CallContext, ...filters: string[]): Promise<Lease[]> {
    return [...(await this.listed(ctx, ...filters))];
  }

  /** As `list`, made as they are asked for. */
  async listed(ctx: CallContext, ...filters: string[]): Promise<Iterable<Lease>> {
    const prefix = key('leases', requireNamespace(ctx));
    return this.#host.read(ctx, (reader) => {
      const scope = this.#scope ?? reader.leaseScope ?? '';
      const end = scope === '' ? '' : `@${scope}`;
      const nameOf = (k: Key): string | undefined =>
        k.endsWith(end) ? leaf(k).slice(0, leaf(k).length - end.length) : undefined;
      return listed(reader, { prefix, adapt, make: leaseOf, nameOf }, filters, ctx);
    });
  }

  /**
   * Makes the lease hold a resource, which need not exist; again is fine. NotFound: no such lease.
   * InvalidArgument: malformed type or id. NotImplemented: a type no lease can hold.
   */
  async addResource(ctx: CallContext, lease: LeaseRef, resource: Resource): Promise<void> {
    const ns = requireNamespace(ctx);
    const id = idOf(lease);
    await this.#host.update(ctx, (tx) => {
      if (!leaseExists(tx, ns, id, this.#scope)) throw leaseNotFound(id);
      holdByLease(tx, ns, id, resourceKey(ns, resource), this.#scope);
    });
  }

  /** Makes the lease let go of a resource; fine if it does not hold it. Errors as `addResource`. */
  async deleteResource(ctx: CallContext, lease: LeaseRef, resource: Resource): Promise<void> {
    const ns = requireNamespace(ctx);
    const id = idOf(lease);
    await this.#host.update(ctx, (tx) => {
      if (!leaseExists(tx, ns, id, this.#scope)) throw leaseNotFound(id);
      releaseByLease(tx, ns, id, resourceKey(ns, resource), this.#scope);
      this.#host.countDeletion(tx);
    });
  }

  /** What the lease holds: content, images, ingests, then snapshots, each in byte order. NotFound. */
  async listResources(ctx: CallContext, lease: LeaseRef): Promise<Resource[]> {
    const ns = requireNamespace(ctx);
    const id = idOf(lease);
    return this.#host.read(ctx, async (reader) => {
      if (!leaseExists(reader, ns, id, this.#scope)) throw leaseNotFound(id);
      const pace = new Pace(ctx);
      const held: Record<string, Resource[]> = { blobs: [], images: [], ingests: [], snapshots: [] };
      for (const relation of [Relation.holds, Relation.holdsFlat]) {
        for (const target of reader.links(leaseKeyIn(reader, ns, id, this.#scope), relation)) {
          held[collectionOf(target)]?.push(resourceOf(target));
          if (pace.isOver) await pace.pass();
        }
      }
      return Object.values(held).flat();
    });
  }
}

const leaseOf = (id: string, record: LeaseRecord): Lease => ({
  id,
  createdAt: record.createdat,
  labels: record.labels ?? {},
});

/** The record a resource names. */
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
const adapt =
  (id: string, record: LeaseRecord): Adaptor =>
  (path) => {
    if (path[0] === 'id') return id;
    return path[0] === 'labels' ? adaptLabels(record.labels, path.slice(1)) : undefined;
  };
