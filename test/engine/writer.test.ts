import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Commit } from '../../src/engine/core/storage.js';
import { batchRevision, openBatch } from '../../src/engine/lmdb/log-format.js';
import { Writer, type WriterHost } from '../../src/engine/lmdb/writer.js';

const commit = (revision: number): Commit => ({
  revision,
  entries: new Map(),
  links: new Map(),
  counters: new Map(),
  ops: new Uint32Array(),
  freed: new Map(),
  recordDelta: 0,
});

// The journal has one entry a transaction, so a checkpoint taken in the middle of one could not be continued from it.
test('given a moment that was sealed, then no batch spans it, and who is behind it is told', async () => {
  const groups: [number[], boolean][] = [];
  const host: WriterHost = {
    append: async () => {},
    stored: ({ commits, revision }, batch, isSealed) => {
      assert.deepEqual([batchRevision(batch), openBatch(batch).previous], [revision, revision - commits]);
      groups.push([Array.from({ length: commits }, (_, i) => revision - commits + 1 + i), isSealed]);
    },
    lost: () => assert.fail('a commit was lost'),
  };
  const writer = new Writer('x.mdb', host, 0);

  for (let revision = 1; revision <= 10; revision++) {
    writer.push(commit(revision));
    if (revision === 4 || revision === 7) writer.seal();
  }
  await writer.flush();

  assert.deepEqual(
    groups.flatMap(([revisions]) => revisions),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  );
  const sealed = groups.filter(([, isSealed]) => isSealed).map(([revisions]) => revisions.at(-1));
  assert.deepEqual(sealed, [4, 7]);
  for (const end of [4, 7]) {
    assert.ok(!groups.some(([revisions]) => revisions.includes(end) && revisions.includes(end + 1)));
  }
});
