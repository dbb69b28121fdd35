/** What stands beside images in a source: attestations, signatures, charts, unknown things. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EbbtideError, isKind, isNotFound } from '../../src/errors.js';
import { exportImages } from '../../src/images/export.js';
import { type ImportOptions, importImage, type LeftOut } from '../../src/images/import.js';
import { hostPlatform } from '../../src/images/platforms.js';
import { unpackImage } from '../../src/images/unpack.js';
import { type Item, streamOf } from '../archive/support.js';
import { testDB } from '../support/db.js';
import {
  Blobs,
  ctx,
  type Desc,
  digests,
  leavesNothing,
  named,
  OCI_CONFIG,
  OCI_LAYER,
  OCI_MANIFEST,
  tarOfFiles,
} from './fixtures.js';

const layerA: Item[] = [{ name: 'a', text: 'a'.repeat(5000) }];
const { os, architecture } = hostPlatform();
const here = { os, architecture };
const EMPTY = 'application/vnd.oci.empty.v1+json';

/** Each adds an entry that is not an image. */
const strangers: [string, (blobs: Blobs, image: Desc) => Desc, RegExp][] = [
  [
    'a BuildKit attestation',
    (blobs, image) => ({
      ...manifest(
        blobs,
        OCI_CONFIG,
        { rootfs: { diff_ids: [] }, os: 'unknown', architecture: 'unknown' },
        'application/vnd.in-toto+json',
      ),
      platform: { os: 'unknown', architecture: 'unknown' },
      annotations: {
        'vnd.docker.reference.type': 'attestation-manifest',
        'vnd.docker.reference.digest': image.digest,
      },
    }),
    /describes another one/,
  ],
  [
    'a cosign signature',
    (blobs) =>
      manifest(
        blobs,
        OCI_CONFIG,
        { rootfs: { diff_ids: [] } },
        'application/vnd.dev.cosign.simplesigning.v1+json',
      ),
    /artifact/,
  ],
  [
    'a helm chart',
    (blobs) =>
      manifest(
        blobs,
        'application/vnd.cncf.helm.config.v1+json',
        { name: 'c' },
        'application/vnd.cncf.helm.chart.content.v1.tar+gzip',
      ),
    /helm\.config/,
  ],
  [
    'an ORAS artifact with a subject',
    (blobs, subject) =>
      manifest(blobs, EMPTY, {}, OCI_LAYER, { artifactType: 'application/vnd.example.sbom', subject }),
    /oci\.empty/,
  ],
  [
    'an artifact without blobs',
    (blobs) =>
      blobs.add(OCI_MANIFEST, {
        schemaVersion: 2,
        artifactType: 'x/y',
        config: blobs.add(EMPTY, {}),
        layers: null,
      }),
    /oci\.empty/,
  ],
  [
    'an artifact manifest of its own type',
    (blobs) => blobs.add('application/vnd.oci.artifact.manifest.v1+json', { blobs: [] }),
    /of type "application\/vnd\.oci\.artifact/,
  ],
  [
    'a manifest of schema 1',
    (blobs) => blobs.add('application/vnd.docker.distribution.manifest.v1+prettyjws', { schemaVersion: 1 }),
    /v1\+prettyjws/,
  ],
  ['an unknown type', (blobs) => blobs.add('text/plain', Buffer.from('hello')), /of type "text\/plain"/],
  [
    'an index of artifacts',
    (blobs) => blobs.index([blobs.add('text/plain', Buffer.from('x')), manifest(blobs, EMPTY, {}, 'a/b')]),
    /index without images/,
  ],
  ['an index of nothing', (blobs) => blobs.index([]), /index without images/],
  [
    'an index of an attestation without statements',
    (blobs) => {
      const config = blobs.add(OCI_CONFIG, { rootfs: { diff_ids: [] } });
      const attestation = blobs.add(OCI_MANIFEST, { schemaVersion: 2, config, layers: [] });
      return blobs.index([{ ...attestation, platform: { os: 'unknown', architecture: 'unknown' } }]);
    },
    /index without images/,
  ],
];

function manifest(
  blobs: Blobs,
  configType: string,
  config: object,
  layerType: string,
  more: object = {},
): Desc {
  return blobs.add(OCI_MANIFEST, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: blobs.add(configType, config),
    layers: [blobs.add(layerType, Buffer.from(`content of ${configType} ${layerType}`))],
    ...more,
  });
}

describe('what is not an image', () => {
  for (const [name, add, why] of strangers) {
    test(`given ${name} beside an image, the image is imported and the rest said once`, async (t) => {
      const db = await testDB(t);
      const blobs = new Blobs();
      const { manifest: image } = await blobs.image([layerA], { platform: here });
      const wanted = [...blobs.all.keys()];
      const entry = add(blobs, image);
      const files = blobs.layout([
        { ...entry, annotations: entry.annotations ?? {} },
        named(image, 'x/y:z'),
        entry,
      ]);
      const said: (readonly LeftOut[])[] = [];
      const made = await importImage(db, ctx, streamOf(await tarOfFiles(files)), {
        leftOut: (left) => void said.push(left),
      });
      assert.deepEqual(
        made.map((i) => [i.name, i.target.digest]),
        [['x/y:z', image.digest]],
      );
      assert.deepEqual(
        said.map((left) => left.map(({ digest }) => digest)),
        [[entry.digest, entry.digest]],
      );
      assert.match(said[0]![0]!.why, why);
      await leavesNothing(db);
      assert.deepEqual(await digests(db), wanted.sort());
    });

    test(`given ${name} alone, it is InvalidArgument that says what it is`, async (t) => {
      const db = await testDB(t);
      const blobs = new Blobs();
      const entry = add(blobs, (await blobs.image([layerA])).manifest);
      const said: unknown[] = [];
      const leftOut: ImportOptions['leftOut'] = (left) => void said.push(left);
      await assert.rejects(
        importImage(db, ctx, streamOf(await tarOfFiles(blobs.layout([named(entry, 'x/y:z')]))), { leftOut }),
        (e) =>
          isKind(e, 'InvalidArgument') &&
          /has no image/.test(String(e)) &&
          (entry.annotations !== undefined || why.test(String(e))),
      );
      assert.deepEqual(said, []);
      await leavesNothing(db);
      assert.deepEqual(await digests(db), []);
    });

    test(`given ${name} inside an index with an image, all of it is kept and the image unpacked`, async (t) => {
      const db = await testDB(t);
      const blobs = new Blobs();
      const image = await blobs.image([layerA], { platform: here });
      const index = blobs.index([add(blobs, image.manifest), { ...image.manifest, platform: here }]);
      const [made] = await importImage(
        db,
        ctx,
        streamOf(await tarOfFiles(blobs.layout([named(index, 'x/y:z')]))),
      );
      await leavesNothing(db);
      assert.deepEqual(await digests(db), [...blobs.all.keys()].sort());
      assert.equal((await unpackImage(db, ctx, made!, 'native')).manifest, image.manifest.digest);
      const { images } = await exportImages(db, ctx, ['x/y:z'], async () => {});
      assert.equal(images[0]?.digest, index.digest);
    });
  }

  test('given artifacts asked for, manifests of every kind become images', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const chart = manifest(blobs, 'application/vnd.cncf.helm.config.v1+json', {}, 'a/b');
    const files = blobs.layout([named(chart, 'charts/c:1'), blobs.add('text/plain', Buffer.from('x'))]);
    const made = await importImage(db, ctx, streamOf(await tarOfFiles(files)), { artifacts: true });
    assert.deepEqual(
      made.map((i) => i.name),
      ['charts/c:1'],
    );
  });

  test('given an image that lacks a layer beside one that is whole, it is NotFound, not left out', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const whole = await blobs.image([layerA]);
    const part = await blobs.image([[{ name: 'b', text: 'b' }]]);
    const files = blobs.layout(
      [named(whole.manifest, 'x/y:1'), named(part.manifest, 'x/y:2')],
      [part.layers[0]!.digest],
    );
    await assert.rejects(importImage(db, ctx, streamOf(await tarOfFiles(files))), isNotFound);
  });
});

describe('an index of which a part cannot be used', () => {
  const junk: [string, (blobs: Blobs) => Desc][] = [
    ['a manifest that is not JSON', (blobs) => blobs.add(OCI_MANIFEST, Buffer.from('{'))],
    ['a manifest without a config', (blobs) => blobs.add(OCI_MANIFEST, { schemaVersion: 2, layers: null })],
    [
      'a manifest of schema 1 under the wrong type',
      (blobs) => blobs.add(OCI_MANIFEST, { schemaVersion: 1, fsLayers: [] }),
    ],
    [
      'a nested index of another type',
      (blobs) => ({
        ...blobs.add(OCI_MANIFEST, { mediaType: OCI_MANIFEST }),
        mediaType: 'application/vnd.oci.image.index.v1+json',
      }),
    ],
  ];
  for (const [name, add] of junk) {
    test(`given ${name}, the image beside it is imported, unpacked and exported`, async (t) => {
      const db = await testDB(t);
      const blobs = new Blobs();
      const image = await blobs.image([layerA], { platform: here });
      const index = blobs.index([add(blobs), image.manifest]);
      const files = blobs.layout([named(index, 'x/y:z')]);
      const [made] = await importImage(db, ctx, streamOf(await tarOfFiles(files)));
      assert.equal((await unpackImage(db, ctx, made!, 'native')).manifest, image.manifest.digest);
      const { images } = await exportImages(db, ctx, ['x/y:z'], async () => {});
      assert.deepEqual(images, [{ name: 'x/y:z', digest: image.manifest.digest, reducedFrom: index.digest }]);
    });

    test(`given only ${name}, it is InvalidArgument`, async (t) => {
      const db = await testDB(t);
      const blobs = new Blobs();
      const files = blobs.layout([named(blobs.index([add(blobs)]), 'x/y:z')]);
      await assert.rejects(
        importImage(db, ctx, streamOf(await tarOfFiles(files))),
        (e) => e instanceof EbbtideError && e.kind === 'InvalidArgument',
      );
    });
  }
});
