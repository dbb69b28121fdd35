/**
 * Errors as clients get them: kinds of error map one to one to gRPC codes, and messages end with the words of their kind,
 * as containerd's do. Clients of 1.6 put the words there themselves; those of 2.x only show what they get. Called by call.ts;
 * pure.
 */
import type { Metadata } from '@grpc/grpc-js';
import { EbbtideError, type ErrorKind, kindOf } from '../errors.js';
import { meant } from '../system/system-errors.js';
import { status } from './messages/status-codes.js';
import { type Codec, codecOf } from './schema.js';

export const codes: Readonly<Record<ErrorKind, number>> = {
  InvalidArgument: status.INVALID_ARGUMENT,
  NotFound: status.NOT_FOUND,
  AlreadyExists: status.ALREADY_EXISTS,
  FailedPrecondition: status.FAILED_PRECONDITION,
  Unavailable: status.UNAVAILABLE,
  NotImplemented: status.UNIMPLEMENTED,
  Unknown: status.UNKNOWN,
  Canceled: status.CANCELLED,
  DeadlineExceeded: status.DEADLINE_EXCEEDED,
  ResourceExhausted: status.RESOURCE_EXHAUSTED,
};

/** A failure that has a code but no kind: a read past the end, a limit of this server. */
export class StatusError extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

export const outOfRange = (message: string): StatusError => new StatusError(status.OUT_OF_RANGE, message);
export const resourceExhausted = (message: string): StatusError =>
  new StatusError(status.RESOURCE_EXHAUSTED, message);
/** A client's data violates the protocol. */
export const internal = (message: string): StatusError => new StatusError(status.INTERNAL, message);

export interface CallStatus {
  readonly code: number;
  readonly details: string;
  /** A google.rpc.Status, for clients that know it. */
  readonly binary?: Buffer;
}

export const unimplemented = (details: string): CallStatus => ({ code: status.UNIMPLEMENTED, details });
export const deadlineStatus: CallStatus = {
  code: status.DEADLINE_EXCEEDED,
  details: 'context deadline exceeded',
};

export function statusOf(thrown: unknown): CallStatus {
  if (thrown instanceof StatusError) return { code: thrown.code, details: thrown.message };
  const error = meant(thrown);
  const kind = kindOf(error);
  const message = error instanceof Error ? error.message : String(error);
  return { code: codes[kind], details: asContainerdSays(kind, message) };
}

/** The words by which Go's clients know a kind. */
const endings: Partial<Record<ErrorKind, string>> = {
  InvalidArgument: 'invalid argument',
  NotFound: 'not found',
  AlreadyExists: 'already exists',
  FailedPrecondition: 'failed precondition',
  Unavailable: 'unavailable',
  NotImplemented: 'not implemented',
};

/** `image "x" not found` → `image "x": not found`; `x is in use` → `x is in use: failed precondition`. */
function asContainerdSays(kind: ErrorKind, message: string): string {
  const ending = endings[kind];
  if (ending === undefined || message.endsWith(`: ${ending}`)) return message;
  if (message === '') return ending;
  const object = message.endsWith(` ${ending}`) ? message.slice(0, -ending.length - 1) : message;
  return `${object}: ${ending}`;
}

/** The same without the words, unless the sentence needs them: our own clients show the kind by themselves. */
function withoutEnding(kind: ErrorKind, details: string): string {
  const ending = endings[kind];
  if (ending === undefined || !details.endsWith(`: ${ending}`)) return details;
  const object = details.slice(0, -ending.length - 2);
  const isSentence = !(kind === 'NotFound' || kind === 'AlreadyExists') || object.includes(ending);
  return isSentence ? object : details;
}

// ------------------------------------------------------------------------ with details for our own clients

interface ErrorInfo {
  reason: string;
  domain: string;
  metadata: Record<string, string>;
}
interface StatusMessage {
  code: number;
  message: string;
  details: { typeUrl: string; value: Uint8Array }[];
}

/** Of a request: its client is one of ours, which understands `detailedStatusOf`. */
export const DETAILS_HEADER = 'ebbtide-details';
const DETAILS = 'grpc-status-details-bin';
const DOMAIN = 'ebbtide';
const INFO_TYPE = 'google.rpc.ErrorInfo';

/** With the object and the remedy of the error as google.rpc details. */
export function detailedStatusOf(thrown: unknown): CallStatus {
  const error = meant(thrown);
  const { code, details } = statusOf(error);
  const plain = { code, details: error instanceof Error ? error.message : details };
  if (!(error instanceof EbbtideError)) return plain;
  const { object, remedy } = error;
  const info: ErrorInfo = {
    reason: error.kind,
    domain: DOMAIN,
    metadata: { ...(object !== undefined && { object }), ...(remedy !== undefined && { remedy }) },
  };
  const value = infoCodec().encode(info);
  const message: StatusMessage = {
    code,
    message: plain.details,
    details: [{ typeUrl: `type.googleapis.com/${INFO_TYPE}`, value }],
  };
  return { ...plain, binary: statusCodec().encode(message) };
}

const kinds = new Map(Object.entries(codes).map(([kind, code]) => [code, kind as ErrorKind]));

/** The error that a server's response stands for, with object and remedy where it has them. */
export function errorOf(response: { code?: number; details?: string; metadata?: Metadata }): EbbtideError {
  const kind = kinds.get(response.code ?? status.UNKNOWN) ?? 'Unknown';
  const [bytes] = response.metadata?.get(DETAILS) ?? [];
  let found: ErrorInfo['metadata'] = {};
  if (Buffer.isBuffer(bytes)) {
    const detail = statusCodec()
      .decode(bytes)
      .details.find((any) => any.typeUrl.endsWith(`/${INFO_TYPE}`));
    if (detail !== undefined) found = infoCodec().decode(Buffer.from(detail.value)).metadata;
  }
  const message = withoutEnding(kind, response.details ?? '') || `the daemon returned code ${response.code}`;
  return new EbbtideError(kind, message, { object: found.object, remedy: found.remedy });
}

const statusCodec = (): Codec<StatusMessage> => codecOf<StatusMessage>('google.rpc.Status');
const infoCodec = (): Codec<ErrorInfo> => codecOf<ErrorInfo>(INFO_TYPE);
