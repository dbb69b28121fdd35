/**
 * The second client: small calls one after the other, on one connection, and every tenth on a new one. Beside the time
 * that each waits it takes what the server's main thread worked in between, which does not depend on what else the machine
 * has to do.
 */

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { FrameType, PREFACE } from '../../../src/server/http2/constants.js';
import { methodsOf } from '../../../src/server/schema.js';
import { services } from '../../server/client.js';
import { frame, request, settings } from '../../server/http2/peer.js';

const PAUSE_MS = 3;
const ANSWER_MS_MAX = 20_000;
const NEW_EVERY = 10;
const ask = methodsOf(services.version).get('Version')!;

/** Only looks for the end of a stream: nothing else is of interest. */
class Line {
  readonly #socket: Socket;
  #rest = Buffer.alloc(0);
  #waiting = new Map<number, (ok: boolean) => void>();
  #id = -1;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('close', () => {
      for (const done of this.#waiting.values()) done(false);
    });
    socket.write(Buffer.concat([PREFACE, settings()]));
  }

  static async open(address: string): Promise<Line> {
    const socket = connect(address);
    await once(socket, 'connect');
    return new Line(socket);
  }

  get gone(): boolean {
    return this.#socket.destroyed;
  }

  async call(): Promise<boolean> {
    this.#id += 2;
    const id = this.#id;
    const returned = new Promise<boolean>((resolve) => this.#waiting.set(id, resolve));
    this.#socket.write(request(id, ask.path));
    const late = new AbortController();
    const ok = await Promise.race([
      returned,
      sleep(ANSWER_MS_MAX, false, { signal: late.signal }).catch(() => false),
    ]);
    late.abort();
    this.#waiting.delete(id);
    return ok;
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    for (;;) {
      if (this.#rest.length < 9) return;
      const end = 9 + this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < end) return;
      const [type, flags, id] = [this.#rest[3]!, this.#rest[4]!, this.#rest.readUInt32BE(5)];
      if (type === FrameType.headers && flags & 1) this.#waiting.get(id)?.(true);
      if (type === FrameType.reset) this.#waiting.get(id)?.(false);
      if (type === FrameType.ping && (flags & 1) === 0) {
        this.#socket.write(frame(FrameType.ping, 1, 0, this.#rest.subarray(9, end)));
      }
      this.#rest = this.#rest.subarray(end);
    }
  }
}

export class Asker {
  readonly #address: string;
  readonly #pid: number;
  #line: Line | undefined;
  #workMs: number[] = [];
  #ms: number[] = [];
  #newMs: number[] = [];
  #failed = 0;

  constructor(address: string, pid: number) {
    this.#address = address;
    this.#pid = pid;
  }

  async ask(ms: number): Promise<void> {
    const end = performance.now() + ms;
    for (let n = 1; performance.now() < end; n++) {
      if (n % NEW_EVERY === 0) await this.#askAnew();
      else await this.#askAgain();
      await sleep(PAUSE_MS);
    }
  }

  async #askAgain(): Promise<void> {
    // One that was ended to make room for others connects again, as every client does.
    if (this.#line?.gone !== false) this.#line = await Line.open(this.#address).catch(() => undefined);
    const start = performance.now();
    const before = this.#serverMs();
    if (await this.#line?.call()) {
      this.#ms.push(performance.now() - start);
      this.#workMs.push(this.#serverMs() - before);
    } else this.#failed++;
  }

  /** What the server's main thread has worked. */
  #serverMs(): number {
    try {
      return (
        Number(readFileSync(`/proc/${this.#pid}/task/${this.#pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6
      );
    } catch {
      return 0;
    }
  }

  async #askAnew(): Promise<void> {
    const start = performance.now();
    const line = await Line.open(this.#address).catch(() => undefined);
    if (await line?.call()) this.#newMs.push(performance.now() - start);
    else this.#failed++;
    line?.close();
  }

  async served(): Promise<boolean> {
    await sleep(200);
    const line = await Line.open(this.#address).catch(() => undefined);
    const ok = (await line?.call()) ?? false;
    line?.close();
    return ok;
  }

  forget(): void {
    this.#ms = [];
    this.#workMs = [];
    this.#newMs = [];
    this.#failed = 0;
  }

  result() {
    const at = (values: number[], part: number): number =>
      values.sort((a, b) => a - b)[Math.floor(part * (values.length - 1))] ?? Number.NaN;
    return {
      p50Ms: at(this.#ms, 0.5),
      p99Ms: at(this.#ms, 0.99),
      maxMs: at(this.#ms, 1),
      workP99Ms: at(this.#workMs, 0.99),
      newP99Ms: at(this.#newMs, 0.99),
      asked: this.#ms.length + this.#newMs.length + this.#failed,
      failed: this.#failed,
    };
  }

  close(): void {
    this.#line?.close();
  }
}
