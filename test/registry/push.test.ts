/** Images sent to registries: in order, once, from another repository where that is known; and registries that fail on the way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addBlobLabels } from '../../src/images/content.js';
import { targetOf } from '../../src/registry/exchange.js';
import { Blobs, ctx } from '../images/fixtures.js';
import { testDB } from '../support/db.js';
import { FakeRegistry, type Trick } from './registry.js';
import { fetched, here, layer, pushed, type Stage, stage } from './support.js';

/** A store with the image `fetched`, and a registry without it. */
async function ready(t: Parameters<typeof stage>[0]): Promise<Stage> {
  const s = await stage(t);
  await fetched(s);
  return { ...s, registry: await FakeRegistry.start(t, new Blobs(), {}) };
}

test('given an image, when pushed, then its blobs come first, its tag last, and what is there is not sent again', async (t) => {
  const s = await ready(t);
  await pushed(s, 'copy:1');
  const sent = [...s.registry.taken.keys()];
  const { manifest, config, layers } = s.image;
  assert.equal(sent.at(-1), '1');
  assert.deepEqual(sent.slice(0, -1).sort(), [config, ...layers].map(({ digest }) => digest).sort());
  for (const [name, bytes] of s.registry.taken)
    assert.deepEqual(bytes, s.blobs.all.get(name === '1' ? manifest.digest : name), name);
  s.registry.asked.length = 0;
  await pushed(s, 'copy:1');
  assert.deepEqual([...new Set(s.registry.asked.map(({ method }) => method))], ['HEAD']);
});

test('given an image of many layers, when pushed and fetched, then connections are used again', async (t) => {
  const blobs = new Blobs();
  const layers = Array.from({ length: 12 }, (_, i) => layer(1000, i + 3));
  const image = await blobs.image(layers, { plain: true });
  const registry = await FakeRegistry.start(t, blobs, { 1: image.manifest });
  const db = await testDB(t);
  await fetched({ db, registry });
  assert.ok(registry.connections < registry.asked.length / 2, `${registry.connections}`);
  const to = await FakeRegistry.start(t, new Blobs(), {});
  await pushed({ db, registry: to }, 'copy:1');
  assert.ok(to.connections < to.asked.length / 2, `${to.connections} for ${to.asked.length} requests`);
});

test('given an index, when pushed, then it follows its manifests, which have no tag', async (t) => {
  const blobs = new Blobs();
  const one = await blobs.image([layer(1000, 3)], { platform: here });
  const two = await blobs.image([layer(1000, 5)], { platform: { os: 'linux', architecture: 'arm64' } });
  const index = blobs.index([one.manifest, two.manifest]);
  const from = await FakeRegistry.start(t, blobs, { 1: index });
  const db = await testDB(t);
  await fetched({ db, registry: from });
  const registry = await FakeRegistry.start(t, new Blobs(), {});
  await pushed({ db, registry }, 'copy:two');
  const sent = [...registry.taken.keys()];
  assert.deepEqual(sent.slice(-3, -1).sort(), [one.manifest.digest, two.manifest.digest].sort());
  assert.equal(sent.at(-1), 'two');
});

test('given blobs that another repository of the host has, when pushed, then they are taken from there, or sent where that is refused', async (t) => {
  for (const status of [201, 202, 401, 404]) {
    const s = await ready(t);
    const { digest } = s.image.layers[0]!;
    const labels = { 'containerd.io/distribution.source.127.0.0.1': 'a/b,copy/near,copy/target' };
    await addBlobLabels(s.db, { ...ctx, lease: '' }, digest, labels);
    const mounts: string[] = [];
    s.registry.trick = (_request, response, { path }) => {
      if (!path.includes('mount=')) return false;
      mounts.push(path);
      if (status === 202) return false;
      response.writeHead(status).end();
      return true;
    };
    await pushed(s, 'copy/target:1');
    assert.ok(
      mounts.includes(`/v2/copy/target/blobs/uploads/?mount=${encodeURIComponent(digest)}&from=copy%2Fnear`),
    );
    assert.equal(s.registry.taken.has(digest), status !== 201);
  }
});

test('given a registry that fails on the way, when pushed, then the upload is begun anew, a few times', async (t) => {
  const once = (answer: (...parts: Parameters<Trick>) => void): Trick => {
    const failed = new Set<string>();
    return (request, response, asked) => {
      const key = asked.path.replace(/.*digest=/, '');
      if (asked.method !== 'PUT' || failed.has(key)) return false;
      failed.add(key);
      answer(request, response, asked);
      return true;
    };
  };
  for (const trick of [
    once((request, response) => {
      request.resume();
      response.writeHead(503).end();
    }),
    once((request) => request.socket.destroy()),
    once((request) => request.once('data', () => request.socket.destroy())),
  ]) {
    const s = await ready(t);
    s.registry.trick = trick;
    await pushed(s, 'copy:1');
    assert.equal(s.registry.taken.size, 4);
  }
});

test('given a registry that takes nothing, when pushed, then it is an error that says why, in bounded time', async (t) => {
  const answers: [number, Record<string, string>, RegExp][] = [
    [400, {}, /400: DIGEST_INVALID: no/],
    [403, {}, /authorization failed \(403\)/],
    [500, {}, /500/],
    [201, { 'docker-content-digest': 'sha256:other' }, /got digest sha256:other/],
  ];
  for (const [status, headers, message] of answers) {
    const s = await ready(t);
    s.registry.trick = (request, response, { method }) => {
      if (method !== 'PUT') return false;
      request.resume();
      const body = JSON.stringify({ errors: [{ code: 'DIGEST_INVALID', message: 'no' }] });
      request.on('end', () => response.writeHead(status, headers).end(body));
      return true;
    };
    await assert.rejects(pushed(s, 'copy:1'), { message });
    assert.ok(s.registry.asked.length < 60);
    assert.deepEqual(await s.db.leases.list(ctx), []);
  }
  const s = await ready(t);
  for (const location of ['', 'file:///tmp/x']) {
    s.registry.trick = (_request, response, { method }) => {
      if (method !== 'POST') return false;
      response.writeHead(202, { location }).end();
      return true;
    };
    await assert.rejects(pushed(s, 'copy:1'), { kind: 'Unknown' });
  }
});

test('given where a registry sends on to, then what came over TLS goes on over TLS, or not at all', () => {
  const from = new URL('https://registry.example/v2/');
  for (const [location, to] of [
    ['/upload?a=b', 'https://registry.example/upload?a=b'],
    ['http://registry.example/upload', 'https://registry.example/upload'],
    ['https://other.example/upload', 'https://other.example/upload'],
  ] as const)
    assert.equal(targetOf(from, location).href, to);
  for (const location of ['http://other.example/upload', '', 'file:///x', 'http://'])
    assert.throws(() => targetOf(from, location), { kind: 'Unknown' }, location);
});

test('given an image of which a layer is gone, when pushed, then it is named, unless the registry has it', async (t) => {
  const s = await ready(t);
  const { digest } = s.image.layers[0]!;
  await s.db.content.delete(ctx, digest);
  await assert.rejects(pushed(s, 'copy:1'), { kind: 'NotFound', message: new RegExp(digest) });
  s.registry.taken.set(digest, s.blobs.all.get(digest)!);
  await pushed(s, 'copy:1');
});
