/** RFC 9113 by hand-made bytes: what is right gets a response, what is wrong ends a stream or the connection, as it says. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ErrorCode, Flag, FrameType, PREFACE, Setting } from '../../../src/server/http2/constants.js';
import {
  block,
  data,
  type Fields,
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
import { infoOf, infoRequest, paths, served } from './served.js';

const { protocolError, frameSizeError, flowControlError, streamClosed, compressionError } = ErrorCode;
const body = infoRequest('sha256:x');
const call = (id: number): Buffer => request(id, paths.info, body);

async function isServed(peer: Peer, id: number): Promise<void> {
  peer.send(call(id));
  const response = await peer.response(id);
  assert.equal(response.status, '0');
  assert.deepEqual((infoOf(response.body) as { info: { digest: string } }).info.digest, 'sha256:x');
}

test('mistakes that end the connection, each with its code; others are served on', async (t) => {
  const { address } = await served(t);
  const other = await Peer.connect(t, address);
  await isServed(other, 1);
  const head = block(requestFields(paths.info));
  const greeting = Buffer.concat([PREFACE, settings()]);
  const mistakes: [string, number, Buffer, Buffer?][] = [
    ['no settings first', protocolError, call(1), PREFACE],
    ['an acknowledgement first', protocolError, frame(4, Flag.ack, 0), PREFACE],
    ['data first', protocolError, data(1, Buffer.alloc(1)), PREFACE],
    ['data on stream 0', protocolError, data(0, Buffer.alloc(1))],
    ['data on an idle stream', protocolError, data(1, Buffer.alloc(1))],
    ['data on a stream of the server', protocolError, Buffer.concat([call(3), data(2, Buffer.alloc(1))])],
    ['headers on stream 0', protocolError, frame(1, Flag.endHeaders, 0, head)],
    ['headers on an even stream', protocolError, frame(1, Flag.endHeaders, 2, head)],
    ['headers on a closed stream', streamClosed, Buffer.concat([call(1), call(1)])],
    ['headers on a lower stream', protocolError, Buffer.concat([call(5), call(3)])],
    ['a push', protocolError, frame(5, Flag.endHeaders, 1, Buffer.concat([uint32(2), head]))],
    ['a continuation without headers', protocolError, frame(9, Flag.endHeaders, 1, head)],
    [
      'a ping inside headers',
      protocolError,
      Buffer.concat([frame(1, 0, 1, head), frame(6, 0, 0, Buffer.alloc(8))]),
    ],
    ['data inside headers', protocolError, Buffer.concat([frame(1, 0, 1, head), data(1, Buffer.alloc(1))])],
    [
      'a continuation of another stream',
      protocolError,
      Buffer.concat([frame(1, 0, 1, head), frame(9, Flag.endHeaders, 3)]),
    ],
    [
      'an unknown frame inside headers',
      protocolError,
      Buffer.concat([frame(1, 0, 1, head), frame(77, 0, 1)]),
    ],
    [
      'headers that are no HPACK',
      compressionError,
      frame(1, Flag.endHeaders, 1, Buffer.of(0xff, 0xff, 0xff)),
    ],
    ['padding beyond the frame', protocolError, frame(1, 0xc, 1, Buffer.of(200, 1, 2))],
    [
      'padding of data beyond the frame',
      protocolError,
      Buffer.concat([open(1, paths.write), frame(0, 8, 1, Buffer.of(9, 1))]),
    ],
    ['no length of the padding', frameSizeError, frame(1, 0xc, 1)],
    ['no room for the priority', frameSizeError, frame(1, 0x24, 1, Buffer.alloc(3))],
    ['a frame over the limit', frameSizeError, frame(0, 0, 1, Buffer.alloc(16_385))],
    ['settings of a stream', protocolError, frame(4, 0, 1)],
    ['settings of seven bytes', frameSizeError, frame(4, 0, 0, Buffer.alloc(7))],
    ['an acknowledgement with content', frameSizeError, frame(4, Flag.ack, 0, Buffer.alloc(6))],
    ['push that is neither on nor off', protocolError, settings([Setting.enablePush, 2])],
    ['a first window over 2 GiB', flowControlError, settings([Setting.initialWindowSize, 2 ** 31])],
    ['frames below 16 KiB', protocolError, settings([Setting.maxFrameSize, 16_383])],
    ['frames over 16 MiB', protocolError, settings([Setting.maxFrameSize, 2 ** 24])],
    ['a ping on a stream', protocolError, frame(6, 0, 1, Buffer.alloc(8))],
    ['a ping of seven bytes', frameSizeError, frame(6, 0, 0, Buffer.alloc(7))],
    ['a goaway on a stream', protocolError, frame(7, 0, 1, Buffer.alloc(8))],
    ['a short goaway', frameSizeError, frame(7, 0, 0, Buffer.alloc(7))],
    ['a window update of 0 bytes', protocolError, windowUpdate(0, 0)],
    ['a window over 2 GiB', flowControlError, windowUpdate(0, 2 ** 31 - 1)],
    ['a short window update', frameSizeError, frame(8, 0, 0, Buffer.alloc(3))],
    ['a window update of an idle stream', protocolError, windowUpdate(1, 1)],
    ['a reset of an idle stream', protocolError, frame(3, 0, 1, uint32(8))],
    ['a reset of stream 0', protocolError, frame(3, 0, 0, uint32(8))],
    ['a short reset', frameSizeError, Buffer.concat([open(1, paths.write), frame(3, 0, 1, Buffer.alloc(3))])],
    ['a priority of stream 0', protocolError, frame(2, 0, 0, Buffer.alloc(5))],
    [
      'a window of an open stream over 2 GiB by settings',
      flowControlError,
      Buffer.concat([open(1, paths.write), windowUpdate(1, 2 ** 31 - 1 - 65_535), settings([4, 65_536])]),
    ],
  ];
  for (const [what, code, bytes, opening] of mistakes) {
    const peer = await Peer.connect(t, address, opening ?? greeting);
    peer.send(bytes);
    assert.equal(await peer.goAway(), code, what);
    await peer.ended();
  }
  await isServed(other, 3);
});

test('mistakes that end their stream only', async (t) => {
  const { address } = await served(t);
  const peer = await Peer.connect(t, address);
  let id = -1;
  const without = (name: string): Fields => requestFields(paths.info).filter(([key]) => key !== name);
  const withMore = (...more: Fields): Fields => requestFields(paths.info, more);
  const malformed: [string, Fields][] = [
    ['no method', without(':method')],
    ['no scheme', without(':scheme')],
    ['no path', without(':path')],
    ['an empty path', [...without(':path').slice(0, 2), [':path', ''], ...without(':path').slice(2)]],
    ['two paths', [[':path', '/x'], ...requestFields(paths.info)]],
    ['a pseudo-header after others', withMore([':authority', 'x'])],
    ['a pseudo-header of responses', [[':status', '200'], ...requestFields(paths.info)]],
    ['an unknown pseudo-header', [[':magic', 'x'], ...requestFields(paths.info)]],
    ['capital letters', withMore(['X-Capital', 'x'])],
    ['an empty name', withMore(['', 'x'])],
    ['a name with a space', withMore(['a b', 'x'])],
    ['a name with a byte above ASCII', withMore(['a\xe4', 'x'])],
    ['a line end in a value', withMore(['x', 'a\r\nb: c'])],
    ['a NUL in a value', withMore(['x', 'a\0b'])],
    ['a space before a value', withMore(['x', ' a'])],
    ['a tab after a value', withMore(['x', 'a\t'])],
    ['connection', withMore(['connection', 'close'])],
    ['keep-alive', withMore(['keep-alive', '1'])],
    ['transfer-encoding', withMore(['transfer-encoding', 'chunked'])],
    ['upgrade', withMore(['upgrade', 'h2c'])],
    ['te that is not trailers', [...without('te'), ['te', 'gzip']]],
    ['two lengths', withMore(['content-length', '1'], ['content-length', '2'])],
    ['a length that is none', withMore(['content-length', '-1'])],
  ];
  for (const [what, fields] of malformed) {
    id += 2;
    peer.send(frame(FrameType.headers, Flag.endHeaders | Flag.endStream, id, block(fields)));
    assert.equal(await peer.reset(id), protocolError, what);
  }
  const others: [string, number, (stream: number) => Buffer][] = [
    [
      'more than announced',
      protocolError,
      (s) => Buffer.concat([open(s, paths.write, [['content-length', '3']]), data(s, Buffer.alloc(4))]),
    ],
    [
      'less than announced',
      protocolError,
      (s) =>
        Buffer.concat([open(s, paths.write, [['content-length', '30']]), data(s, Buffer.alloc(4), true)]),
    ],
    [
      'data after the end',
      streamClosed,
      (s) =>
        Buffer.concat([
          open(s, paths.info),
          data(s, message(Buffer.alloc(0)), true),
          data(s, Buffer.alloc(1)),
        ]),
    ],
    [
      'trailers that do not end',
      protocolError,
      (s) => Buffer.concat([open(s, paths.write), frame(1, Flag.endHeaders, s, block([['x', 'y']]))]),
    ],
    [
      'trailers with a pseudo-header',
      protocolError,
      (s) => Buffer.concat([open(s, paths.write), frame(1, 5, s, block([[':path', '/']]))]),
    ],
    [
      'a window update of 0 bytes',
      protocolError,
      (s) => Buffer.concat([open(s, paths.write), windowUpdate(s, 0)]),
    ],
    [
      'a window over 2 GiB',
      flowControlError,
      (s) => Buffer.concat([open(s, paths.write), windowUpdate(s, 2 ** 31 - 1)]),
    ],
    [
      'a priority of four bytes',
      frameSizeError,
      (s) => Buffer.concat([open(s, paths.write), frame(2, 0, s, Buffer.alloc(4))]),
    ],
  ];
  for (const [what, code, bytes] of others) {
    id += 2;
    peer.send(bytes(id));
    assert.equal(await peer.reset(id), code, what);
  }
  await isServed(peer, id + 2);
});

test('what looks odd and is right', async (t) => {
  const { address } = await served(t);
  const peer = await Peer.connect(t, address);
  const head = block(requestFields(paths.info, [['te', 'trailers']]));
  const padded = (bytes: Buffer): Buffer => Buffer.concat([Buffer.of(7), bytes, Buffer.alloc(7)]);
  const priority = Buffer.concat([uint32(0), Buffer.of(9)]);
  const whole = message(body);
  peer.send(
    // Priorities and unknown frames, of any stream; unknown settings; resets and windows of streams that are over.
    frame(2, 0, 99, priority),
    frame(200, 255, 5, Buffer.alloc(30)),
    settings([99, 1], [Setting.maxHeaderListSize, 1], [Setting.enablePush, 1]),
    // Headers in three parts, padded and with a priority, one part empty; then padded data, and empty ones.
    frame(1, 0x28, 1, padded(Buffer.concat([priority, head.subarray(0, 10)]))),
    frame(9, 0, 1),
    frame(9, Flag.endHeaders, 1, head.subarray(10)),
    frame(0, 8, 1, padded(whole.subarray(0, 3))),
    frame(0, 0, 1),
    frame(0, 8, 1, padded(Buffer.alloc(0))),
    data(1, whole.subarray(3)),
    // The end as trailers.
    frame(1, 5, 1, block([['x-last', 'y']])),
  );
  assert.equal((await peer.response(1)).status, '0');
  peer.send(windowUpdate(1, 1), frame(3, 0, 1, uint32(8)), frame(2, 0, 1, priority));
  await isServed(peer, 101);
  // A window of the stream that is open by settings; the highest id there is.
  await isServed(peer, 2 ** 31 - 1);
  assert.equal(await peer.ping(), true);
  assert.equal(peer.frames.filter((f) => f.type === FrameType.settings && f.flags & Flag.ack).length, 2);
});

test('bytes one at a time, and everything at once', async (t) => {
  const { address } = await served(t);
  const bytes = Buffer.concat([PREFACE, settings(), ...[1, 3, 5].map(call)]);
  for (const size of [1, 2, 7, 9, 10, bytes.length]) {
    const peer = await Peer.connect(t, address, bytes.subarray(0, size));
    for (let at = size; at < bytes.length; at += size) {
      await new Promise((done) => setImmediate(done));
      peer.send(bytes.subarray(at, at + size));
    }
    for (const id of [1, 3, 5]) assert.equal((await peer.response(id)).status, '0');
  }
});

test('calls over the limit are refused, and are served when others have ended', async (t) => {
  const { address } = await served(t, {}, { streamsPerConnection: 2 });
  const peer = await Peer.connect(t, address);
  peer.send(open(1, paths.write), open(3, paths.write), call(5));
  assert.equal(await peer.reset(5), ErrorCode.refusedStream);
  peer.send(data(1, Buffer.alloc(0), true));
  assert.equal((await peer.response(1)).status, '0');
  await isServed(peer, 7);
});

test('a table of another size is obeyed: fields are written out again', async (t) => {
  const { address } = await served(t);
  const peer = await Peer.connect(t, address);
  const sizes: number[] = [];
  const ask = async (id: number): Promise<void> => {
    peer.send(call(id));
    const found = await peer.next((f) => f.type === FrameType.headers && f.id === id);
    sizes.push(found!.payload.length);
    assert.equal(found!.fields!['content-type'], 'application/grpc');
    await peer.response(id);
  };
  await ask(1);
  await ask(3);
  peer.send(settings([Setting.headerTableSize, 0]));
  await ask(5);
  await ask(7);
  // Taught; known; the new size and written out; written out.
  const [taught, known, first, later] = sizes as [number, number, number, number];
  assert.deepEqual([known, first - later], [2, 1]);
  assert.equal(taught > 15 && later > 15, true);
});

test('after a goaway of the client open calls end, then the connection', async (t: TestContext) => {
  const { address } = await served(t);
  const peer = await Peer.connect(t, address);
  peer.send(open(1, paths.write), frame(7, 0, 0, Buffer.alloc(8)));
  assert.equal(await peer.goAway(), ErrorCode.noError);
  peer.send(call(3));
  assert.equal(await peer.reset(3), ErrorCode.refusedStream);
  peer.send(data(1, Buffer.alloc(0), true));
  assert.equal((await peer.response(1)).status, '0');
  await peer.ended();
});
