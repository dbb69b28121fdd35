/** Sources that lie, lack something, or are not images: an error that says which, and nothing is left. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { EbbtideError, isKind, isNotFound } from '../../src/errors.js';
import { importImage } from '../../src/images/import.js';
import { type Item, streamOf, tarOf } from '../archive/support.js';
import { tempDir, testDB } from '../support/db.js';
import {
  Blobs,
  ctx,
  type Desc,
  digests,
  leavesNothing,
  named,
  OCI_INDEX,
  OCI_MANIFEST,
  tarOfFiles,
  writeFiles,
} from './fixtures.js';

const layerA: Item[] = [{ name: 'a', text: 'a'.repeat(5000) }];

describe('hostile and damaged sources', () => {
  /** Each changes the files of a good layout. */
  const cases: [string, (files: Map<string, Buffer>, blobs: Blobs, manifest: Desc) => void, RegExp][] = [
    [
      'a blob with other bytes',
      (f, _, m) => f.set(`blobs/sha256/${m.digest.slice(7)}`, Buffer.from('evil')),
      /not what its digest/,
    ],
    ['an index that is not JSON', (f) => f.set('index.json', Buffer.from('{')), /not JSON/],
    ['an index that is not an object', (f) => f.set('index.json', Buffer.from('[]')), /not a JSON object/],
    [
      'an unknown layout version',
      (f) => f.set('oci-layout', Buffer.from('{"imageLayoutVersion":"9"}')),
      /unknown version "9"/,
    ],
    ['no images', (f) => f.set('index.json', Buffer.from('{"manifests":[]}')), /has no image/],
    ['a huge index', (f) => f.set('index.json', Buffer.alloc(9 * 2 ** 20, ' ')), /larger than 8388608 bytes/],
    ['a wrong size', (f, _, m) => entry(f, { ...m, size: m.size + 1 }), /descriptor says/],
    ['a negative size', (f, _, m) => entry(f, { ...m, size: -1 }), /no valid size/],
    [
      'a malformed digest',
      (f, _, m) => entry(f, { ...m, digest: 'sha256:../../etc/passwd' }),
      /no valid digest/,
    ],
    [
      'an entry that is not an image',
      (f, _, m) => entry(f, { ...m, mediaType: 'text/plain' }),
      /is not an image/,
    ],
    [
      'a manifest served as an index',
      (f, _, m) => entry(f, { ...m, mediaType: OCI_INDEX }),
      /says it is of type/,
    ],
    [
      'annotations that are not text',
      (f, _, m) => entry(f, { ...m, annotations: { x: 1 } }),
      /not a string under/,
    ],
    [
      'a manifest that is an index too',
      (f, blobs) => {
        const both = { schemaVersion: 2, manifests: [], config: {}, layers: [] };
        entry(f, put(f, blobs.add(OCI_MANIFEST, both), both));
      },
      /"manifests", which does not belong/,
    ],
    [
      'a manifest of schema 1',
      (f, blobs) => {
        const old = { schemaVersion: 1, fsLayers: [], layers: [], config: {} };
        entry(f, put(f, blobs.add(OCI_MANIFEST, old), old));
      },
      /"fsLayers"/,
    ],
    [
      'indexes nested without end',
      (f, blobs, m) => {
        let inner: Desc = m;
        for (let i = 0; i < 12; i++) {
          const index = { schemaVersion: 2, manifests: [inner] };
          inner = put(f, blobs.add(OCI_INDEX, index), index);
        }
        entry(f, inner);
      },
      /nested deeper/,
    ],
  ];
  const entry = (files: Map<string, Buffer>, desc: object): void => {
    files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [desc] })));
  };
  const put = (files: Map<string, Buffer>, desc: Desc, content: object): Desc => {
    files.set(`blobs/sha256/${desc.digest.slice(7)}`, Buffer.from(JSON.stringify(content)));
    return desc;
  };

  for (const [name, change, message] of cases) {
    for (const form of ['directory', 'tar'] as const) {
      test(`given ${name} (${form}), it is InvalidArgument and a collection leaves nothing`, async (t) => {
        const db = await testDB(t);
        const blobs = new Blobs();
        const { manifest } = await blobs.image([layerA]);
        const files = blobs.layout([named(manifest, 'x/y:z')]);
        change(files, blobs, manifest);
        const source =
          form === 'tar' ? streamOf(await tarOfFiles(files)) : await writeFiles(await tempDir(t), files);
        await assert.rejects(importImage(db, ctx, source), (error: unknown) => {
          assert.ok(error instanceof EbbtideError, String(error));
          assert.equal(error.kind, 'InvalidArgument', error.message);
          assert.match(error.message, message);
          return true;
        });
        await leavesNothing(db);
        assert.deepEqual(await digests(db), []);
        assert.deepEqual(await db.images.list(ctx), []);
        assert.deepEqual(await db.content.listStatuses(ctx), []);
      });
    }
  }

  test('given names that lead out of the archive, it is refused', async (t) => {
    const db = await testDB(t);
    for (const name of ['../blobs/x.tar', '/../x.tar', 'a/../../x.tar']) {
      await assert.rejects(importImage(db, ctx, streamOf(await tarOf([{ name, text: 'x' }]))), /leads out/);
    }
  });

  const noArchives: [string, Buffer | Promise<Buffer>][] = [
    ['text', Buffer.from('hello, this is not a tar file. '.repeat(40))],
    ['nothing', Buffer.alloc(0)],
    ['a tar of something else', tarOf([{ name: 'README', text: 'x' }])],
    ['a cut tar', tarOf([{ name: 'oci-layout', text: 'x'.repeat(2000) }]).then((b) => b.subarray(0, 1000))],
    ['damaged gzip', Buffer.concat([Buffer.from([0x1f, 0x8b, 8]), Buffer.alloc(100, 7)])],
  ];
  for (const [name, bytes] of noArchives) {
    test(`given ${name}, it is InvalidArgument`, async (t) => {
      const db = await testDB(t);
      await assert.rejects(importImage(db, ctx, streamOf(await bytes)), (e) => isKind(e, 'InvalidArgument'));
    });
  }

  const refused: [string, Record<string, string>, RegExp][] = [
    [
      'an archive of Docker before 1.10',
      { repositories: '{}', 'ab/layer.tar': '', 'ab/json': '{}' },
      /before 1\.10/,
    ],
    [
      'the form dir:',
      { version: 'Directory Transport Version: 1.1\n', 'manifest.json': '{"schemaVersion":2}', ab: '' },
      /the form dir: \(docker-dir\)/,
    ],
    ['a layout that lacks a file', { 'index.json': '{"manifests":[]}' }, /an OCI layout without oci-layout/],
    [
      'a layout with nothing but its mark',
      { 'oci-layout': '{"imageLayoutVersion":"1.0.0"}' },
      /no index\.json/,
    ],
  ];
  for (const [name, files, message] of refused) {
    test(`given ${name}, as an archive and as a directory, it is InvalidArgument that says so`, async (t) => {
      const db = await testDB(t);
      const contents = new Map(Object.entries(files).map(([path, text]) => [path, Buffer.from(text)]));
      for (const source of [
        await writeFiles(await tempDir(t), contents),
        streamOf(await tarOfFiles(contents)),
      ]) {
        await assert.rejects(importImage(db, ctx, source), (error: unknown) => {
          assert.ok(isKind(error, 'InvalidArgument'));
          assert.match(String(error), message);
          return true;
        });
      }
      assert.deepEqual(await db.images.list(ctx), []);
    });
  }

  test('given an archive of a directory with a layout, or a directory of an unpacked archive, the error says how to pack it', async (t) => {
    const db = await testDB(t);
    const nested = await tarOf([{ name: './app/oci-layout', text: '{}' }]);
    await assert.rejects(importImage(db, ctx, streamOf(nested)), /the images in its directory "app"/);
    const unpacked = await writeFiles(await tempDir(t), new Map([['manifest.json', Buffer.from('[]')]]));
    await assert.rejects(importImage(db, ctx, unpacked), /a docker archive that was unpacked/);
  });

  test('given a path that is not there, or a directory without a layout, the error says so', async (t) => {
    const db = await testDB(t);
    const dir = await tempDir(t);
    await assert.rejects(importImage(db, ctx, join(dir, 'none')), isNotFound);
    await assert.rejects(importImage(db, ctx, dir), /is not an OCI image layout: it has no oci-layout/);
  });

  test('given limits, an archive beyond them is FailedPrecondition', async (t) => {
    const db = await testDB(t);
    const blobs = new Blobs();
    const { manifest } = await blobs.image([layerA]);
    const tar = await tarOfFiles(blobs.layout([named(manifest, 'x')]));
    for (const limits of [{ maxBytes: 3000 }, { maxEntries: 2 }]) {
      await assert.rejects(importImage(db, ctx, streamOf(tar), { limits }), (e) =>
        isKind(e, 'FailedPrecondition'),
      );
    }
  });
});
