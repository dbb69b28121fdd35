/**
 * The daemon's unix socket, unless systemd made it: created with its final mode under a private name and then renamed, so that it is
 * never open to more than its owner and group, whatever the umask, and replaces a stale one in one step.
 * Closes connections that do not begin as HTTP/2 in time, and those over the limit. Called by daemon.ts.
 *
 * REQUIRES: the caller of `listen` owns the store's root. Then a socket that already exists is stale, or
 * belongs to another store, which a connection attempt shows.
 */
import { randomBytes } from 'node:crypto';
import { chmod, lstat, rename, unlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { orAbsent } from '../../backends/files.js';
import { failedPrecondition, invalidArgument, unavailable } from '../../errors.js';
import { makeDirectories } from '../../system/make-directories.js';
import { errnoOf, fsError, isFull } from '../../system/system-errors.js';
import type { Limits } from '../limits.js';
import type { Servant } from '../rpc-server.js';
import type { ActivatedSocket } from '../systemd/activation.js';
import { AcceptQueue } from './accept-queue.js';
import { Arrival } from './arrival.js';
import { ConnectionTable, type Entry } from './connection-table.js';
import type { Line } from './line.js';
import type { Peer } from './peer.js';

const SOCKET_MODE = 0o660;
const DIRECTORY_MODE = 0o711;
/** Connections that may wait in the kernel to be accepted; its own limit is `net.core.somaxconn`, 4096 by default. */
const BACKLOG = 4096;
/** The kernel's limit on a socket's path, including the closing NUL. */
const PATH_BYTES_MAX = 107;
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

export interface ListenerHooks {
  /** Serves a connection that begins as HTTP/2. */
  serve: (connection: Line, peer: Peer) => Servant;
  /** Called with the reason when this server closes a connection. */
  refused: (reason: string) => void;
}

export class Listener {
  readonly path: string;
  readonly #server: Server;
  readonly #table: ConnectionTable;
  readonly #queue: AcceptQueue;
  readonly #sockets = new Set<Socket>();
  readonly #onError: (error: Error) => void;
  /** Of the socket that this listener made. */
  #inode: bigint | undefined;
  #closed: Promise<void> | undefined;

  private constructor(path: string, limits: Limits, hooks: ListenerHooks) {
    this.path = path;
    this.#table = new ConnectionTable(limits.connections);
    this.#queue = new AcceptQueue(limits.connections);
    // Nothing is read from a connection before it is served.
    const options = { allowHalfOpen: false, pauseOnConnect: true };
    this.#server = createServer(options, (socket) => {
      this.#accept(Arrival.of(socket), limits, hooks);
      for (const arrival of Arrival.waiting(this.#server)) this.#accept(arrival, limits, hooks);
    });
    this.#onError = (error) => hooks.refused(errnoOf(error) ?? 'not accepted');
  }

  /**
   * @throws Unavailable: another process listens there
   * @throws FailedPrecondition: the path is not a socket
   */
  static async listen(path: string, limits: Limits, hooks: ListenerHooks): Promise<Listener> {
    if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
      throw invalidArgument(`the socket path ${path} is longer than ${PATH_BYTES_MAX} bytes`, {
        object: path,
        remedy: 'name a shorter one with --address',
      });
    }
    await makeDirectory(dirname(path));
    await clear(path);
    const listener = new Listener(path, limits, hooks);
    await listener.#bind();
    return listener;
  }

  /** Accepts on a socket that systemd made and keeps. */
  static async adopt({ fd, path }: ActivatedSocket, limits: Limits, hooks: ListenerHooks): Promise<Listener> {
    const listener = new Listener(path, limits, hooks);
    try {
      await listener.#listen({ fd });
    } catch (error) {
      throw fsError('listen on', path, error);
    }
    listener.#server.on('error', listener.#onError);
    return listener;
  }

  get connections(): number {
    return this.#table.size;
  }

  /**
   * Stops accepting connections and removes the socket's name, if it is still this socket's. Open connections
   * stay.
   */
  async refuse(): Promise<void> {
    this.#closed ??= new Promise<void>((resolve) => this.#server.close(() => resolve()));
    if (this.#inode === undefined) return;
    const found = await lstat(this.path, { bigint: true }).catch(() => undefined);
    if (found?.ino !== this.#inode) return;
    await unlink(this.path).catch(() => undefined);
    await keepSpare(this.path);
  }

  /** Closes every connection immediately. */
  cut(): void {
    this.#queue.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    await this.refuse();
    // The server is notified of the end of a connection before the connection's own listeners are.
    const ended = Array.from(this.#sockets, (socket) => new Promise((done) => socket.once('close', done)));
    this.cut();
    await Promise.all([this.#closed, ...ended]);
  }

  async #bind(): Promise<void> {
    const temporary = join(dirname(this.path), `.${randomBytes(4).toString('hex')}`);
    try {
      await this.#listen({ path: temporary }).catch(async (error: unknown) => {
        // No space for another inode: use that of the spare file, or of the stale socket.
        if (!isFull(error)) throw error;
        for (const name of [spareOf(this.path), this.path]) await orAbsent(unlink(name));
        await this.#listen({ path: temporary });
      });
    } catch (error) {
      throw fsError('listen on', this.path, error);
    }
    // A connection that cannot be accepted (no more descriptors, say) must not end the daemon.
    this.#server.on('error', this.#onError);
    try {
      await chmod(temporary, SOCKET_MODE);
      this.#inode = (await lstat(temporary, { bigint: true })).ino;
      await rename(temporary, this.path);
    } catch (error) {
      this.#server.close();
      throw fsError('make the socket', this.path, error);
    }
    await keepSpare(this.path);
  }

  #listen(place: { path: string } | { fd: number }): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(place, BACKLOG, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
  }

  #accept(arrival: Arrival, limits: Limits, hooks: ListenerHooks): void {
    if (arrival.gone) {
      arrival.close();
      return;
    }
    const { pid } = arrival.peer;
    if (this.#queue.mayServe(pid) && this.#serve(arrival, limits, hooks, false)) return;
    const refuse = (): void => {
      hooks.refused('too many connections');
      arrival.close();
    };
    this.#queue.add(pid, {
      serve: () => {
        if (arrival.gone) {
          arrival.close();
          return false;
        }
        if (!this.#serve(arrival, limits, hooks, true)) refuse();
        return true;
      },
      refuse,
      close: () => arrival.close(),
    });
  }

  /** Returns false if there is no room. */
  #serve(arrival: Arrival, limits: Limits, hooks: ListenerHooks, evenOwn: boolean): boolean {
    const { peer } = arrival;
    let servant: Servant | undefined;
    const acceptedAt = performance.now();
    const entry: Entry = {
      ...peer,
      heardAt: () => servant?.heardAt ?? acceptedAt,
      busy: () => servant?.busy ?? false,
      end: (reason) => {
        hooks.refused(reason);
        if (servant === undefined) arrival.close();
        else servant.end();
      },
    };
    if (!this.#table.add(entry, evenOwn)) return false;
    const line = arrival.open();
    const { socket } = line;
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#table.delete(entry);
      this.#sockets.delete(socket);
    });
    greet(line, limits.helloMs, hooks.refused, () => {
      servant = hooks.serve(line, peer);
    });
    return true;
  }
}

/** Waits for the first bytes; closes a connection that does not begin like HTTP/2. */
function greet(line: Line, helloMs: number, refused: ListenerHooks['refused'], serve: () => void): void {
  const { socket } = line;
  let head: Buffer = Buffer.alloc(0);
  const end = (reason: string): void => {
    clearTimeout(timer);
    line.ignore();
    refused(reason);
    socket.destroy();
  };
  const timer = setTimeout(() => end('no greeting in time'), helloMs);
  line.receive = (bytes) => {
    head = Buffer.concat([head, bytes]);
    const known = Math.min(head.length, PREFACE.length);
    if (!head.subarray(0, known).equals(PREFACE.subarray(0, known))) {
      end('not HTTP/2');
      return;
    }
    if (head.length < PREFACE.length) return;
    clearTimeout(timer);
    line.ignore();
    serve();
    line.receive(head);
  };
  socket.once('close', () => clearTimeout(timer));
  socket.resume();
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    const made = makeDirectories(directory, DIRECTORY_MODE);
    // The umask may have cleared bits. An existing directory keeps its mode: it may be /run.
    if (made !== undefined) await chmod(directory, DIRECTORY_MODE);
  } catch (error) {
    throw fsError('make the directory of the socket', directory, error);
  }
}

/** An empty file beside the socket, whose inode a socket takes when the disk has none left. */
const spareOf = (path: string): string => join(dirname(path), `.${basename(path)}.spare`);

async function keepSpare(path: string): Promise<void> {
  await writeFile(spareOf(path), '', { mode: 0o600 }).catch(() => undefined);
}

/** Makes sure that no process listens at the path and that nothing but a socket is there. */
async function clear(path: string): Promise<void> {
  let found: Awaited<ReturnType<typeof lstat>>;
  try {
    found = await lstat(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw fsError('look at', path, error);
  }
  if (!found.isSocket()) {
    throw failedPrecondition(`${path} exists and is not a socket`, {
      object: path,
      remedy: 'move it away or name another --address',
    });
  }
  if (await isListening(path)) {
    throw unavailable(`another daemon listens on ${path}`, {
      object: path,
      remedy: 'name another --address, or stop the other daemon',
    });
  }
}

/** Whether a process accepts connections at a socket. */
export function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => resolve(errnoOf(error) === 'EAGAIN'));
  });
}
