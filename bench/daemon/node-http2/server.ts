/**
 * The daemon's services on Node's own HTTP/2 (`node:http2`, streams without a gRPC library): what src/server/http2 is
 * measured against. Routes, exchanges and services are the daemon's; only the transport is another. Its limits are those
 * of nghttp2 and Node.
 */
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import { createServer, constants as http2 } from 'node:http2';
import { createServer as createNetServer, type Server } from 'node:net';
import { Ledger } from '../../../src/server/connections/ledger.js';
import { CallGate } from '../../../src/server/grpc/call-gate.js';
import { callHead } from '../../../src/server/grpc/call-head.js';
import { Exchange, type Route } from '../../../src/server/grpc/exchange.js';
import { HeaderDecoder } from '../../../src/server/http2/header-decoder.js';
import type { BlockParts } from '../../../src/server/http2/header-encoder.js';
import type { Stream, StreamSink } from '../../../src/server/http2/stream.js';
import type { Limits } from '../../../src/server/limits.js';
import { routesOf } from '../../../src/server/routes.js';
import type { Service } from '../../../src/server/service.js';

type Headers = Record<string, string | number>;

const known = new Map<BlockParts, Headers>();
const NO_LIMIT = 2 ** 50;

/** Header blocks are made for the other server; those that come again are read once. */
function headersOf(parts: BlockParts): Headers {
  const found = known.get(parts);
  if (found !== undefined) return found;
  const bytes = Buffer.concat(parts.map((part) => (Buffer.isBuffer(part) ? part : part.literal)));
  const headers: Headers = {};
  for (const { name, value } of new HeaderDecoder(NO_LIMIT).decode(bytes).fields) headers[name] = value;
  if (parts.length <= 2 && known.size < 16) known.set(parts, headers);
  return headers;
}

/** What an exchange calls of a stream, on one of Node's. */
class NodeStream {
  readonly #stream: ServerHttp2Stream;
  sink: StreamSink | undefined;
  over = false;
  #head: Headers | undefined;

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
  }

  get unsent(): number {
    return this.#stream.writableLength;
  }

  takes(): boolean {
    return true;
  }

  consumed(): void {}

  headers(parts: BlockParts): void {
    if (this.over || this.#stream.destroyed) return;
    this.#head = headersOf(parts);
    this.#stream.respond(this.#head, { waitForTrailers: true });
  }

  content(content: Buffer, done?: () => void): void {
    if (this.over || this.#stream.destroyed) done?.();
    else this.#stream.write(content, () => done?.());
  }

  trailers(parts: BlockParts): void {
    const stream = this.#stream;
    if (this.over || stream.destroyed) return;
    const headers = headersOf(parts);
    if (this.#head === undefined) stream.respond(headers, { endStream: true });
    else {
      stream.once('wantTrailers', () => {
        if (!stream.destroyed) stream.sendTrailers(headers);
      });
      stream.end();
    }
  }

  close(): void {
    if (this.over) return;
    this.over = true;
    if (this.#stream.writableFinished) this.sink?.done();
    else this.sink?.gone();
  }
}

export interface NodeHttp2 {
  readonly server: Server;
  /** Calls that services work on. */
  running(): number;
}

export function nodeHttp2Server(limits: Limits, services: readonly Service[]): NodeHttp2 {
  let running = 0;
  const routes = routesOf(services, limits.messageBytes, () => ({
    begin: () => {
      running++;
    },
    end: () => {
      running--;
    },
  }));
  const ledger = new Ledger(NO_LIMIT);
  const gates = new WeakMap<ServerHttp2Session, CallGate>();
  const gateOf = (session: ServerHttp2Session): CallGate => {
    let gate = gates.get(session);
    if (gate === undefined) {
      const memory = ledger.open(0, { moved: () => true, end: () => undefined });
      const own = new CallGate(NO_LIMIT, memory, () => setImmediate(() => own.resume() || own.goOn()));
      gate = own;
      gates.set(session, gate);
    }
    return gate;
  };
  const sessions = createServer({
    settings: {
      maxConcurrentStreams: limits.streamsPerConnection,
      maxHeaderListSize: limits.metadataBytes,
      initialWindowSize: 4 * 2 ** 20,
    },
  });
  sessions.on('sessionError', () => undefined);
  sessions.on('session', (session) => session.setLocalWindowSize(16 * 2 ** 20));
  sessions.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    serve(stream as ServerHttp2Stream, headers as Headers, routes, limits, gateOf(stream.session as never));
  });
  // The same listening socket as node:http2's own would be, without TLS.
  const server = createNetServer((socket) => {
    socket.on('error', () => undefined);
    sessions.emit('connection', socket);
  });
  return { server, running: () => running };
}

function serve(
  stream: ServerHttp2Stream,
  headers: Headers,
  routes: ReadonlyMap<string, Route>,
  limits: Limits,
  gate: CallGate,
): void {
  const fields = Object.entries(headers)
    .filter(([name]) => !name.startsWith(':'))
    .map(([name, value]) => ({ name, value: String(value) }));
  const [method, path] = [
    String(headers[http2.HTTP2_HEADER_METHOD]),
    String(headers[http2.HTTP2_HEADER_PATH]),
  ];
  const head = callHead({ method, path, contentLength: undefined, fields }, routes);
  const adapter = new NodeStream(stream);
  stream.on('close', () => adapter.close());
  if ('refusal' in head) {
    adapter.trailers(head.refusal);
    return;
  }
  const share = { messageBytesMax: limits.messageBytes, gate, peer: { uid: -1, pid: -1 } };
  const exchange = new Exchange(adapter as unknown as Stream, head, share);
  adapter.sink = exchange;
  stream.on('data', (piece: Buffer) => exchange.data(piece, false));
  stream.on('end', () => exchange.end());
}
