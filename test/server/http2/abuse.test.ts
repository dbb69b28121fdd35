/** Clients that stall, flood, or make this side work for nothing: they are cut off, and no other client notices. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { Ledger } from '../../../src/server/connections/ledger.js';
import { expand } from '../../../src/server/grpc/compression.js';
import { ErrorCode, Flag, PREFACE } from '../../../src/server/http2/constants.js';
import {
  block,
  data,
  frame,
  message,
  open,
  Peer,
  request,
  requestFields,
  settings,
  uint32,
  windowUpdate,
} from './peer.js';
import { hang, infoRequest, paths, type Served, served } from './served.js';

const KiB = 1024;
const EMPTY = Buffer.alloc(0);
const ping = frame(6, 0, 0, Buffer.alloc(8));
const times = (count: number, bytes: Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, () => bytes));

/** Runs something with a second client that must get responses throughout and afterwards. */
async function besides(
  t: TestContext,
  { address }: Served,
  fn: (peer: Peer) => Promise<void>,
): Promise<void> {
  const other = await Peer.connect(t, address);
  let id = -1;
  const ask = async (): Promise<void> => {
    id += 2;
    other.send(request(id, paths.info, infoRequest('x')));
    assert.equal((await other.response(id)).status, '0');
  };
  let done = false;
  const asking = (async () => {
    while (!done) {
      await ask();
      await sleep(1);
    }
  })();
  try {
    await fn(await Peer.connect(t, address));
  } finally {
    done = true;
    await asking;
  }
  await ask();
}

/** Waits until what was kept for a client has been given back. */
async function given(server: Served): Promise<void> {
  while (server.kept() >= 100 * KiB) await sleep(2);
}

test('headers without end', async (t) => {
  const server = await served(t, {}, { metadataBytes: 8 * KiB });
  await besides(t, server, async (peer) => {
    peer.send(frame(1, 0, 1, block(requestFields(paths.info))));
    for (let i = 0; i < 100; i++) peer.send(frame(9, 0, 1, Buffer.alloc(KiB, 0x82)));
    assert.equal(await peer.goAway(), ErrorCode.enhanceYourCalm);
    await peer.ended();
  });
  // And with parts that are empty.
  await besides(t, server, async (peer) => {
    peer.send(frame(1, 0, 1), times(20_000, frame(9, 0, 1)));
    assert.equal(await peer.goAway(), ErrorCode.enhanceYourCalm);
  });
});

/** A service that counts its calls and, once stopped, goes on until it is let go, whatever becomes of the client. */
function stubborn(): {
  write: () => Promise<void>;
  running: () => number;
  most: () => number;
  stop: () => void;
  let: () => void;
} {
  const waiting = new Set<() => void>();
  let most = 0;
  let free = true;
  return {
    write: () =>
      new Promise((resolve) => {
        if (free) resolve();
        else waiting.add(resolve);
        most = Math.max(most, waiting.size);
      }),
    running: () => waiting.size,
    most: () => most,
    stop: () => {
      free = false;
    },
    let: () => {
      free = true;
      for (const resolve of waiting) resolve();
      waiting.clear();
    },
  };
}

test('calls that are given up, or ended by the server, count until their services are done; no client is cut off', async (t) => {
  const ways: [string, (id: number) => Buffer][] = [
    ['reset', (id) => Buffer.concat([open(id, paths.write), frame(3, 0, id, uint32(8))])],
    ['window of nothing', (id) => Buffer.concat([open(id, paths.write), windowUpdate(id, 0)])],
    [
      'data after the end',
      (id) => Buffer.concat([open(id, paths.write), data(id, EMPTY, true), data(id, Buffer.of(1))]),
    ],
    [
      'more than announced',
      (id) => Buffer.concat([open(id, paths.write, [['content-length', '0']]), data(id, Buffer.of(1))]),
    ],
    ['deadline', (id) => open(id, paths.write, [['grpc-timeout', '1n']])],
  ];
  for (const [what, bytes] of ways) {
    const service = stubborn();
    const server = await served(t, { write: service.write }, { streamsPerConnection: 50 });
    await besides(t, server, async (peer) => {
      // What a method costs is known after its first call.
      peer.send(open(9003, paths.write), data(9003, EMPTY, true));
      assert.equal((await peer.response(9003)).status, '0');
      service.stop();
      for (let round = 0; round < 40; round++) {
        for (let i = 0; i < 50; i++) peer.send(bytes(9005 + 2 * (50 * round + i)));
        assert.equal(await peer.ping(), true, what);
      }
      assert.equal(service.most(), 50, what);
      service.let();
      peer.send(request(99_001, paths.info, infoRequest('x')));
      assert.equal((await peer.response(99_001)).status, '0', what);
    });
    assert.deepEqual(server.reasons, [], what);
  }
});

test('why a connection was ended is reported to the observer', async (t) => {
  const server = await served(t, {}, { metadataBytes: 8 * KiB });
  const peer = await Peer.connect(t, server.address);
  peer.send(frame(6, 0, 1, Buffer.alloc(8)));
  await peer.ended();
  const second = await Peer.connect(t, server.address);
  second.send(times(30_000, settings()));
  await second.ended();
  while (server.reasons.length < 2) await sleep(2);
  assert.deepEqual(server.reasons, ['a ping on a stream', 'too many frames without effect']);
});

test('frames without effect', async (t) => {
  const server = await served(t);
  const floods: Buffer[] = [
    settings(),
    frame(2, 0, 1, Buffer.concat([uint32(0), Buffer.of(1)])),
    frame(0x77, 0, 0, Buffer.of(1)),
    Buffer.concat([data(1, Buffer.alloc(0))]),
  ];
  for (const [i, bytes] of floods.entries()) {
    await besides(t, server, async (peer) => {
      if (i === 3) peer.send(open(1, paths.write));
      peer.send(times(30_000, bytes));
      assert.equal(await peer.goAway(), ErrorCode.enhanceYourCalm, `flood ${i}`);
    });
  }
});

test('requests whose responses are not read', async (t) => {
  const server = await served(t, {}, { streamsPerConnection: 5 });
  const floods: ((i: number) => Buffer)[] = [
    () => times(1000, ping),
    // Calls over the limit, which are refused one by one.
    (i) => Buffer.concat(Array.from({ length: 500 }, (_, n) => open(1 + 2 * (500 * i + n), paths.write))),
    // Small calls whose responses stay.
    (i) =>
      Buffer.concat(
        Array.from({ length: 500 }, (_, n) =>
          request(1 + 2 * (500 * i + n), paths.info, infoRequest('x'.repeat(500))),
        ),
      ),
  ];
  for (const [n, flood] of floods.entries()) {
    await besides(t, server, async (peer) => {
      peer.socket.pause();
      const before = process.memoryUsage().rss;
      let i = 0;
      for (; i < 2000 && !peer.socket.destroyed; i++) {
        peer.socket.write(flood(i));
        if (peer.socket.writableLength > 64 * KiB) {
          await Promise.race([new Promise((done) => peer.socket.once('drain', done)), sleep(20)]);
        }
        if (peer.socket.writableLength > 4 * KiB * KiB) break;
      }
      // Cut off, or not read any further.
      assert.equal(i < 2000, true, `flood ${n}`);
      const grown = (process.memoryUsage().rss - before) / KiB / KiB;
      assert.equal(grown < 200, true, `flood ${n}: ${grown} MiB more`);
      peer.socket.destroy();
    });
  }
});

test('small headers that become a large list', async (t) => {
  const server = await served(t, {}, { metadataBytes: 64 * KiB });
  await besides(t, server, async (peer) => {
    // A field of 3 KiB for the table, and then ten thousand times that one.
    const teach = Buffer.concat([Buffer.of(0x40), block([['x-bomb', 'b'.repeat(3000)]]).subarray(1)]);
    const bomb = Buffer.concat([block(requestFields(paths.info)), teach, Buffer.alloc(10_000, 0xbe)]);
    for (const id of [1, 3, 5]) {
      peer.send(frame(1, Flag.endHeaders | Flag.endStream, id, bomb));
      const { status, headers } = await peer.response(id);
      assert.equal(status, '8');
      assert.match(headers['grpc-message']!, /headers are over the limit of 65536 bytes/);
    }
    peer.send(request(7, paths.info, infoRequest('x')));
    assert.equal((await peer.response(7)).status, '0');
  });
});

test('messages that are announced and not sent, or sent in crumbs', async (t) => {
  const server = await served(t, {}, { messageBytes: 64 * KiB, memoryBytes: 3 * 1024 * KiB });
  await besides(t, server, async (peer) => {
    const start = message(Buffer.alloc(60 * KiB)).subarray(0, 40 * KiB);
    for (let id = 1; id < 200; id += 2) {
      peer.send(open(id, paths.write));
      for (let at = 0; at < start.length; at += 10 * KiB)
        peer.send(data(id, start.subarray(at, at + 10 * KiB)));
    }
    await peer.ping();
    // A third of all for a connection: some are taken, the rest is refused.
    assert.equal(server.kept() < 1.2 * 1024 * KiB, true, `${server.kept()} bytes`);
    const failed = peer.frames.filter(({ fields }) => fields?.['grpc-status'] !== undefined);
    assert.deepEqual(new Set(failed.map(({ fields }) => fields!['grpc-status'])), new Set(['8']));
    assert.equal(failed.length > 0 && failed.length < 100, true, `${failed.length} refused`);
    const over = new Set(failed.map(({ id }) => id));
    for (let id = 1; id < 200; id += 2) if (!over.has(id)) peer.send(frame(3, 0, id, uint32(8)));
    // There is room again, for a message in pieces of a byte.
    const crumbs = message(infoRequest('y'.repeat(5000)));
    peer.send(
      open(201, paths.info),
      ...Array.from(crumbs, (byte) => data(201, Buffer.of(byte))),
      data(201, Buffer.alloc(0), true),
    );
    assert.equal((await peer.response(201)).status, '0');
    peer.socket.destroy();
  });
  await given(server);
});

test('more small messages than a service takes', async (t) => {
  const server = await served(t, { write: hang }, { messageBytes: 64 * KiB, memoryBytes: 3 * 1024 * KiB });
  await besides(t, server, async (peer) => {
    const crumbs = times(3000, message(Buffer.alloc(0)));
    for (let id = 1; id < 20; id += 2) peer.send(open(id, paths.write), data(id, crumbs), data(id, crumbs));
    await peer.ping();
    assert.equal(server.kept() < 1.2 * 1024 * KiB, true, `${server.kept()} bytes`);
    for (let id = 1; id < 20; id += 2) peer.send(frame(3, 0, id, uint32(8)));
    peer.send(request(21, paths.info, infoRequest('x')));
    assert.equal((await peer.response(21)).status, '0');
    peer.socket.destroy();
  });
  await given(server);
});

test('silence: a client that acknowledges no ping is cut off, one that does stays', async (t) => {
  const { address } = await served(t, {}, { keepaliveMs: 100 });
  const silent = await Peer.connect(t, address);
  const half = await Peer.connect(t, address, Buffer.concat([PREFACE, settings().subarray(0, 5)]));
  const alive = await Peer.connect(t, address);
  const acknowledging = (async () => {
    for (let acknowledged = 0; acknowledged < 5; ) {
      const asked = await alive.next((f) => f.type === 6 && (f.flags & Flag.ack) === 0);
      if (asked === undefined) return acknowledged;
      alive.send(frame(6, Flag.ack, 0, asked.payload));
      acknowledged++;
    }
    return 5;
  })();
  await Promise.all([silent.ended(), half.ended()]);
  assert.equal(await acknowledging, 5);
});

test('small messages that become large: a few at a time, and no more than there is room for', async (t) => {
  const server = await served(t, {}, { memoryBytes: 64 * 1024 * KiB });
  const large = gzipSync(
    Buffer.concat([
      infoRequest('x'),
      Buffer.from([0xc2, 0x3e, 0x80, 0x80, 0x80, 0x04]),
      Buffer.alloc(8 * 1024 * KiB),
    ]),
  );
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, server.kept());
  }, 1);
  await besides(t, server, async (peer) => {
    const ids = Array.from({ length: 40 }, (_, i) => 2 * i + 1);
    for (const id of ids) {
      peer.send(open(id, paths.info, [['grpc-encoding', 'gzip']]), data(id, message(large, true), true));
    }
    const ends: string[] = [];
    while (ends.length < ids.length) {
      const end = await peer.next(({ type, flags }) => type === 1 && (flags & Flag.endStream) !== 0);
      ends.push(end?.fields?.['grpc-status'] ?? 'none');
    }
    assert.deepEqual(new Set(ends).has('0') && ends.every((end) => end === '0' || end === '8'), true);
    peer.socket.destroy();
  });
  clearInterval(watch);
  assert.equal(most > 1024 * KiB && most < 22 * 1024 * KiB, true, `${most} bytes`);
  await given(server);
});

test('compressed messages of a client that has gone are not decompressed, and keep no place of others', async () => {
  const ledger = new Ledger(64 * 1024 * KiB);
  const memory = ledger.open(1, { moved: () => true, end: () => undefined });
  const bytes = gzipSync(Buffer.alloc(KiB));
  let gone = false;
  const expanded = (of: () => boolean): Promise<unknown> => expand(bytes, 'gzip', KiB, memory, of);
  const first = [expanded(() => gone), expanded(() => gone)];
  const waiting = Array.from({ length: 10 }, () => expanded(() => gone));
  const other = expanded(() => false);
  gone = true;
  const ends = await Promise.allSettled([...first, ...waiting, other]);
  const done = ends.map(({ status }) => status === 'fulfilled');
  assert.deepEqual(done, [true, true, ...waiting.map(() => false), true]);
});

test('responses that are not read: no more calls begin than there is room for, and all get a response in the end', async (t) => {
  let began = 0;
  const response = 'x'.repeat(1024 * KiB);
  const info = () => {
    began++;
    return { info: { digest: response } };
  };
  const server = await served(t, { info }, { memoryBytes: 24 * 1024 * KiB });
  const peer = await Peer.connect(t, server.address);
  for (let id = 1; id < 200; id += 2) peer.send(request(id, paths.info, infoRequest('x')));
  await peer.ping();
  assert.equal(began > 2 && began < 12, true, `${began} began`);
  assert.equal(server.kept() < 9 * 1024 * KiB, true);
  peer.send(windowUpdate(0, 2 ** 30), settings([4, 2 ** 30]));
  const found = new Set<number>();
  while (found.size < 100) {
    const end = await peer.next(({ type, flags }) => type === 1 && (flags & Flag.endStream) !== 0);
    assert.equal(end?.fields?.['grpc-status'], '0');
    found.add(end!.id);
  }
  assert.equal(began, 100);
  await given(server);
});
