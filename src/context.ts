/**
 * The call context: first argument of every operation. A plain frozen-in-use object; the `with…` helpers
 * return a new one and never change the old.
 */
import type { Transaction } from './engine/contract.js';
import { failedPrecondition } from './errors.js';
import { validateIdentifier } from './model/identifiers.js';
import type { Instant } from './model/time.js';

export interface CallContext {
  /** Namespace the operation works in; required by everything but the namespace store and collections. */
  readonly namespace?: string | undefined;
  /** Id of the lease that what the operation makes is added to. */
  readonly lease?: string | undefined;
  /** Transaction the operation joins instead of running one of its own. */
  readonly tx?: Transaction | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Resolves when it is the caller's turn again; for what takes long, instead of one turn of the event loop. */
  readonly turn?: (() => Promise<void>) | undefined;
  /** Time an image's timestamps are taken from instead of the clock (reproducible builds). */
  readonly sourceDateEpoch?: Instant | undefined;
}

export const withNamespace = (ctx: CallContext, namespace: string): CallContext => ({ ...ctx, namespace });
export const withLease = (ctx: CallContext, lease: string): CallContext => ({ ...ctx, lease });
export const withSignal = (ctx: CallContext, signal: AbortSignal): CallContext => ({ ...ctx, signal });
export const withSourceDateEpoch = (ctx: CallContext, sourceDateEpoch: Instant): CallContext => ({
  ...ctx,
  sourceDateEpoch,
});

/** A context that carries a transaction; an inner one replaces an outer one. */
export const withTransactionContext = (ctx: CallContext, tx: Transaction): CallContext => ({ ...ctx, tx });

/** The context's namespace: FailedPrecondition when missing or empty, InvalidArgument when malformed. */
export function requireNamespace(ctx: CallContext): string {
  const namespace = ctx.namespace;
  if (namespace === undefined || namespace === '') {
    throw failedPrecondition('namespace is required', { remedy: 'set `namespace` in the call context' });
  }
  validateIdentifier(namespace, 'namespace');
  return namespace;
}
