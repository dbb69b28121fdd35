/** Contents of blobs are written from where they were read into: no client may ever see what comes there later. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../../src/model/digest.js';
import type { Call } from '../../../src/server/call.js';
import { Flag, FrameType, PREFACE, Setting } from '../../../src/server/http2/constants.js';
import type { OpenReaders } from '../../../src/server/open-readers.js';
import { readContent } from '../../../src/server/services/content-read.js';
import { world } from '../world.js';
import { frame, Peer, request, settings, uint32, windowUpdate } from './peer.js';
import { paths, readRequest } from './served.js';

const MiB = 2 ** 20;
const CLIENTS = 6;

test('a read that was given up with its bytes half sent shows its own blob only', async (t) => {
  const { client, daemon } = await world(t);
  const blobs = ['a', 'b'].map((letter) => Buffer.alloc(4 * MiB, letter));
  const [a, b] = blobs.map((blob) => digestOf(blob)) as [string, string];
  await client.ingest('a', blobs[0]!, a);
  await client.ingest('b', blobs[1]!, b);
  const windows = Buffer.concat([
    PREFACE,
    settings([Setting.initialWindowSize, 2 ** 30]),
    windowUpdate(0, 2 ** 30),
  ]);
  const namespace = [['containerd-namespace', 'test']] as const;
  const deaf: Peer[] = [];
  for (let i = 0; i < CLIENTS; i++) {
    const peer = await Peer.connect(t, daemon.address, windows);
    await peer.ping();
    peer.socket.pause();
    peer.send(request(1, paths.read, readRequest(a, 0), namespace));
    deaf.push(peer);
  }
  // A read of the other blob, so that all of those have begun; then they are given up, and it is read again and again.
  assert.deepEqual(await client.read(b), blobs[1]);
  for (const peer of deaf) peer.send(frame(FrameType.reset, 0, 1, uint32(8)));
  for (let i = 0; i < 2 * CLIENTS; i++) assert.deepEqual(await client.read(b), blobs[1]);
  for (const peer of deaf) {
    peer.socket.resume();
    assert.equal(await peer.ping(), true);
    const seen = peer.frames.filter(({ type }) => type === FrameType.data);
    assert.equal(seen.length > 0, true);
    // The first frame begins with the message's own few bytes.
    const bytes = Buffer.concat(seen.map(({ payload }) => payload)).subarray(64);
    assert.equal(bytes.includes('b'), false);
    assert.equal(
      peer.frames.some(({ flags, type }) => type === FrameType.headers && flags & Flag.endStream),
      false,
    );
  }
});

/** What a reader gives at a time. */
const READER_BYTES = 10_000;

/** A reader of one letter, and what a client that reads nothing was sent. */
function unread(blob: Buffer): { read(size: number): Promise<Buffer[]> } {
  const readers = {
    use: (_: unknown, __: string, fn: (reader: unknown) => Promise<void>) =>
      fn({
        size: blob.length,
        read: async (into: Uint8Array, at: number) =>
          blob.copy(into, 0, at, at + Math.min(into.length, READER_BYTES)),
      }),
  };
  return {
    async read(size) {
      const sent: Buffer[] = [];
      const send = (message: Buffer): Promise<void> => {
        sent.push(message);
        return new Promise(() => undefined);
      };
      const ended = readContent(
        readers as unknown as OpenReaders,
        { digest: digestOf(blob), offset: 0, size },
        { context: {} } as Call,
        send,
      ).then(() => true);
      const pending = new Promise((resolve) => setImmediate(resolve, false));
      assert.equal(await Promise.race([ended, pending]), size <= MiB);
      return sent;
    },
  };
}

test('given a client that reads nothing, when it asks for pieces, then each call ends with its message, in a buffer that no other gets', async () => {
  const blobs = ['a', 'b', 'c'].map((letter) => unread(Buffer.alloc(3 * MiB, letter)));
  for (const size of [1, 20_000, 32_768, 32_769, MiB / 2 + 1, MiB, MiB + 1]) {
    const sent: Buffer[] = [];
    for (const blob of blobs) sent.push((await blob.read(size))[0]!);
    const count = size > MiB ? READER_BYTES : size;
    for (const [n, letter] of ['a', 'b', 'c'].entries()) {
      assert.equal(sent[n]!.subarray(-count).equals(Buffer.alloc(count, letter)), true, `${size} bytes`);
    }
  }
});
