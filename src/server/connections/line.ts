/**
 * A connection's socket, whose bytes go to one receiver. All are read into the same buffer: Node allocates 64 KiB for each read of a socket
 * otherwise, and V8 collects its whole heap for some 20 MiB of them, many times while an image arrives. Made by arrival.ts.
 */
import { Socket } from 'node:net';

/** What is read is handed on, or copied, before the next read of any connection. */
const shared = Buffer.allocUnsafeSlow(64 * 1024);

/** `bytes` are only valid until it returns. */
export type Receive = (bytes: Buffer) => void;

export class Line {
  readonly socket: Socket;
  /** Who gets what arrives; by default nobody. */
  receive: Receive = ignore;

  private constructor(open: (receive: Receive) => Socket) {
    this.socket = open((bytes) => this.receive(bytes));
    // An error of a connection ends only that connection.
    this.socket.on('error', ignore);
  }

  /** Takes the descriptor over. */
  static over(fd: number): Line {
    return new Line((receive) => {
      const callback = (count: number): boolean => {
        receive(shared.subarray(0, count));
        return true;
      };
      const options = { fd, readable: true, writable: true, allowHalfOpen: false };
      // The types have `onread` only where a socket is connected.
      return new Socket({ ...options, onread: { buffer: shared, callback } } as typeof options);
    });
  }

  /** Of a socket that allocates what it reads. */
  static of(socket: Socket): Line {
    return new Line((receive) => socket.on('data', receive));
  }

  /** Receives nothing more. */
  ignore(): void {
    this.receive = ignore;
  }
}

function ignore(): void {}
