/**
 * A proxy on loopback between a host and a member, to cut, hold and delay what goes through it. One way or both: a
 * request that arrives while its response does not is a lost response.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

interface Pair {
  client: Socket;
  server: Socket;
}

export class LoopbackProxy {
  readonly url: string;
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  #refusing = false;
  #holdRequests = false;
  #holdResponses = false;
  #delayMs = 0;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.url = `http://127.0.0.1:${port}`;
  }

  static async start(targetUrl: string): Promise<LoopbackProxy> {
    const target = Number(new URL(targetUrl).port);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const proxy = new LoopbackProxy(server, (server.address() as { port: number }).port);
    server.on('connection', (client) => proxy.#accept(client, target));
    return proxy;
  }

  #accept(client: Socket, target: number): void {
    client.on('error', () => undefined);
    if (this.#refusing) {
      client.destroy();
      return;
    }
    const server = connect(target, '127.0.0.1');
    const pair = { client, server };
    this.#pairs.add(pair);
    server.on('error', () => undefined);
    client.on('data', (bytes) => this.#pass(bytes, server, () => this.#holdRequests));
    server.on('data', (bytes) => this.#pass(bytes, client, () => this.#holdResponses));
    const end = (): void => {
      this.#pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    client.on('close', end);
    server.on('close', end);
  }

  /** In order for each direction: what comes after held bytes waits for them. */
  readonly #held = new WeakMap<Socket, Buffer[]>();

  #pass(bytes: Buffer, to: Socket, holds: () => boolean): void {
    const waiting = this.#held.get(to);
    if (waiting !== undefined) {
      waiting.push(bytes);
      return;
    }
    if (!holds() && this.#delayMs === 0) {
      to.write(bytes);
      return;
    }
    const queue = [bytes];
    this.#held.set(to, queue);
    const flush = (): void => {
      if (to.destroyed) return;
      if (holds()) {
        setTimeout(flush, 5);
        return;
      }
      this.#held.delete(to);
      for (const held of queue) to.write(held);
    };
    setTimeout(flush, Math.max(5, this.#delayMs));
  }

  /** Ends all connections and refuses new ones. */
  cut(): void {
    this.#refusing = true;
    this.reset();
  }

  /** Ends all connections; new ones are taken. */
  reset(): void {
    for (const { client, server } of [...this.#pairs]) {
      client.destroy();
      server.destroy();
    }
  }

  holdRequests(hold: boolean): void {
    this.#holdRequests = hold;
  }
  holdResponses(hold: boolean): void {
    this.#holdResponses = hold;
  }
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** Everything passes again. */
  heal(): void {
    this.#refusing = false;
    this.#holdRequests = false;
    this.#holdResponses = false;
    this.#delayMs = 0;
  }

  close(): Promise<void> {
    this.cut();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}
