/** A read-only registry on loopback that serves one OCI layout under any repository name, for `ctr images pull`; also in bench/daemon. */
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import {
  createServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { blobPath, type MadeImages } from './images.js';

export class Registry implements AsyncDisposable {
  readonly #server: HttpServer;
  readonly #layout: string;
  readonly #tags: Readonly<Record<string, string>>;

  private constructor(layout: string, tags: Readonly<Record<string, string>>) {
    this.#layout = layout;
    this.#tags = tags;
    this.#server = createServer((request, response) => this.#respond(request, response));
  }

  static start({ dir, digests: { app, base } }: MadeImages): Promise<Registry> {
    return Registry.serve(join(dir, 'layout'), { app, base });
  }

  /** `tags`: digests of manifests. */
  static async serve(layout: string, tags: Readonly<Record<string, string>>): Promise<Registry> {
    const registry = new Registry(layout, tags);
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  get host(): string {
    return `localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  #respond(request: IncomingMessage, response: ServerResponse): void {
    const [, kind, reference = ''] = /^\/v2\/.+\/(manifests|blobs)\/([^/?]+)/.exec(request.url ?? '') ?? [];
    if (kind === undefined) return void response.writeHead(request.url === '/v2/' ? 200 : 404).end();
    const digest = this.#tags[reference] ?? reference;
    const file = blobPath(this.#layout, digest);
    if (!/^sha256:[0-9a-f]{64}$/.test(digest) || !existsSync(file)) return void response.writeHead(404).end();
    response.writeHead(200, {
      'content-type': kind === 'manifests' ? mediaType(file) : 'application/octet-stream',
      'content-length': statSync(file).size,
      'docker-content-digest': digest,
    });
    if (request.method === 'HEAD') response.end();
    else createReadStream(file).pipe(response);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function mediaType(file: string): string {
  const { mediaType: own } = JSON.parse(readFileSync(file, 'utf8')) as { mediaType?: string };
  return own ?? 'application/vnd.oci.image.manifest.v1+json';
}
