/** Pulls and pushes of the Transfer service, with Debian's docker-registry, and with registries that make it wait. */
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Item } from '../../archive/support.js';
import { smallDisk } from '../../environment/small-disk.js';
import { Blobs, type MadeImage, named, tarOfFiles } from '../../images/fixtures.js';
import { FakeRegistry, type Trick } from '../../registry/registry.js';
import { layer } from '../../registry/support.js';
import {
  DockerRegistry,
  type DockerRegistryOptions,
  dockerRegistryMissing,
} from '../../support/docker-registry.js';
import { tempDir } from '../../support/temp.js';
import { type Message, methodOf, type TestClient } from '../client.js';
import { code, type World, world } from '../world.js';
import { answerCredentials, exportTo, importFrom, PeerStream, registry, store } from './peer.js';

const missing = dockerRegistryMissing();
const skip = missing === undefined ? {} : { skip: missing };
const host = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch };
const arm = { os: 'linux', architecture: 'riscv64' };
const plain = { defaultScheme: 'http' };

const started = (t: TestContext): Promise<World> => world(t, { transfer: true, snapshotters: 'native' });

async function docker(t: TestContext, options: DockerRegistryOptions = {}): Promise<DockerRegistry> {
  const started = await DockerRegistry.start(join(await tempDir(t), 'registry'), options);
  t.after(() => started[Symbol.asyncDispose]());
  return started;
}

interface Outcome {
  failed?: { code: number; details: string };
  events: string[];
}

async function transferred(client: TestClient, source: Message, destination: Message): Promise<Outcome> {
  const progress = await PeerStream.open(client, 'progress');
  const events = progress.progress();
  const request = { source, destination, options: { progressStream: 'progress' } };
  const failed = await client.call('transfer', 'Transfer', request).then(
    () => undefined,
    (error: { code: number; details: string }) => ({ code: error.code, details: error.details }),
  );
  return { ...(failed && { failed }), events: await events };
}

async function succeeds(...args: Parameters<typeof transferred>): Promise<string[]> {
  const { failed, events } = await transferred(...args);
  assert.equal(failed, undefined, failed?.details);
  return events;
}

/** Imports an image of two platforms as `local:1`. @param size of its first layer */
async function imported(
  client: TestClient,
  size = 100_000,
): Promise<{ index: string; one: MadeImage; two: MadeImage }> {
  const blobs = new Blobs();
  const one = await blobs.image([layer(size), layer(1000, 3)], { platform: host });
  const two = await blobs.image([layer(5000, 5)], { platform: arm });
  const index = blobs.index([
    { ...one.manifest, platform: host },
    { ...two.manifest, platform: arm },
  ]);
  const tar = await tarOfFiles(blobs.layout([named(index, '1')]));
  const input = await PeerStream.open(client, 'in');
  const sent = input.sendAll(tar);
  const prefix = { name: 'local', isPrefix: true };
  await client.call('transfer', 'Transfer', {
    source: importFrom('in'),
    destination: store({ extraReferences: [prefix] }),
  });
  await sent;
  return { index: index.digest, one, two };
}

async function contentOf(client: TestClient): Promise<string[]> {
  const infos = (await client.all('content', 'List', {})).flatMap((message) => message.info);
  return infos.map(({ digest }: Message) => digest).sort();
}

/** No image, lease or ingest; after a collection no blob and no snapshot. */
async function leftNothing(client: TestClient, snapshotter = 'native'): Promise<void> {
  assert.deepEqual((await client.call('images', 'List')).images, []);
  assert.deepEqual((await client.call('leases', 'List')).leases, []);
  assert.deepEqual((await client.call('content', 'ListStatuses')).statuses, []);
  await client.call('leases', 'Create', { id: 'collect' });
  await client.call('leases', 'Delete', { id: 'collect', sync: true });
  assert.deepEqual(await contentOf(client), []);
  const snapshots = await client.all('snapshots', 'List', { snapshotter });
  assert.deepEqual(
    snapshots.flatMap((message) => message.info),
    [],
  );
}

test(
  'given an image, when pushed to docker-registry and pulled by another daemon, then it is the same, unpacked, with each step reported',
  skip,
  async (t) => {
    const at = await docker(t);
    const { client } = await started(t);
    const { index, one, two } = await imported(client);
    const reference = `${at.host}/app:1`;
    const pushed = await succeeds(client, store({ name: 'local:1' }), registry(reference, plain));
    assert.deepEqual(pushed.slice(0, 2), [
      `Pushing to OCI Registry (${reference})`,
      'pushing content local:1',
    ]);
    assert.deepEqual(pushed.slice(-2), [
      'pushed content local:1',
      `Completed push to OCI Registry (${reference})`,
    ]);
    assert.ok(pushed.includes(`waiting index-${index}`) && pushed.includes(`complete index-${index}`));

    const { client: other } = await started(t);
    const events = await succeeds(
      other,
      registry(reference, plain),
      store({
        ...{ name: reference, labels: { a: '1' }, platforms: [host], allMetadata: true },
        unpacks: [{ platform: host, snapshotter: '' }],
      }),
    );
    assert.deepEqual(events.slice(0, 3), [
      `Resolving from OCI Registry (${reference})`,
      `Pulling from OCI Registry (${reference})`,
      `fetching image content ${reference}`,
    ]);
    assert.deepEqual(events.slice(-2), [
      `saved ${reference}`,
      `Completed pull from OCI Registry (${reference})`,
    ]);
    // Fetched, and unpacked.
    for (const { digest } of one.layers)
      assert.equal(events.filter((event) => event === `complete layer-${digest}`).length, 2, digest);
    const { images } = await other.call('images', 'List');
    assert.deepEqual(
      images.map((i: Message) => [i.name, i.target.digest, { ...i.labels }]),
      [[reference, index, { a: '1' }]],
    );
    const wanted = [one.manifest, one.config, ...one.layers, two.manifest, two.config].map(
      ({ digest }) => digest,
    );
    assert.deepEqual(await contentOf(other), [index, ...wanted].sort());
    const snapshots = await other.all('snapshots', 'List', { snapshotter: 'native' });
    assert.equal(snapshots.flatMap((message) => message.info).length, 2);
    assert.deepEqual((await other.call('leases', 'List')).leases, []);

    const again = await succeeds(client, store({ name: 'local:1' }), registry(`${at.host}/app:2`, plain));
    assert.ok(again.includes(`complete index-${index}`));
    assert.ok(again.includes(`already exists manifest-${one.manifest.digest}`));
    const missing = await transferred(other, registry(`${at.host}/app:3`, plain), store({ name: 'x' }));
    assert.equal(missing.failed?.code, code.notFound, missing.failed?.details);
  },
);

test(
  'given a push whose docker-registry is killed in the middle, then it is Unavailable, nothing of it stays, and the next one goes through',
  skip,
  async (t) => {
    const dir = join(await tempDir(t), 'registry');
    await using at = await DockerRegistry.start(dir);
    const { client } = await started(t);
    const { index } = await imported(client, 5_000_000);
    const pushing = transferred(client, store({ name: 'local:1' }), registry(`${at.host}/app:1`, plain));
    const uploads = join(dir, 'data', 'docker', 'registry', 'v2', 'repositories', 'app', '_uploads');
    while (!existsSync(uploads)) await sleep(2);
    await at[Symbol.asyncDispose]();
    const { failed } = await pushing;
    assert.equal(failed?.code, code.unavailable, failed?.details);
    assert.ok(failed?.details.includes(at.host), failed?.details);
    assert.deepEqual((await client.call('leases', 'List')).leases, []);
    const next = await docker(t);
    const reference = `${next.host}/app:1`;
    await succeeds(client, store({ name: 'local:1' }), registry(reference, plain));
    const { client: other } = await started(t);
    await succeeds(other, registry(reference, plain), store({ name: reference }));
    const { images } = await other.call('images', 'List');
    assert.deepEqual(
      images.map((one: Message) => one.target.digest),
      [index],
    );
  },
);

for (const auth of ['basic', 'token'] as const) {
  test(
    `given docker-registry with ${auth} authentication, when pushed and pulled, then the client is asked for credentials, which have to be right`,
    skip,
    async (t) => {
      const at = await docker(t, { auth });
      const { client } = await started(t);
      await imported(client);
      const reference = `${at.host}/some/app:1`;
      const good = { authType: 1, username: 'user', secret: 'secret' };
      const asked = await answerCredentials(client, 'creds', good);
      const resolver = { ...plain, authStream: 'creds' };
      await succeeds(
        client,
        store({ name: 'local:1', platforms: [host] }),
        registry(reference, resolver),
      ).catch(
        // The index is refused where a manifest of it is missing.
        (error: Error) => assert.match(error.message, /MANIFEST_BLOB_UNKNOWN|MANIFEST_UNKNOWN|400/),
      );
      assert.deepEqual(asked, [`${at.host} ${reference}`]);
      await answerCredentials(client, 'creds', good);
      await succeeds(client, store({ name: 'local:1' }), registry(reference, resolver));

      const { client: other } = await started(t);
      for (const wrong of [
        { ...good, secret: 'wrong' },
        { authType: 0 },
        { authType: 3, secret: 'Basic eDp5' },
      ]) {
        await answerCredentials(other, 'creds', wrong);
        const { failed } = await transferred(other, registry(reference, resolver), store({ name: 'x' }));
        assert.match(failed?.details ?? '', /authorization failed/);
      }
      const none = await transferred(other, registry(reference, plain), store({ name: 'x' }));
      assert.match(none.failed?.details ?? '', /authorization failed/);
      await leftNothing(other);
      await answerCredentials(other, 'creds', good);
      await succeeds(other, registry(reference, resolver), store({ name: reference }));
    },
  );
}

test(
  'given docker-registry over TLS, when pulled, then its certificate has to be known by the directory of hosts',
  skip,
  async (t) => {
    const at = await docker(t, { tls: true });
    const { client } = await started(t);
    await imported(client);
    const hostDir = await tempDir(t);
    const dir = join(hostDir, 'registry.example.com');
    mkdirSync(dir);
    const toml = `[host."https://${at.host}"]\n`;
    writeFileSync(join(dir, 'hosts.toml'), `${toml}ca = "ca.pem"\n`);
    copyFileSync(at.certificate, join(dir, 'ca.pem'));
    const reference = 'registry.example.com/app:1';
    await succeeds(client, store({ name: 'local:1' }), registry(reference, { hostDir }));
    await succeeds(client, registry(reference, { hostDir }), store({ name: reference }));
    // By its address it is local, so any certificate will do.
    await succeeds(client, registry(`${at.host}/app:1`), store({ name: reference }));
    writeFileSync(join(dir, 'hosts.toml'), toml);
    const { failed } = await transferred(client, registry(reference, { hostDir }), store({ name: 'x' }));
    assert.equal(failed?.code, code.unavailable, failed?.details);
    assert.match(failed?.details ?? '', /certificate/);
  },
);

/** A registry whose answer to a layer never ends, and the reference of an image in it. */
async function stuck(
  t: TestContext,
): Promise<{ at: FakeRegistry; reference: string; reached: () => Promise<void> }> {
  const blobs = new Blobs();
  const image = await blobs.image([layer(200_000)], { platform: host });
  const at = await FakeRegistry.start(t, blobs, { 1: image.manifest });
  const { digest } = image.layers[0]!;
  at.trick = (_request, response, { path }) => {
    if (!path.endsWith(digest)) return false;
    const bytes = blobs.all.get(digest)!;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 50_000));
    return true;
  };
  const reached = async (): Promise<void> => {
    while (at.times('GET', digest) === 0) await sleep(10);
    await sleep(50);
  };
  return { at, reference: `${at.host}/app:1`, reached };
}

test('given a pull that waits for its registry, when the client cancels it, then it ends, and nothing stays', async (t) => {
  const { client } = await started(t);
  const { reference, at, reached } = await stuck(t);
  const { path, request: requests, response } = methodOf('transfer', 'Transfer');
  const request = { source: registry(reference, plain), destination: store({ name: 'x' }) };
  const { grpc, headers } = client;
  const call = grpc.makeUnaryRequest(
    path,
    requests.encode,
    response.decode,
    request,
    headers,
    () => undefined,
  );
  await reached();
  assert.equal((await client.call('leases', 'List')).leases.length, 1);
  call.cancel();
  while (at.openConnections > 0) await sleep(10);
  while ((await client.call('leases', 'List')).leases.length > 0) await sleep(10);
  await leftNothing(client);
});

test('given a pull that unpacks several layers at once, when its client cancels it or goes at any step, then nothing stays', async (t) => {
  const { client, connect } = await world(t, {
    transfer: true,
    snapshotters: 'overlayfs',
    limits: { layersAtOnce: 3 },
  });
  const blobs = new Blobs();
  const link: Item[] = [{ name: 'again', type: 'link', linkname: 'file1' }];
  const image = await blobs.image([layer(200_000), layer(3000, 2), link, layer(90_000, 4)], {
    platform: host,
  });
  const at = await FakeRegistry.start(t, blobs, { 1: image.manifest });
  const reference = `${at.host}/app:1`;
  const unpacks = [{ platform: host, snapshotter: 'overlayfs' }];
  const { path, request: requests, response } = methodOf('transfer', 'Transfer');
  let completed = 0;
  for (let step = 1; completed === 0; step += 2) {
    const other = connect('test');
    const progress = await PeerStream.open(other, 'progress');
    const request = {
      ...{ source: registry(reference, plain), destination: store({ name: reference, unpacks }) },
      options: { progressStream: 'progress' },
    };
    const { encode } = requests;
    const call = other.grpc.makeUnaryRequest(
      path,
      encode,
      response.decode,
      request,
      other.headers,
      () => undefined,
    );
    for (let n = 0; n < step && completed === 0; n++) {
      if ((await progress.next().catch(() => undefined)) === undefined) completed = step;
    }
    if (step % 4 === 1) call.cancel();
    other.close();
    while ((await client.call('leases', 'List')).leases.length > 0) await sleep(5);
    // It was done before that arrived.
    await client.call('images', 'Delete', { name: reference }).catch(() => undefined);
    await leftNothing(client, 'overlayfs');
  }
  assert.ok(completed > 20, `${completed} steps`);
});

for (const kind of ['ext4', 'tmpfs'] as const) {
  for (const what of ['bytes', 'inodes'] as const) {
    test(`given ${kind} that has no ${what} left in the middle of a pull, then it is Unavailable, nothing stays, and later it succeeds`, async (t) => {
      const disk = await smallDisk(t, kind, what);
      if (disk === undefined) return;
      const { client } = await world(t, { transfer: true, snapshotters: 'native' }, disk.path);
      const blobs = new Blobs();
      const image = await blobs.image([layer(2_000_000), layer(3000)], { platform: host });
      const at = await FakeRegistry.start(t, blobs, { 1: image.manifest });
      // A layer's file is there before its first byte comes.
      const when = what === 'bytes' ? image.layers[0]!.digest : '/manifests/';
      let full = false;
      at.trick = (request, response, { path }) => {
        if (full || !path.includes(when)) return false;
        full = true;
        disk.fill();
        at.serve(request, response);
        return true;
      };
      const reference = `${at.host}/app:1`;
      const unpacks = [{ platform: host, snapshotter: 'native' }];
      const pull = () => transferred(client, registry(reference, plain), store({ name: reference, unpacks }));
      const { failed } = await pull();
      assert.equal(failed?.code, code.unavailable, failed?.details);
      assert.match(failed?.details ?? '', /no space left|ENOSPC/i);
      assert.match(failed?.details ?? '', new RegExp(disk.path));
      assert.deepEqual((await client.call('images', 'List')).images, []);
      disk.free();
      // The store looks at its disk now and then.
      const probe = { name: 'probe' };
      while (
        await client.call('namespaces', 'Create', { namespace: probe }).then(
          () => false,
          () => true,
        )
      )
        await sleep(20);
      await leftNothing(client);
      assert.equal((await pull()).failed, undefined);
    });
  }
}

test(
  'given a disk without a free byte, when images are pushed and exported, also under a lease of the client, then all of it is',
  skip,
  async (t) => {
    const disk = await smallDisk(t, 'ext4', 'bytes');
    if (disk === undefined) return;
    const at = await docker(t);
    const { client } = await world(t, { transfer: true, snapshotters: 'native' }, disk.path);
    const { index } = await imported(client);
    await client.call('leases', 'Create', { id: 'mine' });
    disk.fill();
    // The store looks at its disk now and then.
    await sleep(200);
    assert.equal((await client.fails('leases', 'Create', { id: 'late' })).code, code.unavailable);
    for (const [n, from] of [client, client.with({ lease: 'mine' })].entries()) {
      const reference = `${at.host}/app:${n}`;
      await succeeds(from, store({ name: 'local:1' }), registry(reference, plain));
      const output = await PeerStream.open(from, 'out');
      const received = output.receiveAll(100_000);
      await from.call('transfer', 'Transfer', {
        source: store({ name: 'local:1' }),
        destination: exportTo('out', { allPlatforms: true }),
      });
      const { bytes } = await received;
      assert.ok(bytes.includes(index.slice('sha256:'.length)));
      const { client: other } = await started(t);
      await succeeds(other, registry(reference, plain), store({ name: reference }));
      assert.equal((await other.call('images', 'List')).images[0].target.digest, index);
    }
    assert.deepEqual(
      (await client.call('leases', 'List')).leases.map(({ id }: Message) => id),
      ['mine'],
    );
  },
);

test('given more pulls at once than the daemon has places for, then those beyond are refused, and others follow when some end', async (t) => {
  const { client } = await started(t);
  const { at, reference } = await stuck(t);
  const none: Trick = (_request, response) => {
    response.writeHead(404).end();
    return true;
  };
  const { path, request: requests, response } = methodOf('transfer', 'Transfer');
  const request = { source: registry(reference, plain), destination: store({ name: 'x' }) };
  at.trick = () => true;
  const { grpc, headers } = client;
  const calls = Array.from({ length: 64 }, () =>
    grpc.makeUnaryRequest(path, requests.encode, response.decode, request, headers, () => undefined),
  );
  while (at.asked.length < 64) await sleep(10);
  assert.equal((await client.fails('transfer', 'Transfer', request)).code, code.resourceExhausted);
  for (const call of calls) call.cancel();
  while ((await client.call('leases', 'List')).leases.length > 0) await sleep(10);
  at.trick = none;
  assert.equal((await client.fails('transfer', 'Transfer', request)).code, code.notFound);
});

test('given a client that gives no credentials, when it closes its stream, then its pull ends', async (t) => {
  const { client } = await started(t);
  const { at, reference } = await stuck(t);
  at.trick = (_request, response) => {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end();
    return true;
  };
  const stream = await PeerStream.open(client, 'creds');
  const request = {
    source: registry(reference, { ...plain, authStream: 'creds' }),
    destination: store({ name: 'x' }),
  };
  const failed = client.fails('transfer', 'Transfer', request);
  await stream.next();
  stream.call.end();
  assert.equal((await failed).code, code.canceled);
  await leftNothing(client);
});

test('given an image that cannot be unpacked, when pulled or imported, then it gets no name, as with containerd', async (t) => {
  const { client } = await started(t);
  const blobs = new Blobs();
  const image = await blobs.image([layer(1000)], { platform: host });
  const config = blobs.add(image.config.mediaType, {
    ...host,
    rootfs: { type: 'layers', diff_ids: [`sha256:${'0'.repeat(64)}`] },
  });
  const { mediaType, layers } = { ...image.manifest, layers: image.layers };
  const manifest = blobs.add(mediaType, { schemaVersion: 2, mediaType, config, layers });
  const at = await FakeRegistry.start(t, blobs, { 1: manifest });
  const unpacks = [{ platform: host, snapshotter: 'native' }];
  const reference = `${at.host}/app:1`;
  const pulled = await transferred(client, registry(reference, plain), store({ name: reference, unpacks }));
  assert.equal(pulled.failed?.code, code.invalidArgument);
  await leftNothing(client);
  const input = await PeerStream.open(client, 'in');
  const sent = input.sendAll(await tarOfFiles(blobs.layout([named(manifest, '1')])));
  const prefix = { name: 'local', isPrefix: true };
  const destination = store({ extraReferences: [prefix], unpacks });
  const { failed } = await transferred(client, importFrom('in'), destination);
  await sent;
  assert.equal(failed?.code, code.invalidArgument);
  await leftNothing(client);
});

test('given a request that makes no sense, or asks for what is not here, then no registry is asked', async (t) => {
  const { client } = await started(t);
  const { at, reference } = await stuck(t);
  const to = store({ name: 'x' });
  for (const [source, destination, wanted] of [
    [registry(reference, { defaultScheme: 'ftp' }), to, code.invalidArgument],
    [registry(reference, { ...plain, headers: { 'a b': 'c' } }), to, code.invalidArgument],
    [registry(reference, { ...plain, headers: { a: 'b\r\nc: d' } }), to, code.invalidArgument],
    [registry(reference, { ...plain, headers: { a: 'x'.repeat(20_000) } }), to, code.invalidArgument],
    [registry(reference, { ...plain, httpDebug: 1 }), to, code.unimplemented],
    [registry(reference, { ...plain, authStream: 'none' }), to, code.notFound],
    [registry('nothing', plain), to, code.invalidArgument],
    [
      registry(reference, plain),
      store({ name: 'x', unpacks: [{ snapshotter: 'none' }] }),
      code.invalidArgument,
    ],
    [store({ name: 'missing' }), registry(reference, plain), code.notFound],
  ] as const) {
    const { failed } = await transferred(client, source, destination);
    assert.equal(failed?.code, wanted, failed?.details);
  }
  assert.equal(at.asked.length, 0);
  const { failed } = await transferred(client, registry(reference, plain), store({}));
  assert.equal(failed?.code, code.notFound, failed?.details);
  await leftNothing(client);
});
