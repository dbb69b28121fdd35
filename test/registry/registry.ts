/**
 * A small registry on loopback that does what a test tells it, also what no registry should: for what Debian's docker-registry cannot
 * be made to do. Serves the blobs of `fixtures.ts`, whole or by ranges, and takes uploads.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { digestOf } from '../../src/model/digest.js';
import type { Blobs, Desc } from '../images/fixtures.js';

export interface Asked {
  method: string;
  /** With its query. */
  path: string;
  headers: IncomingMessage['headers'];
}

/** Returns true when it has answered, or will. */
export type Trick = (request: IncomingMessage, response: ServerResponse, asked: Asked) => boolean;

export class FakeRegistry {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly blobs: ReadonlyMap<string, Buffer>;
  readonly tags: Record<string, Desc>;
  /** What was sent here: blobs by digest, documents by tag or digest. */
  readonly taken = new Map<string, Buffer>();
  /** Every request, in order. */
  readonly asked: Asked[] = [];
  trick: Trick = () => false;

  private constructor(blobs: Blobs, tags: Record<string, Desc>) {
    this.blobs = blobs.all;
    this.tags = tags;
    this.#server = createServer((request, response) => this.#respond(request, response));
    this.#server.on('connection', (socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket)).on('error', () => undefined);
    });
  }

  static async start(t: TestContext, blobs: Blobs, tags: Record<string, Desc>): Promise<FakeRegistry> {
    const registry = new FakeRegistry(blobs, tags);
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    t.after(async () => {
      for (const socket of registry.#sockets) socket.destroy();
      await new Promise((resolve) => registry.#server.close(resolve));
    });
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Since the start. */
  connections = 0;

  get openConnections(): number {
    return this.#sockets.size;
  }

  /** Requests for a blob, or all. */
  times(method: string, part = ''): number {
    return this.asked.filter((one) => one.method === method && one.path.includes(part)).length;
  }

  #respond(request: IncomingMessage, response: ServerResponse): void {
    const { method = '', url: path = '', headers } = request;
    const asked = { method, path, headers };
    this.asked.push(asked);
    if (this.trick(request, response, asked)) return;
    if (method === 'GET' || method === 'HEAD') this.serve(request, response);
    else this.#take(request, response);
  }

  /** As a registry should. */
  serve(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '', 'http://registry');
    const [, kind, name = ''] = /^\/v2\/.+\/(manifests|blobs)\/([^/]+)$/.exec(url.pathname) ?? [];
    const digest = this.tags[name]?.digest ?? name;
    const bytes = kind === undefined ? undefined : (this.blobs.get(digest) ?? this.taken.get(name));
    if (bytes === undefined) return void response.writeHead(404).end();
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    response.writeHead(from > 0 ? 206 : 200, {
      'content-type': kind === 'manifests' ? mediaTypeOf(bytes) : 'application/octet-stream',
      'content-length': bytes.length - from,
      'docker-content-digest': digestOf(bytes),
      ...(from > 0 && { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
    });
    response.end(request.method === 'HEAD' ? undefined : bytes.subarray(from));
  }

  #take(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '', 'http://registry');
    if (request.method === 'POST') {
      request.resume();
      return void response.writeHead(202, { location: `${url.pathname}session?state=1` }).end();
    }
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part)).on('error', () => undefined);
    request.on('end', () => {
      const bytes = Buffer.concat(parts);
      const name = url.searchParams.get('digest') ?? url.pathname.split('/').at(-1) ?? '';
      this.taken.set(name, bytes);
      response.writeHead(201, { 'docker-content-digest': digestOf(bytes) }).end();
    });
  }
}

function mediaTypeOf(bytes: Buffer): string {
  return (JSON.parse(bytes.toString()) as { mediaType: string }).mediaType;
}
