/** Archives with a manifest.json as the builders of this world write them: what a file is called says nothing. */
import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { TarEntry } from '../../src/backends/archive/tar/tar-reader.js';
import type { DB } from '../../src/db.js';
import { isKind } from '../../src/errors.js';
import { ArchiveFiles } from '../../src/images/archive-files.js';
import { importImage } from '../../src/images/import.js';
import { digestOf } from '../../src/model/digest.js';
import { type Item, streamOf, tarOf } from '../archive/support.js';
import { testDB } from '../support/db.js';
import { Blobs, ctx, type Desc, digests, leavesNothing } from './fixtures.js';

const layers: Buffer[] = await Promise.all(
  ['one', 'two', 'big'].map((name) =>
    tarOf([{ name, text: name === 'big' ? Buffer.alloc(300_000, name) : name }]),
  ),
);
const config = Buffer.from(
  JSON.stringify({
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => digestOf(layer)) },
  }),
);
const packed = layers.map((layer) => gzipSync(layer));
const hex = (bytes: Buffer): string => digestOf(bytes).slice('sha256:'.length);

interface Listed {
  Config: string | null;
  RepoTags: string[] | null;
  Layers: string[] | null;
}

const list = (...images: Listed[]): Item => ({ name: 'manifest.json', text: JSON.stringify(images) });
const image = (configName: string, layerNames: string[], tags: string[] | null = ['app:1']): Listed => ({
  Config: configName,
  RepoTags: tags,
  Layers: layerNames,
});

/** The layers of an imported image, by digest, in order. */
async function layersOf(db: DB, digest: string): Promise<Desc[]> {
  const reader = await db.content.readerAt(ctx, digest);
  const bytes = Buffer.alloc(reader.size);
  await reader.read(bytes, 0);
  await reader.close();
  return (JSON.parse(bytes.toString()) as { layers: Desc[] }).layers;
}

const crane = (tags: string[] | null = ['app:1']): Item[] => {
  const configName = digestOf(config);
  const names = packed.map((layer) => `${hex(layer)}.tar.gz`);
  return [
    { name: configName, text: config },
    ...packed.map((text, i) => ({ name: names[i]!, text })),
    list(image(configName, names, tags)),
  ];
};

describe('docker archives of any names', () => {
  const plainNames = layers.map((_, i) => `layer-${i}`);
  const ids = layers.map((_, i) => String(i).repeat(64));
  const forms: [string, Item[], Buffer[]][] = [
    ['crane, ko and kaniko: the config is sha256:<hex>, layers <hex>.tar.gz, the list last', crane(), packed],
    ['the list first', [...crane().slice(-1), ...crane().slice(0, -1)], packed],
    [
      'jib: config.json',
      [
        { name: 'config.json', text: config },
        ...packed.map((text) => ({ name: `${hex(text)}.tar.gz`, text })),
        list(
          image(
            'config.json',
            packed.map((p) => `${hex(p)}.tar.gz`),
          ),
        ),
      ],
      packed,
    ],
    [
      'names without any extension',
      [
        { name: 'c', text: config },
        ...layers.map((text, i) => ({ name: plainNames[i]!, text })),
        list(image('c', plainNames)),
      ],
      layers,
    ],
    [
      'names that lie about compression',
      [
        { name: 'c.tar.gz', text: config },
        ...layers.map((text, i) => ({ name: `${i}.tar.gz`, text })),
        list(image('c.tar.gz', ['0.tar.gz', '1.tar.gz', '2.tar.gz'])),
      ],
      layers,
    ],
    [
      'packed layers that are called layer.tar',
      [
        { name: `${hex(config)}.json`, text: config },
        ...packed.map((text, i) => ({ name: `${ids[i]}/layer.tar`, text })),
        list(
          image(
            `${hex(config)}.json`,
            ids.map((id) => `${id}/layer.tar`),
          ),
        ),
      ],
      packed,
    ],
    [
      'names with ./ before them, in the list or in the archive',
      [
        { name: './c.json', text: config },
        ...layers.map((text, i) => ({ name: `./dir/${i}`, text })),
        { ...list(image('c.json', ['dir/0', './dir/1', 'dir//2'])), name: './manifest.json' },
      ],
      layers,
    ],
    [
      'hard links and symlinks, to files before and after them',
      [
        { name: 'a/0', text: layers[0]! },
        { name: 'c', text: config },
        { name: 'hard', type: 'link', linkname: 'a/0' },
        { name: 'b/soft', type: 'symlink', linkname: '../behind/1' },
        { name: 'behind/1', text: layers[1]! },
        { name: 'z', type: 'symlink', linkname: '/b/other' },
        { name: 'b/other', type: 'symlink', linkname: 'big' },
        { name: 'b/big', text: layers[2]! },
        list(image('c', ['hard', 'b/soft', 'z'])),
      ],
      layers,
    ],
    [
      'docker 1.10 to 24, with what Docker 1.9 read',
      [
        ...layers.flatMap((text, i): Item[] => [
          { name: ids[i]!, type: 'directory' },
          { name: `${ids[i]}/VERSION`, text: '1.0' },
          { name: `${ids[i]}/json`, text: '{}' },
          { name: `${ids[i]}/layer.tar`, text },
        ]),
        { name: `${hex(config)}.json`, text: config },
        list(
          image(
            `${hex(config)}.json`,
            ids.map((id) => `${id}/layer.tar`),
          ),
        ),
        { name: 'repositories', text: 'null' },
      ],
      layers,
    ],
    [
      'the names of Docker 1.9 for configs and layers',
      [
        { name: 'json', text: config },
        { name: 'VERSION', text: layers[0]! },
        { name: 'repositories', text: layers[1]! },
        { name: 'x/json', text: layers[2]! },
        list(image('json', ['VERSION', 'repositories', 'x/json'])),
      ],
      layers,
    ],
    [
      'files that nothing names, and a link that leads out',
      [
        { name: 'README', text: 'hi' },
        { name: 'huge', text: Buffer.alloc(200_000, 'x') },
        { name: 'out', type: 'symlink', linkname: '../../etc/passwd' },
        { name: 'fifo', type: 'fifo' },
        ...crane(),
      ],
      packed,
    ],
    [
      'a name twice: the last one counts',
      [
        { name: digestOf(config), text: 'not this' },
        { name: `${hex(packed[0]!)}.tar.gz`, type: 'symlink', linkname: 'nowhere' },
        ...crane(),
      ],
      packed,
    ],
  ];
  for (const [name, items, expected] of forms) {
    for (const compressed of [false, true]) {
      test(`given ${name}${compressed ? ' (gzip)' : ''}, its layers are imported`, async (t) => {
        const db = await testDB(t);
        const tar = await tarOf(items);
        const made = await importImage(db, ctx, streamOf(compressed ? gzipSync(tar) : tar, 7001));
        assert.deepEqual(
          made.map((i) => i.name),
          ['docker.io/library/app:1'],
        );
        const found = await layersOf(db, made[0]!.target.digest);
        assert.deepEqual(
          found.map((l) => l.digest),
          expected.map((l) => digestOf(l)),
        );
        const type = expected === packed ? '.gzip' : '';
        for (const { mediaType } of found)
          assert.equal(mediaType, `application/vnd.docker.image.rootfs.diff.tar${type}`);
        // What nothing names goes again.
        await leavesNothing(db);
        const kept = [made[0]!.target.digest, digestOf(config), ...expected.map((l) => digestOf(l))];
        assert.deepEqual(await digests(db), kept.sort());
        assert.deepEqual(await db.content.listStatuses(ctx), []);
      });
    }
  }

  test('given several images with layers in common, each is there, and each blob once', async (t) => {
    const db = await testDB(t);
    const second = Buffer.from(
      JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [digestOf(layers[0]!)] } }),
    );
    const items: Item[] = [
      ...crane().slice(0, -1),
      { name: 'second', text: second },
      list(
        image(
          digestOf(config),
          packed.map((p) => `${hex(p)}.tar.gz`),
          ['one:1', 'one:latest'],
        ),
        image('second', [`${hex(packed[0]!)}.tar.gz`], null),
      ),
    ];
    const made = await importImage(db, ctx, streamOf(await tarOf(items)));
    assert.deepEqual(
      made.map((i) => i.name.replace(/@.*|import-[^@]*/g, '')),
      ['docker.io/library/one:1', 'docker.io/library/one:latest', ''],
    );
    await leavesNothing(db);
    assert.equal((await digests(db)).length, 2 + 2 + 3);
  });
});

describe('layouts with links', () => {
  test('given blobs that are links to files of other names, they are what their digests say, or it is refused', async (t) => {
    const blobs = new Blobs();
    const { manifest } = await blobs.image([[{ name: 'a', text: 'a' }]]);
    const files = blobs.layout([
      { ...manifest, annotations: { 'org.opencontainers.image.ref.name': 'x/y:z' } },
    ]);
    const linked = (content: (bytes: Buffer) => Buffer): Promise<Buffer> =>
      tarOf(
        [...files].flatMap(([name, bytes], i): Item[] => {
          if (!name.startsWith('blobs/')) return [{ name, text: bytes }];
          const store = { name: `store/${i}`, text: content(bytes) };
          return i % 2 === 0
            ? [store, { name, type: 'link', linkname: `store/${i}` }]
            : [{ name, type: 'symlink', linkname: `../../store/${i}` }, store];
        }),
      );
    const db = await testDB(t);
    const [made] = await importImage(db, ctx, streamOf(await linked((bytes) => bytes)));
    assert.equal(made?.target.digest, manifest.digest);
    await leavesNothing(db);
    assert.deepEqual(await digests(db), [...blobs.all.keys()].sort());
    const other = await testDB(t);
    const lying = await linked((bytes) => Buffer.concat([bytes, Buffer.from(' ')]));
    await assert.rejects(importImage(other, ctx, streamOf(lying)), /not what its digest promises/);
    await leavesNothing(other);
    assert.deepEqual(await digests(other), []);
  });
});

describe('docker archives that ask for too much', () => {
  const refused = async (
    t: TestContext,
    items: AsyncIterable<Uint8Array>,
    message: RegExp,
  ): Promise<void> => {
    const db = await testDB(t);
    await assert.rejects(
      importImage(db, ctx, items),
      (e) => isKind(e, 'InvalidArgument') && message.test(String(e)),
    );
    await leavesNothing(db);
    assert.deepEqual(await digests(db), []);
  };

  test('given more files than any archive of images has, or long names by the thousand, it is refused', () => {
    const files = (): ArchiveFiles => new ArchiveFiles({} as never, { ...ctx, lease: 'x' }, undefined);
    const many = files();
    const link = { type: 'symlink', linkname: 'x' } as TarEntry;
    assert.throws(() => {
      for (let i = 0; i < 1_000_000; i++) many.addLink(`${i}`, link);
    }, /more than 100000 files/);
    const long = files();
    assert.throws(() => {
      for (let i = 0; i < 20_000; i++) long.addLink(`same/${'n'.repeat(3000)}`, link);
    }, /bytes of names/);
  });

  test('given small files by the thousand that nothing names, none is stored', async (t) => {
    const db = await testDB(t);
    const junk = Array.from({ length: 3000 }, (_, i): Item => ({ name: `junk/${i}`, text: `${i}` }));
    await importImage(db, ctx, streamOf(await tarOf([...junk, ...crane()])));
    assert.equal((await digests(db)).length, 5);
  });

  test('given a link in a circle, a sparse layer or a link that leads out, only their use is refused', async (t) => {
    for (const [linkname, message] of [
      ['loop', /does not have the layer "loop"/],
      ['../../etc/passwd', /leads out/],
    ] as const) {
      const items: Item[] = [
        { name: 'c', text: JSON.stringify({ rootfs: { diff_ids: [digestOf(layers[0]!)] } }) },
        { name: 'loop', type: 'symlink', linkname },
        list(image('c', ['loop'])),
      ];
      await refused(t, streamOf(await tarOf(items)), message);
    }
  });
});
