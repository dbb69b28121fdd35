/** A snapshotter that is read beside its owner: one state of its metadata, whatever the owner goes on to do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SnapshotInfo } from '../../src/backends/contract.js';
import { openNative } from '../../src/backends/snapshotters/native.js';
import type { DirectorySnapshotter } from '../../src/backends/snapshotters/snapshotter.js';
import { Readers } from '../../src/system/lmdb/readers.js';
import { failsWith, recordingLog, tempDir } from './temp.js';

async function all(snapshotter: DirectorySnapshotter): Promise<SnapshotInfo[]> {
  const infos: SnapshotInfo[] = [];
  await snapshotter.walk((info) => void infos.push(info));
  return infos;
}

/** Makes, relabels and removes snapshots, so that all pages of the metadata are written again and again. */
async function churn(owner: DirectorySnapshotter, round: number): Promise<void> {
  for (let i = 0; i < 10; i++) {
    await owner.prepare(`new-${round}-${i}`, '', { labels: { text: `${round} `.repeat(100) } });
    await owner.update({ ...(await owner.stat(`kept-${i}`)), labels: { round: `${round}` } }, 'labels.round');
    if (round > 0) await owner.remove(`new-${round - 1}-${i}`);
  }
}

/** Rounds in which a reader is opened, and looked at again after some more. */
async function readInRounds(root: string, owner: DirectorySnapshotter): Promise<void> {
  let former: { reader: DirectorySnapshotter; infos: SnapshotInfo[] } | undefined;
  try {
    for (let round = 0; round < 12; round++) {
      await churn(owner, round);
      const infos = await all(owner);
      const reader = await openNative(root, { readOnly: true });
      const shown = await all(reader).catch(async (error: unknown) => {
        await reader.close();
        throw error;
      });
      assert.deepEqual(shown, infos);
      if (round % 3 > 0) {
        await reader.close();
        continue;
      }
      const last = former;
      former = { reader, infos };
      if (last === undefined) continue;
      const again = await all(last.reader).finally(() => last.reader.close());
      assert.deepEqual(again, last.infos);
    }
  } finally {
    await former?.reader.close();
  }
}

async function filled(root: string): Promise<DirectorySnapshotter> {
  const owner = await openNative(root, { log: recordingLog().log });
  for (let i = 0; i < 10; i++) await owner.prepare(`kept-${i}`, '');
  return owner;
}

test('given an owner that goes on, when a snapshotter is read beside it, then each reader keeps the state that it found', async (t) => {
  const root = await tempDir(t);
  await using owner = await filled(root);
  await readInRounds(root, owner);
  await using reader = await openNative(root, { readOnly: true });
  await owner.prepare('younger', '');
  const problems: unknown[] = [];
  await reader.inspect((problem) => void problems.push(problem));
  assert.deepEqual(problems, [], 'what is newer than the state is not a finding');
  await failsWith(reader.prepare('more', ''), 'FailedPrecondition', /read-only/);
  await failsWith(reader.cleanup(), 'FailedPrecondition', /read-only/);
});

test('given an owner that does not look for readers, then their state falls apart', async (t) => {
  const root = await tempDir(t);
  await using owner = await filled(root);
  t.mock.method(Readers.prototype, 'look', () => undefined);
  await assert.rejects(readInRounds(root, owner));
});
