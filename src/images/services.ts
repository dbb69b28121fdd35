/**
 * What image import, export and unpacking need of a store; a DB provides it. Structural, so that embedders
 * and tests can provide their own. Everything in this room takes it as first argument and keeps nothing
 * between calls.
 */
import { randomBytes } from 'node:crypto';
import type { Mount, SnapshotInfo, SnapshotOptions } from '../backends/contract.js';
import { type CallContext, withLease } from '../context.js';
import { EbbtideError, isKind, isNotFound, kindOf } from '../errors.js';
import { Label } from '../model/labels.js';
import { NANOS_PER_SECOND, now } from '../model/time.js';
import type { ContentStore } from '../stores/content/content.js';
import type { ImageStore } from '../stores/images.js';
import { type LeaseManager, withExpiration, withLabel, withRandomId } from '../stores/leases.js';
import { messageOf } from '../system/system-errors.js';

/** The part of a namespaced snapshotter that unpacking needs. */
export interface LayerSnapshotter {
  /** As a snapshotter's; absent: false. */
  readonly rebases?: boolean;
  /** As a snapshotter's. */
  stat(ctx: CallContext, key: string): Promise<SnapshotInfo>;
  /** As a snapshotter's. */
  prepare(ctx: CallContext, key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]>;
  /** As a snapshotter's. */
  commit(ctx: CallContext, name: string, key: string, options?: SnapshotOptions): Promise<void>;
  /** As a snapshotter's. */
  remove(ctx: CallContext, key: string): Promise<void>;
}

/** What imports, exports and unpacking need of a store. */
export interface ImageServices {
  /** The blobs. */
  readonly content: Pick<ContentStore, 'info' | 'update' | 'readerAt' | 'writer' | 'abort'>;
  /** The names of images. */
  readonly images: Pick<ImageStore, 'get' | 'create' | 'update'>;
  /** The leases. */
  readonly leases: Pick<LeaseManager, 'create' | 'delete' | 'addResource'>;
  /** A snapshotter by its name; undefined without one. */
  snapshotter(name: string): LayerSnapshotter | undefined;
  /** Nothing can be changed, including leases. */
  readonly isReadOnly?: boolean;
}

/** How far an import, an export or unpacking is. */
export interface Progress {
  /** What is being done. */
  phase: 'import' | 'unpack' | 'export';
  /** A digest or a file name. */
  name: string;
  /** Bytes. */
  done: number;
  /** Bytes; 0 when unknown. */
  total: number;
  /** All items of the phase, and their bytes, where known in advance. */
  all?: { items: number; bytes: number } | undefined;
}
/** Called again and again, with what is done. */
export type OnProgress = (progress: Progress) => void;

/** Lifetime of a lease that is not deleted: containerd's default. */
const LEASE_LIFETIME_MS = 24 * 3600 * 1000;

/** What a lease is for: after an interruption it stays if another attempt can resume. */
export type LeasedWork = 'import' | 'unpack' | 'export' | 'tag' | 'transfer';
const resumed: readonly LeasedWork[] = ['import', 'unpack'];

/** The context ended the work; its lease stays, so that the next attempt can resume. */
export class Interrupted extends EbbtideError {
  /** The lease that keeps what was done so far. */
  readonly lease: string;

  constructor(lease: string, cause: unknown) {
    super(kindOf(cause), messageOf(cause), {
      object: lease,
      remedy: `repeat the operation to resume it, or delete the lease "${lease}", which keeps the partial result for a day`,
      cause,
    });
    this.lease = lease;
  }
}

/**
 * Runs `work` under a lease: the context's own, or a new one that is deleted afterwards. Interrupted: the
 * context was aborted (Ctrl-C), and the new lease stays until it expires.
 */
export function underLease<T>(
  services: ImageServices,
  ctx: CallContext,
  what: LeasedWork,
  work: (ctx: LeasedContext) => Promise<T>,
): Promise<T> {
  return under(services, ctx, what, work, () => newLease(services, ctx, what));
}

/**
 * As `underLease`, for work that changes nothing: where no lease can be made, because the store is read-only or its disk is full, it
 * goes on with `lease` ''. A blob that is deleted meanwhile is then reported by its digest.
 */
export function readUnderLease<T>(
  services: ImageServices,
  ctx: CallContext,
  what: LeasedWork,
  work: (ctx: LeasedContext) => Promise<T>,
): Promise<T> {
  return under(services, ctx, what, work, async () =>
    services.isReadOnly ? '' : unlessFull(newLease(services, ctx, what), ''),
  );
}

/** For a write that reading can do without: `otherwise` where it is Unavailable, as on a full disk. */
export const unlessFull = <T, O>(write: Promise<T>, otherwise: O): Promise<T | O> =>
  write.catch((error: unknown) => {
    if (!isKind(error, 'Unavailable')) throw error;
    return otherwise;
  });

async function newLease(services: ImageServices, ctx: CallContext, what: LeasedWork): Promise<string> {
  const lifetime = withExpiration(LEASE_LIFETIME_MS);
  const { id } = await services.leases.create(ctx, withRandomId(), lifetime, withLabel(Label.leaseFor, what));
  return id;
}

/** @param make a lease where the context has none; '': there can be none */
async function under<T>(
  services: ImageServices,
  ctx: CallContext,
  what: LeasedWork,
  work: (ctx: LeasedContext) => Promise<T>,
  make: () => Promise<string>,
): Promise<T> {
  if (ctx.lease !== undefined && ctx.lease !== '') return work({ ...ctx, lease: ctx.lease });
  const id = await make();
  if (id === '') return work({ ...ctx, lease: '' });
  let result: T;
  try {
    result = await work({ ...withLease(ctx, id), lease: id });
  } catch (error) {
    if (isKind(error, 'Canceled') && resumed.includes(what)) throw new Interrupted(id, error);
    await dropLease(services, ctx, id).catch(() => undefined);
    throw error;
  }
  await dropLease(services, ctx, id);
  return result;
}

export type LeasedContext = CallContext & { readonly lease: string };

async function dropLease(services: ImageServices, ctx: CallContext, id: string): Promise<void> {
  await services.leases.delete(unended(ctx), id).catch((error: unknown) => {
    if (!isNotFound(error)) throw error;
  });
}

/** The same context without its signal, for cleaning up after an abort. */
export const unended = <C extends CallContext>(ctx: C): C => ({ ...ctx, signal: undefined });

/** A unique string: `<nanosecond of the second>-<4 url-safe characters>`. */
export const uniquePart = (): string => `${now() % NANOS_PER_SECOND}-${randomBytes(3).toString('base64url')}`;
