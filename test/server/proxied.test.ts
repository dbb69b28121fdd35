import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf } from '../../src/model/digest.js';
import { tempDir } from '../support/db.js';
import { type Message, TestClient } from './client.js';
import { code, world } from './world.js';

test('as a back end the store keeps everything until it is deleted, and then frees the disk', async (t) => {
  const proxyAddress = join(await tempDir(t, 'ebbtide-proxy-'), 'p.sock');
  const { client, root } = await world(t, { proxyAddress });
  const behind = new TestClient(proxyAddress);
  behind.headers.remove('containerd-namespace');
  t.after(() => behind.close());
  const data = Buffer.from('content of another client');
  const digest = digestOf(data);
  const blob = join(root, 'io.containerd.content.v1.content', 'blobs', 'sha256', digest.slice(7));

  // Given: content and snapshots, made without namespace, lease or label, under the name of a plugin.
  await behind.ingest('default/1/ref', data, digest);
  const snapshotter = 'ours-native';
  const ask = (method: string, more: object) => behind.call('snapshots', method, { snapshotter, ...more });
  const labels = { 'containerd.io/snapshot/x': '1' };
  const { mounts } = await ask('Prepare', { key: 'default/1/work', labels });
  await ask('Commit', { name: 'default/2/base', key: 'default/1/work', labels });
  const { mounts: above } = await ask('Prepare', { key: 'default/3/web', parent: 'default/2/base', labels });
  await ask('Update', { info: { name: 'default/3/web', labels: { a: '1' } } });

  // When: a collection has run, everything is there, and nothing shows what keeps it.
  await client.call('leases', 'Create', { id: 'l' });
  await client.call('leases', 'Delete', { id: 'l', sync: true });
  const { info } = await behind.call('content', 'Info', { digest });
  assert.deepEqual([info.size, info.labels], [data.length, {}]);
  const listed = (await behind.all('snapshots', 'List', { snapshotter })).flatMap((m) => m.info);
  assert.deepEqual(
    listed.map((i: Message) => [i.name, i.labels]).sort(),
    [
      ['default/2/base', labels],
      ['default/3/web', { a: '1' }],
    ].sort(),
  );
  const listedContent = (await behind.all('content', 'List', {})).flatMap((m) => m.info);
  assert.deepEqual(
    listedContent.map((i: Message) => [i.digest, i.labels]),
    [[digest, {}]],
  );

  // Then: what is deleted goes from the disk by itself, and only that.
  await behind.call('content', 'Delete', { digest });
  await ask('Remove', { key: 'default/3/web' });
  for (let i = 0; i < 500 && (existsSync(blob) || existsSync(above[0].source)); i++) await sleep(10);
  assert.deepEqual(
    [existsSync(blob), existsSync(above[0].source), existsSync(mounts[0].source)],
    [false, false, true],
  );
  // Namespaces of the ordinary socket see nothing of it, and other services are not on this one.
  assert.deepEqual(await client.all('snapshots', 'List', { snapshotter: 'native' }), []);
  assert.equal((await behind.fails('images', 'List')).code, code.unimplemented);
  assert.equal(
    (await behind.fails('snapshots', 'Stat', { snapshotter: 'zfs', key: 'k' })).code,
    code.invalidArgument,
  );
});
