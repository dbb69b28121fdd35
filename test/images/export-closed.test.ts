/** Exported layouts are closed: whatever a document in them names is there; and Docker's list of them. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { isKind, isNotFound } from '../../src/errors.js';
import { type ExportOptions, exportImages } from '../../src/images/export.js';
import { importImage } from '../../src/images/import.js';
import { digestOf } from '../../src/model/digest.js';
import { type Item, readAll, streamOf } from '../archive/support.js';
import { tempDir, testDB } from '../support/db.js';
import {
  Blobs,
  ctx,
  type Desc,
  named,
  OCI_CONFIG,
  OCI_MANIFEST,
  tarOfFiles,
  writeFiles,
} from './fixtures.js';

const layer = (name: string): Item[] => [{ name, text: name.repeat(1000) }];
const linux = (architecture: string, variant?: string) => ({
  os: 'linux',
  architecture,
  ...(variant !== undefined && { variant }),
});
const NAME = 'docker.io/library/app:1';

interface Document {
  manifests?: (Desc & { annotations?: Record<string, string> })[];
  config?: Desc;
  layers?: Desc[];
}

/** Reads a layout from its index.json down; fails on whatever is named and not there, or there and not named. */
async function readClosed(dir: string): Promise<{ entries: Desc[]; documents: Map<string, Document> }> {
  const documents = new Map<string, Document>();
  const index = JSON.parse(await readFile(join(dir, 'index.json'), 'utf8')) as { manifests: Desc[] };
  const named = new Set<string>();
  const open = [...index.manifests];
  for (let desc = open.pop(); desc !== undefined; desc = open.pop()) {
    named.add(desc.digest.slice('sha256:'.length));
    const bytes = await readFile(join(dir, 'blobs', desc.digest.replace(':', '/')));
    assert.deepEqual([digestOf(bytes), bytes.length], [desc.digest, desc.size]);
    if (!/index|manifest/.test(desc.mediaType)) continue;
    const document = JSON.parse(bytes.toString()) as Document;
    documents.set(desc.digest, document);
    open.push(
      ...(document.manifests ?? []),
      ...(document.config ? [document.config] : []),
      ...(document.layers ?? []),
    );
  }
  assert.deepEqual((await readdir(join(dir, 'blobs/sha256'))).sort(), [...named].sort());
  return { entries: index.manifests, documents };
}

/** Three platforms, each with an attestation; some blobs left out of what is imported. */
async function multi(t: TestContext, without: (made: Record<string, Desc[]>) => Desc[] = () => []) {
  const db = await testDB(t);
  const blobs = new Blobs();
  const made: Record<string, Desc[]> = {};
  const entries: Desc[] = [];
  for (const [name, platform] of [
    ['amd64', linux('amd64')],
    ['v2', linux('amd64', 'v2')],
    ['arm64', linux('arm64')],
  ] as const) {
    const image = await blobs.image([layer('base'), layer(name)], { platform });
    const attestation = blobs.add(OCI_MANIFEST, {
      schemaVersion: 2,
      config: blobs.add(OCI_CONFIG, { rootfs: { diff_ids: [] } }),
      layers: [blobs.add('application/vnd.in-toto+json', { of: name })],
    });
    made[name] = [image.manifest, image.config, ...image.layers];
    entries.push(
      { ...image.manifest, platform },
      {
        ...attestation,
        platform: { os: 'unknown', architecture: 'unknown' },
        annotations: {
          'vnd.docker.reference.type': 'attestation-manifest',
          'vnd.docker.reference.digest': image.manifest.digest,
        },
      },
    );
  }
  const index = blobs.index(entries);
  const files = blobs.layout(
    [named(index, NAME)],
    without(made).map(({ digest }) => digest),
  );
  await importImage(db, ctx, streamOf(await tarOfFiles(files)));
  return { db, blobs, made, index, entries };
}

async function exported(t: TestContext, db: DB, options: ExportOptions = {}) {
  const dir = join(await tempDir(t), 'out');
  const result = await exportImages(db, ctx, [NAME], dir, options);
  const docker = await readFile(join(dir, 'manifest.json'), 'utf8').catch(() => undefined);
  return { dir, result, ...(await readClosed(dir)), docker: docker && (JSON.parse(docker) as unknown) };
}

describe('closed layouts', () => {
  test('given everything, the index is as it was', async (t) => {
    const { db, index, blobs } = await multi(t);
    const { entries, result, docker } = await exported(t, db);
    assert.deepEqual(
      [entries[0]?.digest, result.images, result.blobs],
      [index.digest, [{ name: NAME, digest: index.digest }], blobs.all.size],
    );
    assert.equal(docker, undefined, 'several platforms are nothing that docker load could choose from');
  });

  for (const [platform, expected] of [
    [linux('arm64'), 'arm64'],
    [linux('amd64'), 'amd64'],
    [linux('amd64', 'v3'), 'v2'],
  ] as const) {
    test(`given the platform ${JSON.stringify(platform)}, the name stands for the manifest that fits best`, async (t) => {
      const { db, made, index } = await multi(t);
      const { entries, result, docker, documents, dir } = await exported(t, db, { platform });
      const [manifest, config, ...layers] = made[expected]!;
      assert.deepEqual(result.images, [{ name: NAME, digest: manifest!.digest, reducedFrom: index.digest }]);
      assert.deepEqual([entries[0]?.digest, documents.size], [manifest!.digest, 1]);
      const path = ({ digest }: Desc): string => `blobs/${digest.replace(':', '/')}`;
      assert.deepEqual(docker, [{ Config: path(config!), RepoTags: ['app:1'], Layers: layers.map(path) }]);
      const other = await testDB(t);
      const [again] = await importImage(other, ctx, dir);
      assert.deepEqual([again?.name, again?.target.digest], [NAME, manifest!.digest]);
    });
  }

  test('given an image that is deleted and collected while it is written, at any point, the layout has all of it', async (t) => {
    const { db, blobs, index } = await multi(t);
    const again = await tarOfFiles(blobs.layout([named(index, NAME)]));
    for (let at = 0, reached = true; reached; at += 16) {
      await importImage(db, ctx, streamOf(again));
      const parts: Buffer[] = [];
      await exportImages(db, ctx, [NAME], async (bytes) => {
        parts.push(Buffer.from(bytes));
        if (parts.length !== at + 1) return;
        await db.images.delete(ctx, NAME);
        await db.garbageCollect();
      });
      reached = parts.length > at;
      const files = new Map(
        (await readAll(Buffer.concat(parts)))
          .filter(({ entry }) => entry.type === 'file')
          .map(({ entry, content }) => [entry.name, content]),
      );
      const { entries } = await readClosed(await writeFiles(await tempDir(t), files));
      assert.deepEqual(
        entries.map(({ digest }) => digest),
        [index.digest],
      );
    }
    await db.garbageCollect();
  });

  test('given that one platform was never fetched, the index is written again without it and its attestation', async (t) => {
    const { db, made, index, entries: all } = await multi(t, ({ arm64 }) => [arm64![0]!]);
    const { entries, documents, result, dir } = await exported(t, db);
    const kept = all.filter((_, i) => i < 4);
    assert.notEqual(entries[0]?.digest, index.digest);
    assert.deepEqual(result.images, [{ name: NAME, digest: entries[0]?.digest, reducedFrom: index.digest }]);
    assert.deepEqual(documents.get(entries[0]!.digest)?.manifests, kept);
    await assert.rejects(exported(t, db, { platform: linux('arm64') }), isNotFound);
    await assert.rejects(exported(t, db, { allPlatforms: true }), new RegExp(made.arm64![0]!.digest));
    const other = await testDB(t);
    const [again] = await importImage(other, ctx, dir);
    assert.equal(again?.target.digest, entries[0]?.digest);
    const second = await exported(t, other, { allPlatforms: true });
    assert.deepEqual(second.result.images, [{ name: NAME, digest: entries[0]?.digest }]);
  });

  test('given that a layer of one platform is missing, deep in nested indexes, each index is written again', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const images = await Promise.all(
      ['a', 'b', 'c'].map((name) => blobs.image([layer(name)], { platform: linux(name) })),
    );
    const [a, b, c] = images.map(({ manifest }, i) => ({ ...manifest, platform: linux('abc'[i]!) }));
    const index = blobs.index([a!, blobs.index([b!, c!])]);
    const files = blobs.layout([named(index, NAME)], [images[2]!.layers[0]!.digest]);
    await importImage(db, ctx, streamOf(await tarOfFiles(files)));
    const { entries, documents } = await exported(t, db);
    const inner = { mediaType: b!.mediaType, digest: b!.digest, size: b!.size };
    assert.deepEqual(documents.get(entries[0]!.digest)?.manifests, [a, inner]);
  });

  test('given an index that names the same children again and again, it is read once', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest } = await blobs.image([layer('x')]);
    const gone = { ...manifest, digest: digestOf(Buffer.from('gone')) };
    let index = blobs.index(Array<Desc>(200).fill(manifest));
    for (let depth = 0; depth < 6; depth++) index = blobs.index([...Array<Desc>(200).fill(index), gone]);
    await importImage(db, ctx, streamOf(await tarOfFiles(blobs.layout([named(index, NAME)]))));
    const { entries } = await exported(t, db);
    assert.equal(entries.length, 1);
  });

  test('given a layer that may not be distributed and is not here, the image is exported without it', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest: _, config, layers } = await blobs.image([layer('x')]);
    const foreign = {
      mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
      digest: digestOf(Buffer.from('foreign')),
      size: 7,
      urls: ['https://example.com/foreign'],
    };
    const manifest = blobs.add(OCI_MANIFEST, { schemaVersion: 2, config, layers: [foreign, ...layers] });
    await importImage(db, ctx, streamOf(await tarOfFiles(blobs.layout([named(manifest, NAME)]))));
    const dir = join(await tempDir(t), 'out');
    const { blobs: count } = await exportImages(db, ctx, [NAME], dir);
    assert.equal(count, 3);
    // Docker would look for all its layers in the archive.
    assert.deepEqual((await readdir(dir)).sort(), ['blobs', 'index.json', 'oci-layout']);
  });
});

describe("docker's list", () => {
  test('given names of all kinds, an image has one entry with those that docker takes, in its short form', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const one = await blobs.image([layer('one'), layer('one')]);
    const two = await blobs.image([layer('two')]);
    const names = [
      'docker.io/library/a:1',
      'docker.io/org/b:2',
      'ghcr.io/org/c:3',
      'localhost:5000/d',
      'Not A Name',
      `ghcr.io/e@${one.manifest.digest}`,
    ];
    const files = blobs.layout([
      ...names.map((name) => ({ ...one.manifest, annotations: { 'io.containerd.image.name': name } })),
      two.manifest,
    ]);
    const images = await importImage(db, ctx, streamOf(await tarOfFiles(files)));
    const dir = join(await tempDir(t), 'out');
    await exportImages(
      db,
      ctx,
      images.map((i) => i.name),
      dir,
    );
    const list = JSON.parse(await readFile(join(dir, 'manifest.json'), 'utf8')) as {
      RepoTags: string[];
      Layers: string[];
    }[];
    assert.deepEqual(
      list.map((entry) => [entry.RepoTags, entry.Layers.length]),
      [
        [['a:1', 'org/b:2', 'ghcr.io/org/c:3', 'localhost:5000/d:latest'], 2],
        [[], 1],
      ],
    );
  });

  test('given an artifact, it is not listed', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const chart = blobs.add(OCI_MANIFEST, { schemaVersion: 2, config: blobs.add('a/b', {}), layers: [] });
    await importImage(db, ctx, streamOf(await tarOfFiles(blobs.layout([named(chart, NAME)]))), {
      artifacts: true,
    });
    const { docker } = await exported(t, db);
    assert.equal(docker, undefined);
    await db.images.delete(ctx, NAME);
    await assert.rejects(exported(t, db), (e) => isKind(e, 'NotFound'));
  });
});
