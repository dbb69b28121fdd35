/** kill -9 of a backup, and of a restore, before calls that change something: all or nothing is there, and nothing is left. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { restoreBackup } from '../../src/backup/restore.js';
import { layout } from '../../src/open.js';
import { buildFaults, FaultControl, faultsEnvironment } from '../environment/faults.js';
import { tempDir } from '../support/temp.js';
import { assertSound, blob, ctx, drafts, filesOf, open, read, root } from './support.js';

const child = fileURLToPath(new URL('./backup-child.js', import.meta.url));
/** The last calls, in which names are given, and so many of those before. */
const LAST = 5;
const SPREAD = 4;

const pointsOf = (count: number): number[] => {
  const step = Math.max(1, Math.floor(count / SPREAD));
  return Array.from({ length: count }, (_, i) => i + 1).filter((n) => n > count - LAST || n % step === 0);
};

test('given a backup, and a restore, when they are killed anywhere, then there is a whole one or none, and the next one leaves nothing of it', async (t) => {
  const dir = realpathSync(await tempDir(t));
  const built = buildFaults(dir);
  if ('missing' in built) return t.skip(built.missing);
  const store = join(dir, 'store');
  const db = await open(store);
  const digest = await blob(db, 'bytes');
  await db.snapshotter('native')!.prepare(ctx, 'building', '');
  writeFileSync(join(await filesOf(db, 'native', 'building'), 'file'), 'text');
  await db.snapshotter('native')!.commit(ctx, 'layer', 'building', { labels: root });
  await db.close();
  const control = new FaultControl(join(dir, 'control'));
  const run = (at: number, below: string, ...args: string[]): string | null => {
    control.killAt(at);
    const env = { ...process.env, ...faultsEnvironment(built.path, control.path, below) };
    const { signal, status, stderr } = spawnSync(process.execPath, [child, ...args], {
      env,
      encoding: 'utf8',
    });
    assert.ok(signal === 'SIGKILL' || status === 0, stderr);
    return signal;
  };
  const assertWhole = async (backup: string, to: string): Promise<void> => {
    await restoreBackup(backup, to, { hash: true });
    await using restored = await open(to);
    await assertSound(restored);
    assert.equal(await read(restored, digest), 'bytes');
  };

  const place = join(dir, 'place');
  mkdirSync(place);
  const [target, good] = [join(place, 'backup'), join(dir, 'good')];
  run(0, place, 'backup', store, target);
  const made = control.seen.count;
  assert.ok(made > 20, `${made} calls`);
  let whole = 0;
  for (const at of pointsOf(made)) {
    rmSync(place, { recursive: true });
    mkdirSync(place);
    assert.equal(run(at, place, 'backup', store, target), 'SIGKILL', `call ${at} of ${made}`);
    const isThere = existsSync(target);
    if (isThere) {
      whole++;
      await assertWhole(target, join(dir, 'restored'));
      rmSync(join(dir, 'restored'), { recursive: true });
    }
    await using again = await open(store);
    await assertSound(again);
    await again.backup(join(place, 'next'));
    assert.deepEqual(await drafts(place), [], `killed before ${control.seen.what}`);
  }
  assert.ok(whole > 0, 'one was killed after it had its name');

  const kept = await open(store);
  await kept.backup(good);
  await kept.close();
  const to = join(dir, 'to');
  run(0, to, 'restore', good, to);
  const { count } = control.seen;
  let restored = 0;
  for (const at of pointsOf(count)) {
    rmSync(to, { recursive: true, force: true });
    assert.equal(run(at, to, 'restore', good, to), 'SIGKILL', `call ${at} of ${count}`);
    if (existsSync(layout.database(to))) {
      restored++;
      await using there = await open(to);
      await assertSound(there);
      continue;
    }
    await assertWhole(good, to);
    assert.deepEqual(await drafts(to), []);
  }
  assert.ok(restored > 0, 'one was killed after the records had their place');
  control.close();
});
