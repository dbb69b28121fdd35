/** One socket with its services: accepts, serves, and stops within a deadline. Called by daemon.ts. */
import type { Limits } from '../limits.js';
import { type ObserveMethod, RpcServer, type Servant, type Shared, sharedOf } from '../rpc-server.js';
import type { Service } from '../service.js';
import type { ActivatedSocket } from '../systemd/activation.js';
import type { Line } from './line.js';
import { Listener } from './listener.js';
import type { Peer } from './peer.js';

export interface EndpointHooks {
  observe: ObserveMethod;
  /** Called with the reason when this server closes a connection. */
  refused: (reason: string) => void;
  /** State shared by the endpoints of a daemon; by default nothing. */
  shared?: Shared;
}

export class Endpoint {
  readonly #listener: Listener;
  readonly #server: RpcServer;

  private constructor(listener: Listener, server: RpcServer) {
    this.#listener = listener;
    this.#server = server;
  }

  /** Throws the errors of the listener. */
  static async open(
    place: string | ActivatedSocket,
    limits: Limits,
    services: readonly Service[],
    { observe, refused, shared = sharedOf(limits) }: EndpointHooks,
  ): Promise<Endpoint> {
    const server = new RpcServer(limits, services, observe, refused, shared);
    try {
      const serve = (connection: Line, peer: Peer): Servant => server.serve(connection, peer);
      const hooks = { serve, refused };
      const listener =
        typeof place === 'string'
          ? await Listener.listen(place, limits, hooks)
          : await Listener.adopt(place, limits, hooks);
      return new Endpoint(listener, server);
    } catch (error) {
      await server.stop(0, () => undefined);
      throw error;
    }
  }

  get address(): string {
    return this.#listener.path;
  }
  get connections(): number {
    return this.#listener.connections;
  }

  /** Calls that services are working on. */
  get calls(): number {
    return this.#server.calls;
  }

  /** Refuses new calls; open ones may finish within the deadline. Idempotent. */
  async stop(deadlineMs: number): Promise<{ aborted: boolean }> {
    await this.#listener.refuse();
    const end = await this.#server.stop(deadlineMs, () => this.#listener.cut());
    await this.#listener.close();
    return end;
  }
}
