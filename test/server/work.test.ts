/** Requests that ask for more work than their bytes: refused, or done in steps that grow with the bytes alone. */
import assert from 'node:assert/strict';
import { setMaxListeners } from 'node:events';
import { test } from 'node:test';
import { MAX_LABELS, MAX_LABELS_BYTES } from '../../src/model/labels.js';
import { EventExchange } from '../../src/server/event-exchange.js';
import type { TestClient } from './client.js';
import { code, world } from './world.js';

const digest = `sha256:${'a'.repeat(64)}`;
const image = { name: 'x', target: { mediaType: 'm', digest, size: 1 } };
const many = <T>(count: number, make: (n: number) => T): T[] =>
  Array.from({ length: count }, (_, n) => make(n));
const labelsOf = (count: number, value = 'v') => Object.fromEntries(many(count, (n) => [`k${n}`, value]));

async function refused(client: TestClient, call: [string, string, object], why: RegExp): Promise<void> {
  const [service, method, request] = call;
  const { code: kind, details } = await client.fails(service as 'images', method, request);
  assert.equal(kind, code.invalidArgument, details);
  assert.match(details, why, `${service} ${method}`);
}

test('given an update of ten thousand labels by ten thousand paths, when it is asked for, then it is done', async (t) => {
  const { client } = await world(t);
  await client.call('images', 'Create', { image });
  const labels = labelsOf(MAX_LABELS);
  const paths = Object.keys(labels).map((key) => `labels.${key}`);
  const request = { image: { ...image, labels }, updateMask: { paths } };
  for (let round = 0; round < 2; round++) {
    const { image: updated } = await client.call('images', 'Update', request);
    assert.equal(Object.keys(updated.labels).length, MAX_LABELS);
  }
  await client.call('namespaces', 'Create', { namespace: { name: 'ns' } });
  const namespace = { name: 'ns', labels };
  await client.call('namespaces', 'Update', { namespace, updateMask: { paths } });
  const found = await client.call('namespaces', 'Get', { name: 'ns' });
  assert.equal(Object.keys(found.namespace.labels).length, MAX_LABELS);
});

test('given more labels, annotations or paths than a record may have, when they are sent, then InvalidArgument', async (t) => {
  const { client } = await world(t);
  const tooMany = labelsOf(MAX_LABELS + 1);
  const tooLong = labelsOf(Math.ceil(MAX_LABELS_BYTES / 4000) + 1, 'x'.repeat(4000));
  const container = { id: 'c', runtime: { name: 'r' }, spec: { typeUrl: 's', value: Buffer.alloc(0) } };
  for (const labels of [tooMany, tooLong]) {
    const over = /labels of \d+ bytes are over the limits/;
    await refused(client, ['images', 'Create', { image: { ...image, labels } }], over);
    await refused(client, ['containers', 'Create', { container: { ...container, labels } }], over);
    await refused(client, ['leases', 'Create', { id: 'l', labels }], over);
    await refused(client, ['namespaces', 'Create', { namespace: { name: 'n', labels } }], over);
    await refused(client, ['sandboxes', 'Create', { sandbox: { sandboxId: 's', labels } }], over);
    const key = { snapshotter: 'native', key: 'k', labels };
    await refused(client, ['snapshots', 'Prepare', key], over);
    const target = { ...image.target, annotations: labels };
    await refused(client, ['images', 'Create', { image: { ...image, target } }], /annotations of \d+ bytes/);
  }
  await client.call('images', 'Create', { image });
  const paths = many(20_000, (n) => `labels.k${n}`);
  await refused(client, ['images', 'Update', { image, updateMask: { paths } }], /20000 fields/);
});

test('given hostile filters, when a list is asked for, then InvalidArgument, in every list', async (t) => {
  const { client } = await world(t);
  await client.call('images', 'Create', { image: { ...image, labels: { long: 'ab'.repeat(2000) } } });
  const lists: [string, string, object][] = [
    ['images', 'List', {}],
    ['containers', 'List', {}],
    ['leases', 'List', {}],
    ['sandboxes', 'List', {}],
    ['content', 'ListStatuses', {}],
    ['introspection', 'Plugins', {}],
  ];
  const hostile: [string[], RegExp][] = [
    [['name~="((a{30}){30}){30}"'], /pattern of \d+ instructions/],
    [[`name~="${'[a-z0-9]{99}'.repeat(200)}"`], /pattern of \d+ instructions/],
    [many(2000, (n) => `name==n${n}`), /2000 filters/],
    [[`name==${'x'.repeat(100_000)}`], /characters/],
    [[many(4000, () => 'name').join(',')], /selectors/],
  ];
  for (const [service, method, request] of lists) {
    for (const [filters, why] of hostile) {
      await refused(client, [service, method, { ...request, filters }], why);
    }
  }
  const costly = ['labels.long~="[ab]*a[ab]{600}c$"'];
  await refused(client, ['images', 'List', { filters: costly }], /too large to be matched/);
});

test('given subscribers, when an event comes, then its payload is read once; a filter that costs too much ends alone', async () => {
  const exchange = new EventExchange(100);
  const end = new AbortController();
  setMaxListeners(0, end.signal);
  const filters = ['event.name==x', 'event.name~="[ab]*a[ab]{600}c$"'];
  const [plain, costly] = filters.map((filter) => exchange.subscribe([filter], end.signal));
  const name = 'ab'.repeat(2000);
  await exchange.publish('ns', '/images/create', { name, labels: {} });
  await exchange.publish('ns', '/images/create', { name: 'x', labels: {} });
  assert.equal((await plain!.next()).length, 1);
  await assert.rejects(costly!.next(), /too large to be matched/);
  assert.equal(exchange.subscribers, 1);
  for (let n = exchange.subscribers; n < 1000; n++) exchange.subscribe([], end.signal);
  assert.throws(() => exchange.subscribe([], end.signal), /1000 subscriptions/);
  end.abort();
  assert.equal(exchange.subscribers, 0);
});
