/**
 * The call context: first argument of every operation. A plain object, never changed while in use; the
 * `with…` helpers return a new one.
 */
import type { Transaction } from './engine/contract.js';
import { failedPrecondition } from './errors.js';
import { validateIdentifier } from './model/identifiers.js';
import type { Instant } from './model/time.js';

/** The first argument of every call: its namespace, and what else holds for it. */
export interface CallContext {
  /** Namespace the operation works in; required by all operations except the namespace store and collections. */
  readonly namespace?: string | undefined;
  /** Id of the lease that the operation adds its objects to. */
  readonly lease?: string | undefined;
  /** Transaction the operation joins instead of running one of its own. */
  readonly tx?: Transaction | undefined;
  /** Ends the call with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Lets other calls run; resolves when the caller may go on. For long work; default: one turn of the event loop. */
  readonly yieldTurn?: (() => Promise<void>) | undefined;
  /** Timestamp for images instead of the current time (reproducible builds). */
  readonly sourceDateEpoch?: Instant | undefined;
}

/** The context with a namespace. */
export const withNamespace = (ctx: CallContext, namespace: string): CallContext => ({ ...ctx, namespace });
/** The context with a lease, which what is made becomes a resource of. */
export const withLease = (ctx: CallContext, lease: string): CallContext => ({ ...ctx, lease });
/** The context with a signal. */
export const withSignal = (ctx: CallContext, signal: AbortSignal): CallContext => ({ ...ctx, signal });
/** The context with the time that what is made is to have. */
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
