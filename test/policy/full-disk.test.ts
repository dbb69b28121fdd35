/** A policy on a disk without a free byte: it is planned and applied, and the target is met by what the file system says. */
import assert from 'node:assert/strict';
import { statfsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openDB } from '../../src/open.js';
import { smallDisk } from '../environment/small-disk.js';
import { Host } from './host.js';

const IMAGES = 130;
const LAYER = 64 * 1024;
const WANTED = 8 * 1024 * 1024;

test('given a disk with 0 bytes free, when a policy wants space, then that much is free, within a hundredth', async (t) => {
  const small = await smallDisk(t, 'ext4', 'bytes');
  if (small === undefined) return;
  const root = join(small.path, 'store');
  const options = {
    root,
    snapshotters: ['native' as const],
    durability: 'visible' as const,
    log: () => undefined,
  };
  {
    await using db = await openDB(options);
    const host = new Host(db, 1);
    for (let n = 0; n < IMAGES; n++) {
      const layer = await host.blob('one', `layer-${n}`, LAYER);
      const labels = { 'containerd.io/gc.ref.content.l.0': layer };
      await host.image('one', `a:${n}`, await host.blob('one', `manifest-${n}`, 500, labels));
    }
  }
  await using db = await openDB(options);
  small.fill();
  const free = (): number => {
    const { bavail, bsize } = statfsSync(root);
    return bavail * bsize;
  };
  assert.equal(free(), 0);
  const plan = await db.planPolicy({ rules: [{ minFreeSpace: WANTED }] });
  assert.deepEqual([plan.rules[0]?.met, plan.space.free], [true, 0]);
  const { rest, stats } = await db.applyPlan(plan);
  assert.deepEqual([rest, stats.backendErrors], [[], 0]);
  assert.equal(stats.bytesFreed, plan.bytes);
  for (const bytes of [plan.space.freeAfter ?? 0, free()]) {
    assert.ok(bytes >= WANTED && bytes <= WANTED * 1.01, `${bytes} of ${WANTED}`);
  }
  const left = await db.images.list({ namespace: 'one' });
  assert.equal(left.length, IMAGES - plan.retired.length);
});
