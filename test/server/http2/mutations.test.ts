/**
 * What real clients send, recorded, damaged by a seed and cut anywhere: the server never throws, keeps nothing, and
 * goes on serving. More: `EBBTIDE_SEED=7 EBBTIDE_FUZZ_ROUNDS=5000 node --test dist/test/server/http2/mutations.test.js`
 */
import assert from 'node:assert/strict';
import { connect as connectHttp2 } from 'node:http2';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { tempDir } from '../../support/db.js';
import { Random } from '../../support/random.js';
import { data, message, open, Peer, request } from './peer.js';
import { infoRequest, paths, readRequest, served, writeRequest } from './served.js';

const SEED = Number(process.env.EBBTIDE_SEED ?? 1);
const ROUNDS = Number(process.env.EBBTIDE_FUZZ_ROUNDS ?? 300);
const pass = (bytes: Buffer): Buffer => bytes;

/** Passes a client's connection on to a server, and keeps what the client said. */
async function recorder(t: TestContext, address: string): Promise<{ address: string; records: Buffer[][] }> {
  const records: Buffer[][] = [];
  const sockets: Socket[] = [];
  const server = createServer((client) => {
    const record: Buffer[] = [];
    records.push(record);
    const onward = connect(address);
    client.on('data', (chunk) => record.push(chunk));
    for (const socket of [client, onward]) {
      socket.on('error', () => undefined);
      sockets.push(socket);
    }
    client.pipe(onward).pipe(client);
  });
  const path = join(await tempDir(t, 'ebbtide-recorder-'), 's.sock');
  await new Promise<void>((done) => server.listen(path, done));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { address: path, records };
}

/** Connections of clients that are real ones, with calls of every kind. */
async function recorded(t: TestContext, server: string): Promise<Buffer[]> {
  const { address, records } = await recorder(t, server);
  const grpc = new Client(`unix:${address}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  const headers = new Metadata();
  headers.set('containerd-namespace', 'test');
  for (const digest of ['a', 'b']) {
    await new Promise<void>((done) => {
      grpc.makeUnaryRequest(paths.info, pass, pass, infoRequest(digest), headers, () => done());
    });
  }
  const read = grpc.makeServerStreamRequest(paths.read, pass, pass, readRequest('d', 2000), headers);
  await new Promise((done) => read.on('end', done).on('error', done).resume());
  const write = grpc.makeBidiStreamRequest(paths.write, pass, pass, headers);
  for (let i = 0; i < 3; i++) write.write(writeRequest('r', Buffer.alloc(3000, i)));
  write.end();
  await new Promise((done) => write.on('end', done).on('error', done).resume());
  grpc.close();

  const session = connectHttp2('http://localhost', { createConnection: () => connect(address) });
  for (let i = 0; i < 3; i++) {
    const stream = session.request({
      ':method': 'POST',
      ':path': paths.info,
      'content-type': 'application/grpc',
      'x-long': 'v'.repeat(20_000),
    });
    stream.on('error', () => undefined);
    stream.end(message(infoRequest('c')));
    await new Promise((done) => stream.on('close', done).resume());
  }
  await new Promise<void>((done) => session.close(done));
  return records.map((record) => Buffer.concat(record));
}

function damaged(random: Random, bytes: Buffer): Buffer {
  const out = Buffer.from(bytes);
  const parts: Buffer[] = [];
  // The preface stays, or nothing would be looked at after it.
  for (let i = random.int(6); i > 0; i--) {
    const at = 24 + random.int(out.length - 24);
    const how = random.int(3);
    if (how === 0) out[at] = random.int(256);
    else if (how === 1) out[at] = out[at]! ^ (1 << random.int(8));
    else out.copyWithin(at, 24 + random.int(out.length - 24), 24 + random.int(out.length - 24));
  }
  if (random.int(4) === 0) {
    // A part is lost, or comes twice.
    const [a, b] = [24 + random.int(out.length - 24), 24 + random.int(out.length - 24)];
    parts.push(out.subarray(0, a), out.subarray(b));
  } else parts.push(out);
  const whole = Buffer.concat(parts);
  return random.int(5) === 0 ? whole.subarray(0, 24 + random.int(whole.length - 24)) : whole;
}

async function send(random: Random, address: string, bytes: Buffer): Promise<void> {
  const socket = connect(address);
  socket.on('error', () => undefined);
  socket.resume();
  await new Promise<void>((done) => socket.once('connect', done).once('close', () => done()));
  const size = 2 ** random.int(15);
  for (let at = 0, turns = 0; at < bytes.length && !socket.destroyed; turns++) {
    // A few small pieces, then the rest.
    const end = turns < 60 ? at + 1 + random.int(size) : bytes.length;
    socket.write(bytes.subarray(at, end));
    at = end;
    if (random.int(4) === 0) await new Promise((done) => setImmediate(done));
  }
  if (random.int(2) === 0) socket.end();
  await new Promise((done) => setTimeout(done, random.int(3)));
  socket.destroy();
}

test(`damaged connections of seed ${SEED}: no exception, nothing kept, others served`, async (t) => {
  const { endpoint, address, ends } = await served(t);
  let begun = 0;
  const thrown: unknown[] = [];
  const note = (error: unknown): void => void thrown.push(error);
  process.on('uncaughtException', note).on('unhandledRejection', note);
  t.after(() => process.off('uncaughtException', note).off('unhandledRejection', note));
  const sources = await recorded(t, address);
  assert.equal(sources.length, 2);
  sources.push(
    Buffer.concat([
      sources[0]!.subarray(0, 24),
      Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
      ...[1, 3, 5].map((id) => request(id, paths.info, infoRequest('x'))),
      open(7, paths.write),
      data(7, message(writeRequest('r'))),
    ]),
  );
  const random = new Random(SEED);
  const other = await Peer.connect(t, address);
  for (let round = 0; round < ROUNDS; round++) {
    await send(random, address, damaged(random, random.pick(sources)));
    begun = 2 * round + 1;
    other.send(request(begun, paths.info, infoRequest('x')));
    assert.equal((await other.response(begun)).status, '0', `round ${round}`);
  }
  while (endpoint.connections > 1) await new Promise((done) => setTimeout(done, 5));
  assert.deepEqual(thrown, []);
  // Every call that began has ended, so the server stops without having to give any up.
  other.socket.destroy();
  assert.deepEqual(await endpoint.stop(60_000), { aborted: false });
  assert.equal(ends.length > ROUNDS, true);
});
