/**
 * One call as a service sees it: the call context from the request's headers, cancellation, the answer. Wraps the
 * services' plain functions into gRPC handlers, so that every call is answered, counted and timed, whatever a service
 * throws. Called by rpc-server.ts.
 */
import type {
  Metadata,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
} from '@grpc/grpc-js';
import type { CallContext } from '../context.js';
import { canceled } from '../errors.js';
import { type CallStatus, statusOf } from './status.js';

const NAMESPACE_HEADER = 'containerd-namespace';
const LEASE_HEADER = 'containerd-lease';

/** What is used of the call objects of the gRPC library. */
interface RawCall {
  readonly metadata: Metadata;
  readonly cancelled: boolean;
  once(event: 'cancelled', fn: () => void): unknown;
}

export class Call {
  readonly #raw: RawCall;
  readonly context: CallContext;
  #abort: AbortController | undefined;

  constructor(raw: RawCall) {
    this.#raw = raw;
    this.context = {
      namespace: firstHeader(raw.metadata, NAMESPACE_HEADER),
      lease: firstHeader(raw.metadata, LEASE_HEADER),
    };
  }

  /** Ends when the client gives up or goes away. Made on demand: most calls are over too soon to be cancelled. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = new AbortController();
      this.#abort = abort;
      const end = (): void => abort.abort(canceled('context canceled'));
      if (this.#raw.cancelled) end();
      else this.#raw.once('cancelled', end);
    }
    return this.#abort.signal;
  }

  /** The context with the call's signal, for what may take long. */
  get cancellable(): CallContext {
    return { ...this.context, signal: this.signal };
  }
}

/**
 * Go clients may send a header twice, the newest first, and Node joins the two with a comma: what is before it counts.
 * No value of ours has a comma: namespaces are identifiers, and lease ids with one cannot be told from two.
 */
function firstHeader(metadata: Metadata, name: string): string | undefined {
  const [value] = metadata.get(name);
  if (value === undefined) return undefined;
  const text = value.toString();
  const comma = text.indexOf(',');
  return (comma < 0 ? text : text.slice(0, comma)).trim();
}

/** Told of the start of each call, and of its end: how it went and how long it took, in milliseconds. */
export interface Observer {
  begin(): void;
  end(code: number, ms: number): void;
}

/** Sends one message of a stream; resolves when the next may be sent. Rejects when the client has gone. */
export type Send<Response> = (message: Response) => Promise<void>;

export interface Duplex<Request, Response> {
  readonly requests: AsyncIterable<Request>;
  readonly send: Send<Response>;
}

type ToStatus = (error: unknown) => CallStatus;

export function unaryHandler<Request, Response>(
  run: (request: Request, call: Call) => Promise<Response> | Response,
  observer: Observer,
  toStatus: ToStatus = statusOf,
) {
  return (raw: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>): void => {
    const start = performance.now();
    observer.begin();
    const fail = (error: unknown): void => {
      const failure = toStatus(error);
      observer.end(failure.code, performance.now() - start);
      callback(failure);
    };
    const succeed = (response: Response): void => {
      observer.end(0, performance.now() - start);
      callback(null, response);
    };
    try {
      const result = run(raw.request, new Call(raw));
      if (result instanceof Promise) result.then(succeed, fail);
      else succeed(result);
    } catch (error) {
      fail(error);
    }
  };
}

export function serverStreamHandler<Request, Response>(
  run: (request: Request, call: Call, send: Send<Response>) => Promise<void>,
  observer: Observer,
  toStatus: ToStatus = statusOf,
) {
  return (raw: ServerWritableStream<Request, Response>): void => {
    answer(raw, observer, toStatus, () => run(raw.request, new Call(raw), sender(raw)));
  };
}

export function duplexHandler<Request, Response>(
  run: (stream: Duplex<Request, Response>, call: Call) => Promise<void>,
  observer: Observer,
  toStatus: ToStatus = statusOf,
) {
  return (raw: ServerDuplexStream<Request, Response>): void => {
    // Leaving a loop over the requests early must not destroy the stream: the answer is still to be sent.
    const requests: AsyncIterable<Request> = {
      [Symbol.asyncIterator]: () => raw.iterator({ destroyOnReturn: false }),
    };
    answer(raw, observer, toStatus, () => run({ requests, send: sender(raw) }, new Call(raw)));
  };
}

type AnyStream<Response> = ServerWritableStream<unknown, Response> | ServerDuplexStream<unknown, Response>;

function answer<Response>(
  raw: AnyStream<Response>,
  observer: Observer,
  toStatus: ToStatus,
  run: () => Promise<void>,
): void {
  const start = performance.now();
  observer.begin();
  // A client that goes away shows as an error on the stream; `cancelled` has told the service already.
  raw.on('error', () => undefined);
  run().then(
    () => {
      observer.end(0, performance.now() - start);
      raw.end();
    },
    (error: unknown) => {
      const failure = toStatus(raw.cancelled ? canceled('context canceled') : error);
      observer.end(failure.code, performance.now() - start);
      raw.emit('error', failure);
    },
  );
}

/** One message at a time: a client that reads slowly holds up its own call and keeps one message in memory. */
function sender<Response>(raw: AnyStream<Response>): Send<Response> {
  let gone: ((error: Error) => void) | undefined;
  raw.once('cancelled', () => gone?.(canceled('context canceled')));
  return (message) =>
    new Promise<void>((resolve, reject) => {
      if (raw.cancelled) {
        reject(canceled('context canceled'));
        return;
      }
      gone = reject;
      raw.write(message, (error?: Error | null) => {
        gone = undefined;
        if (error) reject(canceled('context canceled', { cause: error }));
        else resolve();
      });
    });
}
