/**
 * A connection that is accepted and not served yet. Node accepts one in a turn of the event loop, and makes a
 * socket of it; with the addon the others that wait come along, as descriptors, which cost a hundredth. So
 * clients that connect faster than they are served do not fill the kernel's queue, where others wait too.
 * Called by listener.ts.
 */
import { closeSync } from 'node:fs';
import { type Server, Socket } from 'node:net';
import { acceptWaiting, descriptorOf, hasHungUp, peerCredentials } from '../../system/unix-sockets.js';
import type { Peer } from './peer.js';

/** Unknown, because the addon does not load. All such peers share as one user, and none of them is root. */
const UNKNOWN: Peer = { uid: -1, pid: -1 };
/** Connections that are accepted together, and milliseconds after which the event loop goes on. */
const TOGETHER_MAX = 16;
const ACCEPT_MS = 1;

export class Arrival {
  readonly peer: Peer;
  readonly #fd: number;
  #socket: Socket | undefined;

  private constructor(peer: Peer, fd: number, socket?: Socket) {
    this.peer = peer;
    this.#fd = fd;
    this.#socket = socket;
  }

  /** One that Node has accepted. */
  static of(socket: Socket): Arrival {
    // An error of a connection ends only that connection.
    socket.on('error', () => undefined);
    const fd = descriptorOf(socket);
    return new Arrival(peerCredentials(fd) ?? UNKNOWN, fd, socket);
  }

  /** Those that wait at the server's socket, for about a millisecond. */
  static *waiting(server: Server): Generator<Arrival, void> {
    const listening = descriptorOf(server);
    for (const start = performance.now(); performance.now() - start < ACCEPT_MS; ) {
      const accepted = acceptWaiting(listening, TOGETHER_MAX);
      for (const { fd, pid, uid } of accepted) yield new Arrival({ pid, uid }, fd);
      if (accepted.length < TOGETHER_MAX) return;
    }
  }

  /** Whether the peer has closed it. */
  get gone(): boolean {
    return this.#socket?.destroyed === true || hasHungUp(this.#fd);
  }

  /** The caller owns the socket. */
  open(): Socket {
    if (this.#socket === undefined) {
      this.#socket = new Socket({ fd: this.#fd, readable: true, writable: true, allowHalfOpen: false });
      this.#socket.on('error', () => undefined);
    }
    return this.#socket;
  }

  close(): void {
    if (this.#socket === undefined) closeSync(this.#fd);
    else this.#socket.destroy();
  }
}
