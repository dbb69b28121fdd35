/** What Go writes for a list, a map or a text that has nothing in it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { parseConfig, parseIndex, parseManifest, parseObject } from '../../src/images/documents.js';
import { exportImages } from '../../src/images/export.js';
import { importImage } from '../../src/images/import.js';
import { unpackImage } from '../../src/images/unpack.js';
import { streamOf, tarOf } from '../archive/support.js';
import { testDB } from '../support/db.js';
import { Blobs, ctx, named, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, tarOfFiles } from './fixtures.js';

const digest = `sha256:${'a'.repeat(64)}`;
const config = { mediaType: OCI_CONFIG, digest, size: 2 };
const nothing = { schemaVersion: 2, mediaType: null, annotations: null, subject: null, artifactType: null };

describe('null in documents', () => {
  test('a list, a map or a text that is null is empty', () => {
    assert.deepEqual(parseIndex({ ...nothing, manifests: null, config: null, layers: null }, 'x'), {
      manifests: [],
      unusable: new Map(),
    });
    assert.deepEqual(
      parseManifest({ ...nothing, config, layers: null, manifests: null, fsLayers: null }, 'x'),
      {
        config,
        layers: [],
      },
    );
    const entry = {
      ...config,
      annotations: { a: null },
      urls: null,
      data: null,
      platform: { os: null, architecture: null, variant: null, 'os.features': null },
    };
    assert.deepEqual(
      parseIndex({ manifests: [entry, { ...config, annotations: null, platform: null }] }, 'x').manifests,
      [{ ...config, annotations: { a: '' }, platform: { os: '', architecture: '' } }, config],
    );
    const empty = { platform: { os: '', architecture: '' }, diffIds: [] };
    for (const rootfs of [null, undefined, { diff_ids: null }, { type: null }])
      assert.deepEqual(
        parseConfig(
          { os: null, architecture: null, variant: null, config: null, history: null, rootfs },
          'x',
        ),
        empty,
      );
    assert.deepEqual(parseObject(Buffer.from('null'), 'x'), {});
  });

  test('what must be there is not made up', () => {
    for (const bad of [
      () => parseManifest({ ...nothing, config: null, layers: null }, 'x'),
      () => parseManifest({ ...nothing, config: { ...config, digest: null }, layers: [] }, 'x'),
      () => parseManifest({ ...nothing, config, layers: [null] }, 'x'),
      () => parseManifest({ ...nothing, config, layers: {} }, 'x'),
      () => parseConfig({ rootfs: { diff_ids: [null] } }, 'x'),
      () => parseConfig({ rootfs: 7 }, 'x'),
      () => parseConfig({ os: 7, rootfs: null }, 'x'),
    ])
      assert.throws(bad, (e) => isKind(e, 'InvalidArgument'), String(bad));
  });

  test('an image without layers is imported, unpacked and exported', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const scratch = blobs.add(OCI_CONFIG, {
      os: 'linux',
      architecture: 'amd64',
      config: null,
      history: null,
      rootfs: { type: 'layers', diff_ids: null },
    });
    const manifest = blobs.add(OCI_MANIFEST, {
      ...nothing,
      config: { ...scratch, annotations: null, urls: null },
      layers: null,
    });
    const index = blobs.add(OCI_INDEX, {
      ...nothing,
      manifests: [{ ...manifest, annotations: null, platform: null }],
    });
    const files = blobs.layout([named(index, 'x/y:z')]);
    const [image] = await importImage(db, ctx, streamOf(await tarOfFiles(files)));
    assert.deepEqual(await unpackImage(db, ctx, image!, 'native').then((u) => [u.layers, u.chainId]), [
      0,
      '',
    ]);
    const parts: Uint8Array[] = [];
    await exportImages(db, ctx, ['x/y:z'], async (bytes) => void parts.push(Buffer.from(bytes)));
    assert.equal((await importImage(db, ctx, streamOf(Buffer.concat(parts)))).length, 1);
  });

  test('a docker archive without layers and tags is imported; one without images has none', async (t) => {
    const db = await testDB(t);
    const archive = (list: unknown) =>
      tarOf([
        {
          name: 'c',
          text: JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: null } }),
        },
        { name: 'manifest.json', text: JSON.stringify(list) },
      ]);
    const one = await archive([
      { Config: 'c', RepoTags: null, Layers: null, Parent: null, LayerSources: null },
    ]);
    assert.equal((await importImage(db, ctx, streamOf(one))).length, 1);
    for (const none of [null, []])
      await assert.rejects(importImage(db, ctx, streamOf(await archive(none))), /has no image/);
    await assert.rejects(
      importImage(db, ctx, streamOf(await archive([{ Config: null, Layers: null }]))),
      /without a config/,
    );
  });
});
