import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { EbbtideError, isKind, isNotFound } from '../../src/errors.js';
import { exportImages } from '../../src/images/export.js';
import { importImage } from '../../src/images/import.js';
import { layout } from '../../src/open.js';
import { type Item, readAll, run, streamOf, treeOf } from '../archive/support.js';
import { tempDir, testDB } from '../support/db.js';
import { Blobs, type Desc, dockerSave, IMAGE_NAME, named, REF_NAME, writeFiles } from './fixtures.js';

const ctx = { namespace: 'export' };
const layerA: Item[] = [{ name: 'a', text: 'a'.repeat(100_000) }];
const layerB: Item[] = [{ name: 'b', text: 'b' }];
const amd = { os: 'linux', architecture: 'amd64' };
const arm = { os: 'linux', architecture: 'arm64' };

async function imported(
  t: TestContext,
  db: DB,
  blobs: Blobs,
  entries: Desc[],
  without: string[] = [],
): Promise<string[]> {
  const dir = await writeFiles(await tempDir(t), blobs.layout(entries, without));
  return (await importImage(db, ctx, dir, { baseName: 'example.com/app' })).map((image) => image.name);
}

async function multi(
  t: TestContext,
  without: (arm: Awaited<ReturnType<Blobs['image']>>) => string[] = () => [],
) {
  const db = await testDB(t);
  const blobs = new Blobs();
  const one = await blobs.image([layerA], { platform: amd });
  const two = await blobs.image([layerB], { platform: arm });
  const index = blobs.index([
    { ...one.manifest, platform: amd },
    { ...two.manifest, platform: arm },
  ]);
  const names = await imported(t, db, blobs, [named(index, 'v1')], without(two));
  return { db, blobs, one, two, index, names };
}

const blobsIn = async (dir: string): Promise<string[]> =>
  (await readdir(join(dir, 'blobs/sha256'))).map((hex) => `sha256:${hex}`).sort();

describe('export', () => {
  test('given an image, blobs are byte for byte and the index names it', async (t) => {
    const { db, blobs, names, index } = await multi(t);
    const dir = join(await tempDir(t), 'out');
    const seen: string[] = [];
    const result = await exportImages(db, ctx, names, dir, {
      allPlatforms: true,
      progress: (p) => void seen.push(p.name),
    });
    const bytes = [...blobs.all.values()].reduce((sum, blob) => sum + blob.length, 0);
    assert.deepEqual(result, {
      blobs: blobs.all.size,
      bytes,
      images: [{ name: 'example.com/app:v1', digest: index.digest }],
    });
    assert.deepEqual(await blobsIn(dir), [...blobs.all.keys()].sort());
    for (const [digest, blob] of blobs.all) {
      assert.ok((await readFile(join(dir, 'blobs', digest.replace(':', '/')))).equals(blob), digest);
      assert.ok(seen.includes(digest));
    }
    const written: unknown = JSON.parse(await readFile(join(dir, 'index.json'), 'utf8'));
    assert.deepEqual(written, {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [{ ...index, annotations: { [IMAGE_NAME]: 'example.com/app:v1', [REF_NAME]: 'v1' } }],
    });
    assert.deepEqual(await db.leases.list(ctx), []);
    assert.deepEqual((await readdir(join(dir, '..'))).sort(), ['out'], 'nothing unfinished stays beside it');
  });

  test('given a round trip through every form, the bytes are the same each time', async (t) => {
    const { db, names } = await multi(t);
    const out = await tempDir(t);
    await exportImages(db, ctx, names, join(out, 'first'));
    await exportImages(db, ctx, names, join(out, 'first.tar'));
    const parts: Uint8Array[] = [];
    await exportImages(db, ctx, names, async (bytes) => void parts.push(Buffer.from(bytes)));
    const tar = await readFile(join(out, 'first.tar'));
    assert.ok(Buffer.concat(parts).equals(tar));
    for (const source of ['first', 'first.tar']) {
      const other = await testDB(t);
      const images = await importImage(other, ctx, join(out, source));
      assert.deepEqual(
        images.map((i) => i.name),
        names,
      );
      await other.garbageCollect();
      await exportImages(other, ctx, names, join(out, `${source}-again`));
      await exportImages(other, ctx, names, join(out, `${source}-again.tar`));
      assert.deepEqual(await treeOf(join(out, `${source}-again`)), await treeOf(join(out, 'first')));
      assert.ok((await readFile(join(out, `${source}-again.tar`))).equals(tar));
    }
    await mkdir(join(out, 'extracted'));
    run('tar', ['-C', join(out, 'extracted'), '-xf', join(out, 'first.tar')]);
    assert.deepEqual(await treeOf(join(out, 'extracted')), await treeOf(join(out, 'first')));
  });

  test('given several names of shared blobs, each blob is there once and every name', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const one = await blobs.image([layerA]);
    const two = await blobs.image([layerA, layerB]);
    const names = await imported(t, db, blobs, [
      named(one.manifest, '1'),
      named(two.manifest, '2'),
      named(one.manifest, 'latest'),
    ]);
    const file = join(await tempDir(t), 'all.tar');
    await exportImages(db, ctx, names, file);
    const items = await readAll(await readFile(file));
    const paths = items.map((i) => i.entry.name);
    assert.equal(new Set(paths).size, paths.length);
    assert.equal(paths.filter((p) => /^blobs\/sha256\/./.test(p)).length, blobs.all.size);
    const other = await testDB(t);
    assert.deepEqual(
      (await importImage(other, ctx, file)).map((i) => i.name),
      names,
    );
  });

  test('given what docker save wrote, the export is an OCI layout of the same blobs', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const image = await blobs.image([layerA, layerB], { plain: true });
    const archive = await dockerSave(
      blobs,
      image,
      ['busybox'],
      image.layers.map((l) => blobs.all.get(l.digest)!),
    );
    await importImage(db, ctx, streamOf(archive));
    const dir = join(await tempDir(t), 'out');
    await exportImages(db, ctx, ['docker.io/library/busybox:latest'], dir);
    const found = await blobsIn(dir);
    for (const blob of [image.config, ...image.layers]) assert.ok(found.includes(blob.digest));
    assert.equal(found.length, 4);
  });
});

describe('export of what is not all there', () => {
  test('given a platform that lacks a layer, the others are exported; all platforms is NotFound naming it', async (t) => {
    const { db, names, one, two, index } = await multi(t, (image) => [image.layers[0]!.digest]);
    const out = await tempDir(t);
    const { images } = await exportImages(db, ctx, names, join(out, 'some'));
    assert.deepEqual(images, [{ name: names[0], digest: one.manifest.digest, reducedFrom: index.digest }]);
    assert.deepEqual(
      await blobsIn(join(out, 'some')),
      [one.manifest, one.config, ...one.layers].map((d) => d.digest).sort(),
    );
    await assert.rejects(
      exportImages(db, ctx, names, join(out, 'all'), { allPlatforms: true }),
      (error: unknown) => {
        assert.ok(error instanceof EbbtideError && error.kind === 'NotFound');
        assert.match(error.message, new RegExp(two.layers[0]!.digest));
        return true;
      },
    );
    assert.deepEqual(await readdir(out), ['some']);
    const other = await testDB(t);
    assert.equal((await importImage(other, ctx, join(out, 'some'))).length, 1);
  });

  test('given a choice of platform, only that one is exported, and one that is not there is NotFound', async (t) => {
    const { db, names, two } = await multi(t);
    const out = await tempDir(t);
    await exportImages(db, ctx, names, join(out, 'arm'), { platform: arm });
    assert.deepEqual(
      await blobsIn(join(out, 'arm')),
      [two.manifest, two.config, ...two.layers].map((d) => d.digest).sort(),
    );
    const other = { os: 'linux', architecture: 's390x' };
    await assert.rejects(
      exportImages(db, ctx, names, join(out, 'none'), { platform: other }),
      /no manifest for linux\/s390x/,
    );
  });

  test('given no platform that is complete, or no such image, it is NotFound', async (t) => {
    const { db, names, one } = await multi(t, (image) => [image.layers[0]!.digest]);
    await db.content.delete(ctx, one.layers[0]!.digest);
    const out = join(await tempDir(t), 'out');
    await assert.rejects(exportImages(db, ctx, names, out), (e) => isNotFound(e));
    await assert.rejects(exportImages(db, ctx, ['none'], out), (e) => isNotFound(e));
    await assert.rejects(exportImages(db, ctx, [], out), (e) => isKind(e, 'InvalidArgument'));
  });

  test('given a blob that was damaged on the disk, the export fails and leaves nothing', async (t) => {
    const root = await tempDir(t);
    const db = await testDB(t, { root });
    const blobs = new Blobs();
    const made = await blobs.image([layerA], { plain: true });
    const names = await imported(t, db, blobs, [named(made.manifest, '1')]);
    const path = join(layout.content(root), 'blobs', made.layers[0]!.digest.replace(':', '/'));
    const bytes = await readFile(path);
    bytes[700]! ^= 1;
    await writeFile(path, bytes, { flag: 'r+' }).catch(async () => {
      const { chmod } = await import('node:fs/promises');
      await chmod(path, 0o600);
      await writeFile(path, bytes);
    });
    const out = await tempDir(t);
    for (const name of ['dir', 'file.tar']) {
      await assert.rejects(exportImages(db, ctx, names, join(out, name)), /is damaged/);
    }
    assert.deepEqual(await readdir(out), []);
  });

  test('given a directory with something in it, it is AlreadyExists and untouched; an empty one is filled', async (t) => {
    const { db, names } = await multi(t);
    const out = await tempDir(t);
    await mkdir(join(out, 'empty'));
    await exportImages(db, ctx, names, join(out, 'empty'));
    const before = await treeOf(out);
    await assert.rejects(exportImages(db, ctx, names, join(out, 'empty')), (e) => isKind(e, 'AlreadyExists'));
    assert.deepEqual(await treeOf(out), before);
  });

  test('given an end in the middle, nothing is left of the output', async (t) => {
    const { db, names } = await multi(t);
    const out = await tempDir(t);
    for (const name of ['dir', 'file.tar']) {
      const control = new AbortController();
      const running = exportImages(db, { ...ctx, signal: control.signal }, names, join(out, name), {
        progress: () => control.abort(),
      });
      await assert.rejects(running, (e) => isKind(e, 'Canceled'));
    }
    assert.deepEqual(await readdir(out), []);
  });
});
