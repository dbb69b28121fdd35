/** A client with nothing of its own: sends messages and headers as given, returns what came back. For tests only. */
import { type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import type { WriteRequest, WriteResponse } from '../../src/server/messages/messages.js';
import { methodsOf } from '../../src/server/schema.js';

export const services = {
  content: 'containerd.services.content.v1.Content',
  containers: 'containerd.services.containers.v1.Containers',
  diff: 'containerd.services.diff.v1.Diff',
  ebbtide: 'ebbtide.v1.Ebbtide',
  events: 'containerd.services.events.v1.Events',
  health: 'grpc.health.v1.Health',
  images: 'containerd.services.images.v1.Images',
  introspection: 'containerd.services.introspection.v1.Introspection',
  leases: 'containerd.services.leases.v1.Leases',
  namespaces: 'containerd.services.namespaces.v1.Namespaces',
  sandboxes: 'containerd.services.sandbox.v1.Store',
  mounts: 'containerd.services.mounts.v1.Mounts',
  snapshots: 'containerd.services.snapshots.v1.Snapshots',
  streaming: 'containerd.services.streaming.v1.Streaming',
  tasks: 'containerd.services.tasks.v1.Tasks',
  transfer: 'containerd.services.transfer.v1.Transfer',
  version: 'containerd.services.version.v1.Version',
} as const;
export type ServiceName = keyof typeof services;

// Messages are looked at field by field in the tests, whatever their type.
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Message = any;

export interface Failure {
  code: number;
  details: string;
}

const MiB = 2 ** 20;

export class TestClient {
  readonly grpc: Client;
  readonly headers: Metadata;

  constructor(address: string, namespace: string | undefined = 'test') {
    this.grpc = new Client(`unix:${address}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': 32 * MiB,
      'grpc.max_send_message_length': 32 * MiB,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 200,
    });
    this.headers = new Metadata();
    if (namespace !== undefined) this.headers.set('containerd-namespace', namespace);
  }

  close(): void {
    this.grpc.close();
  }

  /** The same connection with other headers. */
  with(headers: Record<string, string>): TestClient {
    const other = Object.create(this) as { headers: Metadata };
    other.headers = this.headers.clone();
    for (const [name, value] of Object.entries(headers)) other.headers.set(name, value);
    return other as TestClient;
  }

  call(service: ServiceName, name: string, request: object = {}): Promise<Message> {
    const { path, request: input, response } = methodOf(service, name);
    return new Promise((resolve, reject) => {
      this.grpc.makeUnaryRequest(
        path,
        input.encode,
        response.decode,
        request,
        this.headers,
        (error, response) => (error ? reject(error) : resolve(response)),
      );
    });
  }

  /** Code and details of a call that must fail. */
  async fails(service: ServiceName, name: string, request: object = {}): Promise<Failure> {
    const response = await this.call(service, name, request).then(
      (message: unknown) => ({ message }),
      (error: ServiceError) => ({ code: error.code, details: error.details }),
    );
    if ('message' in response) throw new Error(`${name} succeeded: ${JSON.stringify(response.message)}`);
    return response;
  }

  stream(service: ServiceName, name: string, request: object = {}): ClientReadableStream<Message> {
    const { path, request: input, response } = methodOf(service, name);
    return this.grpc.makeServerStreamRequest(path, input.encode, response.decode, request, this.headers);
  }

  async all(service: ServiceName, name: string, request: object = {}): Promise<Message[]> {
    const messages: Message[] = [];
    for await (const message of this.stream(service, name, request)) messages.push(message);
    return messages;
  }

  /** Requests and responses are streams. */
  duplex(service: ServiceName, name: string): ClientDuplexStream<Message, Message> {
    const { path, request, response } = methodOf(service, name);
    return this.grpc.makeBidiStreamRequest(path, request.encode, response.decode, this.headers);
  }

  write(): WriteStream {
    return new WriteStream(this.duplex('content', 'Write'));
  }

  /** A whole blob in one stream, committed with its size and digest. */
  async ingest(ref: string, data: Uint8Array, digest: string, labels: object = {}): Promise<void> {
    const stream = this.write();
    const { offset } = await stream.ask({ ref, total: data.length, expected: digest });
    if (offset !== 0) throw new Error(`the ref ${ref} begins at ${offset}`);
    await stream.ask({ action: 2, total: data.length, expected: digest, data, labels: { ...labels } });
    await stream.end();
  }

  async read(digest: string, offset = 0, size = 0): Promise<Buffer> {
    const parts = await this.all('content', 'Read', { digest, offset, size });
    return Buffer.concat(parts.map((part) => part.data as Buffer));
  }
}

/** One ingest: requests get their responses one by one. */
export class WriteStream {
  readonly call: ClientDuplexStream<unknown, unknown>;
  readonly #responses: AsyncIterator<unknown>;

  constructor(call: ClientDuplexStream<unknown, unknown>) {
    this.call = call;
    this.#responses = call[Symbol.asyncIterator]();
  }

  async ask(request: Partial<WriteRequest>): Promise<WriteResponse> {
    this.call.write(request);
    const { value, done } = await this.#responses.next();
    if (done) throw new Error('the stream has ended');
    return value as WriteResponse;
  }

  /** Code and details of an ask that must fail. */
  async fails(request: Partial<WriteRequest>): Promise<Failure> {
    return this.ask(request).then(
      (response) => {
        throw new Error(`the write succeeded: ${JSON.stringify(response)}`);
      },
      (error: ServiceError) => ({ code: error.code, details: error.details }),
    );
  }

  /** Half-closes and waits for the server's end. */
  async end(): Promise<void> {
    this.call.end();
    for (let next = await this.#responses.next(); !next.done; next = await this.#responses.next());
  }
}

export function methodOf(service: ServiceName, name: string) {
  const method = methodsOf(services[service]).get(name);
  if (method === undefined) throw new Error(`no method ${name} in ${services[service]}`);
  return method;
}

/** A call whose responses are not read: HTTP/2 by hand, so that nothing in between reads them either. */
export function unreadStream(
  address: string,
  service: ServiceName,
  name: string,
  request: object,
): { stream: ClientHttp2Stream; close(): void } {
  const { path, request: input } = methodOf(service, name);
  const session = connectHttp2('http://localhost', { createConnection: () => connectSocket(address) });
  session.on('error', () => undefined);
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
    'containerd-namespace': 'test',
  });
  stream.on('error', () => undefined);
  const message = input.encode(request);
  const frame = Buffer.alloc(5 + message.length);
  frame.writeUInt32BE(message.length, 1);
  message.copy(frame, 5);
  stream.end(frame);
  return { stream, close: () => session.destroy() };
}
