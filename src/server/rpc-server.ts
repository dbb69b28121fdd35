/**
 * The gRPC server: connects services with connections. Every method that has a function is a route;
 * everything else is Unimplemented at once. listener.ts passes connections in, so that this file is
 * independent of sockets' names. Called by endpoint.ts.
 */
import type { Observer } from './call.js';
import { Ledger } from './connections/ledger.js';
import type { Line } from './connections/line.js';
import type { Peer } from './connections/peer.js';
import { CallGate } from './grpc/call-gate.js';
import { type CallHead, callHead, type Refusal, refuse } from './grpc/call-head.js';
import { type CallShare, Exchange, type Route } from './grpc/exchange.js';
import { type Application, Connection } from './http2/connection.js';
import { RunQueue } from './http2/run-queue.js';
import type { StreamSink } from './http2/stream.js';
import type { Limits } from './limits.js';
import { routesOf } from './routes.js';
import type { Service } from './service.js';
import { resourceExhausted, statusOf } from './status.js';

/**
 * Called once for each method; the result is called at the end of each of its calls, with its code and
 * milliseconds.
 */
export type ObserveMethod = (service: string, method: string) => Observer['end'];

/** Milliseconds that services have to notice that their clients were disconnected. */
const LAST_CALLS_MS = 2000;

/** State shared by all connections of a daemon. */
export interface Shared {
  readonly ledger: Ledger;
  readonly queue: RunQueue;
}
export const sharedOf = (limits: Limits): Shared => ({
  ledger: new Ledger(limits.memoryBytes),
  queue: new RunQueue(),
});

/** A connection as its listener sees it. */
export interface Servant {
  /** Whether calls are open, or services work on calls that were cancelled. */
  readonly busy: boolean;
  /** When something was last received, on the monotonic clock. */
  readonly heardAt: number;
  /** Refuses new calls and ends. */
  end(): void;
}

export class RpcServer {
  readonly #limits: Limits;
  readonly #ended: (reason: string) => void;
  readonly #shared: Shared;
  readonly #routes: ReadonlyMap<string, Route>;
  readonly #connections = new Set<Connection<CallHead<Route> | Refusal>>();
  #running = 0;
  #stopping = false;
  /** Waiters for the last call, and for the last connection. */
  readonly #onIdle = new Set<() => void>();
  readonly #onEmpty = new Set<() => void>();

  /** `ended` is called with the reason for every connection that this server ends. */
  constructor(
    limits: Limits,
    services: readonly Service[],
    observe: ObserveMethod,
    ended: (reason: string) => void,
    shared: Shared,
  ) {
    this.#limits = limits;
    this.#shared = shared;
    this.#ended = ended;
    this.#routes = routesOf(services, limits.messageBytes, (service, method) =>
      this.#observer(observe(service, method)),
    );
  }

  /** Calls that services are working on. */
  get calls(): number {
    return this.#running;
  }

  /** Serves an accepted connection. */
  serve(line: Line, peer: Peer): Servant {
    const { streamsPerConnection, metadataBytes, keepaliveMs } = this.#limits;
    const { ledger, queue } = this.#shared;
    const memory = ledger.open(peer.uid, {
      moved: () => connection.moved(),
      end: () => connection.overrun(),
    });
    const options = {
      ...{ streamsMax: streamsPerConnection, headerBytesMax: metadataBytes, keepaliveMs },
      ...{ peer, queue, memory },
    };
    const gate = new CallGate(streamsPerConnection, memory, () => connection.wake());
    const connection = new Connection(line, this.#application(gate, peer), options, (reason) => {
      if (reason !== undefined) this.#ended(reason);
      gate.close();
      memory.close();
      this.#connections.delete(connection);
      if (this.#connections.size === 0) for (const fn of this.#onEmpty) fn();
    });
    this.#connections.add(connection);
    if (this.#stopping) connection.shutdown();
    return {
      get busy() {
        return connection.streams > 0 || gate.running > 0;
      },
      get heardAt() {
        return connection.heardAt;
      },
      end: () => connection.leave(),
    };
  }

  /**
   * Lets open calls finish and refuses new ones; ends the rest after the deadline. `cut` closes their
   * connections, and those that were never served.
   */
  async stop(deadlineMs: number, cut: () => void): Promise<{ aborted: boolean }> {
    this.#stopping = true;
    let aborted = false;
    for (const connection of [...this.#connections]) connection.shutdown();
    if (this.#connections.size > 0) {
      const timer = setTimeout(() => {
        aborted = true;
        for (const connection of [...this.#connections]) connection.destroy();
        cut();
      }, deadlineMs);
      await new Promise<void>((resolve) => this.#onEmpty.add(resolve));
      clearTimeout(timer);
    }
    await this.#idle(LAST_CALLS_MS);
    return { aborted };
  }

  /** Waits until no service is working on a call. */
  async #idle(deadlineMs: number): Promise<void> {
    if (this.#running === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, deadlineMs);
      this.#onIdle.add(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #observer(end: Observer['end']): Observer {
    return {
      begin: () => {
        this.#running++;
      },
      end: (code, ms) => {
        end(code, ms);
        if (--this.#running === 0) for (const fn of this.#onIdle) fn();
      },
    };
  }

  /** gRPC for one connection. */
  #application(gate: CallGate, peer: Peer): Application<CallHead<Route> | Refusal> {
    const { messageBytes, metadataBytes } = this.#limits;
    const share: CallShare = { messageBytesMax: messageBytes, peer, gate };
    return {
      head: (request) => callHead(request, this.#routes),
      tooLarge: () =>
        refuse(
          statusOf(resourceExhausted(`the call's headers are over the limit of ${metadataBytes} bytes`)),
        ),
      open: (stream, head) => {
        if (!('refusal' in head)) return new Exchange(stream, head, share);
        stream.trailers(head.refusal);
        return nobody;
      },
      get steps() {
        return gate.steps;
      },
      resume: () => gate.resume(),
      goOn: () => gate.goOn(),
    };
  }
}

/** Consumes the rest of a request that has its response already. */
const nobody: StreamSink = {
  data: () => undefined,
  end: () => undefined,
  gone: () => undefined,
  done: () => undefined,
};
