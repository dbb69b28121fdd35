/**
 * A connection that is accepted and not served yet. Node accepts one in a turn of the event loop, and makes a
 * socket of it; with the addon the others that wait come along, as descriptors, which cost a hundredth. So
 * clients that connect faster than they are served do not fill the kernel's queue, where others wait too.
 * Called by listener.ts.
 */
import { closeSync } from 'node:fs';
import type { Server, Socket } from 'node:net';
import {
  acceptWaiting,
  descriptorOf,
  duplicate,
  hasHungUp,
  peerCredentials,
} from '../../system/unix-sockets.js';
import { Line } from './line.js';
import type { Peer } from './peer.js';

/** Unknown, because the addon does not load. All such peers share as one user, and none of them is root. */
const UNKNOWN: Peer = { uid: -1, pid: -1 };
/** Connections that are accepted together, and milliseconds after which the event loop goes on. */
const TOGETHER_MAX = 16;
const ACCEPT_MS = 1;

export class Arrival {
  readonly peer: Peer;
  readonly #fd: number;
  readonly #accepted: Socket | undefined;
  #line: Line | undefined;

  private constructor(peer: Peer, fd: number, socket?: Socket) {
    this.peer = peer;
    this.#fd = fd;
    this.#accepted = socket;
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
    return this.#accepted?.destroyed === true || hasHungUp(this.#fd);
  }

  /** The caller owns its socket. REQUIRES: it is neither open nor closed. */
  open(): Line {
    this.#line = this.#accepted === undefined ? Line.over(this.#fd) : replaced(this.#accepted, this.#fd);
    return this.#line;
  }

  close(): void {
    const socket = this.#line?.socket ?? this.#accepted;
    if (socket === undefined) closeSync(this.#fd);
    else socket.destroy();
  }
}

/** Node says how a socket is read only where it is made, and not for those that a server accepts. */
function replaced(socket: Socket, fd: number): Line {
  const own = duplicate(fd);
  if (own === undefined) return Line.of(socket);
  socket.destroy();
  return Line.over(own);
}
