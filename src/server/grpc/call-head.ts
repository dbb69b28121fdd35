/**
 * What a request's headers mean for a call: method, context, deadline, encoding. Parsed once for all calls
 * with the same headers, so the result is shared and must not be changed.
 */
import type { CallContext } from '../../context.js';
import { timerMs } from '../../system/timers.js';
import type { BlockParts } from '../http2/header-encoder.js';
import type { RequestHead } from '../http2/request-head.js';
import { type CallStatus, DETAILS_HEADER, unimplemented } from '../status.js';
import { failure, httpStatus, refusedEncoding } from './blocks.js';
import { encodings, isEncoding, type MessageEncoding } from './compression.js';

const NAMESPACE_HEADER = 'containerd-namespace';
const LEASE_HEADER = 'containerd-lease';
const CONTENT_TYPE = /^application\/grpc(?:$|[+;])/;
const TIMEOUT = /^(\d{1,8})([HMSmun])$/;
const unitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

export interface CallHead<Route> {
  readonly route: Route;
  readonly context: CallContext;
  readonly timeoutMs: number | undefined;
  readonly encoding: MessageEncoding;
  /** Whether errors carry object and remedy. */
  readonly isDetailed: boolean;
}
/** A complete response, for a request that cannot become a call. */
export interface Refusal {
  readonly refusal: BlockParts;
}

export function callHead<Route>(
  { method, path, fields }: RequestHead,
  routes: ReadonlyMap<string, Route>,
): CallHead<Route> | Refusal {
  const header = (name: string): string | undefined => fields.find((field) => field.name === name)?.value;
  if (!CONTENT_TYPE.test(header('content-type') ?? '')) return { refusal: httpStatus(415) };
  if (method !== 'POST') return { refusal: httpStatus(405) };
  const route = routes.get(path);
  if (route === undefined) {
    return refuse(unimplemented(`The server does not implement the method ${path}`));
  }
  const encoding = header('grpc-encoding') ?? 'identity';
  if (!isEncoding(encoding)) {
    const status = unimplemented(`Unsupported encoding: ${encoding}`);
    return { refusal: refusedEncoding(status, encodings.join(',')) };
  }
  const timeout = header('grpc-timeout');
  const timeoutMs = timeout === undefined ? undefined : timeoutOf(timeout);
  if (timeoutMs !== undefined && Number.isNaN(timeoutMs)) {
    return refuse({ code: INTERNAL, details: 'Invalid grpc-timeout value' });
  }
  const context = { namespace: first(header(NAMESPACE_HEADER)), lease: first(header(LEASE_HEADER)) };
  return { route, context, timeoutMs, encoding, isDetailed: header(DETAILS_HEADER) !== undefined };
}

const INTERNAL = 13;

export const refuse = (status: CallStatus): Refusal => ({ refusal: failure(status, true) });

/** NaN if it is not a valid timeout. */
function timeoutOf(text: string): number {
  const [, count, unit = ''] = TIMEOUT.exec(text) ?? [];
  return timerMs(Number(count) * (unitMs[unit] ?? Number.NaN));
}

/**
 * Go clients may send a header twice, the newest first, and proxies may join the two with a comma: only the
 * part before it counts. None of our values contains a comma: namespaces are identifiers, and a lease id with
 * one cannot be distinguished from two ids.
 */
function first(value: string | undefined): string | undefined {
  if (value === undefined) return undefined;
  const comma = value.indexOf(',');
  return (comma < 0 ? value : value.slice(0, comma)).trim();
}
