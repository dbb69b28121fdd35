import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { open } from 'lmdb';
import type { Commit } from '../../src/engine/core/storage.js';
import { Writer } from '../../src/engine/lmdb/writer.js';
import { tempDir } from '../support/db.js';

const commit = (revision: number): Commit => ({
  revision,
  entries: new Map(),
  links: new Map(),
  counters: new Map(),
  ops: new Uint32Array(),
  freed: new Map(),
  recordDelta: 0,
});

// The journal has one entry a group, so a checkpoint taken in the middle of one could not be continued from it.
test('given a moment that was sealed, then no group of commits spans it', async (t) => {
  const env = open({ path: join(await tempDir(t), 'x.mdb'), encoding: 'binary', overlappingSync: false });
  t.after(() => env.close());
  const groups: number[][] = [];
  const writer = new Writer(env, 'x.mdb', {
    *prepare() {
      return () => {};
    },
    stored: (commits) => void (commits.length > 0 && groups.push(commits.map((c) => c.revision))),
    lost: () => assert.fail('a commit was lost'),
  });

  for (let revision = 1; revision <= 10; revision++) {
    writer.push(commit(revision));
    if (revision === 4 || revision === 7) writer.seal();
  }
  await writer.flush();

  assert.deepEqual(groups, [
    [1, 2, 3, 4],
    [5, 6, 7],
    [8, 9, 10],
  ]);
});
