/** The other end of a connection, a byte at a time if need be: sends what the test gives, right or wrong. For tests only. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { Flag, FrameType, PREFACE } from '../../../src/server/http2/constants.js';
import { HeaderDecoder } from '../../../src/server/http2/header-decoder.js';
import { literalField } from '../../../src/server/http2/header-encoder.js';

export interface Frame {
  type: number;
  flags: number;
  id: number;
  payload: Buffer;
  /** Of headers. */
  fields?: Record<string, string>;
}

export function frame(type: number, flags: number, id: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}

export const settings = (...pairs: [number, number][]): Buffer => {
  const payload = Buffer.alloc(6 * pairs.length);
  pairs.forEach(([name, value], i) => {
    payload.writeUInt16BE(name, 6 * i);
    payload.writeUInt32BE(value, 6 * i + 2);
  });
  return frame(FrameType.settings, 0, 0, payload);
};

export const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

export const windowUpdate = (id: number, bytes: number): Buffer =>
  frame(FrameType.windowUpdate, 0, id, uint32(bytes));

export type Fields = readonly (readonly [string, string])[];

export const block = (fields: Fields): Buffer =>
  Buffer.concat(fields.map(([name, value]) => literalField(name, value)));

export const requestFields = (path: string, more: Fields = []): Fields => [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', path],
  [':authority', 'localhost'],
  ['content-type', 'application/grpc'],
  ['te', 'trailers'],
  ...more,
];

export function message(bytes: Buffer, compressed = false): Buffer {
  return Buffer.concat([Buffer.of(compressed ? 1 : 0), uint32(bytes.length), bytes]);
}

export const open = (id: number, path: string, more: Fields = []): Buffer =>
  frame(FrameType.headers, Flag.endHeaders, id, block(requestFields(path, more)));
export const data = (id: number, bytes: Buffer, end = false): Buffer =>
  frame(FrameType.data, end ? Flag.endStream : 0, id, bytes);

/** A whole unary request. */
export const request = (
  id: number,
  path: string,
  body: Buffer = Buffer.alloc(0),
  more: Fields = [],
): Buffer => Buffer.concat([open(id, path, more), data(id, message(body), true)]);

export class Peer {
  readonly socket: Socket;
  readonly frames: Frame[] = [];
  readonly #decoder = new HeaderDecoder(2 ** 20);
  #rest = Buffer.alloc(0);
  #looked = 0;
  #changed: (() => void)[] = [];
  closed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => this.#take(chunk));
    socket.on('close', () => {
      this.closed = true;
      this.#notify();
    });
  }

  /** Connected, and greeted by default. */
  static async connect(t: TestContext, address: string, greeting?: Buffer): Promise<Peer> {
    const socket = connect(address);
    t.after(() => socket.destroy());
    await once(socket, 'connect');
    const peer = new Peer(socket);
    peer.send(greeting ?? Buffer.concat([PREFACE, settings()]));
    return peer;
  }

  send(...parts: Buffer[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** The next frame that fits, of those not looked at yet; undefined when the connection ends before. */
  async next(fits: (frame: Frame) => boolean): Promise<Frame | undefined> {
    for (;;) {
      while (this.#looked < this.frames.length) {
        const found = this.frames[this.#looked++]!;
        if (fits(found)) return found;
      }
      if (this.closed) return undefined;
      await new Promise<void>((resolve) => this.#changed.push(resolve));
    }
  }

  /** Code of the GOAWAY that ends the connection. */
  async goAway(): Promise<number | undefined> {
    const found = await this.next(({ type }) => type === FrameType.goAway);
    return found?.payload.readUInt32BE(4);
  }

  /** Code of the RST_STREAM of a stream. */
  async reset(id: number): Promise<number | undefined> {
    const found = await this.next((f) => f.type === FrameType.reset && f.id === id);
    return found?.payload.readUInt32BE(0);
  }

  /** The next header block of a stream. */
  async headers(id: number): Promise<Record<string, string> | undefined> {
    const found = await this.next((f) => f.type === FrameType.headers && f.id === id);
    return found?.fields;
  }

  /** Waits for the end of a call; its status, its content, and the last headers. */
  async response(
    id: number,
  ): Promise<{ status: string | undefined; body: Buffer; headers: Record<string, string> }> {
    const body: Buffer[] = [];
    for (;;) {
      const found = await this.next(
        (f) => f.type === FrameType.headers || (f.id === id && f.type === FrameType.data),
      );
      if (found === undefined) throw new Error(`the connection ended before the response of ${id}`);
      if (found.type === FrameType.data) {
        body.push(found.payload);
        continue;
      }
      const headers = found.fields ?? {};
      if (found.id === id && found.flags & Flag.endStream) {
        return { status: headers['grpc-status'], body: Buffer.concat(body), headers };
      }
    }
  }

  /** Asks and waits, so that everything sent before has been seen by the server. */
  async ping(): Promise<boolean> {
    const content = Buffer.from('are you?');
    this.send(frame(FrameType.ping, 0, 0, content));
    // Others that were sent before are acknowledged before.
    const isAck = (f: Frame): boolean =>
      f.type === FrameType.ping && (f.flags & Flag.ack) !== 0 && f.payload.equals(content);
    return (await this.next(isAck)) !== undefined;
  }

  async ended(): Promise<void> {
    while (!this.closed) await new Promise<void>((resolve) => this.#changed.push(resolve));
  }

  #take(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 9) {
      const end = 9 + this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < end) break;
      const [type, flags] = [this.#rest[3]!, this.#rest[4]!];
      const id = this.#rest.readUInt32BE(5);
      const payload = this.#rest.subarray(9, end);
      const found: Frame = { type, flags, id, payload };
      // At once: later blocks build on it, whether the test looks at it or not.
      if (type === FrameType.headers) {
        const { fields } = this.#decoder.decode(payload);
        found.fields = Object.fromEntries(fields.map(({ name, value }) => [name, value]));
      }
      this.frames.push(found);
      this.#rest = this.#rest.subarray(end);
    }
    this.#notify();
  }

  #notify(): void {
    const waiting = this.#changed;
    this.#changed = [];
    for (const fn of waiting) fn();
  }
}
