/** Clients of containerd 2.2 write layers before their parents are there, and name these when they commit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { sys } from '../../src/backends/sys.js';
import { digestOf } from '../../src/model/digest.js';
import { type Item, tarOf, treeOf } from '../archive/support.js';
import type { Message, TestClient } from './client.js';
import { code, world } from './world.js';

const mountable = await canMount();
const skip = !sys.xattrSupported
  ? 'the native helper for extended attributes is not built'
  : !mountable.ok && `mounts are not permitted: ${mountable.reason}`;
const layers: Item[][] = [
  [
    { name: 'd', type: 'directory' },
    { name: 'd/a', text: 'a' },
    { name: 'd/b', text: 'b' },
    { name: 'gone/c', text: 'c' },
  ],
  [{ name: 'd', type: 'directory' }, { name: 'd/.wh.a' }, { name: 'd/e', text: 'e' }],
  [{ name: '.wh.gone' }, { name: 'd', type: 'directory' }, { name: 'd/b', text: 'other' }],
];

async function layer(client: TestClient, items: Item[]): Promise<object> {
  const bytes = gzipSync(await tarOf(items));
  const digest = digestOf(bytes);
  await client.ingest(`layer-${digest}`, bytes, digest);
  return { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: bytes.length };
}

/** As such a client passes on the bind that it was given: an overlay of the upper directory alone. */
const asOverlay = ({ source, options }: Message): object => ({
  ...{ type: 'overlay', source: 'overlay' },
  options: [...options.filter((option: string) => option !== 'rbind'), `upperdir=${source}`],
});

test('given layers applied all at once, when committed onto each other, then the tree is that of a chain', {
  skip,
}, async (t) => {
  const { client } = await world(t);
  const { plugins } = await client.call('introspection', 'Plugins', {
    filters: ['type==io.containerd.snapshotter.v1'],
  });
  assert.deepEqual(plugins.map(({ id, capabilities }: Message) => [id, capabilities]).sort(), [
    ['native', []],
    ['overlayfs', ['rebase']],
  ]);
  const snapshotter = 'overlayfs';
  const applied = layers.map(async (items, i) => {
    const { mounts } = await client.call('snapshots', 'Prepare', { snapshotter, key: `active-${i}` });
    const given = i === 0 ? mounts : mounts.map(asOverlay);
    await client.call('diff', 'Apply', { diff: await layer(client, items), mounts: given });
  });
  await Promise.all(applied);
  for (const [i] of layers.entries()) {
    const parent = i === 0 ? '' : `layer-${i - 1}`;
    await client.call('snapshots', 'Commit', { snapshotter, name: `layer-${i}`, key: `active-${i}`, parent });
  }
  const { mounts } = await client.call('snapshots', 'View', { snapshotter, key: 'look', parent: 'layer-2' });
  assert.deepEqual(await withMounts(mounts, (dir) => treeOf(dir)), { d: 'dir', 'd/b': 'other', 'd/e': 'e' });
});

test('given an overlay of an upper directory alone, then it names a snapshot without a parent, of a snapshotter with overlays, or is refused', {
  skip,
}, async (t) => {
  const { client, connect } = await world(t);
  const diff = await layer(client, layers[0]!);
  const base = { snapshotter: 'overlayfs', name: 'base', key: 'one' };
  const { mounts: one } = await client.call('snapshots', 'Prepare', base);
  const refused = async (who: TestClient, mount: object, wanted: number, what = diff): Promise<void> => {
    const { code: got, details } = await who.fails('diff', 'Apply', { diff: what, mounts: [mount] });
    assert.equal(got, wanted, details);
  };
  const other = connect('other');
  await refused(other, asOverlay(one[0]), code.invalidArgument, await layer(other, layers[1]!));
  await client.call('snapshots', 'Commit', base);
  await refused(client, asOverlay(one[0]), code.failedPrecondition);
  const { mounts } = await client.call('snapshots', 'Prepare', {
    snapshotter: 'overlayfs',
    key: 'two',
    parent: 'base',
  });
  const upper = mounts[0].options.find((option: string) => option.startsWith('upperdir='));
  await refused(client, { type: 'overlay', source: 'overlay', options: [upper] }, code.invalidArgument);
  const { mounts: native } = await client.call('snapshots', 'Prepare', {
    snapshotter: 'native',
    key: 'three',
  });
  await refused(client, asOverlay(native[0]), code.unimplemented);
  const link = await layer(client, [{ name: 'h', type: 'link', linkname: 'd/a' }]);
  const { mounts: four } = await client.call('snapshots', 'Prepare', {
    snapshotter: 'overlayfs',
    key: 'four',
  });
  const { details } = await client.fails('diff', 'Apply', { diff: link, mounts: four.map(asOverlay) });
  assert.match(details, /hard link to "d\/a" of a layer below, which is not there yet/);
});
