import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import type { DB } from '../../src/db.js';
import { EbbtideError, isKind, isNotFound } from '../../src/errors.js';
import { importImage } from '../../src/images/import.js';
import { digestOf } from '../../src/model/digest.js';
import { type Item, streamOf, tarOf } from '../archive/support.js';
import { tempDir, testDB } from '../support/db.js';
import {
  Blobs,
  ctx,
  type Desc,
  DOCKER_MANIFEST,
  digests,
  dockerSave,
  IMAGE_NAME,
  leavesNothing,
  named,
  OCI_CONFIG,
  OCI_MANIFEST,
  REF_NAME,
  tarOfFiles,
  writeFiles,
} from './fixtures.js';

const layerA: Item[] = [{ name: 'a', text: 'a'.repeat(5000) }];
const layerB: Item[] = [{ name: 'b', text: 'b' }];
const arm = { os: 'linux', architecture: 'arm64' };

const gcLabels = async (db: DB, digest: string): Promise<Record<string, string>> =>
  Object.fromEntries(
    Object.entries((await db.content.info(ctx, digest)).labels).filter(([key]) => key.includes('/gc.ref.')),
  );

describe('import of an OCI layout', () => {
  for (const form of ['directory', 'tar', 'tar.gz', 'stream'] as const) {
    test(`given a ${form}, blobs, labels and image are as containerd has them`, async (t) => {
      const db = await testDB(t);
      const dir = await tempDir(t);
      const blobs = new Blobs();
      const { manifest, config, layers } = await blobs.image([layerA, layerB]);
      const files = blobs.layout([named(manifest, 'example.com/app:1')]);
      const seen: string[] = [];
      const progress = (p: { phase: string; name: string }) => void seen.push(`${p.phase} ${p.name}`);
      const tar = await tarOfFiles(files);
      let source: Parameters<typeof importImage>[2];
      if (form === 'directory') source = await writeFiles(join(dir, 'layout'), files);
      else if (form === 'stream') source = streamOf(tar, 1000);
      else {
        source = join(dir, `archive.${form}`);
        await writeFile(source, form === 'tar' ? tar : gzipSync(tar));
      }
      const [image, ...more] = await importImage(db, ctx, source, { progress, labels: { team: 'x' } });
      assert.deepEqual(more, []);
      assert.equal(image?.name, 'example.com/app:1');
      assert.deepEqual(image.target, { ...manifest, annotations: { [REF_NAME]: 'example.com/app:1' } });
      assert.deepEqual(image.labels, { team: 'x' });
      await leavesNothing(db);
      assert.deepEqual(await digests(db), [...blobs.all.keys()].sort());
      assert.deepEqual(await gcLabels(db, manifest.digest), {
        'containerd.io/gc.ref.content.config': config.digest,
        'containerd.io/gc.ref.content.l.0': layers[0]!.digest,
        'containerd.io/gc.ref.content.l.1': layers[1]!.digest,
      });
      assert.ok(seen.length > 0 && seen.every((s) => s.startsWith('import ')));
      assert.deepEqual(await db.content.listStatuses(ctx), []);
    });
  }

  test('given an index of platforms with an attestation, missing ones are tolerated and all are labelled', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const here = await blobs.image([layerA]);
    const absent = await blobs.image([layerB], { platform: arm });
    const inToto = blobs.add('application/vnd.in-toto+json', { predicate: 1 });
    const attestation = blobs.add(OCI_MANIFEST, {
      schemaVersion: 2,
      config: blobs.add(OCI_CONFIG, { os: 'unknown', architecture: 'unknown' }),
      layers: [inToto],
    });
    const unknown = { platform: { os: 'unknown', architecture: 'unknown' } };
    const nested = blobs.index([{ ...absent.manifest, platform: arm }]);
    const index = blobs.index([
      { ...here.manifest, platform: { os: 'linux', architecture: 'amd64' } },
      { ...attestation, ...unknown, annotations: { 'vnd.docker.reference.type': 'attestation-manifest' } },
      nested,
    ]);
    const without = [absent.layers[0]!.digest, absent.manifest.digest];
    const dir = await writeFiles(await tempDir(t), blobs.layout([named(index, 'v1')], without));
    const [image] = await importImage(db, ctx, dir, { baseName: 'example.com/multi' });
    assert.equal(image?.name, 'example.com/multi:v1');
    await leavesNothing(db);
    assert.deepEqual(await gcLabels(db, index.digest), {
      'containerd.io/gc.ref.content.m.0': here.manifest.digest,
      'containerd.io/gc.ref.content.m.1': attestation.digest,
      'containerd.io/gc.ref.content.0': nested.digest,
    });
    assert.equal((await gcLabels(db, attestation.digest))['containerd.io/gc.ref.content.0'], inToto.digest);
    assert.ok((await digests(db)).includes(inToto.digest));
    assert.ok(!(await digests(db)).includes(absent.manifest.digest));
  });

  test('given an image whose every platform lacks something, NotFound names it and no image is made', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest, layers } = await blobs.image([layerA]);
    const dir = await writeFiles(await tempDir(t), blobs.layout([named(manifest, 'x')], [layers[0]!.digest]));
    await assert.rejects(importImage(db, ctx, dir), (error: unknown) => {
      assert.ok(error instanceof EbbtideError && error.kind === 'NotFound');
      assert.match(error.message, new RegExp(layers[0]!.digest));
      return true;
    });
    assert.deepEqual(await db.images.list(ctx), []);
    await leavesNothing(db);
    assert.deepEqual(await digests(db), []);
  });

  test('given a blob that only the store has, the image is complete', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest, layers } = await blobs.image([layerA]);
    await importImage(db, ctx, await writeFiles(await tempDir(t), blobs.layout([named(manifest, 'one')])));
    const without = blobs.layout([named(manifest, 'two')], [layers[0]!.digest]);
    const images = await importImage(db, ctx, await writeFiles(await tempDir(t), without), { baseName: 'b' });
    assert.deepEqual(
      images.map((i) => i.name),
      ['b:two'],
    );
  });

  test('given several entries, names come from the annotations in order of their weight', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest } = await blobs.image([layerA]);
    const other = await blobs.image([layerB]);
    const entries = [
      { ...manifest, annotations: { [IMAGE_NAME]: 'full.example/name:1', [REF_NAME]: '1' } },
      named(manifest, 'example.com/by/ref:2'),
      named(manifest, 'tag'),
      other.manifest,
    ];
    const files = blobs.layout(entries);
    const today = new Date().toISOString().slice(0, 10);
    const images = await importImage(db, ctx, await writeFiles(await tempDir(t), files));
    assert.deepEqual(
      images.map((i) => i.name),
      [
        'full.example/name:1',
        'example.com/by/ref:2',
        `import-${today}:tag`,
        `import-${today}@${other.manifest.digest}`,
      ],
    );
    const based = await importImage(db, ctx, await writeFiles(await tempDir(t), files), { baseName: 'mine' });
    assert.deepEqual(
      based.map((i) => i.name),
      ['full.example/name:1', 'mine:tag', `mine@${other.manifest.digest}`],
    );
  });

  test('given an image of that name, it gets the new target and keeps its labels', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const one = await blobs.image([layerA]);
    const two = await blobs.image([layerB]);
    const layout = async (d: Desc) => writeFiles(await tempDir(t), blobs.layout([named(d, 'a/b:c')]));
    await importImage(db, ctx, await layout(one.manifest), { labels: { keep: 'me' } });
    const [image] = await importImage(db, ctx, await layout(two.manifest));
    assert.equal(image?.target.digest, two.manifest.digest);
    assert.deepEqual(image.labels, { keep: 'me' });
    await leavesNothing(db);
    await assert.rejects(db.content.info(ctx, one.manifest.digest), isNotFound);
  });

  test('given a lease in the context, it is used and kept', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest } = await blobs.image([layerA]);
    const { id } = await db.leases.create(ctx, { id: 'mine' });
    const dir = await writeFiles(await tempDir(t), blobs.layout([named(manifest, 'a/b:c')]));
    await importImage(db, { ...ctx, lease: id }, dir);
    const held = (await db.leases.listResources(ctx, 'mine')).map((r) => r.id);
    assert.deepEqual(held.sort(), [...blobs.all.keys()].sort());
  });
});

describe('import of what docker save writes', () => {
  async function made(tags: string[] | null) {
    const blobs = new Blobs();
    const image = await blobs.image([layerA, layerB, layerA], { plain: true });
    const layers = image.layers.map((l) => blobs.all.get(l.digest)!);
    return { blobs, image, archive: await dockerSave(blobs, image, tags, layers) };
  }

  test('given the old form with symlinked layers, a schema 2 manifest is made, the same each time', async (t) => {
    const db = await testDB(t);
    const { image, archive } = await made(
      ['alpine:3', 'ghcr.io/Owner/x', 'localhost:5000/y/z:t'].map((s) => s.toLowerCase()),
    );
    const images = await importImage(db, ctx, streamOf(archive));
    assert.deepEqual(
      images.map((i) => i.name),
      ['docker.io/library/alpine:3', 'ghcr.io/owner/x:latest', 'localhost:5000/y/z:t'],
    );
    const { target } = images[0]!;
    assert.equal(target.mediaType, DOCKER_MANIFEST);
    const reader = await db.content.readerAt(ctx, target.digest);
    const bytes = Buffer.alloc(reader.size);
    await reader.read(bytes, 0);
    await reader.close();
    const manifest = JSON.parse(bytes.toString()) as { config: Desc; layers: Desc[] };
    assert.equal(manifest.config.digest, image.config.digest);
    assert.deepEqual(
      manifest.layers.map((l) => [l.digest, l.mediaType]),
      image.diffIds.map((d) => [d, 'application/vnd.docker.image.rootfs.diff.tar']),
    );
    const again = await importImage(db, ctx, streamOf(archive));
    assert.equal(again[0]?.target.digest, target.digest);
    await leavesNothing(db);
    assert.equal((await digests(db)).length, 4);
    assert.equal((await gcLabels(db, target.digest))['containerd.io/gc.ref.content.l.2'], image.diffIds[2]);
  });

  test('given no tags, the digest makes the name', async (t) => {
    const db = await testDB(t);
    const [image] = await importImage(db, ctx, streamOf((await made(null)).archive));
    assert.match(image?.name ?? '', /^import-\d{4}-\d\d-\d\d@sha256:[0-9a-f]{64}$/);
  });

  test('given both an OCI layout and manifest.json, the layout counts', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest } = await blobs.image([layerA]);
    const files = blobs.layout([
      { ...manifest, annotations: { [IMAGE_NAME]: 'docker.io/library/x:1', [REF_NAME]: '1' } },
    ]);
    files.set('manifest.json', Buffer.from('not even json'));
    const [image] = await importImage(db, ctx, streamOf(await tarOfFiles(files)));
    assert.deepEqual([image?.name, image?.target.digest], ['docker.io/library/x:1', manifest.digest]);
  });

  const broken: [string, unknown, RegExp][] = [
    ['no list', {}, /is not a list/],
    [
      'a layer that is not there',
      [{ Config: 'c.json', Layers: ['none.tar'] }],
      /does not have the layer "none.tar"/,
    ],
    ['a config that is not there', [{ Config: 'd.json', Layers: [] }], /does not have the config "d.json"/],
    ['a path that leads out', [{ Config: '../c.json', Layers: [] }], /leads out/],
    ['too few layers', [{ Config: 'c.json', Layers: [] }], /names 1 layers/],
    [
      'a tag that is not a valid name',
      [{ Config: 'c.json', Layers: ['l.tar'], RepoTags: ['NOT:A NAME'] }],
      /not an image name/,
    ],
    ['texts that are none', [{ Config: 'c.json', Layers: [7] }], /not a string where one belongs/],
    ['a link in a circle', [{ Config: 'c.json', Layers: ['loop.tar'] }], /does not have the layer/],
  ];
  for (const [name, manifest, message] of broken) {
    test(`given a manifest.json with ${name}, it is InvalidArgument and nothing stays`, async (t) => {
      const db = await testDB(t);
      const layer = await tarOf(layerA);
      const config = {
        os: 'linux',
        architecture: 'amd64',
        rootfs: { type: 'layers', diff_ids: [digestOf(layer)] },
      };
      const archive = await tarOf([
        { name: 'l.tar', text: layer },
        { name: 'c.json', text: JSON.stringify(config) },
        { name: 'loop.tar', type: 'symlink', linkname: 'loop.tar' },
        { name: 'manifest.json', text: JSON.stringify(manifest) },
      ]);
      await assert.rejects(importImage(db, ctx, streamOf(archive)), (error: unknown) => {
        assert.ok(error instanceof EbbtideError && error.kind === 'InvalidArgument', String(error));
        assert.match(error.message, message);
        return true;
      });
      await leavesNothing(db);
      assert.deepEqual([await digests(db), await db.images.list(ctx)], [[], []]);
    });
  }
});

describe('interrupted imports', () => {
  async function interrupted(t: TestContext, form: 'directory' | 'tar') {
    const db = await testDB(t);
    const blobs = new Blobs();
    const big: Item[] = [{ name: 'big', text: Buffer.alloc(6 * 2 ** 20, 'x') }];
    const image = await blobs.image([layerB, big], { plain: true });
    const files = blobs.layout([named(image.manifest, 'a/b:c')]);
    const dir = await writeFiles(await tempDir(t), files);
    const tar = await tarOfFiles(files);
    const source = () => (form === 'tar' ? streamOf(tar) : dir);
    const control = new AbortController();
    const leased = { ...ctx, signal: control.signal };
    // Stops once a part of the big layer was written.
    const progress = async () => {
      const statuses = await db.content.listStatuses(ctx);
      if (statuses.some((s) => s.offset > 0)) control.abort();
    };
    const running = importImage(db, leased, source(), { progress: () => void progress() });
    return { db, image, source, running, control, blobs };
  }

  test('given an end in the middle, a second attempt succeeds and a collection in between keeps what was there', async (t) => {
    const { db, image, source, running, control, blobs } = await interrupted(t, 'tar');
    const outcome = await running.then(
      () => undefined,
      (error: unknown) => error,
    );
    // The import may have been faster than the signal; then there is nothing to resume.
    if (outcome !== undefined) {
      assert.ok(isKind(outcome, 'Canceled'), String(outcome));
      assert.equal((await db.leases.list(ctx)).length, 1, 'the lease keeps what was taken in');
      const before = await digests(db);
      await db.garbageCollect();
      assert.deepEqual(await digests(db), before);
    }
    assert.ok(control.signal.aborted);
    const [made] = await importImage(db, ctx, source());
    assert.equal(made?.target.digest, image.manifest.digest);
    assert.deepEqual(await digests(db), [...blobs.all.keys()].sort());
  });

  test('given part of a blob from before, it goes on from there', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const image = await blobs.image([[{ name: 'big', text: Buffer.alloc(3_000_000, 'x') }]], { plain: true });
    const layer = image.layers[0]!;
    const bytes = blobs.all.get(layer.digest)!;
    const ref = `import-${layer.digest.replace(':', '-')}`;
    const writer = await db.content.writer(ctx, ref, { digest: layer.digest, size: layer.size });
    await writer.write(bytes.subarray(0, 1_000_000));
    await writer.close();
    const files = blobs.layout([named(image.manifest, 'a/b:c')]);
    // The source's first half is damaged: only an import that goes on where the ingest ends can succeed.
    const half = Buffer.from(bytes);
    half.fill(0, 0, 1_000_000);
    files.set(`blobs/sha256/${layer.digest.slice(7)}`, half);
    await importImage(db, ctx, await writeFiles(await tempDir(t), files));
    assert.equal((await db.content.info(ctx, layer.digest)).size, layer.size);
  });

  test('given damaged bytes from before, the error says to try again, and that succeeds', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest, layers } = await blobs.image([layerA]);
    const ref = `import-${layers[0]!.digest.replace(':', '-')}`;
    const writer = await db.content.writer(ctx, ref, { digest: layers[0]!.digest });
    await writer.write(Buffer.from('??'));
    await writer.close();
    const dir = await writeFiles(await tempDir(t), blobs.layout([named(manifest, 'a/b:c')]));
    await assert.rejects(importImage(db, ctx, dir), (e) => isKind(e, 'InvalidArgument'));
    assert.equal((await importImage(db, ctx, dir)).length, 1);
  });

  test('given two imports of the same archive at once, both succeed', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest } = await blobs.image([layerA, layerB]);
    const tar = await tarOfFiles(blobs.layout([named(manifest, 'a/b:c')]));
    const both = await Promise.all([1, 2].map(() => importImage(db, ctx, streamOf(tar))));
    assert.deepEqual(
      both.map((images) => images[0]?.target.digest),
      [manifest.digest, manifest.digest],
    );
    await leavesNothing(db);
    assert.deepEqual(await digests(db), [...blobs.all.keys()].sort());
  });

  test('given collections all the while, nothing of the image is lost', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const layers = Array.from({ length: 8 }, (_, i): Item[] => [
      { name: `f${i}`, text: `${i}`.repeat(20_000) },
    ]);
    const { manifest } = await blobs.image(layers);
    const dir = await writeFiles(await tempDir(t), blobs.layout([named(manifest, 'a/b:c')]));
    let done = false;
    const collecting = (async () => {
      let runs = 0;
      for (; !done; runs++) {
        await db.garbageCollect();
        await nextTurn();
      }
      return runs;
    })();
    await importImage(db, ctx, dir);
    done = true;
    assert.ok((await collecting) > 0);
    await db.garbageCollect();
    assert.deepEqual(await digests(db), [...blobs.all.keys()].sort());
  });
});
