/**
 * The gRPC server: services in, connections in. Every method of every definition is registered, what has no function
 * is Unimplemented at once. Connections are handed in by listener.ts, so that this file knows nothing of sockets.
 * Called by daemon.ts.
 */
import type { Duplex as NodeStream } from 'node:stream';
import { type handleUnaryCall, Server, ServerCredentials, type UntypedHandleCall } from '@grpc/grpc-js';
import { duplexHandler, type Observer, serverStreamHandler, unaryHandler } from './call.js';
import { hardenHttp2, presetHttp2 } from './http2-options.js';
import type { Limits } from './limits.js';
import { type Method, methodsOf } from './schema.js';
import type { MethodImpl, Service } from './service.js';
import { detailedStatusOf, statusOf } from './status.js';

/** Told once for each method; answers what is told of the end of each of its calls: code and milliseconds. */
export type ObserveMethod = (service: string, method: string) => Observer['end'];

/** Milliseconds that services get to notice that their clients were cut off. */
const LAST_CALLS_MS = 2000;

export class RpcServer {
  readonly #server: Server;
  readonly #injector: ReturnType<Server['createConnectionInjector']>;
  #running = 0;
  #onIdle: (() => void) | undefined;

  constructor(limits: Limits, services: readonly Service[], observe: ObserveMethod) {
    this.#server = new Server({
      'grpc.max_receive_message_length': limits.messageBytes,
      'grpc.max_send_message_length': limits.messageBytes,
      'grpc.max_concurrent_streams': limits.streamsPerConnection,
      'grpc.keepalive_time_ms': limits.keepaliveMs,
      'grpc.keepalive_timeout_ms': limits.keepaliveMs,
      'grpc.enable_channelz': 0,
    });
    presetHttp2(this.#server, limits);
    for (const service of services) {
      for (const method of methodsOf(service.name).values()) {
        const impl = service.methods[method.name];
        if (impl !== undefined) {
          this.#register(service, method, impl, this.#observer(observe(service.name, method.name)));
        }
      }
    }
    this.#injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    hardenHttp2(this.#server);
  }

  /** Serves a connection that somebody else accepted. */
  serve(connection: NodeStream): void {
    this.#injector.injectConnection(connection);
  }

  /**
   * Lets open calls end, takes no new ones; after the deadline ends those that have not. `cut` ends the connections
   * under them: an HTTP/2 session alone would wait for a client that does not read.
   */
  async stop(deadlineMs: number, cut: () => void): Promise<{ aborted: boolean }> {
    let aborted = false;
    const timer = setTimeout(() => {
      aborted = true;
      this.#server.forceShutdown();
      cut();
    }, deadlineMs);
    await new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
    clearTimeout(timer);
    await this.#idle(LAST_CALLS_MS);
    return { aborted };
  }

  /** Waits until no service works on a call any more. */
  async #idle(deadlineMs: number): Promise<void> {
    if (this.#running === 0) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
      setTimeout(resolve, deadlineMs).unref();
    });
  }

  #observer(end: Observer['end']): Observer {
    return {
      begin: () => {
        this.#running++;
      },
      end: (code, ms) => {
        end(code, ms);
        if (--this.#running === 0) this.#onIdle?.();
      },
    };
  }

  #register(service: Service, method: Method, impl: MethodImpl, observer: Observer): void {
    const toStatus = service.detailedErrors ? detailedStatusOf : statusOf;
    const codecs = service.codecs?.[method.name];
    const encode = codecs?.encodeResponse ?? method.response.encode;
    const decode = codecs?.decodeRequest ?? method.request.decode;
    const register = (handler: UntypedHandleCall, type: string): void => {
      this.#server.register(method.path, handler as handleUnaryCall<unknown, unknown>, encode, decode, type);
    };
    if (impl.kind === 'unary') register(unaryHandler(impl.run, observer, toStatus), 'unary');
    else if (impl.kind === 'stream')
      register(serverStreamHandler(impl.run, observer, toStatus), 'serverStream');
    else register(duplexHandler(impl.run, observer, toStatus), 'bidi');
  }
}
