/** The end of a server: what it promises to calls that are open, to those that come too late, and to itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCode, PREFACE, Setting } from '../../../src/server/http2/constants.js';
import { data, message, open, Peer, request, settings, windowUpdate } from './peer.js';
import { hang, infoRequest, paths, readRequest, served, writeRequest } from './served.js';

test('open calls end, late ones are refused, idle connections get a goaway and are closed', async (t) => {
  const { endpoint, address } = await served(t, {}, { keepaliveMs: 60_000 });
  const idle = await Peer.connect(t, address);
  const busy = await Peer.connect(t, address);
  busy.send(open(1, paths.write), data(1, message(writeRequest('a'))));
  await Promise.all([busy.headers(1), idle.ping()]);
  const stopping = Promise.all([endpoint.stop(60_000), endpoint.stop(60_000)]);
  assert.equal(await idle.goAway(), ErrorCode.noError);
  await idle.ended();
  const goaway = await busy.next(({ type }) => type === 7);
  assert.deepEqual(
    [goaway?.payload.readUInt32BE(0), goaway?.payload.readUInt32BE(4)],
    [1, ErrorCode.noError],
  );
  busy.send(request(3, paths.info, infoRequest('late')));
  assert.equal(await busy.reset(3), ErrorCode.refusedStream);
  busy.send(data(1, message(writeRequest('b')), true));
  assert.equal((await busy.response(1)).status, '0');
  await busy.ended();
  assert.deepEqual(await stopping, [{ aborted: false }, { aborted: false }]);
  assert.deepEqual(await endpoint.stop(0), { aborted: false });
});

test('a response that is whole is read to its end, however slowly, when the server stops', async (t) => {
  const { endpoint, address } = await served(t);
  const windows = Buffer.concat([
    PREFACE,
    settings([Setting.initialWindowSize, 2 ** 30]),
    windowUpdate(0, 2 ** 30),
  ]);
  const slow = await Peer.connect(t, address, windows);
  await slow.ping();
  slow.socket.pause();
  slow.send(request(1, paths.read, readRequest('d', 900_000)));
  // Another client's call comes and goes, so the response has been given to the system as far as it takes it.
  const other = await Peer.connect(t, address);
  other.send(request(1, paths.info, infoRequest('x')));
  await other.response(1);
  const stopping = endpoint.stop(60_000);
  await new Promise((done) => setTimeout(done, 1500));
  slow.socket.resume();
  const { status, body } = await slow.response(1);
  assert.deepEqual([status, body.length > 900_000], ['0', true]);
  assert.deepEqual(await stopping, { aborted: false });
});

test('after the deadline open calls are given up and connections closed, also those that do not read', async (t) => {
  const { endpoint, address, ends } = await served(t, { write: hang });
  const [open1, deaf] = [await Peer.connect(t, address), await Peer.connect(t, address)];
  open1.send(open(1, paths.write));
  await open1.ping();
  deaf.socket.pause();
  deaf.send(
    ...Array.from({ length: 300 }, (_, i) => request(2 * i + 1, paths.info, infoRequest('x'.repeat(5000)))),
  );
  assert.deepEqual(await endpoint.stop(200), { aborted: true });
  await open1.ended();
  // The service was cancelled and has ended before `stop` did.
  assert.equal(ends.includes('Write 0'), true);
  assert.equal(endpoint.connections, 0);
});

test('a server without connections stops at once', async (t) => {
  const { endpoint } = await served(t);
  assert.deepEqual(await endpoint.stop(60_000), { aborted: false });
});
