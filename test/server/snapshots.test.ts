import assert from 'node:assert/strict';
import { lstatSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { digestOf } from '../../src/model/digest.js';
import { tarOf } from '../archive/support.js';
import type { Message, TestClient } from './client.js';
import { code, world } from './world.js';

const snapshotter = 'native';

interface Mount {
  type: string;
  source: string;
  options: string[];
}
const prepare = async (client: TestClient, key: string, parent = '', name = snapshotter): Promise<Mount[]> =>
  (await client.call('snapshots', 'Prepare', { snapshotter: name, key, parent, labels: {} })).mounts;

test('snapshots: prepared, committed, viewed, listed, removed', async (t) => {
  const { client } = await world(t);
  const labels = { 'containerd.io/x': '1' };
  const ask = (method: string, more: object) => client.call('snapshots', method, { snapshotter, ...more });
  const [mount] = await prepare(client, 'work');
  assert.equal(mount?.type, 'bind');
  writeFileSync(join(mount.source, 'file'), 'text');
  await ask('Commit', { name: 'base', key: 'work', labels });
  const { info } = await ask('Stat', { key: 'base' });
  assert.deepEqual([info.name, info.kind, info.labels], ['base', 3, labels]);
  const { mounts: view } = await ask('View', { key: 'look', parent: 'base' });
  assert.equal(view[0].options.includes('ro'), true);
  assert.equal(readFileSync(join(view[0].source, 'file'), 'utf8'), 'text');
  assert.deepEqual((await ask('Mounts', { key: 'look' })).mounts, view);
  const usage = await ask('Usage', { key: 'base' });
  assert.equal(usage.inodes >= 2 && usage.size > 0, true);
  const updated = await ask('Update', {
    info: { name: 'base', labels: { a: '2' } },
    updateMask: { paths: ['labels.a'] },
  });
  assert.deepEqual(updated.info.labels, { ...labels, a: '2' });

  const lists = await client.all('snapshots', 'List', { snapshotter });
  const kinds = lists.flatMap((m) => m.info.map((i: Message) => [i.name, i.kind, i.parent ?? '']));
  assert.deepEqual(kinds.sort(), [
    ['base', 3, ''],
    ['look', 1, 'base'],
  ]);
  const fails = (method: string, more: object) => client.fails('snapshots', method, { snapshotter, ...more });
  assert.equal((await fails('Remove', { key: 'base' })).code, code.failedPrecondition);
  assert.equal((await fails('Mounts', { key: 'base' })).code, code.failedPrecondition);
  assert.equal((await fails('Prepare', { key: 'look' })).code, code.alreadyExists);
  assert.equal((await fails('Prepare', { key: 'k', parent: 'nosuch' })).code, code.notFound);
  await ask('Remove', { key: 'look' });
  await ask('Remove', { key: 'base' });
  assert.equal((await fails('Stat', { key: 'base' })).code, code.notFound);
});

test('a snapshotter that is missing or unknown is an InvalidArgument', async (t) => {
  const { client } = await world(t, { snapshotters: 'native' });
  assert.deepEqual(await client.fails('snapshots', 'Stat', { snapshotter: 'zfs', key: 'k' }), {
    code: code.invalidArgument,
    details: 'snapshotter not loaded: zfs: invalid argument',
  });
  assert.equal((await client.fails('snapshots', 'Stat', { key: 'k' })).code, code.invalidArgument);
  await assert.rejects(client.all('snapshots', 'List', { snapshotter: 'overlayfs' }), {
    code: code.invalidArgument,
  });
});

for (const name of ['native', 'overlayfs'] as const) {
  test(`${name}: a layer is applied to a snapshot, and the difference of two is a layer again`, async (t) => {
    const { client } = await world(t);
    const layer = gzipSync(
      await tarOf([
        { name: 'etc', type: 'directory', mode: 0o750 },
        { name: 'etc/conf', text: 'one' },
      ]),
    );
    const digest = digestOf(layer);
    const diff = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: layer.length };
    await client.ingest('layer', layer, digest);
    const upper = await prepare(client, 'work', '', name);

    // When: the layer is applied, the snapshot committed, something changed on top of it.
    const { applied } = await client.call('diff', 'Apply', { diff, mounts: upper });
    assert.deepEqual(
      { ...applied },
      {
        ...applied,
        mediaType: 'application/vnd.oci.image.layer.v1.tar',
        digest: digestOf(gunzipSync(layer)),
        size: gunzipSync(layer).length,
      },
    );
    await client.call('snapshots', 'Commit', { snapshotter: name, name: 'base', key: 'work' });
    const above = await prepare(client, 'more', 'base', name);
    const directory = writable(above[0]!);
    mkdirSync(join(directory, 'etc'), { recursive: true });
    writeFileSync(join(directory, 'etc', 'added'), 'two');
    const { mounts: below } = await client.call('snapshots', 'View', {
      snapshotter: name,
      key: 'below',
      parent: 'base',
    });

    // Then: the difference is a blob with the labels asked for and the digest of its uncompressed form.
    const { diff: made } = await client.call('diff', 'Diff', {
      left: below,
      right: above,
      labels: { mine: 'yes' },
    });
    const blob = await client.read(made.digest);
    const plain = gunzipSync(blob);
    const { info } = await client.call('content', 'Info', { digest: made.digest });
    assert.deepEqual(
      [made.mediaType, made.size, info.labels],
      [
        'application/vnd.oci.image.layer.v1.tar+gzip',
        blob.length,
        { mine: 'yes', 'containerd.io/uncompressed': digestOf(plain) },
      ],
    );
    assert.equal(plain.includes('etc/added') && !plain.includes('etc/conf'), true);

    // And: applied to a third snapshot it gives the same tree.
    const third = await prepare(client, 'third', 'base', name);
    await client.call('diff', 'Apply', { diff: made, mounts: third });
    assert.equal(readFileSync(join(writable(third[0]!), 'etc', 'added'), 'utf8'), 'two');

    const again = await client.call('diff', 'Diff', { left: below, right: above });
    assert.deepEqual([again.diff.digest, again.diff.size], [made.digest, made.size]);
    const { statuses } = await client.call('content', 'ListStatuses');
    assert.deepEqual(statuses, []);
  });
}

/** Where a snapshot's own files are: the directory of a bind, the upper directory of an overlay. */
function writable({ type, source, options }: Mount): string {
  if (type === 'bind') return source;
  return options.find((option) => option.startsWith('upperdir='))!.slice('upperdir='.length);
}

test('layers are written to this store only; unknown types and damaged layers are refused', async (t) => {
  const { client, root } = await world(t);
  const data = Buffer.from('no layer');
  const digest = digestOf(data);
  await client.ingest('r', data, digest);
  const mounts = await prepare(client, 'k');
  const apply = (mediaType: string, target: Mount[], of = digest) =>
    client.fails('diff', 'Apply', { diff: { mediaType, digest: of, size: 8 }, mounts: target });
  const plain = 'application/vnd.oci.image.layer.v1.tar';
  const outside = join(root, '..', 'outside');
  mkdirSync(outside);
  for (const source of [outside, `${mounts[0]!.source}/../../../../outside`, '/']) {
    const failure = await apply(plain, [{ type: 'bind', source, options: ['rw'] }]);
    assert.equal(failure.code, code.invalidArgument, source);
  }
  assert.equal(lstatSync(outside).isDirectory() && statSync(outside).nlink, 2);
  assert.equal((await apply('text/plain', mounts)).code, code.unimplemented);
  assert.equal((await apply(plain, mounts)).code, code.invalidArgument);
  assert.equal((await apply(plain, mounts, digestOf(Buffer.from('nosuch')))).code, code.notFound);
  assert.equal((await apply(plain, [])).code, code.unimplemented);
  const zstd = await client.fails('diff', 'Diff', { right: mounts, mediaType: `${plain}+zstd` });
  assert.equal(zstd.code, code.unimplemented);
});
