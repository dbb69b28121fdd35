/** Hosts that never come back: what they keep is there to be seen, and one command drops them. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { DB } from '../../src/db.js';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { layout } from '../../src/open.js';
import { withId } from '../../src/stores/leases.js';
import { tempDir } from '../support/db.js';
import { run } from './command.js';
import { ctx, engineOf, eventually, openHost } from './hosts.js';
import { spawnMortal } from './mortal.js';
import { cluster } from './one-member.js';

const PROGRAM = fileURLToPath(new URL('./doomed-host.js', import.meta.url));

/** A host that has made what doomed-host.ts makes; returns how to kill it. */
async function doomedHost(t: TestContext, root: string, etcd: EtcdConfig): Promise<() => Promise<void>> {
  const options = { root, etcd, snapshotters: ['native'], leaseBackend: 'bolt' };
  const child = spawnMortal(process.execPath, [PROGRAM, JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await gone;
  };
  t.after(kill);
  await new Promise((resolve, reject) => {
    child.stdout!.once('data', resolve);
    child.once('exit', () => reject(new Error('the host ended by itself')));
  });
  return kill;
}

const stateOf = async (db: DB, id: string): Promise<string | undefined> =>
  (await db.hosts!.list()).find((host) => host.id === id)?.state;

test('given a host of leases of its own that was killed, when it never comes back, then it is seen everywhere and one command drops it', async (t) => {
  const dir = await tempDir(t);
  const etcd = { ...cluster.config(), sessionTtlSeconds: 2 };
  const kill = await doomedHost(t, join(dir, 'dead'), { ...etcd, hostId: 'dead' });
  const root = join(dir, 'b');
  const command = (...args: string[]) =>
    run(
      { EBBTIDE_ETCD: cluster.urls.join(','), EBBTIDE_ETCD_PREFIX: etcd.prefix!, EBBTIDE_NAMESPACE: 'ns1' },
      ...['--root', root, '--etcd-host-id', 'b', '--json', ...args],
    );
  assert.equal((await command('init')).code, 0);
  const alive = await command('hosts', 'rm', 'dead');
  assert.equal(alive.code, 5, alive.stderr);
  assert.match(alive.stderr, /dead\\" is alive/);

  await kill();
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b2' } });
  await eventually('its session ends', async () => (await stateOf(b, 'dead')) === 'gone');
  await b.garbageCollect();
  const { paths } = await b.why(ctx, 'held');
  assert.equal(paths[0]?.[0]?.key, 'own@dead');
  assert.equal(paths[0]?.[0]?.host?.id, 'dead');
  assert.equal(paths[0]?.[0]?.host?.state, 'gone');
  const { rows } = await b.du(ctx, { by: 'lease' });
  assert.deepEqual(
    rows.map(({ name, host }) => [name, host?.id, host?.state]),
    [['own@dead', 'dead', 'gone']],
  );
  const doctor = JSON.parse((await command('doctor', '--check')).stdout) as {
    store: { hosts: { id: string; state: string; leases: number }[] };
  };
  const dead = doctor.store.hosts.find(({ id }) => id === 'dead');
  assert.deepEqual([dead?.state, dead?.leases], ['gone', 1]);
  const listed = JSON.parse((await command('hosts', 'ls')).stdout) as { id: string; state: string }[];
  assert.deepEqual(
    listed.map(({ id, state }) => [id, state]),
    [
      ['b', 'here'],
      ['b2', 'alive'],
      ['dead', 'gone'],
    ],
  );

  assert.equal((await command('hosts', 'rm', 'b')).code, 5, 'oneself');
  assert.equal((await command('hosts', 'rm', 'nobody')).code, 3);
  const { code, stdout, stderr } = await command('hosts', 'rm', 'dead');
  assert.equal(code, 0, stderr);
  assert.deepEqual(JSON.parse(stdout), {
    removed: [{ id: 'dead', leases: [{ namespace: 'ns1', id: 'own@dead' }] }],
  });
  assert.deepEqual((await b.garbageCollect()).removed, { snapshot: 1, ingest: 1 });
  const client = cluster.client(etcd.prefix);
  t.after(() => client.close());
  const { kvs } = await client.range('', { end: '' });
  const left = kvs.filter(({ key }) => key.includes('dead')).map(({ key }) => key);
  assert.deepEqual(left, [], 'nothing of it is left in etcd');
  assert.deepEqual(
    (await b.hosts!.list()).map(({ id }) => id),
    ['b', 'b2'],
  );
});

test('given a host that was dropped, when it comes back all the same, then it begins again and clears its directories', async (t) => {
  const dir = await tempDir(t);
  const etcd = { ...cluster.config(), sessionTtlSeconds: 2 };
  const open = () =>
    openHost(t, {
      root: join(dir, 'away'),
      engine: 'lmdb',
      etcd: { ...etcd, hostId: 'away' },
      leaseBackend: 'bolt',
    });
  const away = await open();
  await away.leases.create(ctx, withId('own'));
  const native = away.snapshotter('native')!;
  await native.prepare({ ...ctx, lease: 'own' }, 'held', '');
  await native.prepare({ ...ctx, lease: 'own' }, 'deleted', '');
  await native.remove(ctx, 'deleted');
  await away.close();

  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  assert.deepEqual(await b.hosts!.remove('away'), {
    id: 'away',
    leases: [{ namespace: 'ns1', id: 'own@away' }],
  });
  await assert.rejects(b.hosts!.remove('away'), assertKind('NotFound'));
  assert.deepEqual((await b.garbageCollect()).removed, { snapshot: 1 });

  const again = await open();
  assert.equal(again.engine.cleanStart, false);
  assert.deepEqual(await again.leases.list(ctx), []);
  const snapshots = join(layout.snapshotter(join(dir, 'away'), 'native'), 'snapshots');
  await eventually('its directories are clear', async () => (await readdir(snapshots)).length === 0);
  assert.equal(await stateOf(b, 'away'), 'alive');
});

test('given a host that comes back while it is being dropped, when its session begins, then the removal stops', async (t) => {
  const etcd = cluster.config();
  const away = await openHost(t, { etcd: { ...etcd, hostId: 'away' }, leaseBackend: 'bolt' });
  for (let i = 0; i < 100; i++) await away.leases.create(ctx, withId(`l${i}`));
  await away.close();
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  const { client } = engineOf(b);
  let back: Promise<unknown> | undefined;
  b.registerMutationCallback(() => {
    back ??= client.txn([], [{ put: 'sys/host/away', value: '{}' }]);
  });
  await assert.rejects(b.hosts!.remove('away'), assertKind('FailedPrecondition'));
  await back;
  const left = (await b.hosts!.list()).find(({ id }) => id === 'away');
  assert.equal(left?.state, 'alive');
  assert.ok(left.leases > 0, `${left.leases} leases are left`);
});

test('given hosts that share a directory, when one is dropped, then the flags of the directory stay', async (t) => {
  const etcd = { ...cluster.config(), backendId: 'shared' };
  const one = await openHost(t, { etcd: { ...etcd, hostId: 'one' } });
  await one.close();
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  const { client } = engineOf(b);
  await client.txn([], [{ put: 'scheduler.v1/dirtyCS/shared', value: '1' }]);
  await b.hosts!.remove('one');
  assert.equal((await client.range('scheduler.v1/dirtyCS/shared')).count, 1);
});

test('given an embedded store, when its hosts are asked for, then FailedPrecondition', async (t) => {
  const root = join(await tempDir(t), 'root');
  await run({}, '--root', root, 'init');
  const { code, stderr } = await run({}, '--root', root, 'hosts', 'ls');
  assert.equal(code, 5, stderr);
});
