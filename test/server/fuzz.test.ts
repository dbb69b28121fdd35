/** Nonsense on the socket, by a seed: frames of every kind, and calls of every method with bodies that are none. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { methodsOf } from '../../src/server/schema.js';
import { Random } from '../support/random.js';
import { services } from './client.js';
import { world } from './world.js';

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const paths = Object.values(services).flatMap((name) =>
  [...methodsOf(name).values()].map(({ path }) => path),
);
const SEED = Number(process.env.EBBTIDE_SEED ?? 1);
const ROUNDS = Number(process.env.EBBTIDE_FUZZ_ROUNDS ?? 60);

function bytes(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => random.int(256)));
}

/** Frames whose types, flags, streams and contents fit nothing. */
async function frames(random: Random, address: string): Promise<void> {
  const socket = connect(address);
  socket.on('error', () => undefined);
  socket.resume();
  socket.write(Buffer.concat([Buffer.from(PREFACE), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]));
  for (let i = random.int(8); i >= 0; i--) {
    const content = bytes(random, random.int(120));
    const head = Buffer.alloc(9);
    head.writeUIntBE(content.length, 0, 3);
    head[3] = random.int(12);
    head[4] = random.int(256);
    head.writeUInt32BE(random.int(10), 5);
    socket.write(Buffer.concat([head, content]));
  }
  await sleep(random.int(4));
  socket.destroy();
}

const oddHeaders: readonly Record<string, string>[] = [
  { 'grpc-timeout': '1n' },
  { 'grpc-timeout': 'soon' },
  { 'grpc-timeout': '99999999S' },
  { 'grpc-encoding': 'gzip' },
  { 'grpc-encoding': 'nosuch' },
  { 'containerd-lease': 'x' },
  { 'grpc-trace-bin': '!! no base64 !!' },
  { 'content-type': 'application/json' },
];

/** Calls with damaged messages, that end, are reset, or are left open. */
async function calls(random: Random, address: string): Promise<void> {
  const session = connectHttp2('http://localhost', { createConnection: () => connect(address) });
  session.on('error', () => undefined);
  await Promise.race([once(session, 'connect'), sleep(500)]);
  for (let i = 0; i < 20 && !session.closed && !session.destroyed; i++) call(random, session);
  await sleep(random.int(10));
  session.destroy();
}

function call(random: Random, session: ClientHttp2Session): void {
  const stream = session.request({
    ':method': random.int(10) === 0 ? 'GET' : 'POST',
    ':path': random.pick(paths),
    'content-type': 'application/grpc',
    'containerd-namespace': random.int(3) === 0 ? String(random.int(1000)) : 'fuzz',
    te: 'trailers',
    ...(random.int(3) === 0 && random.pick(oddHeaders)),
  });
  stream.on('error', () => undefined);
  stream.resume();
  const body = bytes(random, random.int(60));
  const frame = Buffer.alloc(5 + body.length);
  frame[0] = random.int(8) === 0 ? 1 : 0;
  frame.writeUInt32BE(random.int(6) === 0 ? random.int(2 ** 31) : body.length, 1);
  body.copy(frame, 5);
  if (!stream.destroyed && !stream.writableEnded) stream.write(frame);
  const end = random.int(4);
  if (end === 0) stream.end();
  else if (end === 1) stream.close(random.int(14));
  else if (end === 2) setTimeout(() => stream.close(8), random.int(5));
}

test(`nonsense of seed ${SEED} hurts no other client and leaves nothing open`, async (t) => {
  const { client, daemon } = await world(t, { limits: { keepaliveMs: 1000 }, transfer: true });
  const random = new Random(SEED);
  for (let round = 0; round < ROUNDS; round++) {
    await (random.int(3) === 0 ? frames(random, daemon.address) : calls(random, daemon.address));
    assert.deepEqual((await client.call('images', 'List')).images, [], `round ${round}`);
  }
  const connections = async (): Promise<number> =>
    JSON.parse((await client.call('ebbtide', 'Stats')).json).connections;
  for (let i = 0; i < 1000 && (await connections()) > 1; i++) await sleep(10);
  assert.equal(await connections(), 1);
});
