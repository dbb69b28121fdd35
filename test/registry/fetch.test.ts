/** Images from registries: whole ones, ones that break off on the way, and registries that do what none should. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Blobs, ctx, digests, leavesNothing } from '../images/fixtures.js';
import { testDB } from '../support/db.js';
import { FakeRegistry, type Trick } from './registry.js';
import { fetched, here, layer, leftNothing, quick, stage } from './support.js';

test('given an image in a registry, when fetched, then every blob is here, kept by labels, and says where it is from', async (t) => {
  const s = await stage(t);
  assert.equal(await fetched(s), s.image.manifest.digest);
  await leavesNothing(s.db);
  const { manifest, config, layers } = s.image;
  assert.deepEqual(await digests(s.db), [manifest, config, ...layers].map(({ digest }) => digest).sort());
  const { labels } = await s.db.content.info(ctx, layers[0]!.digest);
  assert.equal(labels['containerd.io/distribution.source.127.0.0.1'], 'app');
  assert.equal(
    s.registry.asked.every(({ headers }) => headers['user-agent'] === 'test'),
    true,
  );
});

test('given what is here already, when fetched again, then only the name is asked for', async (t) => {
  const s = await stage(t);
  await fetched(s);
  await s.db.images.delete(ctx, 'fetched');
  s.registry.asked.length = 0;
  await fetched(s);
  assert.deepEqual(
    s.registry.asked.map(({ method }) => method),
    ['HEAD'],
  );
});

test('given an index, when fetched for platforms, then the layers of these, and what describes the others if asked for', async (t) => {
  const blobs = new Blobs();
  const arm = { os: 'linux', architecture: 'arm64' };
  const one = await blobs.image([layer(1000, 3)], { platform: here });
  const two = await blobs.image([layer(1000, 5)], { platform: arm });
  const index = blobs.index([
    { ...one.manifest, platform: here },
    { ...two.manifest, platform: arm },
  ]);
  const registry = await FakeRegistry.start(t, blobs, { 1: index });
  const common = [index, one.manifest, one.config, ...one.layers];
  for (const [options, wanted] of [
    [{ platforms: [here] }, common],
    [{ platforms: [here], allMetadata: true }, [...common, two.manifest, two.config]],
    [{}, [...common, two.manifest, two.config, ...two.layers]],
    [{ platforms: [arm, here], manifestLimit: 1 }, [index, two.manifest, two.config, ...two.layers]],
  ] as const) {
    const db = await testDB(t);
    await fetched({ db, registry }, options);
    assert.deepEqual(await digests(db), wanted.map(({ digest }) => digest).sort());
  }
  const db = await testDB(t);
  const none = { platforms: [{ os: 'linux', architecture: 'mips' }], manifestLimit: 1 };
  await assert.rejects(fetched({ db, registry }, none), { kind: 'NotFound' });
});

test('given a body that breaks off, again and again, when fetched, then it goes on by ranges from where it was', async (t) => {
  const s = await stage(t, 4_000_000);
  const big = s.image.layers[0]!;
  const bytes = s.blobs.all.get(big.digest)!;
  const ranges: string[] = [];
  s.registry.trick = (request, response, { path }) => {
    if (!path.endsWith(big.digest)) return false;
    const { range = '' } = request.headers;
    ranges.push(range);
    const from = Number(/\d+/.exec(range)?.[0] ?? 0);
    const end = from + 1_200_000;
    if (end >= bytes.length) return false;
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': bytes.length - from,
      ...(from > 0 && { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
    });
    response.write(bytes.subarray(from, end), () => response.socket?.destroy());
    return true;
  };
  await fetched(s);
  assert.ok(ranges.length >= 4, ranges.join());
  assert.equal(ranges[0], '');
  assert.ok(ranges.slice(1).every((range) => /^bytes=[1-9]\d*-$/.test(range)));
});

test('given a body that comes slowly, but comes, when fetched, then it is waited for', async (t) => {
  const s = await stage(t, 10_000);
  const { digest } = s.image.layers[0]!;
  const bytes = s.blobs.all.get(digest)!;
  s.registry.trick = (_request, response, { path }) => {
    if (!path.endsWith(digest)) return false;
    response.writeHead(200, { 'content-length': bytes.length });
    const send = (at: number): void => {
      response.write(bytes.subarray(at, at + 512));
      if (at + 512 < bytes.length) setTimeout(send, 20, at + 512);
      else response.end();
    };
    send(0);
    return true;
  };
  await fetched(s);
  assert.equal(s.registry.times('GET', digest), 1);
});

test('given a registry without ranges, when a body breaks off, then what was had is skipped', async (t) => {
  const s = await stage(t);
  const big = s.image.layers[0]!;
  const bytes = s.blobs.all.get(big.digest)!;
  s.registry.trick = (_request, response, { path }) => {
    if (!path.endsWith(big.digest)) return false;
    response.writeHead(200, { 'content-length': bytes.length });
    if (s.registry.times('GET', big.digest) > 1) response.end(bytes);
    else response.write(bytes.subarray(0, 100_000), () => response.socket?.destroy());
    return true;
  };
  await fetched(s);
});

const forLayer =
  (digest: string, answer: (...parts: Parameters<Trick>) => void): Trick =>
  (request, response, asked) => {
    if (!asked.path.endsWith(digest)) return false;
    answer(request, response, asked);
    return true;
  };

test('given a registry that does what none should, when fetched, then it is an error that says so, in bounded time, and nothing stays', async (t) => {
  const s = await stage(t);
  const { digest } = s.image.layers[0]!;
  const bytes = s.blobs.all.get(digest)!;
  const endless: Trick = (_request, response) => {
    response.writeHead(200);
    const more = (): void => {
      if (!response.destroyed) response.write(Buffer.alloc(65_536), () => setImmediate(more));
    };
    more();
    return true;
  };
  const tricks: Record<string, [Trick, RegExp]> = {
    'another digest': [
      (_request, response) => {
        response.end(Buffer.alloc(bytes.length));
        return true;
      },
      /is not what its digest and size promise/,
    ],
    'a body without an end': [endless, /more than \d+ bytes/],
    'a body that always breaks off at once': [
      (_request, response) => {
        response.writeHead(200, { 'content-length': bytes.length });
        response.write('x', () => response.socket?.destroy());
        return true;
      },
      /unavailable|aborted|closed|terminated/i,
    ],
    'a body that stops': [
      (_request, response) => {
        response.writeHead(200, { 'content-length': bytes.length });
        response.write('x');
        return true;
      },
      /timeout/i,
    ],
    'no answer': [() => true, /timeout/i],
    'redirects to itself': [
      (request, response) => {
        response.writeHead(307, { location: request.url ?? '' }).end();
        return true;
      },
      /redirects more than 10 times/,
    ],
    'a redirect to a file': [
      (_request, response) => {
        response.writeHead(307, { location: 'file:///etc/shadow' }).end();
        return true;
      },
      /which is refused/,
    ],
    'a head without an end': [
      (_request, response) => {
        response.socket?.write(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}\r\n`);
        return true;
      },
      /header/i,
    ],
    'another range': [
      (request, response) => {
        if (request.headers.range !== undefined) {
          response.writeHead(206, { 'content-range': `bytes 0-9/${bytes.length}` }).end(bytes);
          return true;
        }
        response.writeHead(200, { 'content-length': bytes.length });
        response.write(bytes.subarray(0, 10), () => response.socket?.destroy());
        return true;
      },
      /another range/,
    ],
    'compressed on the way': [
      (_request, response) => {
        response.writeHead(200, { 'content-encoding': 'gzip' }).end('x');
        return true;
      },
      /content encoding gzip/,
    ],
    'always failing': [
      (_request, response) => {
        response
          .writeHead(500)
          .end(JSON.stringify({ errors: [{ code: 'UNKNOWN', message: 'broken\u001b[31m' }] }));
        return true;
      },
      /500: UNKNOWN: broken\?\[31m/,
    ],
    'always busy': [
      (_request, response) => {
        response.writeHead(429, { 'retry-after': '100000' }).end();
        return true;
      },
      /429/,
    ],
    missing: [
      (_request, response) => {
        response.writeHead(404).end();
        return true;
      },
      /not found/,
    ],
  };
  for (const [name, [trick, message]] of Object.entries(tricks)) {
    s.registry.trick = forLayer(digest, trick);
    s.registry.asked.length = 0;
    await assert.rejects(
      fetched(s),
      (error: Error) => message.test(error.message) || assert.fail(`${name}: ${error.message}`),
    );
    await leftNothing(s);
    assert.ok(s.registry.asked.length < 100, `${name}: ${s.registry.asked.length} requests`);
  }
  s.registry.trick = () => false;
  await fetched(s);
});

test('given a registry that fails once, or breaks off once before it answers, when fetched, then it is asked again', async (t) => {
  for (const answer of [
    (response: Parameters<Trick>[1]) => response.writeHead(500).end(),
    (response: Parameters<Trick>[1]) => response.writeHead(429, { 'retry-after': '1' }).end(),
    (response: Parameters<Trick>[1]) => response.socket?.destroy(),
  ]) {
    const s = await stage(t);
    const failed = new Set<string>();
    s.registry.trick = (_request, response, { method, path }) => {
      const key = `${method} ${path}`;
      if (failed.has(key)) return false;
      failed.add(key);
      answer(response);
      return true;
    };
    await fetched(s);
  }
});

test('given a registry whose clock is years behind, when it says at what moment to come again, then that is soon', async (t) => {
  const s = await stage(t);
  let asked = 0;
  s.registry.trick = (_request, response, { path }) => {
    if (!path.endsWith(s.image.layers[0]!.digest) || asked++ > 0) return false;
    const [date, moment] = ['Wed, 21 Oct 2015 07:28:00 GMT', 'Wed, 21 Oct 2015 07:28:01 GMT'];
    response.writeHead(429, { date, 'retry-after': moment }).end();
    return true;
  };
  // Without the moment, or by our clock, it would wait until the test is given up.
  const signal = AbortSignal.timeout(20_000);
  await fetched(s, { signal, limits: { ...quick, pauseMs: 60_000, pauseMsMax: 60_000 } });
  assert.equal(asked, 2);
});

test('given a manifest that is too large, of another kind, or not there, when fetched, then it is refused before anything is', async (t) => {
  const s = await stage(t);
  for (const [head, message] of [
    [{ 'content-length': 9_000_000, 'docker-content-digest': s.image.manifest.digest }, /rejected/],
    [{ 'content-length': 10, 'docker-content-digest': 'sha256:short' }, /no digest/],
    [
      {
        'content-length': 10,
        'docker-content-digest': s.image.manifest.digest,
        'content-type': 'text/plain',
      },
      /is not an image/,
    ],
  ] as const) {
    s.registry.trick = (_request, response) => {
      response.writeHead(200, head).end();
      return true;
    };
    await assert.rejects(fetched(s), { message });
    await leftNothing(s);
  }
  s.registry.trick = () => false;
  await assert.rejects(fetched(s, { reference: 'app:2' }), { kind: 'NotFound' });
  for (const reference of ['app', 'app:', 'App:1', '../app:1', 'app@sha256:12', 'app:1?x'])
    await assert.rejects(fetched(s, { reference }), { kind: 'InvalidArgument' }, reference);
});

test('given a registry without HEAD, or without a digest in its answer, when fetched, then the manifest itself is asked for', async (t) => {
  const s = await stage(t);
  s.registry.trick = (request, response, { method }) => {
    if (method !== 'HEAD') return false;
    response.writeHead(request.url?.includes('blobs') ? 404 : 405).end();
    return true;
  };
  await fetched(s);
  await s.db.images.delete(ctx, 'fetched');
  s.registry.trick = (_request, response, { method }) => {
    if (method !== 'HEAD') return false;
    response.writeHead(200).end();
    return true;
  };
  await fetched(s);
});

test('given a digest, when fetched by it, then nothing else counts', async (t) => {
  const s = await stage(t);
  assert.equal(await fetched(s, { reference: `app@${s.image.manifest.digest}` }), s.image.manifest.digest);
});

test('given documents that refer to each other without end, to nothing, or to too much, when fetched, then they are refused', async (t) => {
  const blobs = new Blobs();
  const { manifest, config } = await blobs.image([layer(10)]);
  let deep = blobs.index([manifest]);
  for (let i = 0; i < 12; i++) deep = blobs.index([deep]);
  const zero = blobs.index([{ ...manifest, size: 0 }]);
  const two = blobs.index([manifest, { ...manifest, size: manifest.size + 1 }]);
  const many = blobs.index(Array.from({ length: 5001 }, () => manifest));
  const huge = blobs.index([{ ...manifest, digest: `sha256:${'0'.repeat(64)}`, size: 2 ** 40 }]);
  const layers = blobs.add(manifest.mediaType, {
    ...{ schemaVersion: 2, mediaType: manifest.mediaType, config },
    layers: Array.from({ length: 1001 }, () => config),
  });
  const registry = await FakeRegistry.start(t, blobs, { deep, zero, two, many, huge, layers });
  const db = await testDB(t);
  for (const tag of ['deep', 'zero', 'two', 'many', 'huge', 'layers']) {
    await assert.rejects(
      fetched({ db, registry }, { reference: `app:${tag}` }),
      { kind: 'InvalidArgument' },
      tag,
    );
    await leftNothing({ db });
  }
});

test('given a blob that is larger than an ingest may be, when fetched, then it is refused before it is asked for', async (t) => {
  const s = await stage(t);
  await assert.rejects(fetched(s, { blobBytesMax: 200_000 }), {
    kind: 'InvalidArgument',
    message: /more than 200000/,
  });
  assert.equal(s.registry.times('GET', 'blobs'), 0);
  await leftNothing(s);
});

test('given a fetch that is cancelled in the middle, then its connections end and nothing stays', async (t) => {
  const s = await stage(t);
  const abort = new AbortController();
  const { digest } = s.image.layers[0]!;
  s.registry.trick = forLayer(digest, (_request, response) => {
    response.writeHead(200, { 'content-length': s.blobs.all.get(digest)!.length });
    response.write(s.blobs.all.get(digest)!.subarray(0, 70_000), () => setImmediate(() => abort.abort()));
  });
  await assert.rejects(fetched(s, { signal: abort.signal, limits: { ...quick, idleMs: 60_000 } }), {
    kind: 'Canceled',
  });
  await leftNothing(s);
  while (s.registry.openConnections > 0) await sleep(5);
});

test('given two fetches of one image at once, then each blob is asked for once', async (t) => {
  const s = await stage(t);
  const { digest } = s.image.layers[0]!;
  await Promise.all([
    fetched(s),
    fetched(s).catch((error: { kind: string }) => assert.equal(error.kind, 'AlreadyExists')),
  ]);
  assert.equal(s.registry.times('GET', digest), 1);
  await leavesNothing(s.db);
});
