/** What arrives is read into a buffer that all connections share: nothing of it may be needed after the call that hands it on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Account, Ledger } from '../../../src/server/connections/ledger.js';
import { type IncomingMessage, MessageReader } from '../../../src/server/grpc/message-reader.js';
import { Flag, FRAME_HEAD_BYTES, FrameType, PREFACE } from '../../../src/server/http2/constants.js';
import { FrameReader } from '../../../src/server/http2/frame-reader.js';
import { Random } from '../../support/random.js';

const MESSAGE_BYTES_MAX = 16 * 2 ** 20;

const account = (): { memory: Account; ledger: Ledger } => {
  const ledger = new Ledger(2 ** 28);
  return { ledger, memory: ledger.open(0, { moved: () => false, end: () => undefined }) };
};

function frame(type: number, flags: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(FRAME_HEAD_BYTES);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(1, 5);
  return Buffer.concat([head, payload]);
}

test('frames and messages are whole although the buffer they arrive in is used again', () => {
  const random = new Random(1);
  const upTo = (most: number): number => random.int(most);
  const sizes = [0, 1, 5, 100, 5000, 9000, 70_000, 2 ** 20 + 60, 2 * 2 ** 20, 5 * 2 ** 20 + 1];
  const messages = [...sizes, ...sizes.slice(0, 6), ...sizes].map((size) => {
    const bytes = Buffer.alloc(size);
    for (let at = 0; at < size; at += 1 + upTo(700)) bytes[at] = upTo(256);
    return bytes;
  });
  const content = Buffer.concat(
    messages.flatMap((bytes) => {
      const prefix = Buffer.alloc(5);
      prefix.writeUInt32BE(bytes.length, 1);
      return [prefix, bytes];
    }),
  );
  const headers = Buffer.from('not data, passed on complete'.repeat(40));
  const frames: Buffer[] = [PREFACE];
  for (let at = 0; at < content.length; ) {
    const end = Math.min(content.length, at + 1 + upTo(16_384));
    frames.push(frame(FrameType.data, 0, content.subarray(at, end)));
    if (upTo(4) === 0) frames.push(frame(FrameType.headers, Flag.endHeaders, headers));
    at = end;
  }
  const arriving = Buffer.concat(frames);

  const { memory, ledger } = account();
  const reader = new MessageReader(MESSAGE_BYTES_MAX, memory);
  const found: IncomingMessage[] = [];
  let others = 0;
  const splitter = new FrameReader({
    frame: (_type, _flags, _id, payload) => {
      others++;
      assert.deepEqual(payload, headers);
    },
    dataBegins: () => undefined,
    dataChunk: (chunk) => void reader.push(chunk, found),
    dataEnds: () => undefined,
    enough: () => false,
  });
  const shared = Buffer.alloc(64 * 1024);
  for (let at = 0; at < arriving.length; ) {
    const count = Math.min(arriving.length - at, 1 + upTo(upTo(3) === 0 ? 20 : shared.length));
    arriving.copy(shared, 0, at, at + count);
    splitter.push(shared.subarray(0, count));
    shared.fill(0xee);
    at += count;
  }
  assert.ok(others > 0);
  assert.equal(found.length, messages.length);
  for (const [i, { bytes }] of found.entries()) assert.ok(bytes.equals(messages[i]!), `message ${i}`);
  assert.equal(reader.partial, false);
  for (const { taken } of found) memory.give(taken);
  assert.equal(ledger.bytes, 0);
});

test('a message takes no more memory than it has bytes, and none when it is dropped', () => {
  const { memory, ledger } = account();
  const reader = new MessageReader(MESSAGE_BYTES_MAX, memory);
  const begin = (bytes: number): void => {
    const chunk = Buffer.alloc(100);
    chunk.writeUInt32BE(bytes, 1);
    reader.push(chunk, []);
  };
  begin(100_000);
  assert.equal(ledger.bytes, 100_000);
  reader.clear();
  // What is announced costs nobody more than 2 MiB.
  begin(MESSAGE_BYTES_MAX);
  assert.equal(ledger.bytes, 2 * 2 ** 20);
  reader.clear();
  assert.equal(ledger.bytes, 0);
});
