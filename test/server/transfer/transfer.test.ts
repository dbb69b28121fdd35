/** Transfer and Streaming, as `ctr` 2.x uses them for archives and tags; what they refuse, and what hostile clients get. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChunkReader } from '../../../src/backends/archive/chunks.js';
import { readTar } from '../../../src/backends/archive/tar/tar-reader.js';
import { exportImages } from '../../../src/images/export.js';
import { importImage } from '../../../src/images/import.js';
import { Reporter } from '../../../src/server/transfer/progress.js';
import { streamOf, tarOf } from '../../archive/support.js';
import { Blobs, dockerSave, IMAGE_NAME, named, tarOfFiles } from '../../images/fixtures.js';
import { testDB } from '../../support/db.js';
import { type Message, methodOf, type TestClient } from '../client.js';
import { code, type World, world } from '../world.js';
import { exportTo, importFrom, isData, PeerStream, store } from './peer.js';

const BASE = 'example.com/app';
const host = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch };
const prefix = { name: BASE, isPrefix: true };

const started = (t: TestContext): Promise<World> => world(t, { transfer: true, snapshotters: 'native' });

/** An archive with the tag `one`, of a layer that is larger than a window and does not compress. */
async function archive(entries: Record<string, string> = {}): Promise<{ tar: Buffer; digest: string }> {
  const blobs = new Blobs();
  const text = Array.from({ length: 40_000 }, (_, i) => `${(i * 2_654_435_761) % 4_294_967_296}`).join('');
  const { manifest } = await blobs.image([[{ name: 'file', text }]], { platform: host, plain: true });
  const entry = { ...named(manifest, 'one') };
  Object.assign(entry.annotations ?? {}, entries);
  return { tar: await tarOfFiles(blobs.layout([entry])), digest: manifest.digest };
}

/** Imports an archive through a stream; the call's outcome and the events of its progress. */
async function transferred(
  client: TestClient,
  tar: Buffer,
  destination: object,
): Promise<{ failed?: { code: number; details: string }; events: string[] }> {
  const input = await PeerStream.open(client, 'in');
  const progress = await PeerStream.open(client, 'progress');
  const events = progress.progress();
  const sent = input.sendAll(tar);
  const request = {
    source: importFrom('in'),
    destination: store(destination),
    options: { progressStream: 'progress' },
  };
  const failed = await client.call('transfer', 'Transfer', request).then(
    () => undefined,
    (error: { code: number; details: string }) => ({ code: error.code, details: error.details }),
  );
  await sent.catch(() => undefined);
  return { ...(failed && { failed }), events: await events };
}

/** This client half-closes before it cancels, so the archive may be cut off first. */
const endedWith = ({ code: got, details }: { code: number; details: string }): void =>
  assert.ok(got === code.canceled || got === code.invalidArgument, `${got}: ${details}`);

const names = async (client: TestClient): Promise<string[]> =>
  (await client.call('images', 'List')).images.map((image: Message) => image.name);

test('given no option, then the services are not there, nor in the list of plugins', async (t) => {
  const { client } = await world(t);
  const request = { source: store({ name: 'a' }), destination: store({ name: 'b' }) };
  assert.equal((await client.fails('transfer', 'Transfer', request)).code, code.unimplemented);
  await assert.rejects(PeerStream.open(client, 's'), { code: code.unimplemented });
  const { plugins } = await client.call('introspection', 'Plugins', {});
  assert.deepEqual(
    plugins.filter((p: Message) => /transfer|streaming/.test(p.type + p.id)),
    [],
  );
});

test('an archive becomes images with their labels, unpacked, step by step, and no lease stays', async (t) => {
  const { client } = await started(t);
  const { tar, digest } = await archive();
  const { failed, events } = await transferred(client, tar, {
    extraReferences: [{ ...prefix, addDigest: true }],
    labels: { kind: 'test' },
    unpacks: [{ platform: host, snapshotter: '' }],
  });
  assert.equal(failed, undefined);
  assert.deepEqual(events, ['Importing', `saved ${BASE}:one`, `saved ${BASE}@${digest}`, 'Completed import']);
  const { images } = await client.call('images', 'List');
  assert.deepEqual(
    images.map((i: Message) => [i.name, i.target.digest, { ...i.labels }]),
    [
      [`${BASE}:one`, digest, { kind: 'test' }],
      [`${BASE}@${digest}`, digest, { kind: 'test' }],
    ],
  );
  const snapshots = await client.all('snapshots', 'List', { snapshotter: 'native' });
  assert.equal(snapshots.flatMap((message) => message.info).length, 1);
  assert.deepEqual((await client.call('leases', 'List')).leases, []);
});

test('what follows the end of an archive is taken, too, so that its sender does not fail', async (t) => {
  const { client } = await started(t);
  const { tar } = await archive();
  const input = await PeerStream.open(client, 'in');
  const sent = input.sendAll(Buffer.concat([tar, Buffer.alloc(400_000)]));
  const request = { source: importFrom('in'), destination: store({ extraReferences: [prefix] }) };
  await client.call('transfer', 'Transfer', request);
  assert.equal(await sent, true);
  assert.equal(await input.end(), 0);
});

test('an exported archive has the bytes of an export, never more at a time than the client asked for', async (t) => {
  const { client } = await started(t);
  const { tar } = await archive();
  await transferred(client, tar, { extraReferences: [prefix] });
  const output = await PeerStream.open(client, 'out');
  const received = output.receiveAll(10_000);
  await client.call('transfer', 'Transfer', {
    source: store({ extraReferences: [{ name: `${BASE}:one` }] }),
    destination: exportTo('out'),
  });
  const { bytes, beyond } = await received;
  assert.equal(beyond, 0);

  const db = await testDB(t);
  const ctx = { namespace: 'test' };
  await importImage(db, ctx, streamOf(tar), { baseName: BASE });
  const parts: Uint8Array[] = [];
  await exportImages(db, ctx, [`${BASE}:one`], async (part) => void parts.push(Uint8Array.from(part)));
  assert.ok(bytes.equals(Buffer.concat(parts)), `${bytes.length} bytes differ`);
});

test('a tag is a new name for the target, replaces what had the name, and has labels of its own', async (t) => {
  const { client } = await started(t);
  const { tar, digest } = await archive();
  await transferred(client, tar, { extraReferences: [prefix], labels: { old: '1' } });
  const target = { mediaType: 'a/b', digest: `sha256:${'0'.repeat(64)}`, size: 1 };
  await client.call('images', 'Create', { image: { name: 'taken', labels: { x: '1' }, target } });
  for (const name of ['new', 'taken']) {
    const request = {
      source: store({ name: `${BASE}:one` }),
      destination: store({ name, labels: { a: '1' } }),
    };
    await client.call('transfer', 'Transfer', request);
    const { image } = await client.call('images', 'Get', { name });
    assert.deepEqual([image.target.digest, { ...image.labels }], [digest, { a: '1' }]);
  }
  const missing = { source: store({ name: 'missing' }), destination: store({ name: 'third' }) };
  assert.equal((await client.fails('transfer', 'Transfer', missing)).code, code.notFound);
  assert.deepEqual(await names(client), [`${BASE}:one`, 'new', 'taken']);
});

test('what cannot be done as asked is Unimplemented before anything is changed', async (t) => {
  const { client } = await started(t);
  const { tar } = await archive();
  await transferred(client, tar, { extraReferences: [prefix] });
  const one = store({ extraReferences: [{ name: `${BASE}:one` }] });
  const requests: [object, object][] = [
    [importFrom('s'), exportTo('s')],
    [importFrom('s'), { typeUrl: 'some.other', value: Buffer.alloc(0) }],
    [one, { typeUrl: '', value: Buffer.alloc(0) }],
    [store({ extraReferences: [prefix] }), exportTo('s')],
  ];
  for (const [source, destination] of requests) {
    const { code: got, details } = await client.fails('transfer', 'Transfer', { source, destination });
    assert.equal(got, code.unimplemented, details);
  }
  assert.deepEqual(await names(client), [`${BASE}:one`]);
});

test('an archive is exported for several platforms, without manifest.json, and without layers that may not be distributed', async (t) => {
  const { client } = await started(t);
  const blobs = new Blobs();
  const arm = { os: 'linux', architecture: 'arm64' };
  const mips = { os: 'linux', architecture: 'mips' };
  const images = await Promise.all(
    [host, arm, mips].map((platform) =>
      blobs.image([[{ name: platform.architecture, text: '1' }]], { platform }),
    ),
  );
  const foreign = blobs.add(
    'application/vnd.oci.image.layer.nondistributable.v1.tar',
    Buffer.from('foreign'),
  );
  const [first] = images;
  const { mediaType } = first!.manifest;
  const layers = [foreign, ...first!.layers];
  const manifest = blobs.add(mediaType, { schemaVersion: 2, mediaType, config: first!.config, layers });
  const index = blobs.index([
    { ...manifest, platform: host },
    ...images.slice(1).map((image, i) => ({ ...image.manifest, platform: [arm, mips][i]! })),
  ]);
  await transferred(client, await tarOfFiles(blobs.layout([named(index, 'one')])), {
    extraReferences: [prefix],
  });
  const exported = async (options: object): Promise<string[]> => {
    const output = await PeerStream.open(client, 'out');
    const received = output.receiveAll(100_000);
    await client.call('transfer', 'Transfer', {
      source: store({ extraReferences: [{ name: `${BASE}:one` }] }),
      destination: exportTo('out', options),
    });
    const found: string[] = [];
    const { bytes } = await received;
    for await (const entry of readTar(new ChunkReader(streamOf(bytes)))) found.push(entry.name);
    return found;
  };
  const has = (files: string[], { digest }: { digest: string }): boolean =>
    files.includes(`blobs/${digest.replace(':', '/')}`);
  const two = await exported({ platforms: [arm, host] });
  assert.deepEqual(
    [manifest, foreign, images[1]!.manifest, images[2]!.manifest, index].map((one) => has(two, one)),
    [true, true, true, false, false],
  );
  const single = await exported({ platforms: [arm] });
  assert.ok(single.includes('manifest.json'));
  const bare = await exported({ platforms: [arm], skipCompatibilityManifest: true });
  assert.ok(!bare.includes('manifest.json'));
  const free = await exported({ allPlatforms: true, skipNonDistributable: true });
  assert.deepEqual(
    [index, manifest, foreign].map((one) => has(free, one)),
    [true, true, false],
  );
  const none = {
    platforms: [
      { os: 'linux', architecture: 's390x' },
      { os: 'plan9', architecture: '386' },
    ],
  };
  const output = await PeerStream.open(client, 'none');
  const source = store({ extraReferences: [{ name: `${BASE}:one` }] });
  const request = { source, destination: exportTo('none', none) };
  assert.equal((await client.fails('transfer', 'Transfer', request)).code, code.notFound);
  assert.equal(await output.end(), code.notFound);
});

test('the index of an archive becomes an image by its own name, which keeps what it refers to', async (t) => {
  const { client } = await started(t);
  const { tar, digest } = await archive();
  const { failed, events } = await transferred(client, tar, { name: 'whole', extraReferences: [prefix] });
  assert.equal(failed, undefined);
  assert.deepEqual(events.slice(1, -1).sort(), [`saved ${BASE}:one`, 'saved whole']);
  await client.call('images', 'Delete', { name: `${BASE}:one`, sync: true });
  const { image } = await client.call('images', 'Get', { name: 'whole' });
  assert.equal(image.target.mediaType, 'application/vnd.oci.image.index.v1+json');
  const { info } = await client.call('content', 'Info', { digest: image.target.digest });
  assert.deepEqual(Object.values(info.labels), [digest]);
  await client.call('content', 'Info', { digest });
  // Its entries need no name of their own then.
  const alone = await transferred(client, tar, { name: 'alone' });
  assert.deepEqual(alone.events, ['Importing', 'saved alone', 'Completed import']);
});

test('the plain layers of a docker archive are compressed if that is asked for, and unpack', async (t) => {
  const { client } = await started(t);
  const blobs = new Blobs();
  const items = [{ name: 'file', text: 'text'.repeat(50_000) }];
  const image = await blobs.image([items], { platform: host, plain: true });
  const tar = await dockerSave(blobs, image, [`${BASE}:one`], [await tarOf(items)]);
  const input = await PeerStream.open(client, 'in');
  const sent = input.sendAll(tar);
  await client.call('transfer', 'Transfer', {
    source: importFrom('in', { forceCompress: true }),
    destination: store({ extraReferences: [prefix], unpacks: [{ platform: host, snapshotter: '' }] }),
  });
  await sent;
  const infos = (await client.all('content', 'List', {})).flatMap((message) => message.info);
  const layer = infos.find(
    ({ labels }: Message) => labels['containerd.io/uncompressed'] === image.diffIds[0],
  );
  assert.ok(layer.size < 10_000 && layer.digest !== image.diffIds[0], `${layer.size}`);
  const snapshots = await client.all('snapshots', 'List', { snapshotter: 'native' });
  assert.equal(snapshots.flatMap((message) => message.info).length, 1);
});

test('a stream belongs to its namespace, has one user, and a name only once', async (t) => {
  const { client, connect } = await started(t);
  const first = await PeerStream.open(client, 's');
  await assert.rejects(PeerStream.open(client, 's'), { code: code.alreadyExists });
  await assert.rejects(PeerStream.open(client, ''), { code: code.invalidArgument });
  const other = connect('other');
  const request = { source: importFrom('s'), destination: store({ extraReferences: [prefix] }) };
  assert.equal((await other.fails('transfer', 'Transfer', request)).code, code.notFound);
  const running = client.fails('transfer', 'Transfer', request);
  await sleep(50);
  assert.equal((await client.fails('transfer', 'Transfer', request)).code, code.notFound);
  await PeerStream.open(client, 's').then((again) => again.call.cancel());
  const missing = { ...request, options: { progressStream: 'nothing' } };
  assert.equal((await client.fails('transfer', 'Transfer', missing)).code, code.notFound);
  first.call.cancel();
  endedWith(await running);
});

test('an archive that is cut off, is nothing, or names nothing leaves no image, and the stream ends with the error', async (t) => {
  const { client } = await started(t);
  const { tar } = await archive({ [IMAGE_NAME]: 'other.example/app:1' });
  for (const [bytes, why] of [
    [tar.subarray(0, tar.length / 2), /./],
    [Buffer.from('nothing of the kind'), /./],
    [tar, /no image that gets a name/],
  ] as const) {
    const { failed, events } = await transferred(client, bytes, { extraReferences: [prefix] });
    assert.equal(failed?.code, code.invalidArgument, failed?.details);
    assert.match(failed?.details ?? '', why);
    assert.deepEqual(events, ['Importing']);
  }
  assert.deepEqual(await names(client), []);
  assert.deepEqual((await client.call('leases', 'List')).leases, []);
});

test('a client that sends unasked, sends something else, or asks for too much is refused', async (t) => {
  const { client } = await started(t);
  const into = store({ extraReferences: [prefix] });
  const flood = await PeerStream.open(client, 'flood');
  const failed = client.fails('transfer', 'Transfer', { source: importFrom('flood'), destination: into });
  for (let i = 0; i < 40; i++) flood.send(Buffer.alloc(32 * 1024));
  assert.equal((await failed).code, code.invalidArgument);
  assert.equal(await flood.end(), code.invalidArgument);

  const strange = await PeerStream.open(client, 'strange');
  strange.grant(5);
  const refused = await client.fails('transfer', 'Transfer', {
    source: importFrom('strange'),
    destination: into,
  });
  assert.match(refused.details, /WindowUpdate/);

  const many = Array.from({ length: 101 }, (_, i) => ({ ...prefix, name: `n${i}` }));
  const unpacks = Array.from({ length: 11 }, () => ({ snapshotter: 'native' }));
  for (const destination of [{ extraReferences: many }, { extraReferences: [prefix], unpacks }]) {
    const request = { source: importFrom('none'), destination: store(destination) };
    assert.match((await client.fails('transfer', 'Transfer', request)).details, /of which \d+ are allowed/);
  }
});

test('a client that leaves in the middle ends its transfer; others are served', async (t) => {
  const { client, connect } = await started(t);
  const { tar } = await archive();
  const leaving = connect('test');
  const input = await PeerStream.open(leaving, 'in');
  const running = leaving.fails('transfer', 'Transfer', {
    source: importFrom('in'),
    destination: store({ extraReferences: [prefix] }),
  });
  input.send(tar.subarray(0, 20_000));
  await sleep(50);
  input.call.cancel();
  endedWith(await running);
  assert.equal((await transferred(client, tar, { extraReferences: [prefix] })).failed, undefined);
  assert.deepEqual(await names(client), [`${BASE}:one`]);
});

test('an export that the client stops reading ends, and so does one that it does not want', async (t) => {
  const { client } = await started(t);
  const { tar } = await archive();
  await transferred(client, tar, { extraReferences: [prefix] });
  const request = (id: string): object => ({
    source: store({ extraReferences: [{ name: `${BASE}:one` }] }),
    destination: exportTo(id),
  });
  const half = await PeerStream.open(client, 'half');
  const running = client.fails('transfer', 'Transfer', request('half'));
  half.grant(1000);
  assert.equal(isData(await half.next()), true);
  half.call.end();
  assert.equal((await running).code, code.canceled);
  assert.equal(await half.end(), code.canceled);
});

test('a transfer whose call is over ends its stream, also when the client neither sends more nor leaves', async (t) => {
  const { client } = await started(t);
  const { tar } = await archive();
  for (const [id, bytes] of [
    ['nothing', Buffer.alloc(0)],
    ['a part', tar.subarray(0, 20_000)],
    ['all', tar],
  ] as const) {
    const input = await PeerStream.open(client, id);
    const { path, request: requests, response } = methodOf('transfer', 'Transfer');
    const request = { source: importFrom(id), destination: store({ extraReferences: [prefix] }) };
    const { grpc, headers } = client;
    const call = grpc.makeUnaryRequest(
      path,
      requests.encode,
      response.decode,
      request,
      headers,
      () => undefined,
    );
    assert.equal(await input.sendOpen(bytes), true);
    while (id === 'all' && (await names(client)).length === 0) await sleep(10);
    if (bytes.length === 0) await input.next();
    call.cancel();
    assert.equal(await input.end(), code.canceled, id);
  }
});

test('given a client that reads no progress, when its transfer is over, then the call ends all the same', async () => {
  let [sent, closed] = [0, 0];
  let take: () => void = () => undefined;
  const reporter = new Reporter(
    {
      receive: () => new Promise(() => undefined),
      send: () =>
        new Promise<void>((resolve) => {
          sent++;
          take = resolve;
        }),
      close: () => void closed++,
    },
    1,
  );
  for (const event of ['one', 'two', 'three']) reporter.report({ event });
  await reporter.close();
  take();
  await new Promise(setImmediate);
  assert.deepEqual([sent, closed], [1, 1]);
});
