/** Entries of an index that cannot be used, or whose image is not here: they say nothing about those beside them. */
import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { isKind, isNotFound } from '../../src/errors.js';
import { exportImages } from '../../src/images/export.js';
import { importImage, type LeftOut, leftOutText } from '../../src/images/import.js';
import { unpackImage } from '../../src/images/unpack.js';
import type { Image } from '../../src/stores/images.js';
import { type Item, run, streamOf, tarOf } from '../archive/support.js';
import { tempDir, testDB } from '../support/db.js';
import { missingTools } from '../support/debian.js';
import { Blobs, ctx, type Desc, named, OCI_MANIFEST, tarOfFiles, writeFiles } from './fixtures.js';

const layer = (name: string): Item[] => [{ name, text: name.repeat(1000) }];
const amd64 = (variant?: string) => ({
  os: 'linux',
  architecture: 'amd64',
  ...(variant !== undefined && { variant }),
});
const digest = `sha256:${'a'.repeat(64)}`;
const entry = { mediaType: OCI_MANIFEST, digest, size: 2 };

/** What Go reads without complaint, and what is of no use. */
const unusable: [string, unknown][] = [
  ['a digest of an algorithm that is not known here', { ...entry, digest: `blake3:${'b'.repeat(64)}` }],
  ['a digest with capitals', { ...entry, digest: `sha256:${'A'.repeat(64)}` }],
  ['a digest that is a path', { ...entry, digest: 'sha256:../../etc/passwd' }],
  ['no digest', { ...entry, digest: null }],
  ['no media type', { digest, size: 2 }],
  ['a negative size', { ...entry, size: -1 }],
  ['a size with a fraction', { ...entry, size: 0.5 }],
  ['a platform that is text', { ...entry, platform: 'linux/amd64' }],
  ['annotations that are numbers', { ...entry, annotations: { a: 1 } }],
  ['null', null],
  ['a list', []],
];

describe('an entry that cannot be used', () => {
  for (const [what, bad] of unusable) {
    test(`given ${what} beside an image, then it is left out, said once, and nothing of it is exported`, async (t) => {
      const db = await testDB(t);
      const blobs = new Blobs();
      const made = await blobs.image([layer('a')], { platform: amd64() });
      const inner = blobs.index([bad as Desc, { ...made.manifest, platform: amd64() }, bad as Desc]);
      const entries = [bad as Desc, named(inner, 'x/y:index'), named(made.manifest, 'x/y:1')];
      const source = await tarOfFiles(blobs.layout(entries));
      const reported: LeftOut[][] = [];
      const images = await importImage(db, ctx, streamOf(source), {
        leftOut: (l) => void reported.push([...l]),
      });
      assert.deepEqual(
        images.map((image) => image.name),
        ['x/y:index', 'x/y:1'],
      );
      assert.equal(reported.length, 1);
      assert.equal(reported[0]!.length, 1);
      assert.match(
        leftOutText(reported[0]!),
        /^entry \S.* cannot be used: index\.json of the archive manifests\[0\] /,
      );
      for (const image of images) {
        const unpacked = await unpackImage(db, ctx, image, 'native', { platform: amd64() });
        assert.equal(unpacked.manifest, made.manifest.digest);
      }
      const out = await exportImages(db, ctx, ['x/y:index'], `${await tempDir(t)}/out`);
      assert.deepEqual([out.blobs, out.images[0]!.reducedFrom], [3, inner.digest]);
    });
  }

  test('given nothing else, then the import fails with its reason, in an index within too', async (t) => {
    const db = await testDB(t);
    const bad = unusable[0]![1] as Desc;
    const blobs = new Blobs();
    for (const entries of [[bad], [named(blobs.index([bad]), 'x/y:1')]])
      await assert.rejects(
        importImage(db, ctx, streamOf(await tarOfFiles(blobs.layout(entries)))),
        (error) => {
          assert.ok(isKind(error, 'InvalidArgument'));
          assert.match(String(error), /has no valid digest of sha256, sha384 or sha512/);
          return true;
        },
      );
  });
});

describe('a better manifest whose layers are not here', () => {
  async function levels(t: TestContext, db: DB) {
    const blobs = new Blobs();
    const made = {
      v3: await blobs.image([layer('v3')], { platform: amd64('v3') }),
      v2: await blobs.image([layer('v2')], { platform: amd64('v2') }),
    };
    const [v3, v2] = [made.v3, made.v2].map(({ manifest }, i) => ({
      ...manifest,
      platform: amd64(`v${3 - i}`),
    }));
    const importWithout = async (without: string[]): Promise<Image> => {
      const files = blobs.layout([named(blobs.index([v3!, v2!]), 'x/y:levels')]);
      for (const absent of without) files.delete(`blobs/${absent.replace(':', '/')}`);
      return (await importImage(db, ctx, await writeFiles(await tempDir(t), files)))[0]!;
    };
    return { made, importWithout };
  }

  for (const part of ['layer', 'config'] as const) {
    test(`given no ${part} of v3, then v2 is unpacked and exported`, async (t) => {
      const db = await testDB(t);
      const { made, importWithout } = await levels(t, db);
      const { layers, config } = made.v3;
      const image = await importWithout([part === 'layer' ? layers[0]!.digest : config.digest]);
      const platform = amd64('v3');
      const unpacked = await unpackImage(db, ctx, image, 'native', { platform });
      assert.equal(unpacked.manifest, made.v2.manifest.digest);
      const out = await exportImages(db, ctx, [image.name], `${await tempDir(t)}/out`, { platform });
      assert.equal(out.images[0]!.digest, made.v2.manifest.digest);
    });
  }

  test('given all of both, or the layers of neither, then v3 is meant', async (t) => {
    const db = await testDB(t);
    const { made, importWithout } = await levels(t, db);
    const image = await importWithout([]);
    const platform = amd64('v3');
    const choose = async () => (await unpackImage(db, ctx, image, 'native', { platform })).manifest;
    assert.equal(await choose(), made.v3.manifest.digest);
    // Given the snapshot of v3, which needs its layer no more.
    await db.content.delete(ctx, made.v3.layers[0]!.digest);
    assert.equal(await choose(), made.v3.manifest.digest);
    await db.content.delete(ctx, made.v2.layers[0]!.digest);
    await assert.rejects(
      exportImages(db, ctx, [image.name], `${await tempDir(t)}/out`, { platform }),
      (error) => isNotFound(error) && String(error).includes(made.v3.layers[0]!.digest),
    );
  });
});

test('given a volume label and other entries that are not files in the archive, then they are passed over', async (t) => {
  const missing = missingTools(['tar']);
  if (missing !== undefined) return t.skip(missing);
  const db = await testDB(t);
  const blobs = new Blobs();
  const { manifest } = await blobs.image([layer('a')]);
  const dir = await writeFiles(await tempDir(t), blobs.layout([named(manifest, 'x/y:1')]));
  const work = await tempDir(t);
  for (const options of [['--label=backup'], [`--listed-incremental=${work}/list`]]) {
    run('tar', ['-C', dir, '-cf', `${work}/x.tar`, ...options, '.']);
    const images = await importImage(db, ctx, `${work}/x.tar`);
    assert.deepEqual(
      images.map((image) => image.target.digest),
      [manifest.digest],
    );
  }
});

test('given index.json and oci-layout as links to files of other names, then the layout is read', async (t) => {
  const db = await testDB(t);
  const blobs = new Blobs();
  const { manifest } = await blobs.image([layer('a')]);
  const files = blobs.layout([named(manifest, 'x/y:1')]);
  const items: Item[] = [...files].map(([name, text]) => ({ name: `store/${name}`, text }));
  for (const type of ['link', 'symlink'] as const) {
    const links = [...files.keys()].map((name): Item => {
      const back = type === 'symlink' ? '../'.repeat(name.split('/').length - 1) : '';
      return { name, type, linkname: `${back}store/${name}` };
    });
    const images = await importImage(db, ctx, streamOf(await tarOf([...items, ...links])));
    assert.deepEqual(
      images.map((image) => [image.name, image.target.digest]),
      [['x/y:1', manifest.digest]],
    );
  }
});
