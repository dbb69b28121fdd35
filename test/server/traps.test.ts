import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { digestOf } from '../../src/model/digest.js';
import { type Failure, services } from './client.js';
import { code, world } from './world.js';

const MiB = 2 ** 20;
const target = { mediaType: 'a/b', digest: digestOf(Buffer.from('x')), size: 1 };

test('of two namespace headers the first counts; a missing or malformed one has its own error', async (t) => {
  const { client, connect } = await world(t);
  await client.with({ 'containerd-namespace': 'new, old' }).call('leases', 'Create', { id: 'l' });
  const { namespaces } = await client.call('namespaces', 'List');
  assert.deepEqual(
    namespaces.map((n: { name: string }) => n.name),
    ['new'],
  );
  const bare = connect();
  bare.headers.remove('containerd-namespace');
  for (const [service, method] of [
    ['images', 'List'],
    ['content', 'ListStatuses'],
    ['containers', 'List'],
    ['leases', 'List'],
  ] as const) {
    assert.equal((await bare.fails(service, method)).code, code.failedPrecondition, service);
  }
  const odd = client.with({ 'containerd-namespace': '../etc' });
  assert.equal((await odd.fails('images', 'List')).code, code.invalidArgument);
});

test('unknown services and methods are Unimplemented at once', async (t) => {
  const { client } = await world(t);
  const ask = (path: string): Promise<Failure> =>
    new Promise((resolve, reject) => {
      const pass = (bytes: Buffer): Buffer => bytes;
      client.grpc.makeUnaryRequest(path, pass, pass, Buffer.alloc(0), client.headers, (error) =>
        error ? resolve(error) : reject(new Error(`${path} succeeded`)),
      );
    });
  const paths = [
    '/containerd.services.transfer.v1.Transfer/Transfer',
    '/containerd.services.sandbox.v1.Controller/Start',
    `/${services.tasks}/Start`,
    `/${services.images}/Nosuch`,
    '/',
    '/a/b/c',
  ];
  for (const path of paths) assert.equal((await ask(path)).code, code.unimplemented, path);
});

test('messages of 16 MiB pass, larger ones are refused without harm to the connection', async (t) => {
  const { client } = await world(t);
  const data = randomBytes(16 * MiB - 1024);
  const digest = digestOf(data);
  const stream = client.write();
  await stream.ask({ ref: 'large' });
  assert.equal((await stream.ask({ action: 1, data })).offset, data.length);
  await stream.ask({ action: 2, offset: data.length, expected: digest });
  await stream.end();
  assert.deepEqual(await client.read(digest), data);

  const larger = client.write();
  await larger.ask({ ref: 'larger' });
  const failure = await larger.fails({ action: 1, data: Buffer.alloc(16 * MiB + 1) });
  assert.equal(failure.code, code.resourceExhausted);
  assert.deepEqual((await client.call('images', 'List')).images, []);
});

test('damaged messages fail their call and nothing else', async (t) => {
  const { client } = await world(t);
  const path = `/${services.images}/Get`;
  const pass = (bytes: Buffer): Buffer => bytes;
  const codes = await Promise.all(
    [Buffer.from([0x0a, 0xff]), Buffer.from([0x0f]), randomBytes(300)].map(
      (bytes) =>
        new Promise<number>((resolve) => {
          client.grpc.makeUnaryRequest(path, pass, pass, bytes, client.headers, (error) =>
            resolve(error?.code ?? 0),
          );
        }),
    ),
  );
  assert.equal(codes.includes(0), false);
  const write = client.grpc.makeBidiStreamRequest(`/${services.content}/Write`, pass, pass, client.headers);
  const failed = new Promise<number>((resolve) => {
    write.on('error', (error: Error & { code: number }) => resolve(error.code));
  });
  write.write(Buffer.from([0x32, 0xff, 0x01]));
  write.resume();
  assert.equal(await failed, code.internal);
  assert.deepEqual((await client.call('images', 'List')).images, []);
});

test('a client that cancels a read or a list early is not an error, and nothing stays open', async (t) => {
  const { client } = await world(t);
  const data = randomBytes(8 * MiB);
  const digest = digestOf(data);
  await client.ingest('r', data, digest);
  for (let i = 0; i < 20; i++) {
    const stream = client.stream('content', 'Read', { digest });
    await new Promise((resolve) => stream.once('data', resolve));
    stream.on('error', () => undefined);
    stream.cancel();
  }
  assert.deepEqual(await client.read(digest, 0, 10), data.subarray(0, 10));
  // The blob's file was opened for twenty reads; it is closed a moment after the last.
  const open = (): string[] =>
    readdirSync('/proc/self/fd')
      .map(linkOf)
      .filter((path) => path.includes(digest.slice(7)));
  for (let i = 0; i < 500 && open().length > 0; i++) await new Promise((done) => setTimeout(done, 10));
  assert.deepEqual(open(), []);
});

test('path characters in refs, keys and names stay names', async (t) => {
  const { client, root } = await world(t);
  const odd = ['../../../escape', '/etc/passwd', 'a/../b', '..', '.', 'with\nnewline', 'ünï©ode', '%2e%2e/x'];
  const data = Buffer.from('odd');
  const digest = digestOf(data);
  for (const name of odd) {
    const stream = client.write();
    await stream.ask({ ref: name });
    await stream.ask({ action: 1, data });
    await stream.end();
    await client.call('images', 'Create', { image: { name, labels: {}, target } });
    await client.call('snapshots', 'Prepare', { snapshotter: 'native', key: name });
    await client.call('leases', 'Create', { id: name });
  }
  const { statuses } = await client.call('content', 'ListStatuses');
  assert.deepEqual(statuses.map((s: { ref: string }) => s.ref).sort(), [...odd].sort());
  for (const service of ['containers', 'sandboxes'] as const) {
    const request =
      service === 'containers'
        ? { container: { id: '../x', runtime: { name: 'r' }, spec: { typeUrl: 't', value: data } } }
        : { sandbox: { sandboxId: '../x' } };
    assert.equal((await client.fails(service, 'Create', request)).code, code.invalidArgument);
  }
  assert.equal(
    (await client.fails('namespaces', 'Create', { namespace: { name: '../x', labels: {} } })).code,
    code.invalidArgument,
  );
  assert.equal(
    (await client.fails('snapshots', 'Prepare', { snapshotter: '../native', key: 'k' })).code,
    code.invalidArgument,
  );
  // Nothing was made outside the root, and inside it only what belongs there.
  assert.deepEqual(readdirSync(`${root}/..`), ['root']);
  assert.deepEqual(
    readdirSync(root)
      .filter((name) => !name.startsWith('io.containerd.'))
      .sort(),
    ['daemon.json', 'run'],
  );
  const ingests = readdirSync(`${root}/io.containerd.content.v1.content/ingest`);
  assert.equal(
    ingests.every((name) => /^[0-9a-f]{64}$/.test(name)),
    true,
  );
  assert.equal(digest.startsWith('sha256:'), true);
});

test('empty labels are not stored, so they keep nothing', async (t) => {
  const { client } = await world(t);
  const data = Buffer.from('root?');
  const digest = digestOf(data);
  await client.ingest('r', data, digest, { 'containerd.io/gc.root': '' });
  await client.call('leases', 'Create', { id: 'l' });
  await client.call('leases', 'Delete', { id: 'l', sync: true });
  assert.equal((await client.fails('content', 'Info', { digest })).code, code.notFound);
});

function linkOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}
