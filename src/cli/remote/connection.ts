/**
 * A connection to a daemon: calls methods of the definitions, and turns responses into values and errors of
 * this package. Called by the remote stores. The call context's namespace and lease are sent as headers; its
 * signal cancels.
 */
import { once } from 'node:events';
import {
  type CallOptions,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import type { CallContext } from '../../context.js';
import { abortError, type EbbtideError, throwIfAborted, unavailable } from '../../errors.js';
import { isListening as isServed } from '../../server/connections/listener.js';
import { type Method, methodsOf } from '../../server/schema.js';
import { DETAILS_HEADER, errorOf } from '../../server/status.js';

/** Our own service. */
export const EBBTIDE = 'ebbtide.v1.Ebbtide';

const MESSAGE_BYTES_MAX = 16 * 2 ** 20;
const CONNECT_MS = 5000;

export class Connection implements AsyncDisposable {
  readonly address: string;
  readonly #client: Client;

  private constructor(address: string, client: Client) {
    this.address = address;
    this.#client = client;
  }

  /** Unavailable when nothing listens at the socket. */
  static async open(address: string): Promise<Connection> {
    // The client below would retry for its whole deadline.
    if (!(await isServed(address))) throw noDaemon(address);
    const client = new Client(`unix:${address}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
      'grpc.enable_channelz': 0,
      // A connection of its own, not shared within the process.
      'grpc.use_local_subchannel_pool': 1,
    });
    try {
      await new Promise<void>((resolve, reject) => {
        client.waitForReady(Date.now() + CONNECT_MS, (error) => (error ? reject(error) : resolve()));
      });
    } catch (cause) {
      client.close();
      throw noDaemon(address, cause);
    }
    return new Connection(address, client);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    return Promise.resolve();
  }

  unary<Response>(
    service: string,
    method: string,
    request: object,
    ctx: CallContext = {},
  ): Promise<Response> {
    throwIfAborted(ctx.signal);
    const { path, request: input, response: output } = methodOf(service, method);
    return new Promise<Response>((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        path,
        input.encode,
        output.decode,
        request,
        headers(ctx),
        (error, response) => {
          ctx.signal?.removeEventListener('abort', cancel);
          // The definition justifies the cast.
          if (error === null) resolve(response as Response);
          else reject(failure(error, ctx));
        },
      );
      const cancel = (): void => call.cancel();
      ctx.signal?.addEventListener('abort', cancel, { once: true });
    });
  }

  /** Leaving the loop early cancels the call. */
  async *stream<Response>(
    service: string,
    method: string,
    request: object,
    ctx: CallContext = {},
  ): AsyncGenerator<Response, void, void> {
    throwIfAborted(ctx.signal);
    const { path, request: input, response: output } = methodOf(service, method);
    const call = this.#client.makeServerStreamRequest(
      path,
      input.encode,
      output.decode,
      request,
      headers(ctx),
    );
    yield* responses<Response>(call, ctx);
  }

  /** The complete list that a method streams, by the field of its messages. */
  async list<Item>(field: string, method: string, request: object, ctx: CallContext): Promise<Item[]> {
    const items: Item[] = [];
    for await (const message of this.stream<Record<string, Item[]>>(EBBTIDE, method, request, ctx)) {
      for (const item of message[field] ?? []) items.push(item);
    }
    return items;
  }

  /** Sends all requests, then reads the responses. */
  async *exchange<Response>(
    service: string,
    method: string,
    requests: Iterable<object>,
    ctx: CallContext,
  ): AsyncGenerator<Response, void, void> {
    const call = this.duplex(service, method, ctx);
    const sendAll = async (): Promise<void> => {
      for (const request of requests) if (!call.write(request)) await once(call, 'drain');
      call.end();
    };
    // A failure to send shows where the response is read.
    sendAll().catch(() => undefined);
    yield* responses<Response>(call, ctx);
  }

  duplex(service: string, method: string, ctx: CallContext, options: CallOptions = {}) {
    throwIfAborted(ctx.signal);
    const { path, request, response } = methodOf(service, method);
    const call: ClientDuplexStream<unknown, unknown> = this.#client.makeBidiStreamRequest(
      path,
      request.encode,
      response.decode,
      headers(ctx),
      options,
    );
    return call;
  }
}

/** The messages of a call; leaving the loop early cancels it. */
async function* responses<Response>(
  call: ClientReadableStream<unknown> | ClientDuplexStream<unknown, unknown>,
  ctx: CallContext,
): AsyncGenerator<Response, void, void> {
  const cancel = (): void => call.cancel();
  ctx.signal?.addEventListener('abort', cancel, { once: true });
  try {
    // The definition justifies the cast.
    for await (const message of call) yield message as Response;
  } catch (error) {
    throw failure(error as ServiceError, ctx);
  } finally {
    ctx.signal?.removeEventListener('abort', cancel);
    call.cancel();
  }
}

const noDaemon = (address: string, cause?: unknown): EbbtideError =>
  unavailable(`no daemon listens at ${address}`, {
    object: address,
    cause,
    remedy: 'start one with `ebbtide serve`, or leave --address out',
  });

function methodOf(service: string, name: string): Method {
  const method = methodsOf(service).get(name);
  if (method === undefined) throw new Error(`the definition of ${service} has no method ${name}`);
  return method;
}

function headers({ namespace, lease }: CallContext): Metadata {
  const metadata = new Metadata();
  if (namespace) metadata.set('containerd-namespace', namespace);
  if (lease) metadata.set('containerd-lease', lease);
  metadata.set(DETAILS_HEADER, '1');
  return metadata;
}

/** The error of a failed call; the signal's own if that ended the call. */
export function failure(error: ServiceError, { signal }: CallContext): Error {
  if (signal?.aborted) return abortError(signal);
  return errorOf(error);
}
