import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { digestOf } from '../../src/model/digest.js';
import { codecOf } from '../../src/server/schema.js';
import { type Message, type TestClient, unreadStream } from './client.js';
import { code, world } from './world.js';

/** Collects what a subscriber gets; `until` waits for so many events. */
async function subscribe(client: TestClient, ...filters: string[]) {
  const stream = client.stream('events', 'Subscribe', { filters });
  const got: Message[] = [];
  stream.on('data', (message: Message) => got.push(message));
  let failure: Error | undefined;
  stream.on('error', (error) => {
    failure = error;
  });
  const until = async (count: number): Promise<Message[]> => {
    while (got.length < count) {
      if (failure) throw failure;
      // Rejects when the stream fails.
      await once(stream, 'data');
    }
    return got;
  };
  const payload = ({ event }: Message): Message => ({
    ...codecOf<object>(event.typeUrl).decode(event.value),
  });
  return { stream, got, until, payload };
}

const target = { mediaType: 'a/b', digest: digestOf(Buffer.from('x')), size: 1 };
const any = { typeUrl: 'some/type', value: Buffer.from('v') };

/** A subscription is certain to be there when an event of its own has come back. */
async function ready(client: TestClient, subscriber: { got: Message[] }): Promise<void> {
  const topic = '/test/ready';
  for (let tries = 0; subscriber.got.length === 0; tries++) {
    assert.equal(tries < 1000, true, 'no event came back');
    await client.call('events', 'Publish', { topic, event: any });
    await new Promise((done) => setTimeout(done, 5));
  }
  for (let seen = -1; seen !== subscriber.got.length; await new Promise((done) => setTimeout(done, 20)))
    seen = subscriber.got.length;
  subscriber.got.length = 0;
}

test('the store and the services announce what changes, with containerd’s topics and payloads', async (t) => {
  const { client } = await world(t);
  const all = await subscribe(client, 'topic!="/test/none"');
  await ready(client, all);
  const data = Buffer.from('eventful');
  const digest = digestOf(data);

  await client.call('namespaces', 'Create', { namespace: { name: 'other', labels: { a: '1' } } });
  await client.call('images', 'Create', { image: { name: 'i', labels: { l: '1' }, target } });
  await client.call('images', 'Delete', { name: 'i' });
  await client.ingest('r', data, digest);
  await client.call('snapshots', 'Prepare', { snapshotter: 'native', key: 'k' });
  await client.call('snapshots', 'Commit', { snapshotter: 'native', key: 'k', name: 'n' });
  await client.call('snapshots', 'Remove', { snapshotter: 'native', key: 'n' });
  await client.call('containers', 'Create', {
    container: { id: 'c', image: 'i', runtime: { name: 'r' }, spec: any },
  });
  await client.call('containers', 'Delete', { id: 'c' });
  await client.call('namespaces', 'Delete', { name: 'other' });

  const got = await all.until(10);
  const plain = (message: Message) => JSON.parse(JSON.stringify(all.payload(message)));
  assert.deepEqual(
    got.map((message) => [message.namespace, message.topic, plain(message)]),
    [
      ['other', '/namespaces/create', { labels: { a: '1' }, name: 'other' }],
      ['test', '/images/create', { labels: { l: '1' }, name: 'i' }],
      ['test', '/images/delete', { name: 'i' }],
      ['test', '/content/create', { digest, size: 8 }],
      ['test', '/snapshot/prepare', { key: 'k', snapshotter: 'native' }],
      ['test', '/snapshot/commit', { key: 'k', name: 'n', snapshotter: 'native' }],
      ['test', '/snapshot/remove', { key: 'n', snapshotter: 'native' }],
      ['test', '/containers/create', { id: 'c', image: 'i', runtime: { name: 'r' } }],
      ['test', '/containers/delete', { id: 'c' }],
      ['other', '/namespaces/delete', { name: 'other' }],
    ],
  );
});

test('subscribers get what their filters match; clients publish and forward', async (t) => {
  const { client } = await world(t);
  const everything = await subscribe(client);
  const filtered = await subscribe(client, 'topic~="/images/.*",event.name==wanted', 'namespace==away');
  await ready(client, everything);
  const image = (name: string) => client.call('images', 'Create', { image: { name, labels: {}, target } });
  await image('other');
  await image('wanted');
  await client.call('events', 'Publish', { topic: '/custom/topic', event: any });
  const timestamp = { seconds: 1_000_000_000, nanos: 7 };
  await client.call('events', 'Forward', {
    envelope: { timestamp, namespace: 'away', topic: '/x', event: any },
  });
  const topics = (await everything.until(4)).map((m) => [m.namespace, m.topic]);
  assert.deepEqual(topics, [
    ['test', '/images/create'],
    ['test', '/images/create'],
    ['test', '/custom/topic'],
    ['away', '/x'],
  ]);
  const [first, second] = await filtered.until(2);
  assert.equal(filtered.payload(first).name, 'wanted');
  assert.deepEqual(
    [{ ...second.timestamp }, second.event.typeUrl, Buffer.from(second.event.value).toString()],
    [timestamp, 'some/type', 'v'],
  );

  const bad = async (topic: string) => (await client.fails('events', 'Publish', { topic, event: any })).code;
  for (const topic of ['', 'x', '/', '/a//b', '/a b'])
    assert.equal(await bad(topic), code.invalidArgument, topic);
  const noTime = { envelope: { namespace: 'away', topic: '/x', event: any } };
  assert.equal((await client.fails('events', 'Forward', noTime)).code, code.invalidArgument);
  await assert.rejects(client.all('events', 'Subscribe', { filters: ['topic='] }), {
    code: code.invalidArgument,
  });
});

test('a subscriber that does not read is cut off; publishers and other subscribers notice nothing', async (t) => {
  const { client, daemon } = await world(t, { limits: { subscriberEvents: 50 } });
  const filters = ['topic~=|/test/|'];
  const lazy = unreadStream(daemon.address, 'events', 'Subscribe', { filters });
  t.after(lazy.close);
  const busy = await subscribe(client, 'topic=="/test/many"');
  const probe = await subscribe(client);
  await ready(client, probe);
  // More than windows and buffers between the two ends take, so that the queue of the lazy one fills.
  const event = { typeUrl: 'some/type', value: Buffer.alloc(64 * 1024) };
  for (let i = 1; i <= 90; i++) {
    await client.call('events', 'Publish', { topic: '/test/many', event });
    await busy.until(i);
  }
  // What it gets when it reads at last: the events it had in hand, then the reason.
  const trailers = new Promise<Record<string, unknown>>((resolve) => lazy.stream.once('trailers', resolve));
  lazy.stream.resume();
  assert.equal(Number((await trailers)['grpc-status']), code.resourceExhausted);
});
