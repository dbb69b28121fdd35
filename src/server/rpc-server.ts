/**
 * The gRPC server: services in, connections in. Every method that has a function is a route, everything else is
 * Unimplemented at once. Connections are handed in by listener.ts, so that this file knows nothing of sockets' names.
 * Called by endpoint.ts.
 */
import type { Socket } from 'node:net';
import { duplexRoute, type Observer, serverStreamRoute, unaryRoute, type Wire } from './call.js';
import { CallGate } from './grpc/call-gate.js';
import { type CallHead, callHead, type Refusal, refuse } from './grpc/call-head.js';
import { type CallShare, Exchange, type Route } from './grpc/exchange.js';
import { type Application, Connection } from './http2/connection.js';
import type { StreamSink } from './http2/stream.js';
import type { Limits } from './limits.js';
import { type Method, methodsOf } from './schema.js';
import type { MethodImpl, Service } from './service.js';
import { detailedStatusOf, resourceExhausted, statusOf } from './status.js';

/** Told once for each method; answers what is told of the end of each of its calls: code and milliseconds. */
export type ObserveMethod = (service: string, method: string) => Observer['end'];

/** Milliseconds that services get to notice that their clients were cut off. */
const LAST_CALLS_MS = 2000;
/** Messages that one connection may have under way in parts, in messages of the largest size. */
const PARTIAL_MESSAGES_MAX = 8;

export class RpcServer {
  readonly #limits: Limits;
  readonly #ended: (reason: string) => void;
  readonly #routes = new Map<string, Route>();
  readonly #connections = new Set<Connection<CallHead<Route> | Refusal>>();
  #running = 0;
  #stopping = false;
  /** Whoever waits for the last call, and for the last connection. */
  readonly #onIdle = new Set<() => void>();
  readonly #onEmpty = new Set<() => void>();

  /** `ended` is called with the reason for every connection that this server ends. */
  constructor(
    limits: Limits,
    services: readonly Service[],
    observe: ObserveMethod,
    ended: (reason: string) => void,
  ) {
    this.#limits = limits;
    this.#ended = ended;
    for (const service of services) {
      for (const method of methodsOf(service.name).values()) {
        const impl = service.methods[method.name];
        if (impl === undefined) continue;
        const observer = this.#observer(observe(service.name, method.name));
        this.#routes.set(method.path, routeOf(service, method, impl, observer));
      }
    }
  }

  /** Serves a connection that somebody else accepted. */
  serve(socket: Socket): void {
    const { streamsPerConnection, metadataBytes, keepaliveMs } = this.#limits;
    const options = { streamsMax: streamsPerConnection, headerBytesMax: metadataBytes, keepaliveMs };
    const connection = new Connection(socket, this.#application(), options, (reason) => {
      if (reason !== undefined) this.#ended(reason);
      this.#connections.delete(connection);
      if (this.#connections.size === 0) for (const fn of this.#onEmpty) fn();
    });
    this.#connections.add(connection);
    if (this.#stopping) connection.shutdown();
  }

  /**
   * Lets open calls end, takes no new ones; after the deadline ends those that have not. `cut` ends the connections
   * under them, and those that were never served.
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

  /** Waits until no service works on a call any more. */
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
  #application(): Application<CallHead<Route> | Refusal> {
    const { messageBytes, metadataBytes, streamsPerConnection } = this.#limits;
    const share: CallShare = {
      messageBytesMax: messageBytes,
      budget: { bytesLeft: messageBytes * PARTIAL_MESSAGES_MAX },
      gate: new CallGate(streamsPerConnection),
    };
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
    };
  }
}

/** Takes what still comes of a request that is answered already. */
const nobody: StreamSink = { data: () => undefined, end: () => undefined, gone: () => undefined };

function routeOf(service: Service, method: Method, impl: MethodImpl, observer: Observer): Route {
  const codecs = service.codecs?.[method.name];
  const wire: Wire<unknown, unknown> = {
    decode: codecs?.decodeRequest ?? method.request.decode,
    frame: codecs?.frameResponse ?? method.response.frame,
    toStatus: service.detailedErrors ? detailedStatusOf : statusOf,
  };
  if (impl.kind === 'unary') return unaryRoute(impl.run, wire, observer);
  if (impl.kind === 'stream') return serverStreamRoute(impl.run, wire, observer);
  return duplexRoute(impl.run, wire, observer);
}
