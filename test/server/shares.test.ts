/** How much each client gets: memory (ledger.ts), time (http2/run-queue.ts) and connections (connection-table.ts), as arithmetic. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AcceptQueue } from '../../src/server/connections/accept-queue.js';
import { ConnectionTable, type Entry } from '../../src/server/connections/connection-table.js';
import { type Account, GUARANTEED_BYTES, Ledger } from '../../src/server/connections/ledger.js';
import { EventExchange } from '../../src/server/event-exchange.js';
import { RunQueue, type Task } from '../../src/server/http2/run-queue.js';

const MiB = 2 ** 20;
const owner = { moved: () => true, end: () => undefined };

/** Takes until nothing more is given. */
function fill(account: Account, step = 64 * 1024): number {
  while (account.take(step));
  return account.bytes;
}

test('one connection gets a third; however many want all, something is left for the next', () => {
  const ledger = new Ledger(256 * MiB);
  const first = ledger.open(1000, owner);
  const third = fill(first) / (256 * MiB);
  assert.equal(third > 0.32 && third < 0.34, true, `${third}`);
  const others = Array.from({ length: 500 }, () => ledger.open(1000, owner));
  for (const account of others) fill(account);
  assert.equal(ledger.bytes <= 256 * MiB + 500 * GUARANTEED_BYTES, true);
  // A new one still gets what everybody does, and another user far more than that.
  assert.equal(ledger.open(1000, owner).take(GUARANTEED_BYTES), true);
  const stranger = fill(ledger.open(1001, owner));
  assert.equal(stranger > 12 * MiB, true, `${stranger / MiB} MiB for another user`);
  const root = fill(ledger.open(0, owner));
  assert.equal(root > 8 * MiB, true, `${root / MiB} MiB for root`);
});

test('a waiter is called when there is room, and what is taken is counted to the byte', async () => {
  const ledger = new Ledger(MiB);
  const account = ledger.open(1, owner);
  const taken = fill(account);
  assert.equal(account.take(GUARANTEED_BYTES), false);
  const called = new Promise<void>((resolve) => ledger.whenRoom(resolve));
  account.give(taken);
  await called;
  assert.equal(ledger.bytes, 0);
});

const entry = (uid: number, pid: number, heardAt: number, busy: boolean, ended: Entry[]): Entry => {
  const one: Entry = { uid, pid, heardAt: () => heardAt, busy: () => busy, end: () => ended.push(one) };
  return one;
};

test('a full table: the longest idle of the clients with most makes room, and root always finds some', () => {
  const ended: Entry[] = [];
  const table = new ConnectionTable(10);
  const many = Array.from({ length: 9 }, (_, i) => entry(1000, 7, 100 - i, i < 4, ended));
  const other = entry(1001, 8, 1, false, ended);
  for (const one of [...many, other]) assert.equal(table.add(one), true);
  // Idle: 4 to 8, of which the last was heard of first. Never the other user's, though it is idle for longer.
  assert.equal(table.add(entry(1002, 9, 200, true, ended)), true);
  assert.deepEqual(ended, [many[8]]);
  assert.equal(table.size, 10);

  const busy = new ConnectionTable(4);
  const calls = Array.from({ length: 4 }, (_, i) => entry(1000, 7, i, true, ended));
  for (const one of calls) busy.add(one);
  ended.length = 0;
  assert.equal(
    busy.add(entry(1000, 7, 9, true, ended)),
    false,
    'no connection makes room for more of the same',
  );
  assert.equal(busy.add(entry(1000, 8, 9, true, ended)), true, 'another process of the user');
  assert.equal(busy.add(entry(0, 9, 9, true, ended)), true, 'root');
  assert.deepEqual(ended, [calls[0], calls[1]]);
});

test('a full table: no connection makes room for more of the same process at once', () => {
  const ended: Entry[] = [];
  const table = new ConnectionTable(2);
  for (const at of [1, 2]) assert.equal(table.add(entry(1000, 7, at, false, ended), false), true);
  assert.equal(table.add(entry(1000, 7, 3, false, ended), false), false);
  assert.deepEqual(ended, []);
  assert.equal(table.add(entry(1000, 8, 3, false, ended), false), true, 'another process');
  assert.equal(table.add(entry(1000, 8, 4, false, ended), false), false);
  assert.equal(table.add(entry(1000, 8, 4, false, ended)), true, 'when its turn has come');
});

/** What waits in a queue, by name; the lists show what became of it, `events` with a dash after each event of the loop. */
function waiters() {
  const served: string[] = [];
  const refused: string[] = [];
  const closed: string[] = [];
  const events: string[] = [];
  return {
    served,
    refused,
    closed,
    events,
    one: (name: string, gone = false) => ({
      serve: () => {
        events.push(name);
        queueMicrotask(() => events.at(-1) === '-' || events.push('-'));
        if (!gone) served.push(name);
        return !gone;
      },
      refuse: () => refused.push(name),
      close: () => closed.push(name),
    }),
  };
}

const hasServed = async (served: readonly string[], count: number): Promise<void> => {
  while (served.length < count) await new Promise((resolve) => setTimeout(resolve, 1));
};

test('connections: a process that connects again and again waits, as many as may, one after the other', async () => {
  const queue = new AcceptQueue(3);
  const at = { once: 0 };
  while (queue.mayServe(7)) at.once++;
  assert.equal(at.once >= 128, true);
  assert.equal(queue.mayServe(8), true, 'another process');
  const { served, refused, closed, one } = waiters();
  for (const name of ['a', 'b', 'c', 'd']) queue.add(7, one(name));
  assert.deepEqual(served, []);
  assert.deepEqual(refused, ['d']);
  await hasServed(served, 3);
  assert.deepEqual(served, ['a', 'b', 'c']);
  queue.add(7, one('e'));
  queue.close();
  assert.deepEqual(closed, ['e']);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(served, ['a', 'b', 'c']);
});

test('connections that wait: processes take turns, one that has many makes room, those that have gone take no time', async (t) => {
  const queue = new AcceptQueue(6);
  t.after(() => queue.close());
  const { served, refused, events, one } = waiters();
  for (const name of ['a', 'b', 'c']) queue.add(7, one(name, name !== 'c'));
  for (const name of ['d', 'e', 'f']) queue.add(7, one(name));
  queue.add(8, one('other'));
  assert.deepEqual(refused, ['f'], 'the newest of those with most');
  queue.add(8, one('other again'));
  assert.deepEqual(refused, ['f', 'e']);
  queue.add(8, one('a third'));
  assert.deepEqual(refused, ['f', 'e', 'd']);
  queue.add(8, one('a fourth'));
  assert.deepEqual(refused, ['f', 'e', 'd', 'a fourth'], 'with as many as the others');
  await hasServed(served, 4);
  assert.deepEqual(served, ['other', 'other again', 'c', 'a third']);
  assert.equal(events.join(' '), 'a other - b other again - c - a third -');
});

test('time: a client with little to do does not wait for those that go on and on, of whatever process or user', async () => {
  const queue = new RunQueue();
  const order: string[] = [];
  const task = (name: string, uid: number, pid: number, ms: number, rounds: number): Task => {
    let left = rounds;
    const one: Task = {
      ...{ uid, pid, hadMs: 0, creditMs: 2 },
      run: () => {
        order.push(name);
        queue.spent(one, ms);
        if (--left > 0) queue.add(one);
      },
    };
    return one;
  };
  for (let i = 0; i < 50; i++) queue.add(task('flood', 0, 1, 2, 20));
  for (let i = 0; i < 20; i++) await new Promise((done) => setImmediate(done));
  order.length = 0;
  queue.add(task('process', 0, 2, 0.1, 1));
  queue.add(task('user', 5, 3, 0.1, 1));
  while (order.length < 4) await new Promise((done) => setImmediate(done));
  assert.deepEqual(new Set(order.slice(0, 2)), new Set(['process', 'user']));
  // Two users share evenly, however many connections one of them has.
  order.length = 0;
  queue.add(task('other', 5, 3, 2, 100));
  while (order.length < 100) await new Promise((done) => setImmediate(done));
  const others = order.filter((name) => name === 'other').length;
  assert.equal(others > 40 && others < 60, true, `${others} of 100`);
});

test('time: of the connections of a process, those that have ended go first, and get no more than its share', async () => {
  const queue = new RunQueue();
  const order: string[] = [];
  const task = (name: string, pid: number, ending: boolean, hadMs: number): Task => {
    const one: Task = {
      ...{ uid: 0, pid, hadMs, creditMs: 2, ending },
      run: () => {
        order.push(name);
        queue.spent(one, 1);
        if (order.length < 100) queue.add(one);
      },
    };
    return one;
  };
  queue.add(task('open', 1, false, 0));
  queue.add(task('ended', 1, true, 1000));
  queue.add(task('other', 2, false, 0));
  while (order.length < 100) await new Promise((done) => setImmediate(done));
  const count = (name: string): number => order.filter((one) => one === name).length;
  assert.equal(count('open'), 0);
  assert.equal(count('ended') > 40 && count('ended') < 60, true, `${count('ended')} of 100`);
});

test('events that a subscriber does not fetch are its own: bytes count, and it is cut off', async () => {
  const ledger = new Ledger(16 * MiB);
  const [slow, other] = [ledger.open(1, owner), ledger.open(1, owner)];
  const events = new EventExchange(1_000_000);
  const signal = new AbortController().signal;
  const behind = events.subscribe([], signal, slow);
  const keepsUp = events.subscribe(['topic=="/x"'], signal, other);
  const value = Buffer.alloc(MiB);
  for (let i = 0; i < 100; i++) {
    events.publishAny('n', '/x', { typeUrl: 'x', value });
    assert.equal((await keepsUp.next())[0]?.topic, '/x');
  }
  assert.equal(ledger.bytes < 8 * MiB, true, `${ledger.bytes} bytes`);
  await assert.rejects(behind.next(), /too far behind/);
  behind.close();
  keepsUp.close();
  assert.equal(ledger.bytes, 0);
});
