/** Backups through a daemon: for root and its own user, with progress, and ended by its caller. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, readdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { restoreBackup } from '../../src/backup/restore.js';
import { digestOf } from '../../src/model/digest.js';
import { openDB } from '../../src/open.js';
import { fromDocument } from '../../src/server/messages/documents.js';
import { code, world } from './world.js';

const NOBODY = 65_534;

test('given a daemon, when a backup is asked for, then it is made there and the report comes back', async (t) => {
  const { root, client } = await world(t);
  const bytes = Buffer.from('bytes');
  await client.ingest('ref', bytes, digestOf(bytes), { 'containerd.io/gc.root': 'x' });
  const directory = join(dirname(root), 'backup');
  const messages = await client.all('ebbtide', 'Backup', { directory, base: '' });
  const report = fromDocument<{ blobs: number; directory: string }>(messages.at(-1).outcome);
  assert.deepEqual([report.blobs, report.directory], [1, directory]);
  const restored = join(dirname(root), 'restored');
  await restoreBackup(directory, restored, { hash: true });
  await using db = await openDB({ root: restored, log: () => {} });
  assert.equal((await db.check()).sound, true);
  const again = client.all('ebbtide', 'Backup', { directory, base: '' });
  await assert.rejects(again, { code: code.alreadyExists });
  for (const request of [
    { directory: 'relative' },
    { directory: '' },
    { directory: '/x', base: 'relative' },
  ]) {
    await assert.rejects(client.all('ebbtide', 'Backup', request), { code: code.invalidArgument });
  }
});

test('given another user, when he asks a daemon of root for a backup, then it is refused and nothing is written', async (t) => {
  if (process.geteuid?.() !== 0) return t.skip('needs root: another user has to connect');
  const { root, daemon, connect } = await world(t);
  const directory = join(dirname(root), 'backup');
  chmodSync(daemon.address, 0o666);
  for (const path of [dirname(root), tmpdir()])
    if ((statSync(path).mode & 0o777) === 0o700) chmodSync(path, 0o711);
  process.seteuid!(NOBODY);
  const stranger = connect();
  try {
    await new Promise<void>((resolve, reject) => {
      stranger.grpc.waitForReady(Date.now() + 10_000, (error) => (error ? reject(error) : resolve()));
    });
  } finally {
    process.seteuid!(0);
  }
  await assert.rejects(stranger.all('ebbtide', 'Backup', { directory }), {
    code: code.failedPrecondition,
    details: /only root and the user of the daemon/,
  });
  assert.equal(existsSync(directory), false);
  assert.equal((await stranger.all('ebbtide', 'Stats')).length, 1, 'he may ask for what any user may');
});

test('given a client that goes away, when its backup is under way, then it ends and nothing is left', async (t) => {
  const { root, client } = await world(t);
  for (let n = 0; n < 20; n++) {
    const bytes = Buffer.from(`bytes ${n}`);
    await client.ingest(`ref-${n}`, bytes, digestOf(bytes), { 'containerd.io/gc.root': 'x' });
  }
  const call = client.stream('ebbtide', 'Backup', { directory: join(dirname(root), 'backup') });
  call.on('error', () => undefined);
  const left = (): string[] => readdirSync(dirname(root)).filter((name) => name !== 'root');
  while (left().length === 0) await sleep(1);
  call.cancel();
  while (left().some((name) => name !== 'backup')) await sleep(20);
});
