/** The history of a daemon's collections, asked for through it, after it was killed at any moment. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { CollectionRecord } from '../../src/gc/report/collection-record.js';
import { digestOf } from '../../src/model/digest.js';
import { isListening } from '../../src/server/connections/listener.js';
import { MAIN } from '../cli/support.js';
import { tempDir } from '../support/temp.js';
import { TestClient } from './client.js';

test('given a daemon that is killed after a collection, when another serves, then the collection is in its history, whole, or not', async (t) => {
  const root = join(await tempDir(t), 'root');
  const address = join(root, 'run', 'ebbtide.sock');
  const serve = async () => {
    const child = spawn(process.execPath, [MAIN, 'serve', '--root', root, '--gc', 'on-request'], {
      stdio: 'ignore',
    });
    t.after(() => child.kill('SIGKILL'));
    while (!(await isListening(address))) await sleep(20);
    return child;
  };
  const expected: string[] = [];
  const first = await serve();
  const client = new TestClient(address);
  for (let n = 0; n < 5; n++) {
    const data = Buffer.from(`garbage ${n}`);
    await client.ingest(`r${n}`, data, digestOf(data));
    await client.call('leases', 'Create', { id: `l${n}` });
    await client.call('leases', 'Delete', { id: `l${n}`, sync: true });
    expected.push(digestOf(data));
  }
  first.kill('SIGKILL');
  client.close();
  await once(first, 'close');
  const second = await serve();
  const history = promisify(execFile)(process.execPath, [
    MAIN,
    '--root',
    root,
    '--json',
    'history',
    '--limit',
    '5',
  ]);
  const records = JSON.parse((await history).stdout) as CollectionRecord[];
  const names = records.reverse().map((record) => record.names.map(({ key }) => key));
  // Written in the background: of the last one the client had its response before.
  assert.ok(names.length >= 4, String(names.length));
  assert.deepEqual(
    names,
    expected.slice(0, names.length).map((key) => [key]),
  );
  second.kill('SIGTERM');
  await once(second, 'close');
});
