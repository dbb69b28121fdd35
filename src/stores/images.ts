/**
 * Images: a name for the content it targets. Called by db.ts and the servers. An image is a root of
 * collections until its expiry label has passed; deleting one frees what only it kept.
 *
 * Durability of writes is the DB's; an event follows. Reads are synchronous underneath.
 */
import { type CallContext, requireNamespace } from '../context.js';
import type { Key, Transaction } from '../engine/contract.js';
import { imageKey, key, leaf } from '../engine/schema/keys.js';
import { StoredRecord } from '../engine/schema/stored-record.js';
import {
  alreadyExists,
  type EbbtideError,
  failedPrecondition,
  invalidArgument,
  notFound,
} from '../errors.js';
import { validateDigest } from '../model/digest.js';
import { MaskedMap, maskPaths, unknownPath } from '../model/fieldpaths.js';
import { type Adaptor, adaptLabels } from '../model/filters.js';
import { checkMapSize, compactMap, copyMap, Label, validateLabels } from '../model/labels.js';
import type { ImageRecord, StringMap } from '../model/records.js';
import { type Instant, now } from '../model/time.js';
import { ensureNamespace, putRecord, readRecord, updateTime } from './common.js';
import type { StoreHost } from './host.js';
import { addToLease, removeFromLease, requireContextLease } from './lease-context.js';
import { listed } from './listing.js';

/** What an image points at. */
export interface Descriptor {
  /** Of the blob. */
  mediaType: string;
  /** Of the blob. */
  digest: string;
  /** Bytes. */
  size: number;
  /** Annotations by key. */
  annotations: StringMap;
}

/** A name of an image. */
export interface Image {
  /** Unique in the namespace. */
  name: string;
  /** Labels by key. */
  labels: StringMap;
  /** The manifest or index that it names. */
  target: Descriptor;
  /** When it was created. */
  createdAt: Instant;
  /** When the record was last changed. */
  updatedAt: Instant;
}

/** Input of create and update: times and unknown descriptor fields are ignored. */
export interface ImageInput {
  /** Unique in the namespace. */
  name: string;
  /** Labels by key. */
  labels?: StringMap | undefined;
  /** The manifest or index that it names. */
  target?: Partial<Descriptor> | undefined;
}

/** How an image is deleted. */
export interface ImageDeleteOptions {
  /** Delete only if the image still targets this digest (an empty one is ignored). */
  target?: { readonly digest?: string | undefined } | undefined;
  /** For the services, which collect before they return; ignored by the store. */
  synchronous?: boolean | undefined;
}

/** @internal */
export interface StoredImages {
  /**
   * Visits the next images by name, each with its record (valid until `visit` returns) and a function that
   * makes an Image of it. Returns false after the last ones.
   */
  visitNext(visit: (name: string, record: StoredRecord, image: () => Image) => void): boolean;
}

/** Input before validation: maps may still have empty values. */
interface Draft {
  labels: StringMap | undefined;
  annotations: StringMap | undefined;
  target: { digest: string; mediatype: string; size: number };
}

/** The names of images. */
export class ImageStore {
  readonly #host: StoreHost;

  constructor(host: StoreHost) {
    this.#host = host;
  }

  /** NotFound when the namespace has no image of that name. */
  async get(ctx: CallContext, name: string): Promise<Image> {
    const ns = requireNamespace(ctx);
    return this.#host.read(ctx, (reader) => {
      const record = name === '' ? undefined : readRecord<ImageRecord>(reader, imageKey(ns, name));
      if (record === undefined) throw imageNotFound(name);
      return imageOf(name, record);
    });
  }

  /**
   * Images that match any of the filters (all without filters), by name. InvalidArgument: a malformed filter.
   */
  async list(ctx: CallContext, ...filters: string[]): Promise<Image[]> {
    return [...(await this.listed(ctx, ...filters))];
  }

  /** As `list`, created lazily. */
  async listed(ctx: CallContext, ...filters: string[]): Promise<Iterable<Image>> {
    const listing = { prefix: key('images', requireNamespace(ctx)), adapt: imageFields, make: imageOf };
    return this.#host.read(ctx, (reader) => listed(reader, listing, filters, ctx));
  }

  /**
   * All images of the namespace in their stored form, for callers that convert many of them.
   * FailedPrecondition within a transaction.
   *
   * @internal
   */
  async stored(ctx: CallContext): Promise<StoredImages> {
    const ns = requireNamespace(ctx);
    const { engine } = this.#host;
    return this.#host.read(ctx, (reader) => {
      if (reader !== engine) {
        throw failedPrecondition('stored images are read outside of transactions', { object: ns });
      }
      const record = new StoredRecord();
      let after: Key | undefined;
      let name = '';
      const image = (): Image => imageOf(name, record.value() as unknown as ImageRecord);
      return {
        visitNext(visit) {
          after = engine.visit(key('images', ns), after, (k, bytes, start, end) => {
            record.begin(k, bytes, start, end);
            name = leaf(k);
            visit(name, record, image);
          });
          return after !== undefined;
        },
      };
    });
  }

  /**
   * Creates an image; both timestamps are the context's source date epoch, else now. An image with an expiry
   * label is added to the context's lease. InvalidArgument, AlreadyExists; NotFound: the lease is missing.
   */
  async create(ctx: CallContext, image: ImageInput): Promise<Image> {
    const ns = requireNamespace(ctx);
    const { name } = image;
    const draft = draftOf(image);
    validate(name, draft);
    const at = ctx.sourceDateEpoch ?? now();
    const record = recordOf(draft, at, at);
    const k = imageKey(ns, name);
    const leased = image.labels?.[Label.gcExpire] !== undefined;
    await this.#host.update(ctx, (tx) => {
      if (leased) requireContextLease(tx, ctx, ns);
      if (tx.has(k)) throw alreadyExists(`image "${name}" already exists`, { object: name });
      ensureNamespace(tx, ns);
      putRecord(tx, k, record);
      this.#noteUse(ctx, k);
      if (leased) addToLease(tx, ctx, ns, k);
    });
    return this.#announce(ctx, ns, '/images/create', name, record);
  }

  /**
   * Replaces labels and target (including annotations), or only what the paths name: `labels`,
   * `labels.<key>`, `target`, `annotations`, `annotations.<key>`. InvalidArgument: unknown path, or the
   * result is not valid.
   */
  async update(ctx: CallContext, image: ImageInput, ...paths: string[]): Promise<Image> {
    const ns = requireNamespace(ctx);
    const { name } = image;
    if (name === '') throw invalidArgument('image name is required for update');
    const record = await this.#host.update(ctx, (tx) => this.#replace(tx, ctx, ns, image, paths));
    return this.#announce(ctx, ns, '/images/update', name, record);
  }

  /** Deletes the record; its content stays until a collection. NotFound: absent, or with another target. */
  async delete(ctx: CallContext, name: string, options: ImageDeleteOptions = {}): Promise<void> {
    const ns = requireNamespace(ctx);
    const expected = options.target?.digest ?? '';
    await this.#host.update(ctx, (tx) => {
      if (name === '') throw imageNotFound(name);
      const k = imageKey(ns, name);
      if (expected !== '') requireTarget(readRecord<ImageRecord>(tx, k), name, expected);
      if (!tx.delete(k)) throw imageNotFound(name);
      removeFromLease(tx, ctx, ns, k);
      this.#host.countDeletion(tx);
    });
    await this.#host.publish(ctx, ns, '/images/delete', { name });
  }

  #replace(
    tx: Transaction,
    ctx: CallContext,
    ns: string,
    image: ImageInput,
    paths: readonly string[],
  ): ImageRecord {
    const k = imageKey(ns, image.name);
    const stored = readRecord<ImageRecord>(tx, k);
    if (stored === undefined) throw imageNotFound(image.name);
    const draft = paths.length === 0 ? draftOf(image) : merge(stored, image, paths);
    validate(image.name, draft);
    const record = recordOf(draft, stored.createdat, ctx.sourceDateEpoch ?? updateTime(stored));
    if (draft.labels?.[Label.gcExpire] !== undefined || asksForExpiry(image, paths)) {
      addToLease(tx, ctx, ns, k);
    }
    putRecord(tx, k, record);
    this.#noteUse(ctx, k);
    return record;
  }

  /** Where the record's own times do not say it. */
  #noteUse({ sourceDateEpoch }: CallContext, k: Key): void {
    if (sourceDateEpoch !== undefined) this.#host.lastUse.note(k);
  }

  async #announce(
    ctx: CallContext,
    ns: string,
    topic: string,
    name: string,
    record: ImageRecord,
  ): Promise<Image> {
    await this.#host.publish(ctx, ns, topic, { name, labels: copyMap(record.labels) });
    return imageOf(name, {
      ...record,
      labels: copyMap(record.labels),
      annotations: copyMap(record.annotations),
    });
  }
}

const imageNotFound = (name: string): EbbtideError => notFound(`image "${name}" not found`, { object: name });

function requireTarget(record: ImageRecord | undefined, name: string, digest: string): void {
  if (record === undefined) throw imageNotFound(name);
  if (record.target.digest === digest) return;
  throw notFound(`image "${name}" has target ${record.target.digest}, not ${digest}`, { object: name });
}

/** The public form; takes over the record's maps. */
export const imageOf = (name: string, record: ImageRecord): Image => ({
  name,
  labels: record.labels ?? {},
  target: {
    mediaType: record.target.mediatype,
    digest: record.target.digest,
    size: record.target.size,
    annotations: record.annotations ?? {},
  },
  createdAt: record.createdat,
  updatedAt: record.updatedat,
});

const targetOf = (target: ImageInput['target']): Draft['target'] => ({
  digest: target?.digest ?? '',
  mediatype: target?.mediaType ?? '',
  size: target?.size ?? 0,
});

const draftOf = (image: ImageInput): Draft => ({
  labels: image.labels,
  annotations: image.target?.annotations,
  target: targetOf(image.target),
});

function recordOf(draft: Draft, createdat: Instant, updatedat: Instant): ImageRecord {
  const labels = compactMap(draft.labels);
  const annotations = compactMap(draft.annotations);
  return {
    createdat,
    updatedat,
    ...(labels && { labels }),
    ...(annotations && { annotations }),
    target: draft.target,
  };
}

function merge(stored: ImageRecord, image: ImageInput, paths: readonly string[]): Draft {
  const labels = new MaskedMap('labels', stored.labels, image.labels);
  const annotations = new MaskedMap('annotations', stored.annotations, image.target?.annotations);
  let { target } = stored;
  for (const path of maskPaths(paths)) {
    if (path === 'target') {
      target = targetOf(image.target);
      annotations.apply('annotations');
    } else if (!labels.apply(path) && !annotations.apply(path)) throw unknownPath('image', path, image.name);
  }
  return { labels: labels.map, annotations: annotations.map, target };
}

/** Whether an update sets the expiry label, even to the empty value, which then deletes it. */
function asksForExpiry(image: ImageInput, paths: readonly string[]): boolean {
  if (image.labels?.[Label.gcExpire] === undefined) return false;
  return paths.length === 0 || paths.includes('labels') || paths.includes(`labels.${Label.gcExpire}`);
}

function validate(name: string, { labels, annotations, target }: Draft): void {
  if (name === '') throw invalidArgument('image name must not be empty');
  validateLabels(labels);
  checkMapSize('annotations', annotations);
  validateDigest(target.digest);
  if (!Number.isSafeInteger(target.size) || target.size <= 0) {
    throw invalidArgument(`target size of image "${name}" must be greater than zero`, { object: name });
  }
  if (target.mediatype === '') {
    throw invalidArgument(`target media type of image "${name}" must not be empty`, { object: name });
  }
}

/** Filter fields: name, target.digest, target.mediatype, labels.*, annotations.*. */
export const imageFields =
  (name: string, record: ImageRecord): Adaptor =>
  (path) => {
    switch (path[0]) {
      case 'name':
        return name;
      case 'target':
        if (path[1] === 'digest') return record.target.digest || undefined;
        return path[1] === 'mediatype' ? record.target.mediatype || undefined : undefined;
      case 'labels':
        return adaptLabels(record.labels, path.slice(1));
      case 'annotations':
        return adaptLabels(record.annotations, path.slice(1));
      default:
        return undefined;
    }
  };
