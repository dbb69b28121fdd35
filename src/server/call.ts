/**
 * One call as a service sees it: the call context from the request's headers, cancellation, the response.
 * Turns the services' plain functions into routes, so that every call gets a response, is counted and timed,
 * whatever a service throws. Called by rpc-server.ts.
 */
import type { CallContext } from '../context.js';
import { canceled } from '../errors.js';
import type { Peer } from './connections/peer.js';
import type { CallCost } from './grpc/call-cost.js';
import { type Exchange, MESSAGES_BEFORE_YIELD, type Route } from './grpc/exchange.js';
import { PREFIX_BYTES } from './grpc/prefix.js';
import type { Chunks } from './messages/chunks.js';
import { type CallStatus, internal } from './status.js';

export class Call {
  readonly #exchange: Exchange;
  #abort: AbortController | undefined;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  get context(): CallContext {
    return this.#exchange.context;
  }

  /** The process at the other end of the connection. */
  get peer(): Peer {
    return this.#exchange.peer;
  }

  /** The client's memory account, for data kept on its behalf. */
  get memory(): Memory {
    return this.#exchange.memory;
  }

  /**
   * Aborted when the client cancels or disconnects. Created on demand: most calls are too short to be
   * cancelled.
   */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = new AbortController();
      this.#abort = abort;
      this.#exchange.onCancel(() => abort.abort(canceled('context canceled')));
    }
    return this.#abort.signal;
  }

  /** The context with the call's signal and its `yield`, for long work. */
  get cancellable(): CallContext {
    return { ...this.context, signal: this.signal, yieldTurn: () => this.#exchange.yieldTurn() };
  }
}

/** Every byte taken has to be given back; `take` returns false when there is no room. */
export interface Memory {
  take(bytes: number): boolean;
  give(bytes: number): void;
}

/** Notified of the start and the end of each call: its outcome, and its duration in milliseconds. */
export interface Observer {
  begin(): void;
  end(code: number, ms: number): void;
}

/** How the messages of a method are decoded and encoded, and its errors encoded. */
export interface Wire<Request, Response> {
  decode(bytes: Buffer): Request;
  /** With PREFIX_BYTES free bytes before the message. */
  frame(message: Response): Buffer;
  /** @param isDetailed with object and remedy, which only our own clients understand */
  toStatus(error: unknown, isDetailed: boolean): CallStatus;
  readonly cost: CallCost;
}

/**
 * Sends one message of a stream; resolves when the next may be sent and the bytes of this one are free.
 * Rejects when the client is gone: its bytes may still be in flight then.
 */
export type Send<Response> = (message: Response) => Promise<void>;

export interface Duplex<Request, Response> {
  readonly requests: AsyncIterable<Request>;
  readonly send: Send<Response>;
}

export function unaryRoute<Request, Response>(
  run: (request: Request, call: Call) => Promise<Response> | Response,
  wire: Wire<Request, Response>,
  observer: Observer,
): Route {
  return {
    streaming: false,
    cost: wire.cost,
    start(exchange, bytes) {
      const { succeed, fail } = observed(exchange, wire, observer);
      const write = (response: Response): void => {
        let framed: Buffer;
        try {
          framed = wire.frame(response);
        } catch (error) {
          fail(error);
          return;
        }
        succeed(framed);
      };
      try {
        const result = run(decoded(wire, bytes), new Call(exchange));
        if (result instanceof Promise) result.then(write, fail);
        else write(result);
      } catch (error) {
        fail(error);
      }
    },
  };
}

/** How the responses of a list method are encoded. */
export interface ListWire<Request> extends Wire<Request, unknown> {
  chunks(result: unknown): Chunks;
  readonly bytesMax: number;
}

/** Sends the response in chunks and yields after each, so that other calls are served in between. */
export function listRoute<Request>(
  run: (request: Request, call: Call) => unknown,
  wire: ListWire<Request>,
  observer: Observer,
): Route {
  const written = async (exchange: Exchange, bytes: Buffer): Promise<Buffer[]> => {
    const chunks = wire.chunks(await run(decoded(wire, bytes), new Call(exchange)));
    const framed: Buffer[] = [];
    let left = wire.bytesMax;
    for (;;) {
      const free = framed.length === 0 ? PREFIX_BYTES : 0;
      const chunk = chunks.next(free, left);
      left -= chunk.bytes.length - free;
      if (chunk.bytes.length > 0) framed.push(chunk.bytes);
      if (chunk.last) return framed;
      exchange.keep(wire.bytesMax - left);
      await exchange.yieldTurn();
    }
  };
  return {
    streaming: false,
    cost: wire.cost,
    start(exchange, bytes) {
      const { succeed, fail } = observed(exchange, wire, observer);
      written(exchange, bytes).then((framed) => succeed(...framed), fail);
    },
  };
}

export function serverStreamRoute<Request, Response>(
  run: (request: Request, call: Call, send: Send<Response>) => Promise<void>,
  wire: Wire<Request, Response>,
  observer: Observer,
): Route {
  return {
    streaming: false,
    cost: wire.cost,
    start(exchange, bytes) {
      respond(exchange, wire, observer, async () =>
        run(decoded(wire, bytes), new Call(exchange), sender(exchange, wire)),
      );
    },
  };
}

export function duplexRoute<Request, Response>(
  run: (stream: Duplex<Request, Response>, call: Call) => Promise<void>,
  wire: Wire<Request, Response>,
  observer: Observer,
): Route {
  async function* requests(exchange: Exchange): AsyncGenerator<Request, void> {
    for await (const bytes of exchange.messages()) yield decoded(wire, bytes);
  }
  return {
    streaming: true,
    cost: wire.cost,
    start(exchange) {
      const stream = { requests: requests(exchange), send: sender(exchange, wire) };
      respond(exchange, wire, observer, async () => run(stream, new Call(exchange)));
    },
  };
}

/** The start and the end of a call with one response, which may be in several buffers. */
function observed(
  exchange: Exchange,
  { toStatus, cost }: Pick<Wire<never, unknown>, 'toStatus' | 'cost'>,
  observer: Observer,
): { succeed(...framed: Buffer[]): void; fail(error: unknown): void } {
  const start = performance.now();
  observer.begin();
  return {
    succeed(...framed) {
      observer.end(0, performance.now() - start);
      cost.ended(framed.reduce((sum, { length }) => sum + length, 0));
      exchange.succeed(...framed);
    },
    fail(error) {
      const status = toStatus(error, exchange.isDetailed);
      observer.end(status.code, performance.now() - start);
      // A response that was abandoned says nothing about the cost.
      if (!exchange.cancelled) cost.ended(0);
      exchange.fail(status);
    },
  };
}

function respond(
  exchange: Exchange,
  { toStatus }: Pick<Wire<unknown, unknown>, 'toStatus'>,
  observer: Observer,
  run: () => Promise<void>,
): void {
  const start = performance.now();
  observer.begin();
  run().then(
    () => {
      observer.end(0, performance.now() - start);
      exchange.succeed();
    },
    (error: unknown) => {
      const status = toStatus(exchange.cancelled ? canceled('context canceled') : error, exchange.isDetailed);
      observer.end(status.code, performance.now() - start);
      exchange.fail(status);
    },
  );
}

/** A malformed message is the client's mistake and never reaches a service. */
function decoded<Request>(wire: Pick<Wire<Request, never>, 'decode'>, bytes: Buffer): Request {
  try {
    return wire.decode(bytes);
  } catch (error) {
    throw internal(`the request cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/**
 * One message at a time: a client that reads slowly delays only its own call and keeps one message in memory.
 */
function sender<Response>(exchange: Exchange, wire: Pick<Wire<never, Response>, 'frame'>): Send<Response> {
  let sent = 0;
  return async (message) => {
    await exchange.send(wire.frame(message));
    if (++sent % MESSAGES_BEFORE_YIELD === 0) await exchange.yieldTurn();
  };
}
