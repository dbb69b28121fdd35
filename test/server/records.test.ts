import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestOf } from '../../src/model/digest.js';
import type { Message } from './client.js';
import { code, world } from './world.js';

const target = { mediaType: 'a/b', digest: digestOf(Buffer.from('x')), size: 1, annotations: { k: 'v' } };
const ids = (list: Message[], field = 'id'): string[] => list.map((message) => message[field] as string);

test('namespaces: created, labelled, listed, deleted when empty', async (t) => {
  const { client } = await world(t);
  const labels = async (name: string) => (await client.call('namespaces', 'Get', { name })).namespace.labels;
  await client.call('namespaces', 'Create', { namespace: { name: 'one', labels: { a: '1', none: '' } } });
  assert.deepEqual(await labels('one'), { a: '1' });
  assert.deepEqual(await labels('nosuch'), {});
  const again = await client.fails('namespaces', 'Create', { namespace: { name: 'one', labels: {} } });
  assert.deepEqual(again, { code: code.alreadyExists, details: 'namespace "one": already exists' });

  const update = (l: object, paths?: string[]) =>
    client.call('namespaces', 'Update', {
      namespace: { name: 'one', labels: l },
      ...(paths && { updateMask: { paths } }),
    });
  await update({ b: '2' }, ['labels.b']);
  assert.deepEqual(await labels('one'), { a: '1', b: '2' });
  await update({ c: '3' });
  assert.deepEqual(await labels('one'), { c: '3' });
  const bad = await client.fails('namespaces', 'Update', {
    namespace: { name: 'one', labels: {} },
    updateMask: { paths: ['name'] },
  });
  assert.equal(bad.code, code.invalidArgument);

  // Writing into a namespace makes it; it goes when nothing but leases are in it.
  await client.call('leases', 'Create', { id: 'l' });
  await client.call('images', 'Create', { image: { name: 'i', labels: {}, target } });
  const { namespaces } = await client.call('namespaces', 'List');
  assert.deepEqual(ids(namespaces, 'name'), ['one', 'test']);
  const full = await client.fails('namespaces', 'Delete', { name: 'test' });
  assert.equal(full.code, code.failedPrecondition);
  assert.match(full.details, /must be empty, but it still has images/);
  await client.call('images', 'Delete', { name: 'i' });
  await client.call('namespaces', 'Delete', { name: 'test' });
  assert.equal((await client.fails('namespaces', 'Delete', { name: 'test' })).code, code.notFound);
});

test('the message of an error ends with the words of its kind, which clients of containerd 2 only show', async (t) => {
  const { client } = await world(t);
  const details = async (...call: Parameters<typeof client.fails>): Promise<string> =>
    (await client.fails(...call)).details;
  const snapshotter = 'native';
  await client.call('snapshots', 'Prepare', { snapshotter, key: 'k' });
  assert.deepEqual(
    [
      await details('snapshots', 'Prepare', { snapshotter, key: 'k' }),
      await details('snapshots', 'Stat', { snapshotter, key: 'x' }),
      await details('images', 'Delete', { name: 'x' }),
      await details('namespaces', 'Create', { namespace: { name: 'not a name' } }),
      await details('snapshots', 'Prepare', { snapshotter, key: 'l', parent: 'k' }),
      await details('diff', 'Diff', { mediaType: 'text/nonsense' }),
    ].map((text) => text.slice(text.lastIndexOf(': '))),
    [
      ': already exists',
      ': not found',
      ': not found',
      ': invalid argument',
      ': invalid argument',
      ': not implemented',
    ],
  );
});

test('plugins: what clients look up is listed, each service under the name that containerd has for it', async (t) => {
  const { client } = await world(t, { snapshotters: 'native' });
  const { plugins } = await client.call('introspection', 'Plugins', {});
  const named = (type: string) =>
    ids(plugins.filter((p: Message) => p.type === `io.containerd.${type}.v1`)).sort();
  assert.deepEqual(named('snapshotter'), ['native']);
  assert.deepEqual(named('sandbox.store'), ['local']);
  // Runs nothing and transfers nothing, so it must not be taken for a server that does.
  for (const type of ['sandbox.controller', 'transfer', 'streaming']) assert.deepEqual(named(type), []);
  for (const service of ['containers', 'content', 'images', 'leases', 'sandboxes', 'snapshots']) {
    assert.ok(named('grpc').includes(service), service);
  }
  const { version } = await client.call('version', 'Version', {});
  assert.doesNotMatch(version, /^v?\d/);
});

test('images: created, updated by mask, deleted only with the right target', async (t) => {
  const { client } = await world(t);
  const epoch = { seconds: 1_000_000_000, nanos: 5 };
  const zero = { seconds: -62_135_596_800, nanos: 0 };
  const { image } = await client.call('images', 'Create', {
    image: { name: 'b', labels: { a: '1', none: '' }, target, createdAt: zero, updatedAt: zero },
    sourceDateEpoch: epoch,
  });
  assert.deepEqual(
    { ...image.target, labels: image.labels, createdAt: { ...image.createdAt } },
    { ...target, labels: { a: '1' }, createdAt: epoch },
  );
  await client.call('images', 'Create', { image: { name: 'a', labels: {}, target } });
  assert.deepEqual(ids((await client.call('images', 'List')).images, 'name'), ['a', 'b']);
  const filtered = await client.call('images', 'List', { filters: ['labels.a==1', 'name==nosuch'] });
  assert.deepEqual(ids(filtered.images, 'name'), ['b']);

  const updated = await client.call('images', 'Update', {
    image: { name: 'b', labels: { a: '2', c: '3' }, target },
    updateMask: { paths: ['labels.c'] },
  });
  assert.deepEqual(updated.image.labels, { a: '1', c: '3' });

  assert.deepEqual(await client.fails('images', 'Get', { name: 'x' }), {
    code: code.notFound,
    details: 'image "x": not found',
  });
  const other = { ...target, digest: digestOf(Buffer.from('other')) };
  assert.equal((await client.fails('images', 'Delete', { name: 'b', target: other })).code, code.notFound);
  await client.call('images', 'Delete', { name: 'b', target });
  assert.equal((await client.fails('images', 'Create', {})).code, code.invalidArgument);
  const noType = { name: 'c', labels: {}, target: { ...target, mediaType: '' } };
  assert.equal((await client.fails('images', 'Create', { image: noType })).code, code.invalidArgument);
});

test('a synchronous delete of an image or a lease returns after a collection', async (t) => {
  const { client, root } = await world(t);
  const data = Buffer.from('content of an image');
  const digest = digestOf(data);
  const path = join(root, 'io.containerd.content.v1.content', 'blobs', 'sha256', digest.slice(7));
  const put = async (): Promise<void> => {
    await client.call('leases', 'Create', { id: 'l' });
    await client.with({ 'containerd-lease': 'l' }).ingest('r', data, digest);
  };

  // Held by an image alone:
  await put();
  const image = { name: 'i', labels: {}, target: { mediaType: 'a/b', digest, size: data.length } };
  await client.call('images', 'Create', { image });
  await client.call('leases', 'Delete', { id: 'l', sync: true });
  assert.equal(existsSync(path), true);
  await client.call('images', 'Delete', { name: 'i', sync: true });
  assert.equal(existsSync(path), false);

  // Held by a lease alone, and deleted without waiting: nothing collects by itself with --gc on-request.
  await put();
  await client.call('leases', 'Delete', { id: 'l' });
  assert.equal(existsSync(path), true);
  await Promise.all(
    ['x', 'y', 'z'].map(async (id) => {
      await client.call('leases', 'Create', { id });
      await client.call('leases', 'Delete', { id, sync: true });
    }),
  );
  assert.equal(existsSync(path), false);
});

test('leases: made with or without an id, hold resources', async (t) => {
  const { client } = await world(t);
  const { lease } = await client.call('leases', 'Create', { labels: { a: '1' } });
  assert.match(lease.id, /^\d+-[\w-]{4}$/);
  await client.call('leases', 'Create', { id: 'mine', labels: {} });
  assert.equal((await client.fails('leases', 'Create', { id: 'mine' })).code, code.alreadyExists);
  const add = (id: string, resource: object) => client.call('leases', 'AddResource', { id, resource });
  await add('mine', { type: 'content', id: target.digest });
  await add('mine', { type: 'snapshots/native', id: 'not there yet' });
  await add('mine', { type: 'ingests', id: 'ref' });
  const { resources } = await client.call('leases', 'ListResources', { id: 'mine' });
  assert.deepEqual(
    resources.map((r: Message) => [r.type, r.id]),
    [
      ['content', target.digest],
      ['ingests', 'ref'],
      ['snapshots/native', 'not there yet'],
    ],
  );
  await client.call('leases', 'DeleteResource', { id: 'mine', resource: { type: 'ingests', id: 'ref' } });
  const failure = await client.fails('leases', 'AddResource', {
    id: 'mine',
    resource: { type: 'snapshots', id: 'x' },
  });
  assert.equal(failure.code, code.invalidArgument);
  const unknown = await client.fails('leases', 'AddResource', {
    id: 'mine',
    resource: { type: 'tasks', id: 'x' },
  });
  assert.equal(unknown.code, code.unimplemented);
  assert.equal((await client.fails('leases', 'ListResources', { id: 'nosuch' })).code, code.notFound);
  assert.deepEqual(ids((await client.call('leases', 'List', { filters: ['id==mine'] })).leases), ['mine']);
});

test('a lease header that names no lease fails the write', async (t) => {
  const { client } = await world(t);
  const data = Buffer.from('leased');
  const leased = client.with({ 'containerd-lease': 'nosuch' });
  assert.equal((await leased.write().fails({ ref: 'r', expected: digestOf(data) })).code, code.notFound);
});

const any = (text: string, typeUrl = 'types.containerd.io/opencontainers/runtime-spec/1/Spec') => ({
  typeUrl,
  value: Buffer.from(text),
});
const container = (id: string, more: object = {}) => ({
  id,
  labels: { a: '1' },
  image: 'i',
  runtime: { name: 'io.containerd.runc.v2', options: any('o', 'odd/Url?x=1') },
  spec: any('{"x":1}'),
  snapshotter: 'native',
  snapshotKey: id,
  extensions: { ext: any('e', 'x') },
  sandbox: 'box',
  ...more,
});

test('containers: everything travels there and back, messages opaque and byte for byte', async (t) => {
  const { client } = await world(t);
  await client.call('containers', 'Create', { container: container('web') });
  const { container: got } = await client.call('containers', 'Get', { id: 'web' });
  const { createdAt, updatedAt, ...rest } = JSON.parse(JSON.stringify(got));
  assert.deepEqual(
    rest,
    JSON.parse(JSON.stringify({ ...container('web'), extensions: { ext: { ...any('e', 'x') } } }), base64),
  );
  assert.deepEqual(createdAt, updatedAt);

  await client.call('containers', 'Create', { container: container('api') });
  assert.deepEqual(ids((await client.call('containers', 'List')).containers), ['api', 'web']);
  const streamed = await client.all('containers', 'ListStream', { filters: ['id==web'] });
  assert.deepEqual(ids(streamed.map((message) => message.container)), ['web']);

  const { container: updated } = await client.call('containers', 'Update', {
    container: container('web', { labels: { b: '2' }, image: 'j' }),
    updateMask: { paths: ['labels.b', 'image'] },
  });
  assert.deepEqual([updated.labels, updated.image], [{ a: '1', b: '2' }, 'j']);
  const noId = await client.fails('containers', 'Update', { container: container('') });
  assert.equal(noId.code, code.invalidArgument);
  const noSpec = await client.fails('containers', 'Create', { container: container('c', { spec: null }) });
  assert.equal(noSpec.code, code.invalidArgument);
  await client.call('containers', 'Delete', { id: 'web' });
  assert.equal((await client.fails('containers', 'Get', { id: 'web' })).code, code.notFound);
});

/** As protobufjs writes bytes in JSON. */
function base64(_key: string, value: unknown): unknown {
  const buffer = value as { type?: string; data?: number[] };
  return buffer?.type === 'Buffer' && buffer.data ? Buffer.from(buffer.data).toString('base64') : value;
}

test('sandboxes: stored, updated by field, deleted', async (t) => {
  const { client } = await world(t);
  const sandbox = {
    sandboxId: 'box',
    runtime: { name: 'r' },
    spec: any('s'),
    labels: { a: '1' },
    extensions: {},
    sandboxer: 'podsandbox',
  };
  await client.call('sandboxes', 'Create', { sandbox });
  const { sandbox: got } = await client.call('sandboxes', 'Get', { sandboxId: 'box' });
  assert.deepEqual(
    [got.sandboxId, got.runtime.name, got.labels, got.sandboxer, got.spec.value.toString()],
    ['box', 'r', { a: '1' }, 'podsandbox', 's'],
  );
  const { sandbox: updated } = await client.call('sandboxes', 'Update', {
    sandbox: { ...sandbox, labels: { b: '2' } },
    fields: ['labels'],
  });
  assert.deepEqual(updated.labels, { b: '2' });
  assert.deepEqual(ids((await client.call('sandboxes', 'List')).list, 'sandboxId'), ['box']);
  await client.call('sandboxes', 'Delete', { sandboxId: 'box' });
  assert.equal((await client.fails('sandboxes', 'Get', { sandboxId: 'box' })).code, code.notFound);
});

test('what clients ask of a server that runs no tasks', async (t) => {
  const { client } = await world(t);
  const get = await client.fails('tasks', 'Get', { containerId: 'web' });
  assert.equal(get.code, code.notFound);
  await client.call('tasks', 'List');
});
