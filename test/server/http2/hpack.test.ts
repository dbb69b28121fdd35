import assert from 'node:assert/strict';
import { connect as connectHttp2 } from 'node:http2';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConnectionError, ErrorCode, Flag, FrameType } from '../../../src/server/http2/constants.js';
import { FrameReader } from '../../../src/server/http2/frame-reader.js';
import { HeaderDecoder } from '../../../src/server/http2/header-decoder.js';
import { HeaderEncoder, knownField, literalField } from '../../../src/server/http2/header-encoder.js';
import { settings } from './peer.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const list = (decoder: HeaderDecoder, block: Buffer): string[] =>
  decoder.decode(block).fields.map(({ name, value }) => `${name}: ${value}`);
const fresh = (): HeaderDecoder => new HeaderDecoder(64 * 1024);

const damaged = (block: Buffer, decoder = fresh()): void => {
  assert.throws(
    () => decoder.decode(block),
    (error: unknown) => error instanceof ConnectionError && error.code === ErrorCode.compressionError,
  );
};

test('fields and integers of RFC 7541, C.1 and C.2', () => {
  const decoder = fresh();
  assert.deepEqual(list(decoder, hex('400a637573746f6d2d6b65790d637573746f6d2d686561646572')), [
    'custom-key: custom-header',
  ]);
  assert.deepEqual(list(decoder, hex('be')), ['custom-key: custom-header']);
  assert.deepEqual(list(decoder, hex('040c2f73616d706c652f70617468')), [':path: /sample/path']);
  assert.deepEqual(list(decoder, hex('100870617373776f726406736563726574')), ['password: secret']);
  assert.deepEqual(list(decoder, hex('82')), [':method: GET']);
  // 10 and 1337 after five bits; the second as a size of the table, which may be followed by another.
  assert.deepEqual(list(decoder, hex('2a 3f9a0a 82')), [':method: GET']);
  // The sizes have emptied the table.
  damaged(hex('be'), decoder);
});

test('requests of RFC 7541, C.3 and C.4: one table over three blocks, without and with Huffman', () => {
  const blocks = {
    plain: [
      '828684410f7777772e6578616d706c652e636f6d',
      '828684be58086e6f2d6361636865',
      '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565',
    ],
    huffman: [
      '828684418cf1e3c2e5f23a6ba0ab90f4ff',
      '828684be5886a8eb10649cbf',
      '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
    ],
  };
  for (const [first, second, third] of [blocks.plain, blocks.huffman]) {
    const decoder = fresh();
    const common = [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'];
    assert.deepEqual(list(decoder, hex(first!)), common);
    assert.deepEqual(list(decoder, hex(second!)), [...common, 'cache-control: no-cache']);
    assert.deepEqual(list(decoder, hex(third!)), [
      ':method: GET',
      ':scheme: https',
      ':path: /index.html',
      ':authority: www.example.com',
      'custom-key: custom-value',
    ]);
  }
});

test('responses of RFC 7541, C.5 and C.6: a table of 256 bytes whose fields are evicted', () => {
  const blocks = {
    plain: [
      `4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a
       2f2f7777772e6578616d706c652e636f6d`,
      '4803333037c1c0bf',
      `88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b4851
       4b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31`,
    ],
    huffman: [
      '488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3',
      '4883640effc1c0bf',
      `88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27
       087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007`,
    ],
  };
  const date = 'date: Mon, 21 Oct 2013 20:13:21 GMT';
  const location = 'location: https://www.example.com';
  for (const [first, second, third] of [blocks.plain, blocks.huffman]) {
    const decoder = fresh();
    // 3fe101: a table of 256 bytes.
    assert.deepEqual(list(decoder, hex(`3fe101${first}`)), [
      ':status: 302',
      'cache-control: private',
      date,
      location,
    ]);
    assert.deepEqual(list(decoder, hex(second!)), [':status: 307', 'cache-control: private', date, location]);
    assert.deepEqual(list(decoder, hex(third!)), [
      ':status: 200',
      'cache-control: private',
      'date: Mon, 21 Oct 2013 20:13:22 GMT',
      location,
      'content-encoding: gzip',
      'set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1',
    ]);
  }
});

test('what breaks the rules of HPACK', () => {
  damaged(hex('80')); // the index 0
  damaged(hex('be')); // nothing is in the table yet
  damaged(hex('ff80808080808080808001')); // an index without end
  damaged(hex('ffffffffff7f')); // a large one
  damaged(hex('ff')); // a number that is cut off
  damaged(hex('400a6375')); // a string that is cut off
  damaged(hex('40')); // no name
  damaged(hex('3fe21f')); // a table of 4097 bytes
  damaged(hex('8220')); // a size after a field
  damaged(hex('0084ffffffff 0161')); // a string that contains its own end
  damaged(hex('008118 0161')); // padding of zeros: 00011 is "a", then 000
  damaged(hex('00821fff 0161')); // eleven bits of padding
  assert.deepEqual(list(fresh(), hex('00811f 0162')), ['a: b']);
});

test('the longest words of the Huffman code', () => {
  const value = (block: string): string | undefined => fresh().decode(hex(block)).fields[0]?.value;
  // Byte 0 is 1ff8 in 13 bits, byte 255 is 3ffffee in 26; both are filled up with ones.
  assert.equal(value('0081 1f 82 ffc7'), '\0');
  assert.equal(value('0081 1f 84 fffffbbf'), '\xff');
});

test('what a real client encodes comes out as it went in', async (t) => {
  const chunks: Buffer[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.write(settings());
  });
  await new Promise<void>((done) => server.listen(join(tmpdir(), `ebbtide-hpack-${process.pid}`), done));
  t.after(() => server.close());
  const session = connectHttp2('http://localhost', {
    createConnection: () => connect(server.address() as string),
  });
  session.on('error', () => undefined);
  t.after(() => session.destroy());
  // Every byte that may stand in a value, alone and in texts of many; each call three times, so that tables are used.
  const bytes = Array.from({ length: 256 }, (_, i) => i).filter((i) => i > 32 && i !== 127);
  const texts = [
    ...bytes.map((byte) => String.fromCharCode(byte)),
    String.fromCharCode(...bytes),
    'a'.repeat(3000),
    '~'.repeat(3000),
  ];
  const values = texts.flatMap((text) => [text, text, text]);
  for (const value of values) {
    const stream = session.request({ ':path': '/x', 'x-value': value, [`x-${value.length}`]: 'again' });
    stream.on('error', () => undefined);
  }
  const found: string[] = [];
  const decoder = fresh();
  const blocks: Buffer[] = [];
  const reader = new FrameReader({
    frame: (type, flags, _id, payload) => {
      if (type !== FrameType.headers && type !== FrameType.continuation) return;
      // Node's client puts a priority before its headers.
      blocks.push(flags & Flag.priority && type === FrameType.headers ? payload.subarray(5) : payload);
      if ((flags & Flag.endHeaders) === 0) return;
      const { fields } = decoder.decode(Buffer.concat(blocks.splice(0)));
      found.push(fields.find(({ name }) => name === 'x-value')!.value);
    },
    dataBegins: () => undefined,
    dataChunk: () => undefined,
    dataEnds: () => undefined,
    enough: () => false,
  });
  while (found.length < values.length) {
    for (const chunk of chunks.splice(0)) reader.push(chunk);
    await new Promise((done) => setTimeout(done, 2));
  }
  assert.deepEqual(found, values);
});

test('a field larger than the table empties it, and fields of a list over the limit are left out', () => {
  const decoder = new HeaderDecoder(5000);
  list(decoder, hex('400161 0162'));
  assert.deepEqual(list(decoder, hex('be')), ['a: b']);
  const long = 'x'.repeat(4100);
  const taught = Buffer.concat([Buffer.of(0x40), literalField('n', long).subarray(1)]);
  assert.deepEqual(list(decoder, taught), [`n: ${long}`]);
  damaged(hex('be'), decoder);

  const bomb = new HeaderDecoder(5000);
  const value = 'y'.repeat(4000);
  bomb.decode(Buffer.concat([Buffer.of(0x40), literalField('n', value).subarray(1)]));
  const { fields, tooLarge } = bomb.decode(Buffer.alloc(10_000, 0xbe));
  assert.deepEqual([fields.length, tooLarge], [1, true]);
  // The table is what it was: later blocks are understood.
  assert.deepEqual(list(bomb, hex('be')), [`n: ${value}`]);
});

test('blocks that change the table are not repeatable, others are', () => {
  const decoder = fresh();
  assert.equal(decoder.decode(hex('400161 0162')).repeatable, false);
  assert.equal(decoder.decode(hex('be82')).repeatable, true);
  assert.equal(decoder.decode(hex('20')).repeatable, false);
});

test('what is encoded here is understood, in any order, and by peers without a table', () => {
  const [one, two] = [knownField('one', '1'), knownField('two', '2')];
  const encoder = new HeaderEncoder();
  const decoder = fresh();
  const orders = [[one], [two, one], [one, two], [two], [literalField('x', 'y'), one]];
  const texts = orders.map((parts) => list(decoder, encoder.encode(parts)).join(', '));
  assert.deepEqual(texts, ['one: 1', 'two: 2, one: 1', 'one: 1, two: 2', 'two: 2', 'x: y, one: 1']);
  assert.equal(encoder.encode([one, two]).length, 2);
  encoder.limitTable(100);
  const block = encoder.encode([one, two]);
  assert.equal(block[0], 0x20);
  assert.deepEqual(list(decoder, block), ['one: 1', 'two: 2']);
  assert.deepEqual(list(decoder, encoder.encode([one])), ['one: 1']);
  // Nothing is left in the peer's table.
  damaged(hex('be'), decoder);
});
