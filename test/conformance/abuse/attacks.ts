/**
 * What hostile clients do, each on connections of its own, for as long as it is let: bytes that the rules allow or forbid,
 * at full speed, whatever comes back. A connection that the server ends is made again. Run by attacker.ts.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { PREFACE, Setting } from '../../../src/server/http2/constants.js';
import { methodsOf } from '../../../src/server/schema.js';
import { services } from '../../server/client.js';
import {
  block,
  data,
  frame,
  message,
  open,
  request,
  requestFields,
  settings,
  uint32,
  windowUpdate,
} from '../../server/http2/peer.js';
import { BIG_NAMESPACE, BLOB } from './store.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const EMPTY = Buffer.alloc(0);
const path = (service: keyof typeof services, method: string): string => `/${services[service]}/${method}`;
const encode = (service: keyof typeof services, method: string, value: object): Buffer =>
  methodsOf(services[service]).get(method)!.request.encode(value);
const inNamespace = (namespace: string): readonly (readonly [string, string])[] => [
  ['containerd-namespace', namespace],
];
const test = inNamespace('test');
const write = path('content', 'Write');

/** One connection: greets, then says what `say` says until the end. */
class Attacker {
  readonly socket: Socket;
  id = -1;

  private constructor(socket: Socket) {
    this.socket = socket;
  }

  static async connect(address: string, greeting = settings(), reads = true): Promise<Attacker> {
    const socket = connect(address);
    socket.on('error', () => undefined);
    await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => undefined);
    if (reads) socket.resume();
    socket.write(Buffer.concat([PREFACE, greeting]));
    return new Attacker(socket);
  }

  next(): number {
    this.id += 2;
    return this.id;
  }

  get gone(): boolean {
    return this.socket.destroyed || this.id > 2 ** 30;
  }

  /** Writes, and waits while the other side does not take it; false at the end. */
  async say(bytes: Buffer): Promise<boolean> {
    if (this.gone) return false;
    if (this.socket.write(bytes)) {
      await new Promise((done) => setImmediate(done));
      return !this.gone;
    }
    const taken = Promise.race([once(this.socket, 'drain'), once(this.socket, 'close')]);
    await Promise.race([taken, sleep(500)]).catch(() => undefined);
    return !this.gone;
  }
}

const times = (count: number, bytes: () => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, bytes));

/** Says the same in other words again and again, on several connections. */
const flood =
  (make: (peer: Attacker) => Buffer, connections = 4, start: (peer: Attacker) => Buffer = () => EMPTY) =>
  async (address: string): Promise<void> => {
    const one = async (): Promise<never> => {
      for (;;) {
        const peer = await Attacker.connect(address);
        await peer.say(start(peer));
        while (await peer.say(make(peer)));
        peer.socket.destroy();
        await sleep(1);
      }
    };
    await Promise.all(Array.from({ length: connections }, one));
  };

/** Says something once on each of many connections, and makes those again that are ended. */
const standing =
  (connections: number, say: (peer: Attacker) => Buffer[], greeting = settings(), reads = true) =>
  async (address: string): Promise<void> => {
    const one = async (): Promise<never> => {
      for (;;) {
        const peer = await Attacker.connect(address, greeting, reads);
        for (const bytes of say(peer)) if (!(await peer.say(bytes))) break;
        while (!peer.gone) await sleep(20);
        await sleep(20);
      }
    };
    for (let i = 0; i < connections; i++) {
      void one();
      if (i % 50 === 49) await sleep(5);
    }
    await sleep(2 ** 30);
  };

const opened = (then: (id: number) => Buffer, more: readonly (readonly [string, string])[] = test) =>
  flood((peer) =>
    times(200, () => {
      const id = peer.next();
      return Buffer.concat([open(id, write, more), then(id)]);
    }),
  );

const noWindow = settings([Setting.initialWindowSize, 0]);
const calls = (count: number, make: (id: number) => Buffer) => (peer: Attacker) =>
  Array.from({ length: count }, () => make(peer.next()));

/** A request whose unknown field is almost as large as a message may be, compressed. */
const bomb = (): Buffer => {
  const size = 15 * MiB;
  const head = Buffer.from([0xc2, 0x3e, ...varint(size)]);
  return gzipSync(Buffer.concat([encode('content', 'Info', { digest: 'x' }), head, Buffer.alloc(size)]));
};
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127; rest >>>= 7) bytes.push((rest & 127) | 128);
  return [...bytes, rest];
}

const subscribeAll = (peer: Attacker): Buffer[] =>
  calls(64, (id) => request(id, path('events', 'Subscribe'), EMPTY, test))(peer);
const publish = (peer: Attacker): Buffer[] => {
  const event = { topic: '/x', event: { typeUrl: 'x', value: Buffer.alloc(MiB) } };
  const bytes = message(encode('events', 'Publish', event));
  return Array.from({ length: 3000 }, () => {
    const id = peer.next();
    const parts = [open(id, path('events', 'Publish'), test)];
    for (let at = 0; at < bytes.length; at += 16_384) {
      parts.push(data(id, bytes.subarray(at, at + 16_384), at + 16_384 >= bytes.length));
    }
    return Buffer.concat(parts);
  });
};

const hpackBomb = Buffer.concat([
  block(requestFields(path('content', 'Info'))),
  Buffer.of(0x40),
  block([['x-bomb', 'b'.repeat(3000)]]).subarray(1),
  Buffer.alloc(12_000, 0xbe),
]);
/** Fields without a name, each of which goes into the table. */
const tableFlood = Buffer.concat([
  block(requestFields(path('content', 'Info'))),
  Buffer.concat(Array.from({ length: 5000 }, () => Buffer.of(0x40, 0, 0))),
]);
const wide = Buffer.concat([settings([Setting.initialWindowSize, 2 ** 30]), windowUpdate(0, 2 ** 30)]);
const noContent = times(3000, () => message(EMPTY));
const crumb = frame(9, 0, 1, Buffer.of(0x82));
const entries = Array.from({ length: 2700 }, (_, i): [number, number] => [
  Setting.initialWindowSize,
  65_535 + (i % 2),
]);

export const attacks: Readonly<Record<string, (address: string) => Promise<void>>> = {
  none: () => sleep(2 ** 30),
  'calls opened and reset': opened((id) => frame(3, 0, id, uint32(8))),
  'calls ended by a window update of 0': opened((id) => windowUpdate(id, 0)),
  'calls ended by data after the end': opened((id) =>
    Buffer.concat([data(id, EMPTY, true), data(id, Buffer.of(1))]),
  ),
  'calls with a deadline of a nanosecond': opened(() => EMPTY, [...test, ['grpc-timeout', '1n']]),
  'blob reads opened and reset': flood((peer) =>
    times(200, () => {
      const id = peer.next();
      const body = encode('content', 'Read', { digest: `sha256:${'0'.repeat(64)}` });
      return Buffer.concat([request(id, path('content', 'Read'), body, test), frame(3, 0, id, uint32(8))]);
    }),
  ),
  'settings of 2,700 entries over 900 open calls': flood(
    () => settings(...entries),
    4,
    (peer) => times(900, () => open(peer.next(), write, test)),
  ),
  '300 lists of 15 MB at window 0': standing(
    1,
    calls(300, (id) => request(id, path('images', 'List'), EMPTY, inNamespace(BIG_NAMESPACE))),
    noWindow,
  ),
  'lists of 15 MB at window 0, 20 connections': standing(
    20,
    calls(20, (id) => request(id, path('images', 'List'), EMPTY, inNamespace(BIG_NAMESPACE))),
    noWindow,
  ),
  'lists of 15 MB, read': flood(
    (peer) => request(peer.next(), path('images', 'List'), EMPTY, inNamespace(BIG_NAMESPACE)),
    4,
    () => wide,
  ),
  'filtered lists of everything, read': flood((peer) =>
    times(20, () => {
      const body = encode('images', 'List', { filters: ['name~=zzz', 'labels.x==y'] });
      return request(peer.next(), path('images', 'List'), body, inNamespace(BIG_NAMESPACE));
    }),
  ),
  'compressed messages of 15 MB': (() => {
    const bytes = message(bomb(), true);
    return standing(
      10,
      calls(100, (id) =>
        Buffer.concat([
          open(id, path('content', 'Info'), [...test, ['grpc-encoding', 'gzip']]),
          data(id, bytes.subarray(0, 16_384)),
          data(id, bytes.subarray(16_384), true),
        ]),
      ),
    );
  })(),
  'events of 1 MiB to 64 subscribers that do not read': async (address) => {
    void standing(1, subscribeAll, noWindow)(address);
    await sleep(200);
    await standing(1, publish)(address);
  },
  'parts of messages, 10 connections': standing(10, (peer) => {
    const out: Buffer[] = [];
    for (let i = 0; i < 12; i++) {
      const id = peer.next();
      const bytes = message(Buffer.alloc(15 * MiB)).subarray(0, 14 * MiB);
      out.push(open(id, write, test));
      for (let at = 0; at < bytes.length; at += 16_384) out.push(data(id, bytes.subarray(at, at + 16_384)));
    }
    return out;
  }),
  '1,200 idle connections': standing(1200, () => []),
  '1,200 connections with an open call each': standing(1200, (peer) => [open(peer.next(), write, test)]),
  'connections made and dropped': async (address) => {
    const one = async (): Promise<never> => {
      for (;;) {
        const peer = await Attacker.connect(address);
        await peer.say(times(20, () => open(peer.next(), write, test)));
        peer.socket.destroy();
      }
    };
    await Promise.all(Array.from({ length: 8 }, one));
  },
  'connections with 900 open calls made and dropped': async (address) => {
    const one = async (): Promise<never> => {
      for (;;) {
        const peer = await Attacker.connect(address);
        await peer.say(times(900, () => open(peer.next(), write, test)));
        await sleep(50);
        peer.socket.destroy();
      }
    };
    await Promise.all(Array.from({ length: 4 }, one));
  },
  'messages without content': opened((id) => data(id, noContent)),
  'header blocks in parts of a byte': standing(20, (peer) => [
    frame(1, 0, peer.next(), block(requestFields(write))),
    ...Array.from({ length: 60 }, () => times(4000, () => crumb)),
  ]),
  'header fields that change the table': flood((peer) =>
    times(4, () => frame(1, 5, peer.next(), tableFlood)),
  ),
  'pings whose responses are not read': flood(() => times(2000, () => frame(6, 0, 0, Buffer.alloc(8)))),
  'small headers that become large': flood((peer) => times(10, () => frame(1, 5, peer.next(), hpackBomb))),
  'frames without effect': flood(() => times(2000, () => frame(2, 0, 1, Buffer.alloc(5)))),
  'small calls, 32 connections at full speed': flood(
    (peer) =>
      times(100, () =>
        request(
          peer.next(),
          path('content', 'Info'),
          encode('content', 'Info', { digest: `sha256:${'0'.repeat(64)}` }),
          test,
        ),
      ),
    32,
  ),
  'reads of a blob at window 0, 10 connections': standing(
    10,
    calls(500, (id) =>
      request(id, path('content', 'Read'), encode('content', 'Read', { digest: BLOB }), test),
    ),
    noWindow,
  ),
};
