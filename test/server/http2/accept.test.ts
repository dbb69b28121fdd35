/** Connections that come faster than they are served: all are accepted, and those of clients that have gone cost nothing. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Peer, request } from './peer.js';
import { infoRequest, paths, served } from './served.js';

const turned = (): Promise<void> => new Promise((done) => setImmediate(done));
const descriptors = (): number => readdirSync('/proc/self/fd').length;

/** Connects as often, before the server gets to do anything. */
function connectAll(t: TestContext, address: string, count: number): { sockets: Socket[]; errors: string[] } {
  const errors: string[] = [];
  const sockets = Array.from({ length: count }, () =>
    connect(address).on('error', (error: NodeJS.ErrnoException) => errors.push(error.code ?? error.message)),
  );
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  return { sockets, errors };
}

test('given more connections at once than are served, then none is refused by the kernel, and many are accepted in a turn', async (t) => {
  const [COUNT, MAX] = [700, 100];
  const server = await served(t, {}, { connections: MAX });
  const { errors } = connectAll(t, server.address, COUNT);
  // As many as may are served, as many wait, the others are closed.
  let turns = 0;
  for (; server.reasons.length < COUNT - 2 * MAX && errors.length === 0; turns++) await turned();
  assert.deepEqual(errors, []);
  assert.equal(turns < COUNT / 4, true, `${turns} turns`);
  assert.equal(server.endpoint.connections, MAX);
});

test('given clients that connect together, then each is served, whoever accepted it', async (t) => {
  const server = await served(t);
  const peers = await Promise.all(Array.from({ length: 40 }, () => Peer.connect(t, server.address)));
  for (const peer of peers) peer.send(request(1, paths.info, infoRequest('x')));
  for (const peer of peers) assert.equal((await peer.response(1)).status, '0');
  for (const peer of peers) peer.socket.destroy();
  while (server.endpoint.connections > 0) await turned();
});

test('given connections whose clients have gone, when they are accepted, then nothing is made of them', async (t) => {
  const before = descriptors();
  const server = await served(t);
  for (const socket of connectAll(t, server.address, 300).sockets) socket.destroy();
  const peer = await Peer.connect(t, server.address);
  peer.send(request(1, paths.info, infoRequest('x')));
  let most = 0;
  const response = peer.response(1);
  const ended = response.then(() => true);
  for (let over = false; !over; over = await Promise.race([ended, turned().then(() => false)])) {
    most = Math.max(most, server.endpoint.connections);
  }
  assert.equal((await response).status, '0');
  assert.equal(most, 1);
  peer.socket.destroy();
  await server.endpoint.stop(0);
  assert.deepEqual(server.reasons, []);
  for (let turns = 0; turns < 100 && descriptors() > before; turns++) await turned();
  assert.equal(descriptors() <= before, true, 'descriptors stay open');
});
