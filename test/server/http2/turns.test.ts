/** Calls that have much to do: a piece in each turn of the event loop, and other calls in between. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Call } from '../../../src/server/call.js';
import { Ledger } from '../../../src/server/connections/ledger.js';
import { Flag } from '../../../src/server/http2/constants.js';
import { HeaderBlocks } from '../../../src/server/http2/header-blocks.js';
import { data, frame, message, open, Peer, request, settings, uint32, windowUpdate } from './peer.js';
import { type Functions, infoRequest, paths, served, statusesOf, writeRequest } from './served.js';

const KiB = 1024;
/** One is about a KiB in a message. */
const item = { ref: 'x'.repeat(1000) };
const ITEMS = 1000;
/** A piece of a list, in items, with some to spare. */
const CHUNK_ITEMS = 150;
const wide = [windowUpdate(0, 2 ** 30), settings([4, 2 ** 30])];

const turned = (): Promise<void> => new Promise((done) => setImmediate(done));

/** Lists of items that count how many were made. */
function lists(): { made: () => number; statuses: () => Iterable<unknown> } {
  let made = 0;
  return {
    made: () => made,
    *statuses() {
      for (let n = 0; n < ITEMS; n++) {
        made++;
        yield item;
      }
    },
  };
}

/** The most that a count grows in one turn of the event loop, until something is over. */
async function mostInATurn(count: () => number, until: Promise<unknown>): Promise<number> {
  let most = 0;
  let over = false;
  const ended = until.finally(() => {
    over = true;
  });
  for (let before = count(); !over; before = count()) {
    await turned();
    most = Math.max(most, count() - before);
  }
  await ended;
  return most;
}

test('given lists on many connections, when all are written, then a piece in a turn, and each is whole', async (t) => {
  const { made, statuses } = lists();
  const server = await served(t, { statuses });
  const peers = await Promise.all(Array.from({ length: 2 }, () => Peer.connect(t, server.address)));
  for (const peer of peers) peer.send(...wide);
  await Promise.all(peers.map((peer) => peer.ping()));
  const responses = peers.map(async (peer) => {
    for (const id of [1, 3, 5, 7, 9, 11]) {
      peer.send(request(id, paths.statuses));
      const { status, body } = await peer.response(id);
      assert.equal(status, '0');
      assert.equal(statusesOf(body).length, ITEMS);
    }
  });
  const most = await mostInATurn(made, Promise.all(responses));
  assert.equal(made(), 12 * ITEMS);
  // In one turn each may begin and go on once, with a piece each; one that waits has its slice.
  assert.equal(most <= 5 * CHUNK_ITEMS, true, `${most} items in a turn`);
});

test('given a long list, when small calls come on its connection, then they get their responses first', async (t) => {
  const { made, statuses } = lists();
  const server = await served(t, { statuses });
  const peer = await Peer.connect(t, server.address);
  peer.send(request(1, paths.statuses), request(3, paths.info, infoRequest('x')));
  assert.equal((await peer.response(3)).status, '0');
  assert.equal(made() < ITEMS, true, `${made()} items`);
});

test('given a list whose client gives it up, then it is made no further, and what it had is free', async (t) => {
  const { made, statuses } = lists();
  const server = await served(t, { statuses });
  const peer = await Peer.connect(t, server.address);
  for (const end of [() => peer.send(frame(3, 0, 1, uint32(8))), () => peer.socket.destroy()]) {
    const before = made();
    const id = before === 0 ? 1 : 3;
    peer.send(request(id, paths.statuses));
    while (made() === before) await turned();
    end();
    while (server.ends.length === 0) await turned();
    assert.deepEqual(server.ends.splice(0), ['ListStatuses 1']);
    assert.equal(made() - before < ITEMS, true);
    while (server.kept() >= KiB) await turned();
    assert.equal(server.endpoint.calls, 0);
  }
});

test('given a list for which there is no room, then ResourceExhausted as soon as that is known', async (t) => {
  const { made, statuses } = lists();
  const server = await served(t, { statuses }, { memoryBytes: 1024 * KiB });
  const peer = await Peer.connect(t, server.address);
  peer.send(request(1, paths.statuses));
  const { status, headers } = await peer.response(1);
  assert.equal(status, '8');
  assert.match(headers['grpc-message']!, /too many unread responses/);
  assert.equal(made() < 0.6 * ITEMS, true, `${made()} items`);
});

test('given calls that go on and on, when there are many, then one goes on in a turn', async (t) => {
  let turns = 0;
  let over = true;
  const info = async (_request: unknown, { cancellable }: Call) => {
    while (!over) {
      await cancellable.yieldTurn?.();
      turns++;
    }
    return { info: { digest: 'x' } };
  };
  const server = await served(t, { info });
  const peers = await Promise.all(Array.from({ length: 4 }, () => Peer.connect(t, server.address)));
  // What a method costs is known after its first call.
  peers[0]!.send(request(1, paths.info, infoRequest('x')));
  await peers[0]!.response(1);
  over = false;
  const ids = Array.from({ length: 20 }, (_, i) => 2 * i + 3);
  for (const peer of peers) peer.send(...ids.map((id) => request(id, paths.info, infoRequest('x'))));
  while (server.endpoint.calls < 80) await turned();
  const until = (async () => {
    while (turns < 2000) await turned();
    over = true;
  })();
  const most = await mostInATurn(() => turns, until);
  assert.equal(most <= 2, true, `${most} in a turn`);
  for (const peer of peers) {
    const ended = new Set<number>();
    while (ended.size < ids.length) {
      const end = await peer.next(({ type, flags }) => type === 1 && (flags & Flag.endStream) !== 0);
      ended.add(end!.id);
    }
  }
});

test('given thousands of messages without content, when they come or go together, then some in a turn', async (t) => {
  const COUNT = 3000;
  let taken = 0;
  let sent = 0;
  const server = await served(t, {
    write: async ({ requests }) => {
      for await (const _ of requests) taken++;
    },
    read: async (_request, _call, send) => {
      for (; sent < COUNT; sent++) await send({ offset: 0 });
    },
  });
  const [writer, reader] = [await Peer.connect(t, server.address), await Peer.connect(t, server.address)];
  const empty = Buffer.concat(Array.from({ length: COUNT }, () => message(Buffer.alloc(0))));
  writer.send(open(1, paths.write), data(1, empty, true));
  reader.send(...wide, request(1, paths.read, infoRequest('x')));
  const both = Promise.all([writer.response(1), reader.response(1)]);
  const most = await mostInATurn(() => taken + sent, both);
  assert.equal(taken, COUNT);
  assert.equal(sent, COUNT);
  assert.equal(most <= 200, true, `${most} in a turn`);
});

test('given a header block in parts of a byte, when it comes, then it takes the memory that is counted', () => {
  const ledger = new Ledger(2 ** 26);
  const memory = ledger.open(1, { moved: () => true, end: () => undefined });
  const bytesMax = 256 * KiB;
  const blocks = new HeaderBlocks(bytesMax, memory);
  // As they are read: views of something larger.
  const chunk = Buffer.alloc(KiB, 7);
  const before = process.memoryUsage().heapUsed;
  assert.equal(blocks.headers(0, 1, Buffer.alloc(0)), undefined);
  for (let i = 1; i < bytesMax; i++) blocks.continuation(0, chunk.subarray(i % KiB, (i % KiB) + 1));
  const grown = process.memoryUsage().heapUsed - before;
  assert.equal(grown < 12 * KiB * KiB, true, `${grown} bytes`);
  assert.equal(memory.bytes >= bytesMax - 1 && memory.bytes <= bytesMax, true, `${memory.bytes} bytes`);
  const block = blocks.continuation(Flag.endHeaders, chunk.subarray(0, 1));
  assert.deepEqual(block?.bytes, Buffer.alloc(bytesMax, 7));
  assert.equal(memory.bytes, 0);
  assert.throws(() => {
    blocks.headers(0, 3, Buffer.alloc(bytesMax));
    blocks.continuation(0, chunk);
  }, /too many header bytes/);
  blocks.close();
  assert.equal(memory.bytes, 0);
});

/** Calls of a service that has much to do when anything comes to it. */
test('given many open calls, when all get something to do at once, then a few do it in a turn', async (t) => {
  const CALLS = 100;
  let done = 0;
  const work = (): void => {
    for (const end = performance.now() + 1; performance.now() < end; );
    done++;
  };
  const write = async ({ requests }: Parameters<Functions['write']>[0]): Promise<void> => {
    try {
      for await (const _ of requests) work();
    } catch {
      work();
    }
  };
  const ids = Array.from({ length: CALLS }, (_, i) => 2 * i + 3);
  const each = (bytes: (id: number) => Buffer): Buffer => Buffer.concat(ids.map(bytes));
  const bytes = message(writeRequest('x'));
  const ways: Record<string, [(peer: Peer) => void, string?]> = {
    messages: [(peer) => peer.send(each((id) => data(id, bytes)))],
    resets: [(peer) => peer.send(each((id) => frame(3, 0, id, uint32(8))))],
    deadlines: [() => undefined, '1m'],
    'the end of the connection': [(peer) => peer.socket.destroy()],
    'a mistake of the connection': [(peer) => peer.send(frame(6, 0, 1, Buffer.alloc(8)))],
  };
  for (const [way, [act, timeout]] of Object.entries(ways)) {
    const server = await served(t, { write });
    const peer = await Peer.connect(t, server.address);
    peer.send(open(1, paths.write), data(1, Buffer.alloc(0), true));
    await peer.response(1);
    const more = timeout === undefined ? [] : ([['grpc-timeout', timeout]] as const);
    done = 0;
    peer.send(each((id) => open(id, paths.write, more)));
    if (timeout === undefined) while (server.endpoint.calls < CALLS) await turned();
    act(peer);
    const all = async (): Promise<void> => {
      while (done < CALLS) await turned();
    };
    const most = await mostInATurn(() => done, all());
    assert.equal(most <= 15, true, `${way}: ${most} in a turn`);
  }
});

test('given a client that goes away, when much of what it sent is unread, then that is not read any more', async (t) => {
  const CALLS = 1000;
  let began = 0;
  const write = async ({ requests }: Parameters<Functions['write']>[0]): Promise<void> => {
    began++;
    for (const end = performance.now() + 1; performance.now() < end; );
    for await (const _ of requests);
  };
  const server = await served(t, { write });
  const peer = await Peer.connect(t, server.address);
  await peer.ping();
  // More than is read at once: the end behind it is not seen by reading.
  peer.send(Buffer.concat(Array.from({ length: CALLS }, (_, i) => open(2 * i + 1, paths.write))));
  peer.socket.destroy();
  while (server.endpoint.connections > 0 || server.endpoint.calls > 0) await turned();
  assert.equal(began < 10, true, `${began} began`);
});
