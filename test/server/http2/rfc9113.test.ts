/**
 * What RFC 9113 says a server must do, section by section, and RFC 7541 where it ends a connection: each rule at the
 * start of a connection, in the middle of a call, and after the end of one. A client that keeps the rules is served
 * beside each of them.
 */
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
import { hang, infoRequest, paths, served } from './served.js';

const { protocolError, frameSizeError, flowControlError, streamClosed, compressionError } = ErrorCode;

/** Streams of the moment: one whose request is under way, one that is over, one that never was, and the next. */
interface Ids {
  open: number | undefined;
  closed: number | undefined;
  next: number;
}
/** connection: GOAWAY with the code; stream: RST_STREAM of it; ignored: the connection goes on as if nothing had been. */
type Outcome = { connection: number } | { stream: number; id: (ids: Ids) => number } | 'ignored';
type Rule = readonly [section: string, what: string, bytes: (ids: Ids) => Buffer | undefined, Outcome];

const ends = (code: number): Outcome => ({ connection: code });
const resets = (code: number, id: (ids: Ids) => number): Outcome => ({ stream: code, id });
const next = ({ next: id }: Ids): number => id;
const opened = ({ open: id }: Ids): number => id!;
const onOpen =
  (make: (id: number) => Buffer) =>
  ({ open: id }: Ids): Buffer | undefined =>
    id === undefined ? undefined : make(id);
const onClosed =
  (make: (id: number) => Buffer) =>
  ({ closed: id }: Ids): Buffer | undefined =>
    id === undefined ? undefined : make(id);
const always = (bytes: Buffer) => (): Buffer => bytes;

const head = block(requestFields(paths.info));
const headersOf = (id: number, fields: Fields, flags: number = Flag.endHeaders | Flag.endStream): Buffer =>
  frame(FrameType.headers, flags, id, block(fields));
const without = (name: string): Fields => requestFields(paths.info).filter(([key]) => key !== name);
const withMore = (...more: Fields): Fields => requestFields(paths.info, more);
const malformed = (section: string, what: string, fields: Fields): Rule => [
  section,
  what,
  ({ next: id }) => headersOf(id, fields),
  resets(protocolError, next),
];
const hpack = (section: string, what: string, hex: string): Rule => [
  section,
  what,
  ({ next: id }) => frame(FrameType.headers, 5, id, Buffer.from(hex, 'hex')),
  ends(compressionError),
];
const one = Buffer.of(1);
const eight = Buffer.alloc(8);

const rules: readonly Rule[] = [
  ['4.1', 'a type that is not known', always(frame(0xbe, 0xff, 0, eight)), 'ignored'],
  ['4.1', 'a flag that is not known', always(frame(FrameType.ping, 0xfe, 0, eight)), 'ignored'],
  ['4.1', 'the reserved bit', always(frame(FrameType.ping, 0, 0x8000_0000, eight)), 'ignored'],
  [
    '4.2',
    'a frame over the limit',
    always(frame(FrameType.ping, 0, 0, Buffer.alloc(16_385))),
    ends(frameSizeError),
  ],
  [
    '4.2',
    'headers over the limit',
    ({ next: id }) => frame(1, 4, id, Buffer.alloc(16_385)),
    ends(frameSizeError),
  ],
  [
    '4.3',
    'a block that is not HPACK',
    ({ next: id }) => frame(1, 5, id, Buffer.of(0xff, 0xff, 0xff)),
    ends(compressionError),
  ],
  [
    '4.3',
    'a frame inside a block',
    ({ next: id }) => Buffer.concat([frame(1, 0, id, head), frame(6, 0, 0, eight)]),
    ends(protocolError),
  ],
  [
    '4.3',
    'an unknown frame inside a block',
    ({ next: id }) => Buffer.concat([frame(1, 0, id, head), frame(0xbe, 0, id)]),
    ends(protocolError),
  ],
  ['5.1', 'idle: data', ({ next: id }) => data(id, one), ends(protocolError)],
  ['5.1', 'idle: a window update', ({ next: id }) => windowUpdate(id, 1), ends(protocolError)],
  ['5.1', 'idle: a reset', ({ next: id }) => frame(3, 0, id, uint32(8)), ends(protocolError)],
  ['5.1', 'idle: a priority', ({ next: id }) => frame(2, 0, id, Buffer.alloc(5)), 'ignored'],
  [
    '5.1',
    'half-closed: data',
    onOpen((id) => Buffer.concat([data(id, Buffer.alloc(0), true), data(id, one)])),
    resets(streamClosed, opened),
  ],
  [
    '5.1',
    'half-closed: headers',
    onOpen((id) => Buffer.concat([data(id, Buffer.alloc(0), true), headersOf(id, [['x', 'y']])])),
    resets(streamClosed, opened),
  ],
  [
    '5.1',
    'half-closed: a window update',
    onOpen((id) => Buffer.concat([data(id, Buffer.alloc(0), true), windowUpdate(id, 1)])),
    'ignored',
  ],
  ['5.1', 'closed: data', onClosed((id) => data(id, one)), resets(streamClosed, ({ closed }) => closed!)],
  ['5.1', 'closed: headers', onClosed((id) => headersOf(id, requestFields(paths.info))), ends(streamClosed)],
  ['5.1', 'closed: a window update', onClosed((id) => windowUpdate(id, 1)), 'ignored'],
  ['5.1', 'closed: a reset', onClosed((id) => frame(3, 0, id, uint32(8))), 'ignored'],
  ['5.1', 'closed: a priority', onClosed((id) => frame(2, 0, id, Buffer.alloc(5))), 'ignored'],
  [
    '5.1',
    'data after a reset of the client',
    onOpen((id) => Buffer.concat([frame(3, 0, id, uint32(8)), data(id, one)])),
    resets(streamClosed, opened),
  ],
  [
    '5.1.1',
    'a stream of the server',
    ({ next: id }) => headersOf(id + 1, requestFields(paths.info)),
    ends(protocolError),
  ],
  [
    '5.1.1',
    'a stream that was passed over',
    ({ next: id }) =>
      Buffer.concat([
        headersOf(id + 4, requestFields(paths.info)),
        headersOf(id + 2, requestFields(paths.info)),
      ]),
    ends(protocolError),
  ],
  ['6.1', 'data on the connection', always(data(0, one)), ends(protocolError)],
  [
    '6.1',
    'padding as long as the frame',
    onOpen((id) => frame(0, 8, id, Buffer.of(2, 0))),
    ends(protocolError),
  ],
  ['6.1', 'no length of the padding', onOpen((id) => frame(0, 8, id)), ends(frameSizeError)],
  ['6.2', 'headers on the connection', always(frame(1, 5, 0, head)), ends(protocolError)],
  [
    '6.2',
    'padding beyond headers',
    ({ next: id }) => frame(1, 0xd, id, Buffer.of(200, 1)),
    ends(protocolError),
  ],
  [
    '6.2',
    'no room for the priority',
    ({ next: id }) => frame(1, 0x25, id, Buffer.alloc(3)),
    ends(frameSizeError),
  ],
  ['6.3', 'a priority of the connection', always(frame(2, 0, 0, Buffer.alloc(5))), ends(protocolError)],
  [
    '6.3',
    'a priority of four bytes',
    onOpen((id) => frame(2, 0, id, Buffer.alloc(4))),
    resets(frameSizeError, opened),
  ],
  ['6.4', 'a reset of the connection', always(frame(3, 0, 0, uint32(8))), ends(protocolError)],
  ['6.4', 'a reset of three bytes', onOpen((id) => frame(3, 0, id, Buffer.alloc(3))), ends(frameSizeError)],
  [
    '6.5',
    'an acknowledgement with content',
    always(frame(4, Flag.ack, 0, Buffer.alloc(6))),
    ends(frameSizeError),
  ],
  ['6.5', 'settings of a stream', always(frame(4, 0, 1)), ends(protocolError)],
  ['6.5', 'settings of five bytes', always(frame(4, 0, 0, Buffer.alloc(5))), ends(frameSizeError)],
  ['6.5.2', 'push neither on nor off', always(settings([Setting.enablePush, 2])), ends(protocolError)],
  [
    '6.5.2',
    'a first window over 2 GiB',
    always(settings([Setting.initialWindowSize, 2 ** 31])),
    ends(flowControlError),
  ],
  ['6.5.2', 'frames below 16 KiB', always(settings([Setting.maxFrameSize, 16_383])), ends(protocolError)],
  ['6.5.2', 'frames over 16 MiB', always(settings([Setting.maxFrameSize, 2 ** 24])), ends(protocolError)],
  ['6.5.2', 'a setting that is not known', always(settings([0xbeef, 7])), 'ignored'],
  ['6.6', 'a push', ({ next: id }) => frame(5, 4, id, Buffer.concat([uint32(2), head])), ends(protocolError)],
  ['6.7', 'a ping of a stream', always(frame(6, 0, 1, eight)), ends(protocolError)],
  ['6.7', 'a ping of six bytes', always(frame(6, 0, 0, Buffer.alloc(6))), ends(frameSizeError)],
  ['6.7', 'an acknowledgement of no ping', always(frame(6, Flag.ack, 0, Buffer.from('nobody..'))), 'ignored'],
  ['6.8', 'a goaway of a stream', always(frame(7, 0, 1, eight)), ends(protocolError)],
  ['6.9', 'a window update of 0 for the connection', always(windowUpdate(0, 0)), ends(protocolError)],
  ['6.9', 'a window update of 0', onOpen((id) => windowUpdate(id, 0)), resets(protocolError, opened)],
  ['6.9', 'a window update of three bytes', always(frame(8, 0, 0, Buffer.alloc(3))), ends(frameSizeError)],
  [
    '6.9.1',
    'a window of the connection over 2 GiB',
    always(windowUpdate(0, 2 ** 31 - 1)),
    ends(flowControlError),
  ],
  [
    '6.9.1',
    'a window over 2 GiB',
    onOpen((id) => windowUpdate(id, 2 ** 31 - 1)),
    resets(flowControlError, opened),
  ],
  [
    '6.9.2',
    'settings that make a window larger than 2 GiB',
    onOpen((id) => Buffer.concat([windowUpdate(id, 2 ** 31 - 1 - 65_535), settings([4, 65_536])])),
    ends(flowControlError),
  ],
  ['6.10', 'a continuation without headers', ({ next: id }) => frame(9, 4, id, head), ends(protocolError)],
  [
    '6.10',
    'a continuation after the end of a block',
    ({ next: id }) => Buffer.concat([frame(1, 4, id, head), frame(9, 4, id, head)]),
    ends(protocolError),
  ],
  [
    '6.10',
    'a continuation of another stream',
    ({ next: id }) => Buffer.concat([frame(1, 0, id, head), frame(9, 4, id + 2)]),
    ends(protocolError),
  ],
  [
    '6.10',
    'a continuation on the connection',
    ({ next: id }) => Buffer.concat([frame(1, 0, id, head), frame(9, 4, 0)]),
    ends(protocolError),
  ],
  [
    '8.1',
    'trailers that do not end',
    onOpen((id) => headersOf(id, [['x', 'y']], Flag.endHeaders)),
    resets(protocolError, opened),
  ],
  [
    '8.1',
    'trailers with a pseudo-header',
    onOpen((id) => headersOf(id, [[':path', '/']])),
    resets(protocolError, opened),
  ],
  [
    '8.1.1',
    'more than announced',
    ({ next: id }) =>
      Buffer.concat([open(id, paths.write, [['content-length', '3']]), data(id, Buffer.alloc(4))]),
    resets(protocolError, next),
  ],
  [
    '8.1.1',
    'less than announced',
    ({ next: id }) =>
      Buffer.concat([open(id, paths.write, [['content-length', '9']]), data(id, Buffer.alloc(4), true)]),
    resets(protocolError, next),
  ],
  [
    '8.1.1',
    'less than announced, and trailers',
    ({ next: id }) =>
      Buffer.concat([open(id, paths.write, [['content-length', '9']]), headersOf(id, [['x', 'y']])]),
    resets(protocolError, next),
  ],
  malformed('8.2.1', 'capital letters', withMore(['X-Capital', 'x'])),
  malformed('8.2.1', 'a space in a name', withMore(['a b', 'x'])),
  malformed('8.2.1', 'a colon in a name', withMore(['a:b', 'x'])),
  malformed('8.2.1', 'a line end in a value', withMore(['x', 'a\r\nb: c'])),
  malformed('8.2.1', 'a NUL in a value', withMore(['x', 'a\0b'])),
  malformed('8.2.1', 'a space before a value', withMore(['x', ' a'])),
  malformed('8.2.2', 'connection', withMore(['connection', 'close'])),
  malformed('8.2.2', 'proxy-connection', withMore(['proxy-connection', 'close'])),
  malformed('8.2.2', 'keep-alive', withMore(['keep-alive', '1'])),
  malformed('8.2.2', 'transfer-encoding', withMore(['transfer-encoding', 'chunked'])),
  malformed('8.2.2', 'upgrade', withMore(['upgrade', 'h2c'])),
  malformed('8.2.2', 'te that is not trailers', [...without('te'), ['te', 'gzip']]),
  malformed('8.3', 'a pseudo-header of responses', [[':status', '200'], ...requestFields(paths.info)]),
  malformed('8.3', 'an unknown pseudo-header', [[':magic', 'x'], ...requestFields(paths.info)]),
  malformed('8.3', 'a pseudo-header after others', withMore([':authority', 'x'])),
  malformed('8.3', 'a pseudo-header twice', [[':path', '/x'], ...requestFields(paths.info)]),
  malformed('8.3.1', 'no method', without(':method')),
  malformed('8.3.1', 'no scheme', without(':scheme')),
  malformed('8.3.1', 'no path', without(':path')),
  malformed('8.3.1', 'an empty path', [
    ...without(':path').slice(0, 2),
    [':path', ''],
    ...without(':path').slice(2),
  ]),
  hpack('7541 2.3.3', 'the index 0', '80'),
  hpack('7541 2.3.3', 'an index beyond the table', 'ffff01'),
  hpack('7541 4.2', 'a size of the table after a field', '8220'),
  hpack('7541 5.1', 'a number without end', 'ff80808080808080808001'),
  hpack('7541 5.2', 'a string that is cut off', '400a6375'),
  hpack('7541 5.2', 'the end of string in a string', '0084ffffffff0161'),
  hpack('7541 5.2', 'padding that is not of ones', '0081180161'),
  hpack('7541 5.2', 'padding of more than seven bits', '00821fff0161'),
  hpack('7541 6.3', 'a table over the limit', '3fe21f'),
];

const moments = ['start', 'middle', 'end'] as const;

/** A connection at a moment: fresh, with half of a request under way, or after a call that has ended. */
async function at(t: TestContext, address: string, moment: (typeof moments)[number]): Promise<[Peer, Ids]> {
  const peer = await Peer.connect(t, address);
  if (moment === 'start') return [peer, { open: undefined, closed: undefined, next: 1 }];
  if (moment === 'middle') {
    peer.send(open(1, paths.write), data(1, message(Buffer.alloc(100)).subarray(0, 20)));
    await peer.ping();
    return [peer, { open: 1, closed: undefined, next: 3 }];
  }
  peer.send(request(1, paths.info, infoRequest('x')));
  assert.equal((await peer.response(1)).status, '0');
  return [peer, { open: undefined, closed: 1, next: 3 }];
}

async function isServed(peer: Peer, id: number, what: string): Promise<void> {
  peer.send(request(id, paths.info, infoRequest('x')));
  assert.equal((await peer.response(id)).status, '0', what);
}

for (const moment of moments) {
  test(`rules at the ${moment} of a call`, async (t) => {
    const { address } = await served(t, { write: hang });
    const other = await Peer.connect(t, address);
    let id = 1;
    for (const [section, rule, make, outcome] of rules) {
      const what = `${section}: ${rule}`;
      const [peer, ids] = await at(t, address, moment);
      const bytes = make(ids);
      if (bytes !== undefined) {
        peer.send(bytes);
        if (outcome === 'ignored') await isServed(peer, ids.next + 100, what);
        else if ('connection' in outcome) {
          assert.equal(await peer.goAway(), outcome.connection, what);
          await peer.ended();
        } else {
          assert.equal(await peer.reset(outcome.id(ids)), outcome.stream, what);
          await isServed(peer, ids.next + 100, what);
        }
      }
      peer.socket.destroy();
      await isServed(other, id, what);
      id += 2;
    }
  });
}

test('3.4: what is not a preface, and no settings after it', async (t) => {
  const { address, reasons } = await served(t);
  const other = await Peer.connect(t, address);
  const openings: [Buffer, number | undefined][] = [
    [Buffer.from('PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n'), undefined],
    [Buffer.from('GET / HTTP/1.1\r\n\r\n'), undefined],
    [Buffer.concat([PREFACE, frame(6, 0, 0, eight)]), protocolError],
    [Buffer.concat([PREFACE, frame(4, Flag.ack, 0)]), protocolError],
  ];
  for (const [i, [bytes, code]] of openings.entries()) {
    const peer = await Peer.connect(t, address, bytes);
    assert.equal(await peer.goAway(), code);
    await peer.ended();
    await isServed(other, 2 * i + 1, String(i));
  }
  assert.equal(reasons.length, openings.length);
});

test('5.1.2 and 6.8: calls over the limit are refused; after a goaway of the client nothing new begins', async (t) => {
  const { address } = await served(t, {}, { streamsPerConnection: 1 });
  const peer = await Peer.connect(t, address);
  peer.send(open(1, paths.write), open(3, paths.write));
  assert.equal(await peer.reset(3), ErrorCode.refusedStream);
  peer.send(frame(7, 0, 0, eight), open(5, paths.write));
  assert.equal(await peer.goAway(), ErrorCode.noError);
  assert.equal(await peer.reset(5), ErrorCode.refusedStream);
});

test('6.5.3 and 6.7: settings and pings are acknowledged, each once, in order', async (t) => {
  const { address } = await served(t);
  const peer = await Peer.connect(t, address);
  const pings = Array.from({ length: 20 }, (_, i) => Buffer.alloc(8, i));
  peer.send(...pings.flatMap((content) => [frame(6, 0, 0, content), settings()]));
  await peer.ping();
  const responses = peer.frames.filter(({ type, flags }) => type === FrameType.ping && flags & Flag.ack);
  assert.deepEqual(
    responses.slice(0, 20).map(({ payload }) => payload),
    pings,
  );
  const acks = peer.frames.filter(({ type, flags }) => type === FrameType.settings && flags & Flag.ack);
  assert.equal(acks.length, 21);
});
