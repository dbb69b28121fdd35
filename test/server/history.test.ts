/** The history of a daemon's collections: asked for through it, and after it was killed. */
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

test('given a daemon that is killed after a collection, when its store is looked at, then its collections are in the history', async (t) => {
  const root = join(await tempDir(t), 'root');
  const address = join(root, 'run', 'ebbtide.sock');
  const child = spawn(process.execPath, [MAIN, 'serve', '--root', root, '--gc', 'on-request'], {
    stdio: 'ignore',
  });
  t.after(() => child.kill('SIGKILL'));
  while (!(await isListening(address))) await sleep(20);
  const expected: string[] = [];
  const names = (json: string): string[][] =>
    (JSON.parse(json) as CollectionRecord[]).reverse().map((record) => record.names.map(({ key }) => key));
  const client = new TestClient(address);
  t.after(() => client.close());
  for (let n = 0; n < 5; n++) {
    const data = Buffer.from(`garbage ${n}`);
    await client.ingest(`r${n}`, data, digestOf(data));
    await client.call('leases', 'Create', { id: `l${n}` });
    await client.call('leases', 'Delete', { id: `l${n}`, sync: true });
    expected.push(digestOf(data));
  }
  const pieces = await client.all('ebbtide', 'History', { limit: 3 });
  const told = names(pieces.map(({ json }) => json as string).join(''));
  assert.deepEqual(
    told,
    expected.slice(-3).map((key) => [key]),
  );
  child.kill('SIGKILL');
  await once(child, 'close');
  const line = [MAIN, '--root', root, '--json', 'history'];
  const kept = names((await promisify(execFile)(process.execPath, line)).stdout);
  // Written in the background; that it was read above shows that it was written.
  assert.deepEqual(
    kept,
    expected.map((key) => [key]),
  );
});
