/** The Mounts service of a daemon, over gRPC, on real overlays; as root. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import { daemonOptions } from '../../src/server/config.js';
import { Daemon } from '../../src/server/daemon.js';
import { mountedBelow } from '../support/mounted.js';
import { TestClient } from './client.js';
import { code, world } from './world.js';

const asRoot = { skip: process.getuid?.() === 0 ? false : 'needs root' };

test(
  'given no --mounts, then the service and its plugins are not there; with it, they are as in containerd 2.2',
  asRoot,
  async (t) => {
    const [without, withMounts] = [await world(t), await world(t, { mounts: true })];
    const plugins = async ({ client }: typeof without): Promise<string[]> => {
      const { plugins } = await client.call('introspection', 'Plugins', {
        filters: ['type==io.containerd.mount-manager.v1', 'type==io.containerd.grpc.v1,id==mounts'],
      });
      return plugins.map(({ type, id }: { type: string; id: string }) => `${type}.${id}`);
    };
    assert.equal((await without.client.fails('mounts', 'Info', { name: 'x' })).code, code.unimplemented);
    assert.deepEqual(await plugins(without), []);
    assert.deepEqual(await plugins(withMounts), [
      'io.containerd.mount-manager.v1.bolt',
      'io.containerd.grpc.v1.mounts',
    ]);
    const { client } = withMounts;
    assert.deepEqual(await client.all('mounts', 'List'), []);
    assert.equal((await client.fails('mounts', 'Update', { info: { name: 'x' } })).code, code.unimplemented);
    assert.equal(
      (await client.fails('mounts', 'Activate', { name: '', mounts: [] })).code,
      code.invalidArgument,
    );
  },
);

test(
  'given a view of a snapshot, when it is activated as ctr does, then it is mounted, survives the daemon, and goes with its lease',
  asRoot,
  async (t) => {
    const first = await world(t, { mounts: true });
    const { root } = first;
    const mounted = mountedBelow(t, root);
    const { client } = first;
    const snapshotter = 'overlayfs';
    const { mounts: made } = await client.call('snapshots', 'Prepare', { snapshotter, key: 'a' });
    writeFileSync(join(made[0].source, 'file'), 'x');
    await client.call('snapshots', 'Commit', {
      snapshotter,
      key: 'a',
      name: 'layer',
      labels: { 'containerd.io/gc.root': '1' },
    });
    await client.call('leases', 'Create', { id: 'l' });
    const leased = client.with({ 'containerd-lease': 'l' });
    const { mounts } = await leased.call('snapshots', 'Prepare', { snapshotter, key: 'rw', parent: 'layer' });
    const { info } = await leased.call('mounts', 'Activate', {
      name: 'rw',
      mounts,
      temporary: true,
      labels: { a: 'b' },
    });
    const [active] = info.active;
    assert.deepEqual(
      [info.name, active.mount.type, active.mount.options, info.labels],
      ['rw', 'overlay', mounts[0].options, { a: 'b' }],
    );
    const system = info.system.map((one: object) => ({ ...one }));
    assert.deepEqual(system, [{ type: 'bind', source: active.mountPoint, options: ['rbind'] }]);
    assert.ok(Math.abs(active.mountedAt.seconds - Date.now() / 1000) < 600);
    assert.deepEqual(readdirSync(active.mountPoint), ['file']);
    const again = await leased.fails('mounts', 'Activate', { name: 'rw', mounts, temporary: true });
    assert.equal(again.code, code.alreadyExists);
    await client.call('images', 'Create', {
      image: { name: 'i', target: { mediaType: 'a/b', digest: `sha256:${'1'.repeat(64)}`, size: 1 } },
    });
    await first.daemon.stop();
    assert.deepEqual(mounted(), [active.mountPoint]);

    const daemon = await Daemon.start(
      daemonOptions(root, {}, { gc: 'on-request', logLevel: 'fatal', mounts: true }),
    );
    const other = new TestClient(daemon.address);
    t.after(async () => {
      other.close();
      await daemon.stop();
    });
    assert.deepEqual((await other.call('mounts', 'Info', { name: 'rw' })).info, info);
    assert.deepEqual(
      (await other.all('mounts', 'List')).map((one) => one.info),
      [info],
    );
    await other.call('images', 'Delete', { name: 'i', sync: true });
    assert.deepEqual(readdirSync(active.mountPoint), ['file']);
    await other.call('leases', 'Delete', { id: 'l', sync: true });
    assert.deepEqual([mounted(), existsSync(dirname(active.mountPoint))], [[], false]);
    assert.equal((await other.fails('mounts', 'Info', { name: 'rw' })).code, code.notFound);
    assert.equal((await other.fails('mounts', 'Deactivate', { name: 'rw' })).code, code.notFound);
  },
);

test(
  'given what a crash left, when the daemon starts with --mounts, then it is cleaned before a client is served',
  asRoot,
  async (t) => {
    const first = await world(t, { mounts: true });
    const { root, client } = first;
    const mounted = mountedBelow(t, root);
    const source = join(dirname(root), 'source');
    mkdirSync(source);
    const activate = async (name: string) => {
      const mounts = [{ type: 'bind', source, options: ['rbind'] }];
      const { info } = await client.call('mounts', 'Activate', { name, mounts, temporary: true });
      return info.active[0].mountPoint;
    };
    const [lost, kept] = [await activate('lost'), await activate('kept')];
    await first.daemon.stop();
    sys.umount(lost, UmountFlag.detach);
    // A mount without a record.
    const orphan = join(dirname(dirname(kept)), '00000000000000ff', '1');
    mkdirSync(orphan, { recursive: true });
    sys.mountWithOptions('bind', source, orphan, ['bind']);
    const daemon = await Daemon.start(
      daemonOptions(root, {}, { gc: 'on-request', logLevel: 'fatal', mounts: true }),
    );
    const other = new TestClient(daemon.address);
    t.after(async () => {
      other.close();
      await daemon.stop();
    });
    assert.deepEqual(mounted(), [kept]);
    assert.deepEqual(
      (await other.all('mounts', 'List')).map(({ info }) => info.name),
      ['kept'],
    );
  },
);
