import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectHttp2, constants, type Settings } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { digestOf } from '../../src/model/digest.js';
import { services, unreadStream } from './client.js';
import { code, world } from './world.js';

const MiB = 2 ** 20;
const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

async function raw(t: TestContext, address: string): Promise<Socket> {
  const socket = connect(address);
  t.after(() => socket.destroy());
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** Resolves when the other side has closed the connection. */
const closed = (socket: Socket): Promise<unknown> => {
  socket.resume();
  return socket.closed ? Promise.resolve() : once(socket, 'close');
};

test('what is not HTTP/2, or not any more, is closed; every other client is served on', async (t) => {
  const { client, daemon } = await world(t, { limits: { helloMs: 1000 } });
  const openings: (string | Buffer)[] = [
    randomBytes(1000),
    'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]),
    '',
    'PRI * HTT',
    // A client that greets and then talks nonsense.
    `${PREFACE}${'x'.repeat(5000)}`,
    Buffer.concat([
      Buffer.from(PREFACE),
      Buffer.from([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
    ]),
  ];
  for (const opening of openings) {
    const socket = await raw(t, daemon.address);
    if (opening.length > 0) socket.write(opening);
    await closed(socket);
    // And one that goes away without waiting for the response.
    const hasty = await raw(t, daemon.address);
    if (opening.length > 0) hasty.write(opening);
    await new Promise((done) => setTimeout(done, 5));
    hasty.destroy();
    assert.deepEqual((await client.call('images', 'List')).images, []);
  }
  // One that sends a byte at a time is served all the same.
  const slow = await raw(t, daemon.address);
  const greeting = Buffer.concat([Buffer.from(PREFACE), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]);
  for (const byte of greeting) {
    slow.write(Buffer.of(byte));
    await new Promise((done) => setImmediate(done));
  }
  const [settings] = (await once(slow, 'data')) as [Buffer];
  assert.equal(settings[3], 4);
});

test('clients that break the protocol and go away leave no connection', async (t) => {
  const { client, daemon } = await world(t, { limits: { keepaliveMs: 1000 } });
  const connections = async (): Promise<number> =>
    JSON.parse((await client.call('ebbtide', 'Stats')).json).connections;
  const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
  // Priority, reset, settings, push promise, goaway, window update and continuation frames of wrong streams and sizes.
  for (const type of [2, 3, 4, 5, 7, 8, 9]) {
    const socket = await raw(t, daemon.address);
    const head = Buffer.alloc(9);
    head.writeUIntBE(42, 0, 3);
    head[3] = type;
    head.writeUInt32BE(4, 5);
    socket.write(Buffer.concat([Buffer.from(PREFACE), settings, head, Buffer.alloc(42, 7)]));
    await new Promise((done) => setTimeout(done, 20));
    socket.destroy();
  }
  for (let i = 0; i < 1000 && (await connections()) > 1; i++)
    await new Promise((done) => setTimeout(done, 10));
  assert.equal(await connections(), 1);
});

test('a client that opens and cancels calls as fast as it can is served last', async (t) => {
  const { client, daemon } = await world(t);
  const session = connectHttp2('http://localhost', { createConnection: () => connect(daemon.address) });
  session.on('error', () => undefined);
  t.after(() => session.destroy());
  await once(session, 'connect');
  const paths = [
    '/x/y',
    `/${services.images}/List`,
    `/${services.content}/Write`,
    `/${services.content}/List`,
  ];
  for (let round = 0; round < 30 && !session.destroyed; round++) {
    for (let i = 0; i < 100 && !session.closed; i++) {
      const stream = session.request({
        ':method': 'POST',
        ':path': paths[i % paths.length],
        'content-type': i % 10 === 9 ? 'text/plain' : 'application/grpc',
        'containerd-namespace': 'test',
        te: 'trailers',
      });
      stream.on('error', () => undefined);
      stream.close(constants.NGHTTP2_CANCEL);
    }
    assert.deepEqual((await client.call('images', 'List')).images, []);
  }
});

test('when the table of connections is full, idle ones make room: no client is locked out', async (t) => {
  const { client, daemon, connect: another } = await world(t, { limits: { connections: 20 } });
  await client.call('images', 'List');
  const idle = Buffer.concat([Buffer.from(PREFACE), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]);
  const sockets: Socket[] = [];
  for (let i = 0; i < 38; i++) {
    const socket = await raw(t, daemon.address);
    if (i % 2 === 0) socket.write(idle);
    socket.resume();
    sockets.push(socket);
  }
  // Of a client of gRPC, which connects again, nothing is lost.
  for (let i = 0; i < 5; i++) assert.deepEqual((await client.call('images', 'List')).images, []);
  assert.deepEqual((await another('test').call('images', 'List')).images, []);
  const open = (): number => sockets.filter((socket) => !socket.destroyed).length;
  for (let i = 0; i < 1000 && open() > 20; i++) await new Promise((done) => setTimeout(done, 10));
  assert.equal(open() <= 20, true, `${open()} open`);
  const stats = JSON.parse((await client.call('ebbtide', 'Stats')).json);
  assert.equal(stats.connections <= 20, true);
});

test('connections with open calls are not closed for more of the same process', async (t) => {
  const { daemon } = await world(t, { limits: { connections: 3 } });
  const busy = Array.from({ length: 3 }, () => unreadStream(daemon.address, 'events', 'Subscribe', {}));
  t.after(() => {
    for (const one of busy) one.close();
  });
  await new Promise((done) => setTimeout(done, 100));
  await closed(await raw(t, daemon.address));
  assert.equal(
    busy.every(({ stream }) => !stream.destroyed),
    true,
  );
});

test('calls over the limit of a connection wait and all get responses', async (t) => {
  const { client } = await world(t, { limits: { streamsPerConnection: 4 } });
  const responses = await Promise.all(Array.from({ length: 60 }, () => client.call('images', 'List')));
  assert.equal(responses.length, 60);
});

test('headers over the limit fail their call only', async (t) => {
  const { client } = await world(t, { limits: { metadataBytes: 16 * 1024 } });
  const fat = client.with({ 'x-fat': 'x'.repeat(40_000) });
  assert.notEqual((await fat.fails('images', 'List')).code, 0);
  const many = client.with(
    Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`x-header-${i}`, 'v'.repeat(100)])),
  );
  assert.notEqual((await many.fails('images', 'List')).code, 0);
  assert.deepEqual((await client.with({ 'x-thin': 'x'.repeat(4000) }).call('images', 'List')).images, []);
});

test('an ingest over the limit is refused, by what it announces or by what it sends', async (t) => {
  const { client } = await world(t, { limits: { ingestBytes: 1000 } });
  assert.equal((await client.write().fails({ ref: 'a', total: 1001 })).code, code.resourceExhausted);
  const stream = client.write();
  await stream.ask({ ref: 'b' });
  await stream.ask({ action: 1, data: Buffer.alloc(900) });
  const failure = await stream.fails({ action: 1, offset: 900, data: Buffer.alloc(101) });
  assert.equal(failure.code, code.resourceExhausted);
  const { status } = await client.call('content', 'Status', { ref: 'b' });
  assert.equal(status.offset, 900);
});

test('readers that do not read keep little in memory and delay no other client', async (t) => {
  const { client, daemon } = await world(t, { limits: { shutdownMs: 300 } });
  const data = randomBytes(24 * MiB);
  const digest = digestOf(data);
  const stream = client.write();
  await stream.ask({ ref: 'r' });
  for (let at = 0; at < data.length; at += 8 * MiB) {
    await stream.ask({ action: 1, offset: at, data: data.subarray(at, at + 8 * MiB) });
  }
  await stream.ask({ action: 2, offset: data.length, expected: digest });
  await stream.end();
  const before = process.memoryUsage().rss;
  const readers = Array.from({ length: 30 }, () =>
    unreadStream(daemon.address, 'content', 'Read', { digest }),
  );
  t.after(() => {
    for (const reader of readers) reader.close();
  });
  await Promise.all(readers.map(({ stream: unread }) => once(unread, 'response')));
  for (let i = 0; i < 20; i++) await client.call('content', 'Info', { digest });
  // 720 MiB if each had it all; a few pieces each are 90.
  const grown = (process.memoryUsage().rss - before) / MiB;
  assert.equal(grown < 350, true, `${grown} MiB more`);
});

test('clients learn how much they may send, and how large headers may be', async (t) => {
  const { daemon } = await world(t, { limits: { metadataBytes: 5000, streamsPerConnection: 77 } });
  const session = connectHttp2('http://localhost', { createConnection: () => connect(daemon.address) });
  t.after(() => session.destroy());
  const [settings] = (await once(session, 'remoteSettings')) as [Settings];
  assert.deepEqual(
    [settings.initialWindowSize, settings.maxHeaderListSize, settings.maxConcurrentStreams],
    [4 * MiB, 5000, 77],
  );
});
