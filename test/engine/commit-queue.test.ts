import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CommitQueue, type CommitQueueHost } from '../../src/engine/lmdb/wal/commit-queue.js';
import { batchRevision, type LoggedCommit, openBatch } from '../../src/engine/lmdb/wal/format.js';

const commit = (revision: number): LoggedCommit => ({
  revision,
  entries: new Map(),
  links: new Map(),
  formerChildren: [],
  counters: new Map(),
  ops: new Uint32Array(),
  freed: new Map(),
  recordDelta: 0,
});

// The journal has one entry a transaction, so a checkpoint taken in the middle of one could not be continued from it.
test('given a sealed group, then no batch spans its end, and later commits are reported', async () => {
  const groups: [number[], boolean][] = [];
  const host: CommitQueueHost = {
    append: async () => {},
    stored: ({ commits, revision }, batch, isSealed) => {
      assert.deepEqual([batchRevision(batch), openBatch(batch).previous], [revision, revision - commits]);
      groups.push([Array.from({ length: commits }, (_, i) => revision - commits + 1 + i), isSealed]);
    },
    lost: () => assert.fail('a commit was lost'),
  };
  const queue = new CommitQueue('x.mdb', host, 0);

  for (let revision = 1; revision <= 10; revision++) {
    queue.push(commit(revision));
    if (revision === 4 || revision === 7) queue.seal();
  }
  await queue.flush();

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

/** A host whose disk finishes a write on request. */
class SlowDisk implements CommitQueueHost {
  #finish: ((error?: Error) => void) | undefined;

  append(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#finish = (error) => (error === undefined ? resolve() : reject(error));
    });
  }
  async finish(error?: Error): Promise<void> {
    while (this.#finish === undefined) await nextTurn();
    const finish = this.#finish;
    this.#finish = undefined;
    finish(error);
  }
  stored(): void {}
  lost(): void {}
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  promise.finally(() => {
    settled = true;
  });
  for (let turn = 0; turn < 5; turn++) await nextTurn();
  return settled;
}

for (const error of [undefined, new Error('the disk is full')]) {
  const end = error === undefined ? 'is on disk' : 'is lost';
  test(`given a commit of a caller under way, then foregroundDone resolves when that ${end}`, async () => {
    const disk = new SlowDisk();
    const queue = new CommitQueue('x.mdb', disk, 0);
    queue.push(commit(1));
    const done = queue.foregroundDone();
    const before = await isSettled(done);
    await disk.finish(error);
    assert.deepEqual([before, await isSettled(done)], [false, true]);
  });
}

test('given background commits under way, then foregroundDone resolves at once; after a foreground one, it does not', async () => {
  const disk = new SlowDisk();
  const queue = new CommitQueue('x.mdb', disk, 0);
  queue.push(commit(1), true);
  const alone = await isSettled(queue.foregroundDone());
  queue.push(commit(2));
  const shared = queue.foregroundDone();
  assert.deepEqual([alone, await isSettled(shared)], [true, false]);
  const both = queue.flush();
  const finishing = (async () => {
    await disk.finish();
    if (!(await isSettled(both))) await disk.finish();
  })();
  await Promise.all([both, finishing]);
  assert.ok(await isSettled(shared));
});

test('given background commits on their way to the disk, then more may come; beside a foreground one, they wait', async () => {
  const links = new Map(Array.from({ length: 200 }, (_, i) => [`a\0\0holds\0\0b${i}`, false]));
  const large = (revision: number): LoggedCommit => ({ ...commit(revision), links });
  const waits: boolean[] = [];
  for (const isShared of [false, true]) {
    const disk = new SlowDisk();
    const queue = new CommitQueue('x.mdb', disk, 0);
    if (isShared) queue.push(commit(1));
    queue.push(large(isShared ? 2 : 1), true);
    const paced = queue.paced();
    waits.push(!(await isSettled(paced)));
    const drained = queue.drain();
    while (!(await isSettled(drained))) await disk.finish();
    await paced;
  }
  assert.deepEqual(waits, [false, true]);
});
