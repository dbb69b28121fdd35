/**
 * `npm run bench -- last-use`: what noting last uses costs a prepare, in processor time of the process: prepares with it and
 * without it in turn, on the same store; and what writing them takes, once in ten minutes.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { DB } from '../src/db.js';
import { snapshotKey } from '../src/engine/schema/keys.js';
import { present } from '../src/errors.js';
import { openDB } from '../src/open.js';
import { LastUse } from '../src/stores/last-use.js';
import { taken } from './holds.js';
import { median } from './statistics.js';
import { openStore } from './store.js';

const { values: options } = parseArgs({
  args: process.argv.slice(2),
  options: {
    prepares: { type: 'string', default: '2000' },
    parents: { type: 'string', default: '200' },
    turns: { type: 'string', default: '12' },
  },
});
const [prepares, parents, turns] = [options.prepares, options.parents, options.turns].map(Number) as [
  number,
  number,
  number,
];
const ctx = { namespace: 'bench' };

const NOTES = 20_000;
let number = 0;

async function prepareAll(db: DB, snapshotter: string): Promise<void> {
  const store = present(db.snapshotter(snapshotter), snapshotter);
  for (let n = 0; n < prepares; n++) await store.prepare(ctx, `run-${number++}`, `parent-${n % parents}`, {});
}

async function removeAll(db: DB, snapshotter: string, from: number): Promise<void> {
  const store = present(db.snapshotter(snapshotter), snapshotter);
  for (let n = from; n < number; n++) await store.remove(ctx, `run-${n}`);
}

async function measure(title: string, db: DB, snapshotter: string): Promise<void> {
  const store = present(db.snapshotter(snapshotter), snapshotter);
  for (let n = 0; n < parents; n++) {
    await store.prepare(ctx, `making-${n}`, '', {});
    await store.commit(ctx, `parent-${n}`, `making-${n}`, {});
  }
  const { note } = LastUse.prototype;
  const times: Record<'with' | 'without', number[]> = { with: [], without: [] };
  // Also finds out where they are noted.
  let lastUse: LastUse | undefined;
  LastUse.prototype.note = function (this: LastUse, k) {
    lastUse = this;
    note.call(this, k);
  };
  await prepareAll(db, snapshotter);
  for (let turn = 0; turn < 2 * turns; turn++) {
    const way = turn % 2 === 0 ? 'with' : 'without';
    LastUse.prototype.note = way === 'with' ? note : () => undefined;
    const from = number;
    const { cpuMs } = await taken(() => prepareAll(db, snapshotter));
    times[way].push((cpuMs * 1000) / prepares);
    LastUse.prototype.note = note;
    await removeAll(db, snapshotter, from);
  }
  const alone: number[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const { cpuMs } = await taken(async () => {
      for (let n = 0; n < NOTES; n++)
        lastUse?.note(snapshotKey('bench', snapshotter, `parent-${n % parents}`));
    });
    alone.push((cpuMs * 1000) / NOTES);
  }
  const [noted, plain, note1] = [times.with, times.without, alone].map(median) as [number, number, number];
  const written = await taken(async () => lastUse?.write());
  const share = (100 * (noted - plain)) / plain;
  process.stdout.write(
    `${title}: a prepare takes ${plain.toFixed(1)} µs of processor time, with its use noted ${noted.toFixed(1)} µs (${share.toFixed(1)} %); noting alone ${note1.toFixed(2)} µs, ${((100 * note1) / plain).toFixed(2)} % of it; writing ${parents} uses ${written.cpuMs.toFixed(1)} ms\n`,
  );
}

const dir = await mkdtemp(join(tmpdir(), 'ebbtide-bench-'));
try {
  const { db } = await openStore(join(dir, 'names'));
  await measure('records only', db, 'overlayfs');
  await db.close();
  await using whole = await openDB({ root: join(dir, 'whole'), log: () => undefined });
  await measure('overlayfs on this disk', whole, 'overlayfs');
} finally {
  await rm(dir, { recursive: true, force: true });
}
