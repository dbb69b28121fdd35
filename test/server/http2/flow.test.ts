/** Windows in both directions, and what they bound: memory on this side, and how one call delays the others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameType, PREFACE, Setting } from '../../../src/server/http2/constants.js';
import { data, message, open, Peer, request, settings, windowUpdate } from './peer.js';
import { hang, infoRequest, paths, readRequest, served, writeRequest } from './served.js';

const MiB = 2 ** 20;
const isData =
  (id: number) =>
  ({ type, id: of }: { type: number; id: number }): boolean =>
    type === FrameType.data && of === id;
const bytesOf = (peer: Peer, id: number): number =>
  peer.frames.filter(isData(id)).reduce((sum, { payload }) => sum + payload.length, 0);

test('a response goes as far as the windows of stream and connection allow', async (t) => {
  const { address } = await served(t);
  const peer = await Peer.connect(t, address);
  peer.send(request(1, paths.read, readRequest('d', MiB)));
  while (bytesOf(peer, 1) < 65_535) await peer.next(isData(1));
  await peer.ping();
  assert.equal(bytesOf(peer, 1), 65_535);
  // The stream alone, and the connection alone, are not enough.
  peer.send(windowUpdate(1, 1000));
  await peer.ping();
  assert.equal(bytesOf(peer, 1), 65_535);
  peer.send(windowUpdate(0, 3000));
  await peer.next(isData(1));
  await peer.ping();
  assert.equal(bytesOf(peer, 1), 66_535);
  // Another stream has the rest of the connection's.
  peer.send(request(3, paths.read, readRequest('d', MiB)));
  await peer.next(isData(3));
  await peer.ping();
  assert.equal(bytesOf(peer, 3), 2000);
  peer.send(windowUpdate(0, 4 * MiB), windowUpdate(1, 2 * MiB), windowUpdate(3, 2 * MiB));
  const [one, three] = [await peer.response(1), bytesOf(peer, 3)];
  assert.equal(one.status, '0');
  assert.equal(three > 2000, true);
});

test('a change of the first window goes for open streams, which may owe then', async (t) => {
  const { address } = await served(t);
  const small = Buffer.concat([PREFACE, settings([Setting.initialWindowSize, 10])]);
  const peer = await Peer.connect(t, address, small);
  peer.send(request(1, paths.read, readRequest('d', 1000)));
  await peer.next(isData(1));
  await peer.ping();
  assert.equal(bytesOf(peer, 1), 10);
  peer.send(settings([Setting.initialWindowSize, 4]), windowUpdate(1, 6));
  await peer.ping();
  assert.equal(bytesOf(peer, 1), 10);
  peer.send(windowUpdate(1, 5));
  await peer.ping();
  assert.equal(bytesOf(peer, 1), 15);
  peer.send(settings([Setting.initialWindowSize, 0]), settings([Setting.initialWindowSize, 2000]));
  assert.equal((await peer.response(1)).status, '0');
});

test('frames are as large as the client takes them, and no larger', async (t) => {
  const { address } = await served(t);
  const windows = Buffer.concat([settings([Setting.initialWindowSize, 4 * MiB]), windowUpdate(0, 4 * MiB)]);
  for (const limit of [16_384, 100_000]) {
    const peer = await Peer.connect(
      t,
      address,
      Buffer.concat([PREFACE, windows, settings([Setting.maxFrameSize, limit])]),
    );
    peer.send(request(1, paths.read, readRequest('d', MiB)));
    assert.equal((await peer.response(1)).status, '0');
    const sizes = peer.frames.filter(isData(1)).map(({ payload }) => payload.length);
    assert.equal(Math.max(...sizes), limit);
  }
});

test('a client that sends more than it may is stopped: on its stream, or on the connection', async (t) => {
  const { address } = await served(t, { write: hang });
  const peer = await Peer.connect(t, address);
  const frameOf = (id: number): Buffer => data(id, Buffer.alloc(16_384));
  // Messages that are not read; their bytes come back only in part.
  const whole = message(Buffer.alloc(16_379));
  peer.send(open(1, paths.write));
  for (let sent = 0; sent <= 4 * MiB; sent += whole.length) peer.send(data(1, whole));
  assert.equal(await peer.reset(1), 3);
  const second = await Peer.connect(t, address);
  for (let id = 1; id <= 11; id += 2) {
    second.send(open(id, paths.write));
    for (let sent = 0; sent < 4 * MiB; sent += whole.length) second.send(data(id, whole));
  }
  assert.equal(await second.goAway(), 3);
  await second.ended();
  // What was sent to a stream that is over counts too, and is given back.
  peer.send(...Array.from({ length: 1200 }, () => frameOf(1)));
  await peer.ping();
  const back = peer.frames.filter(({ type, id }) => type === FrameType.windowUpdate && id === 0);
  assert.equal(back.length >= 4, true);
  peer.send(request(3, paths.info, infoRequest('x')));
  assert.equal((await peer.response(3)).status, '0');
});

test('messages larger than every window arrive, and windows are given back', async (t) => {
  const { address } = await served(t, {}, { messageBytes: 9 * MiB });
  const peer = await Peer.connect(t, address);
  const body = message(writeRequest('ref', Buffer.alloc(8 * MiB, 'w')));
  peer.send(open(1, paths.write));
  let window = 4 * MiB;
  let looked = 0;
  for (let at = 0; at < body.length; ) {
    for (; looked < peer.frames.length; looked++) {
      const { type, id, payload } = peer.frames[looked]!;
      if (type === FrameType.windowUpdate && id === 1) window += payload.readUInt32BE(0);
    }
    const count = Math.min(16_384, window, body.length - at);
    if (count > 0) peer.send(data(1, body.subarray(at, at + count)));
    at += count;
    window -= count;
    if (count === 0) await new Promise((done) => setTimeout(done, 1));
  }
  peer.send(data(1, Buffer.alloc(0), true));
  const response = await peer.response(1);
  assert.equal(response.status, '0');
});

test('a client that does not read delays its own calls, in bounded memory, and no other client', async (t) => {
  let sent = 0;
  const { address } = await served(t, {
    read: async (_request, _call, send) => {
      for (let i = 0; i < 4; i++) {
        await send({ data: Buffer.alloc(MiB) });
        sent++;
      }
    },
  });
  const windows = Buffer.concat([
    PREFACE,
    settings([Setting.initialWindowSize, 2 ** 30]),
    windowUpdate(0, 2 ** 30),
  ]);
  const deaf = await Peer.connect(t, address, windows);
  deaf.socket.pause();
  for (let id = 1; id < 20; id += 2) deaf.send(request(id, paths.read, readRequest('d', 0)));
  const other = await Peer.connect(t, address);
  for (let id = 1; id < 100; id += 2) {
    other.send(request(id, paths.info, infoRequest('x')));
    assert.equal((await other.response(id)).status, '0');
  }
  assert.equal(sent <= 3, true, `${sent} MiB were taken by a client that reads nothing`);
  // It may read on later.
  deaf.socket.resume();
  for (let id = 1; id < 4; id += 2) assert.equal((await deaf.response(id)).status, '0');
});
