/**
 * Damages after which a namespace could get a record that it never had. Files are made with ebbtide's own writer, and then changed as the damage would.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import { type Bucket, rootBucket } from '../../src/bolt/bucket.js';
import type { Meta } from '../../src/bolt/format.js';
import { type BoltSnapshot, readBolt } from '../../src/bolt/snapshot.js';
import { digestOf } from '../../src/model/digest.js';
import { tempDir } from '../support/temp.js';
import { blobs, type Child, Host, type Image, image, newTime, recordsIn, times } from './damaged.js';
import type { Fields } from './root.js';

/** What the snapshots of a namespace are called in their backend. */
function namesIn(file: BoltSnapshot): string[] {
  const names: string[] = [];
  const visit = (bucket: Bucket): void =>
    bucket.each(({ key, value, bucket: inner }) => {
      if (inner !== undefined) visit(inner);
      else if (key === 'name') names.push(value.toString());
    });
  visit(rootBucket(file));
  return names;
}

const inContent = (records: readonly string[], namespace: string): string[] =>
  records.flatMap((record) => record.split(`${namespace}/content/blob `)[1] ?? []).sort();
const digests = (all: readonly Child[]): string[] => all.map(({ digest }) => digest).sort();

test('given an image with the target of another namespace, when the blobs of its own are lost, then it gets none of the other', async (t) => {
  const host = new Host(await tempDir(t));
  const [ours, theirs] = [host.image('ours'), host.image('theirs')];
  const file = await host.write({
    a: { images: { 'one:1': image(ours.target) }, content: blobs(ours.blobs) },
    b: { images: { 'two:1': image(theirs.target) }, content: blobs(theirs.blobs) },
  });
  file.flip(['v1', 'a', 'images', 'one:1'], ours.target.digest, theirs.target.digest);
  file.lose(['v1', 'a', 'content', 'blob']);
  const { records, report } = await file.salvage(t);
  assert.deepEqual(inContent(records, 'a'), []);
  assert.deepEqual(inContent(records, 'b'), digests(theirs.blobs));
  assert.deepEqual(
    report.unplaced.map(({ key, namespaces }) => [key, namespaces]).sort(),
    digests(theirs.blobs).map((key) => [key, ['a']]),
  );
});

test('given the same, when not even the names of all namespaces are known, then it gets none', async (t) => {
  const host = new Host(await tempDir(t));
  const [ours, theirs] = [host.image('ours'), host.image('theirs')];
  const file = await host.write(
    { b: { images: { 'two:1': image(theirs.target) }, content: blobs(theirs.blobs) } },
    { a: { images: { 'one:1': image(theirs.target) }, content: blobs(ours.blobs) } },
  );
  file.lose(['v1']);
  file.lose(['v1', 'a', 'content', 'blob'], 1);
  const { records } = await file.salvage(t);
  assert.deepEqual(records, ['a/images one:1']);
});

test('given an index of which namespaces have one platform, when their blobs are lost, then they get none of what only another has', async (t) => {
  const host = new Host(await tempDir(t));
  const [amd, arm] = [host.image('amd64'), host.image('arm64')];
  const index = host.index([amd.target, arm.target]);
  await host.snapshotter([`a/1/${amd.chain}`]);
  await host.snapshotter([`c/1/${amd.chain}`], 'stargz');
  const images = (): Fields => ({ 'one:1': image(index) });
  const unpacked = (namespace: string): Fields => ({
    [amd.chain]: { ...times(), name: `${namespace}/1/${amd.chain}` },
  });
  const [target, config] = amd.blobs;
  assert.ok(target && config);
  const file = await host.write({
    a: {
      images: images(),
      content: blobs([index, ...amd.blobs]),
      snapshots: { overlayfs: unpacked('a') },
    },
    b: { images: images(), content: blobs([index, ...amd.blobs, ...arm.blobs]) },
    // What is in its layers comes from the registry, piece by piece.
    c: {
      images: images(),
      content: blobs([index, target, config]),
      snapshots: { stargz: unpacked('c') },
    },
  });
  for (const namespace of ['a', 'c']) file.lose(['v1', namespace, 'content', 'blob']);
  const { records } = await file.salvage(t);
  assert.deepEqual(inContent(records, 'a'), digests([index, ...amd.blobs]));
  assert.deepEqual(inContent(records, 'c'), digests([index, target, config]));
});

test('given blobs that no other namespace can have, when they are lost, then all are back', async (t) => {
  const host = new Host(await tempDir(t));
  const [ours, theirs] = [host.image('ours'), host.image('theirs')];
  const index = host.index([ours.target]);
  const file = await host.write({
    a: { images: { 'one:1': image(index) }, content: blobs([index, ...ours.blobs]) },
    b: { images: { 'two:1': image(theirs.target) }, content: blobs(theirs.blobs) },
  });
  file.lose(['v1', 'a', 'content', 'blob']);
  const { records } = await file.salvage(t);
  assert.deepEqual(inContent(records, 'a'), digests([index, ...ours.blobs]));
});

test('given blobs of two namespaces, when both have lost them, then each gets what two of its records say', async (t) => {
  const host = new Host(await tempDir(t));
  const both = host.image('both');
  const named = `one@${both.target.digest}`;
  const config = both.blobs[1]?.digest ?? '';
  const file = await host.write({
    a: { images: { [named]: image(both.target) }, content: blobs(both.blobs) },
    b: { images: { 'one:1': image(both.target) }, content: blobs(both.blobs) },
    c: { images: { 'one:1': image(both.target), 'one:2': image(both.target) }, content: blobs(both.blobs) },
    d: {
      images: { 'one:1': image(both.target) },
      leases: { pull: { createdat: newTime(), content: { [both.target.digest]: '' } } },
      content: blobs(both.blobs),
    },
    // As Kubernetes names it.
    e: { images: { [config]: image(both.target) }, content: blobs(both.blobs) },
  });
  for (const namespace of ['a', 'b', 'c', 'd', 'e']) file.lose(['v1', namespace, 'content', 'blob']);
  const { records, report } = await file.salvage(t);
  for (const namespace of ['a', 'c', 'd'])
    assert.deepEqual(inContent(records, namespace), [both.target.digest], namespace);
  assert.deepEqual(inContent(records, 'e'), digests(both.blobs.slice(0, 2)));
  assert.deepEqual(inContent(records, 'b'), []);
  const unplaced = new Map(report.unplaced.map(({ key, namespaces }) => [key, namespaces]));
  assert.deepEqual(unplaced.get(both.target.digest), ['b']);
  assert.deepEqual(unplaced.get(config), ['a', 'b', 'c', 'd']);
});

test('given a leaf of blobs with an entry of another namespace in it, when another page is lost, then the blob is in neither, and the report says so', async (t) => {
  const host = new Host(await tempDir(t));
  const [ours, theirs] = [host.image('ours'), host.image('theirs')];
  const [mine, other] = [ours.blobs[0]!, theirs.blobs[0]!];
  const file = await host.write({
    a: { images: { 'one:1': image(ours.target) }, content: blobs([mine]) },
    b: { images: { 'two:1': image(theirs.target) }, content: blobs([other]) },
  });
  const { page } = file.find(['v1', 'b', 'content', 'blob', other.digest]);
  file.alias(['v1', 'a', 'content', 'blob', mine.digest], 0, page);
  file.flip(['v1', 'a', 'content', 'blob'], mine.digest, other.digest);
  const { records, report } = await file.salvage(t);
  assert.deepEqual(inContent(records, 'a'), []);
  assert.deepEqual(inContent(records, 'b'), []);
  assert.deepEqual(
    report.leftOut.map(({ key, namespace }) => `${namespace} ${key}`).sort(),
    ['a', 'b'].map((namespace) => `${namespace} ${other.digest}`),
  );
});

test('given an older tree that leads to a page which another namespace has by now, when both have lost their own, then none gets its records', async (t) => {
  const host = new Host(await tempDir(t));
  const [ours, theirs] = [host.image('ours'), host.image('theirs')];
  const tree = (): Fields => ({
    a: { images: { 'one:1': image(ours.target) }, content: blobs(ours.blobs) },
    b: { images: { 'two:1': image(theirs.target) }, content: blobs(theirs.blobs) },
  });
  const file = await host.write(tree(), tree());
  const { page } = file.find(['v1', 'b', 'images'], 1);
  file.lose(['v1', 'a', 'images']);
  file.lose(['v1', 'b', 'images']);
  file.lose(['v1', 'a', 'images'], 1);
  file.alias(['v1', 'a', 'images'], 1, page);
  file.alias(['v1', 'b', 'images'], 1, 1);
  const { records } = await file.salvage(t);
  assert.deepEqual(
    records.filter((record) => record === 'a/images two:1'),
    [],
  );
});

test('given two snapshots of one name in a snapshotter, when their records are lost, then the newer one is back', async (t) => {
  const host = new Host(await tempDir(t));
  await host.snapshotter(['a/10/key', 'a/9/key']);
  const lost = { overlayfs: { key: { ...times(), name: 'a/10/key', labels: { x: 'y' } } } };
  const file = await host.write({ a: { snapshots: lost, images: { x: image(host.image('x').target) } } });
  file.lose(['v1', 'a', 'snapshots', 'overlayfs', 'key']);
  const { records, report } = await file.salvage(t);
  assert.ok(records.includes('a/snapshots/overlayfs key'));
  assert.equal(report.records.find(({ kind }) => kind === 'snapshot')?.rebuilt, 1);
  assert.deepEqual(namesIn(await readBolt(report.output)), ['a/10/key']);
});

test('given an old leaf of images with an entry that leads to what is now a part of a container, when the new one is lost, then that is no image', async (t) => {
  const host = new Host(await tempDir(t));
  const ours = host.image('ours');
  const images = (): Fields => ({ 'one:1': image(ours.target), 'two:1': image(ours.target) });
  const container: Fields = {
    ...times(),
    image: 'one:1',
    snapshotKey: 'x',
    runtime: { name: 'io.containerd.runc.v2' },
  };
  const part = Object.fromEntries(
    Object.entries(container).filter(([name]) => name !== 'updatedat'),
  ) as Fields;
  for (const what of [container, part]) {
    const file = await host.write(
      { a: { images: images(), content: blobs(ours.blobs) } },
      { a: { images: images(), containers: { c: { ...what, labels: { x: 'y' } } } } },
    );
    file.alias(['v1', 'a', 'images', 'two:1'], 1, file.find(['v1', 'a', 'containers', 'c'], 1).page);
    file.lose(['v1', 'a', 'images']);
    file.lose(['v1', 'a'], 1);
    const { records } = await file.salvage(t);
    assert.deepEqual(
      records.filter((record) => record.includes(':1')),
      [],
    );
    rmSync(host.metadata);
  }
});

test('given a page of images that is an older one of the namespace by now, whose images are now the page of one, then that is no image with the name of a part', async (t) => {
  const host = new Host(await tempDir(t));
  const { target, blobs: all } = host.image('ours');
  const tree = (): Fields => ({ a: { images: { 'one:1': image(target) }, content: blobs(all) } });
  const older = tree();
  const file = await host.write(tree(), older);
  file.alias(['v1', 'a', 'images'], 1, file.find(['v1', 'a', 'images', 'one:1']).page);
  file.alias(['v1', 'a', 'images'], 0, file.find(['v1', 'a'], 1).page);
  const { records } = await file.salvage(t);
  assert.deepEqual(
    records.filter((record) => record.endsWith(' images')),
    [],
  );
});

test('given images that are called as parts of a namespace are, then all are back', async (t) => {
  const host = new Host(await tempDir(t));
  const { target, blobs: all } = host.image('ours');
  const named = { images: image(target), content: image(target) };
  const file = await host.write({ a: { images: named, content: blobs(all) } });
  const { records, report } = await file.salvage(t);
  assert.deepEqual(records.slice(-2), ['a/images content', 'a/images images']);
  assert.deepEqual(report.gaps, []);
});

test('given a whole tree with a spec that is damaged, then it is not taken for whole', async (t) => {
  const host = new Host(await tempDir(t));
  const spec = Buffer.concat([Uint8Array.of(0x0a, 1, 0x78, 0x12, 9), Buffer.from('{"a":"b"}')]);
  const container: Fields = { ...times(), image: 'one:1', snapshotKey: 'x', spec, labels: { x: 'y' } };
  const file = await host.write({ a: { containers: { c: container, d: { ...container, ...times() } } } });
  file.flip(['v1', 'a', 'containers', 'c'], '{"a":"b"}', '{"a"\0\0\0\0}');
  const { records, report } = await file.salvage(t);
  assert.deepEqual(records, ['a/containers d']);
  assert.deepEqual(
    report.leftOut.map(({ key, reason }) => [key, reason]),
    [['c', 'its spec is damaged']],
  );
});

test('given an image whose page is an older one of another namespace by now, when its leaf is lost, then it does not get the fields of that one', async (t) => {
  const host = new Host(await tempDir(t));
  const [ours, theirs] = [host.image('ours'), host.image('theirs')];
  const one = (mine: Image, others: Image): Fields => ({
    a: { images: { 'one:1': image(mine.target), 'two:1': image(ours.target) } },
    b: { images: { 'one:1': image(others.target), 'two:1': image(theirs.target) } },
  });
  const newest = one(ours, theirs);
  const file = await host.write(newest, newest, one(ours, ours));
  // The older tree of the same records leads to a page of the oldest one.
  file.alias(['v1', 'a', 'images', 'one:1'], 1, file.find(['v1', 'b', 'images', 'one:1'], 2).page);
  file.lose(['v1', 'b', 'images'], 2);
  file.lose(['v1', 'a', 'images']);
  const { records, report } = await file.salvage(t);
  assert.ok(!records.includes('a/images one:1'), JSON.stringify(report.guessed));
});

test('given a whole file, when the bytes beside it are gone, then all records are back', async (t) => {
  const host = new Host(await tempDir(t));
  await host.snapshotter([]);
  const { target, blobs: all } = host.image('one');
  const file = await host.write({
    a: {
      images: { 'one:1': image(target) },
      content: blobs([...all, { ...target, digest: digestOf(Buffer.from('gone')) }]),
      snapshots: { overlayfs: { key: { ...times(), name: 'a/1/key' } } },
    },
  });
  const { records, report } = await file.salvage(t);
  assert.deepEqual(records, await recordsIn(host.metadata));
  assert.deepEqual([records.length, report.gaps, report.leftOut, report.guessed], [6, [], [], []]);
});

test('given an old leaf of images whose pages are leases now, when the leases are lost, then none is called as an image', async (t) => {
  const host = new Host(await tempDir(t));
  const [ours, theirs] = [host.image('ours'), host.image('theirs')];
  const lease = (): Fields => ({ createdat: newTime(), content: { [ours.target.digest]: '' } });
  const file = await host.write(
    {
      a: { images: { 'one:1': image(ours.target) }, leases: { kept: lease() }, content: blobs(ours.blobs) },
      b: { images: { 'two:1': image(theirs.target) }, content: blobs(theirs.blobs) },
    },
    { a: { images: { 'example.com/old:1': { ...image(ours.target), labels: { long: 'x'.repeat(2000) } } } } },
    { a: { leases: { gone: { ...lease(), labels: { long: 'x'.repeat(2000) } } } } },
  );
  file.alias(['v1', 'a', 'images', 'example.com/old:1'], 1, file.find(['v1', 'a', 'leases', 'gone'], 2).page);
  file.lose(['v1', 'a', 'leases']);
  for (const tree of [1, 2]) file.lose(['v1', 'a'], tree);
  file.lose(['v1', 'a', 'leases'], 2);
  const { records, report } = await file.salvage(t);
  assert.deepEqual(
    records.filter((record) => record.startsWith('a/leases')),
    [],
  );
  assert.ok(
    report.leftOut.some(({ key, reason }) => key === 'example.com/old:1' && /as an image/.test(reason)),
  );
});

test('given meta pages that were taken back, and a longer page where their tree began, then all that came since is back', async (t) => {
  const host = new Host(await tempDir(t));
  const { target, blobs: all } = host.image('ours');
  // A message of 9,000 bytes.
  const head = Uint8Array.of(0x0a, 1, 0x78, 0x12, 0xa8, 0x46);
  const spec = Buffer.concat([head, Buffer.from(JSON.stringify('y'.repeat(8998)))]);
  const container: Fields = { ...times(), image: 'one:1', snapshotKey: 'x', spec };
  const file = await host.write({
    a: { containers: { c: container }, content: blobs(all), images: { 'one:1': image(target) } },
  });
  const pages = Array.from({ length: file.bytes.length / 4096 }, (_, id) => id);
  const long = pages.find((id) => id > 1 && file.bytes.readUInt32LE(id * 4096 + 12) === 2);
  assert.ok(long !== undefined && file.bytes.readUInt32LE(long * 4096) === long);
  const root = long + 1;
  const { records, report } = await file.salvage(t, { root, highWater: root + 1 });
  assert.deepEqual(inContent(records, 'a'), digests(all));
  assert.deepEqual(
    records.filter((record) => !record.includes('content')),
    ['a/containers c', 'a/images one:1'],
  );
  assert.equal(report.isNamed, false);
});

test('given a leaf that has nothing but a name of the structure, in a file that is not whole, then it is none of records', async (t) => {
  const container = (): Fields => ({
    ...times(),
    image: 'one:1',
    snapshotKey: 'x',
    labels: { long: 'x'.repeat(2000) },
  });
  const b = { containers: { v1: container() } };
  // What names itself says until when the tree was in use.
  const later = (key: string): Fields => ({
    ...times(),
    name: `a/1/${key}`,
    labels: { long: 'x'.repeat(2000) },
  });
  const tree = (): Fields => ({
    a: { containers: { z: container() }, snapshots: { overlayfs: { one: later('one'), two: later('two') } } },
    b,
  });
  const salvaged = async (
    older: Fields | undefined,
    named: Partial<Meta> = {},
  ): Promise<{ containers: string[]; isNamed: boolean }> => {
    const host = new Host(await tempDir(t));
    const file = await host.write(tree(), ...(older === undefined ? [] : [older]));
    if (older !== undefined) file.lose(['v1', 'a', 'containers']);
    const { records, report } = await file.salvage(t, named);
    const containers = records.filter((record) => record.includes('containers'));
    return { containers, isNamed: report.isNamed };
  };
  for (const [older, back] of [
    [{ v1: container() }, []],
    [{ older: container(), v1: container() }, ['a/containers older', 'a/containers v1']],
  ] as const) {
    const { containers } = await salvaged({ a: { containers: older } });
    assert.deepEqual(containers, back);
  }
  assert.deepEqual(await salvaged(undefined), {
    containers: ['a/containers z', 'b/containers v1'],
    isNamed: true,
  });
  for (const root of [1000, 2 ** 60]) {
    const found = await salvaged(undefined, { root, transaction: 5n });
    assert.deepEqual(found, { containers: ['a/containers z'], isNamed: false });
  }
});

test('given an old tree with pages that are something else by now, when the meta pages and the newest tree are lost, then a leaf with a change after the tree is not taken for its own', async (t) => {
  const host = new Host(await tempDir(t));
  const [ours, theirs] = [host.image('ours'), host.image('theirs')];
  const snapshot = (key: string): Fields => ({ ...times(), name: `a/1/${key}`, labels: { x: 'y' } });
  const older: Fields = {
    a: {
      containers: { gone: { ...times(), image: 'kept:1', labels: { x: 'y' } } },
      images: { 'kept:1': image(ours.target), 'old:1': image(ours.target) },
      snapshots: { overlayfs: { one: snapshot('one'), two: snapshot('two') } },
    },
  };
  const late: Fields = { b: { images: { 'late:1': image(theirs.target) } } };
  const salvaged = async (isReused: boolean): Promise<{ images: string[]; unplaced: string[] }> => {
    const file = await host.write(late, older);
    if (isReused) {
      file.alias(['v1', 'a', 'images', 'old:1'], 1, file.find(['v1', 'b', 'images', 'late:1']).page);
      file.alias(['v1', 'a', 'containers', 'gone'], 1, file.find(['v1', 'a'], 1).page);
    }
    for (const path of [['v1', 'b', 'images'], ['v1', 'b'], ['v1'], []]) file.lose(path);
    const { records, report } = await file.salvage(t, 'lost');
    rmSync(host.metadata);
    const images = records.filter((record) => record.includes('images'));
    return { images, unplaced: report.unplaced.map(({ key }) => key) };
  };
  assert.deepEqual(await salvaged(true), { images: [], unplaced: ['kept:1', 'old:1'] });
  assert.deepEqual(await salvaged(false), { images: ['a/images kept:1', 'a/images old:1'], unplaced: [] });
});

test('given an old leaf of images in the place of leases, one of whose pages is a lease by now, when that one is lost, then it is no lease under the name of an image', async (t) => {
  const host = new Host(await tempDir(t));
  const { target, blobs: all } = host.image('ours');
  const lease = (): Fields => ({ createdat: newTime(), content: { [target.digest]: '' } });
  const images = { 'x/one:1': image(target), 'x/two:1': image(target), 'x/three:1': image(target) };
  const file = await host.write(
    { a: { leases: { kept: lease() }, content: blobs(all) }, b: { leases: { lost: lease() } } },
    { a: { images } },
  );
  file.alias(['v1', 'a', 'images', 'x/one:1'], 1, file.find(['v1', 'b', 'leases', 'lost']).page);
  file.alias(['v1', 'a', 'leases'], 0, file.find(['v1', 'a', 'images'], 1).page);
  file.lose(['v1', 'b', 'leases']);
  const { records, report } = await file.salvage(t);
  assert.deepEqual(
    records.filter((record) => record.includes('leases')),
    [],
  );
  assert.ok(
    report.leftOut.some(({ key }) => key === 'x/one:1'),
    JSON.stringify(report.leftOut),
  );
});
