/** Apply and Diff reach the snapshots of the caller's namespace and nothing else, whatever mounts a client sends. */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { digestOf } from '../../src/model/digest.js';
import { type Item, tarOf } from '../archive/support.js';
import type { TestClient } from './client.js';
import { code, type World, world } from './world.js';

interface Mount {
  type: string;
  source: string;
  options: string[];
}
const plain = 'application/vnd.oci.image.layer.v1.tar';
const bind = (source: string): Mount => ({ type: 'bind', source, options: ['rw', 'rbind'] });

async function layer(client: TestClient, items: Item[]): Promise<object> {
  const bytes = gzipSync(await tarOf(items));
  const digest = digestOf(bytes);
  await client.ingest(`layer-${digest}`, bytes, digest);
  return { mediaType: `${plain}+gzip`, digest, size: bytes.length };
}

const prepare = async (client: TestClient, key: string, snapshotter: string, parent = ''): Promise<Mount> =>
  (await client.call('snapshots', 'Prepare', { snapshotter, key, parent })).mounts[0];

/** Beside the root a directory that nothing may touch. */
async function fenced(t: TestContext): Promise<World & { outside: string; untouched(): void }> {
  const w = await world(t);
  const outside = join(w.root, '..', 'outside');
  mkdirSync(outside);
  writeFileSync(join(outside, 'secret'), 'untouched');
  const untouched = (): void => {
    assert.deepEqual(readdirSync(outside), ['secret']);
    assert.equal(readFileSync(join(outside, 'secret'), 'utf8'), 'untouched');
  };
  return { ...w, outside, untouched };
}

/** Upper, lower or bind directory of a mount, wherever it stands in the options. */
const directoryOf = ({ type, source, options }: Mount): string =>
  type === 'bind' ? source : options.find((o) => o.startsWith('upperdir='))!.slice('upperdir='.length);

for (const snapshotter of ['native', 'overlayfs'] as const) {
  test(`${snapshotter}: a mount that leads out through a symlink of a snapshot is neither written nor read`, async (t) => {
    const { client, outside, untouched } = await fenced(t);
    const mount = await prepare(client, 'mine', snapshotter);
    symlinkSync(outside, join(mount.source, 'out'));
    symlinkSync('..', join(mount.source, 'up'));
    const diff = await layer(client, [{ name: 'secret', text: 'evil' }, { name: '.wh.secret' }]);
    const overlay = (options: string[]): Mount => ({ type: 'overlay', source: 'overlay', options });
    const out = join(mount.source, 'out');
    for (const way of [
      bind(out),
      bind(`${out}/`),
      bind(`${mount.source}/up/${mount.source.split('/').at(-1)}/out`),
      bind(join(outside, 'secret')),
      overlay([`upperdir=${out}`, `workdir=${mount.source}`, `lowerdir=${mount.source}`]),
      overlay([`lowerdir=${out}:${mount.source}`, `upperdir=${mount.source}`, 'workdir=/w']),
      overlay([`lowerdir=${mount.source}:${out}`]),
    ]) {
      const applied = await client.fails('diff', 'Apply', { diff, mounts: [way] });
      assert.equal(applied.code, code.invalidArgument, JSON.stringify(way));
      const read = await client.fails('diff', 'Diff', { right: [way], mediaType: plain });
      assert.equal(read.code, code.invalidArgument, JSON.stringify(way));
    }
    untouched();
  });

  test(`${snapshotter}: only the active snapshots of the caller's namespace are written`, async (t) => {
    const { client, connect, root, untouched } = await fenced(t);
    const other = connect('other');
    const theirs = await prepare(other, 'theirs', snapshotter);
    const mount = await prepare(client, 'work', snapshotter);
    writeFileSync(join(mount.source, 'file'), 'committed');
    await client.call('snapshots', 'Commit', { snapshotter, name: 'base', key: 'work' });
    const { mounts: view } = await client.call('snapshots', 'View', {
      snapshotter,
      key: 'view',
      parent: 'base',
    });
    const diff = await layer(client, [{ name: 'file', text: 'evil' }]);
    const response = async (target: Mount): Promise<number> =>
      (await client.fails('diff', 'Apply', { diff, mounts: [target] })).code;

    // A committed snapshot, under its path and under that of a view made writable.
    assert.equal(await response(mount), code.failedPrecondition);
    assert.equal(await response(view[0]), code.failedPrecondition);
    assert.equal(await response(bind(view[0].source)), code.failedPrecondition);
    // Another namespace's, for writing and for reading.
    assert.equal(await response(theirs), code.invalidArgument);
    const stolen = await client.fails('diff', 'Diff', { right: [theirs], mediaType: plain });
    assert.equal(stolen.code, code.invalidArgument);
    // What is not a snapshot at all.
    const home = join(root, `io.containerd.snapshotter.v1.${snapshotter}`);
    for (const path of [
      home,
      join(home, 'snapshots'),
      join(home, 'snapshots', '1', '..'),
      dirname(mount.source),
      '/',
    ]) {
      assert.equal(await response(bind(path)), code.invalidArgument, path);
    }
    assert.equal(readFileSync(join(mount.source, 'file'), 'utf8'), 'committed');
    assert.deepEqual(readdirSync(theirs.source), []);
    untouched();
  });

  test(`${snapshotter}: snapshots of one key in two namespaces are two`, async (t) => {
    const { client, connect, untouched } = await fenced(t);
    const other = connect('other');
    const mine = await prepare(client, 'key', snapshotter);
    const theirs = await prepare(other, 'key', snapshotter);
    assert.notEqual(mine.source, theirs.source);
    const [myDiff, theirDiff] = [
      await layer(client, [{ name: 'file', text: 'mine' }]),
      await layer(other, [{ name: 'file', text: 'theirs' }]),
    ];
    for (const [caller, own, foreign, diff] of [
      [client, mine, theirs, myDiff],
      [other, theirs, mine, theirDiff],
    ] as const) {
      const refused = await caller.fails('diff', 'Apply', { diff, mounts: [foreign] });
      assert.equal(refused.code, code.invalidArgument);
      for (const mounts of [
        { right: [foreign] },
        { left: [own], right: [foreign] },
        { left: [foreign], right: [own] },
      ])
        assert.equal(
          (await caller.fails('diff', 'Diff', { ...mounts, mediaType: plain })).code,
          code.invalidArgument,
        );
      assert.deepEqual(readdirSync(directoryOf(own)), []);
      await caller.call('diff', 'Apply', { diff, mounts: [own] });
      assert.deepEqual(readdirSync(directoryOf(own)), ['file']);
    }
    // Given that theirs is committed and gone under that key, then mine is still mine.
    await other.call('snapshots', 'Commit', { snapshotter, name: 'base', key: 'key' });
    await client.call('diff', 'Apply', { diff: myDiff, mounts: [mine] });
    assert.equal(
      (await other.fails('diff', 'Apply', { diff: theirDiff, mounts: [theirs] })).code,
      code.failedPrecondition,
    );
    // Given a new one of theirs under the key, on the committed one: mine does not serve them as a layer of it.
    const next = await prepare(other, 'key', snapshotter, 'base');
    await other.call('diff', 'Apply', { diff: theirDiff, mounts: [next] });
    assert.equal(
      (await client.fails('diff', 'Apply', { diff: myDiff, mounts: [next] })).code,
      code.invalidArgument,
    );
    untouched();
  });

  test(`${snapshotter}: the mounts as they were handed out serve, in any spelling; removed ones do not`, async (t) => {
    const { client } = await fenced(t);
    const first = await prepare(client, 'work', snapshotter);
    const diff = await layer(client, [{ name: 'file', text: 'x' }]);
    await client.call('diff', 'Apply', { diff, mounts: [{ ...first, source: `${first.source}/./` }] });
    await client.call('snapshots', 'Commit', { snapshotter, name: 'base', key: 'work' });
    const second = await prepare(client, 'second', snapshotter, 'base');
    await client.call('diff', 'Apply', {
      diff,
      mounts: [{ ...second, options: [...second.options, 'volatile', 'noatime'].reverse() }],
    });
    assert.equal(readFileSync(join(directoryOf(second), 'file'), 'utf8'), 'x');
    const { mounts: below } = await client.call('snapshots', 'View', {
      snapshotter,
      key: 'v',
      parent: 'base',
    });
    await client.call('diff', 'Diff', { left: below, right: [second], mediaType: plain });
    await client.call('snapshots', 'Remove', { snapshotter, key: 'second' });
    const gone = await client.fails('diff', 'Apply', { diff, mounts: [second] });
    assert.equal(gone.code, code.invalidArgument);
  });

  test(`${snapshotter}: layers that are applied to one snapshot at once do not meet`, async (t) => {
    const { client, connect, outside, untouched } = await fenced(t);
    const first: Item[] = [
      { name: 'd', type: 'directory' },
      { name: 'large', text: Buffer.alloc(80_000_000, 1) },
      { name: 'd/secret', text: 'evil' },
    ];
    const one = await layer(client, first);
    const two = await layer(client, [{ name: 'd', type: 'symlink', linkname: outside }]);
    const mount = await prepare(client, 'work', snapshotter);
    const writing = client.call('diff', 'Apply', { diff: one, mounts: [mount] });
    // When: the first one is at its large file.
    while (!existsSync(join(mount.source, 'large'))) await sleep(1);
    await connect('test').call('diff', 'Apply', { diff: two, mounts: [mount] });
    await writing;
    untouched();
    // Then: the second one came after all of the first.
    assert.equal(readlinkSync(join(mount.source, 'd')), outside);
  });
}
