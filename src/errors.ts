/**
 * Error kinds: every error of this package has one. The kinds map one to one to gRPC codes. Called by every
 * room. A wrapped error keeps the kind of its cause.
 */

import { shown } from './held-paths.js';

export const errorKinds = [
  'InvalidArgument',
  'NotFound',
  'AlreadyExists',
  'FailedPrecondition',
  'Unavailable',
  'NotImplemented',
  'Unknown',
  'Canceled',
  'DeadlineExceeded',
  'ResourceExhausted',
] as const;

/** What went wrong, for programs; docs/api.md has the meanings. */
export type ErrorKind = (typeof errorKinds)[number];

/** What an error says beside its message. */
export interface ErrorDetails {
  /** The object the error is about: an image name, a digest, a snapshot key, a path. */
  object?: string | undefined;
  /** The remedy for the caller: one sentence. */
  remedy?: string | undefined;
  /** The error that led to it. */
  cause?: unknown;
}

/** The same in every copy of this package that a process has loaded. */
const BRAND = Symbol.for('ebbtide.error');

/**
 * `instanceof EbbtideError` is also true for errors of another copy of this package in the same process, and so are
 * `kindOf` and its relatives.
 */
export class EbbtideError extends Error {
  /** Of the class. */
  override readonly name = 'EbbtideError';
  /** What went wrong, for programs. */
  readonly kind: ErrorKind;
  /** `EBBTIDE_` and the kind in capitals: `EBBTIDE_NOT_FOUND`. */
  readonly code: string;
  /** What it is about: a name, a digest, a path. */
  readonly object: string | undefined;
  /** What to do about it. */
  readonly remedy: string | undefined;

  constructor(kind: ErrorKind, message: string, details: ErrorDetails = {}) {
    super(shown(message), details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = kind;
    this.code = codeOf(kind);
    this.object = details.object && shown(details.object);
    this.remedy = details.remedy;
  }

  /** Not enumerable, so that errors print as before. */
  get [BRAND](): true {
    return true;
  }

  /** Errors of other copies of the package are instances, too; prototypes distinguish subclasses as usual. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore lint/complexity/noThisInStatic: the class on the right of `instanceof`
    return super[Symbol.hasInstance](value) || (this === EbbtideError && isBranded(value));
  }
}

/**
 * The outcome of a change is unknown, and cannot be determined now: Unavailable with the code `EBBTIDE_OUTCOME_UNKNOWN`. Backend
 * objects that were created for it must stay, because the record may exist; if not, the next survey of the backend finds the
 * orphans.
 */
export class OutcomeUnknown extends EbbtideError {
  /** Distinguishes it from other errors of its kind. */
  override readonly code = codeOf('OutcomeUnknown');

  constructor(message: string, details: ErrorDetails = {}) {
    super('Unavailable', message, details);
  }

  /** Errors of other copies of the package are instances, too. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return isBranded(value) && value.code === codeOf('OutcomeUnknown');
  }
}

function codeOf(name: string): string {
  return `EBBTIDE${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

function isBranded(value: unknown): value is EbbtideError {
  return value instanceof Error && BRAND in value;
}

const maker =
  (kind: ErrorKind) =>
  (message: string, details?: ErrorDetails): EbbtideError =>
    new EbbtideError(kind, message, details);

export const invalidArgument = maker('InvalidArgument');
export const notFound = maker('NotFound');
export const alreadyExists = maker('AlreadyExists');
export const failedPrecondition = maker('FailedPrecondition');
export const unavailable = maker('Unavailable');
export const notImplemented = maker('NotImplemented');
export const unknownError = maker('Unknown');
export const canceled = maker('Canceled');
export const deadlineExceeded = maker('DeadlineExceeded');

/** For every change of a read-only store. */
export const openedReadOnly = (): EbbtideError =>
  failedPrecondition('the store was opened read-only', { remedy: 'open it for writing' });

/** The kind of any thrown value: its own, its cause's, a platform abort's; `Unknown` otherwise. */
export function kindOf(error: unknown): ErrorKind {
  for (let e = error, depth = 0; e instanceof Error && depth < 32; e = e.cause, depth++) {
    if (e instanceof EbbtideError) return e.kind;
    if (e.name === 'AbortError') return 'Canceled';
    if (e.name === 'TimeoutError') return 'DeadlineExceeded';
  }
  return 'Unknown';
}

/** Whether it is an error of the kind, of any copy of the package. */
export const isKind = (error: unknown, kind: ErrorKind): boolean => kindOf(error) === kind;
/** Whether it is an error of this kind, of any copy of the package. */
export const isNotFound = (error: unknown): boolean => isKind(error, 'NotFound');
/** Whether it is an error of this kind, of any copy of the package. */
export const isAlreadyExists = (error: unknown): boolean => isKind(error, 'AlreadyExists');
/** Whether it is an error of this kind, of any copy of the package. */
export const isFailedPrecondition = (error: unknown): boolean => isKind(error, 'FailedPrecondition');

/** Prefixes an error with a message; the kind stays the cause's, and so do object and remedy unless there are others. */
export function wrap(message: string, cause: unknown, details: ErrorDetails = {}): EbbtideError {
  const text = cause instanceof Error ? cause.message : String(cause);
  const { object, remedy }: Partial<EbbtideError> = cause instanceof EbbtideError ? cause : {};
  return new EbbtideError(kindOf(cause), `${message}: ${text}`, { object, remedy, ...details, cause });
}

/** A value that is there whenever the code around is right: its absence is an internal error, whatever a caller did. */
export function present<T>(value: T, what: string): NonNullable<T> {
  if (value !== undefined && value !== null) return value;
  throw unknownError(`internal error: ${what} is missing`, { object: what, remedy: 'report this error' });
}

/** Throws when the signal is aborted: `DeadlineExceeded` for a timeout, else `Canceled`. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

/** The promise, or the signal's error when it ends first; what the promise does then is not waited for. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    const abort = (): void => reject(abortError(signal));
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

export function abortError(signal: AbortSignal): EbbtideError {
  const reason: unknown = signal.reason;
  if (reason instanceof EbbtideError) return reason;
  const late = reason instanceof Error && reason.name === 'TimeoutError';
  return late
    ? deadlineExceeded('context deadline exceeded', { cause: reason })
    : canceled('context canceled', { cause: reason });
}
