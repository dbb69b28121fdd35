/** Contents of blobs are written from where they were read into: no client may ever see what comes there later. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../../src/model/digest.js';
import { Flag, FrameType, PREFACE, Setting } from '../../../src/server/http2/constants.js';
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
