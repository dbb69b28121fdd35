/**
 * `npm run bench -- lease`: what the removal of a lease with many resources costs, and the collection of what only it held, for
 * several sizes side by side. The backends have no bytes.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { DB } from '../src/db.js';
import { blobKey, leaseKey, Relation } from '../src/engine/schema/keys.js';
import type { BlobRecord } from '../src/model/records.js';
import { now } from '../src/model/time.js';
import { putRecord } from '../src/stores/common.js';
import { digestFor } from '../src/synth/picks.js';
import { type Taken, taken, watched } from './holds.js';
import { median } from './statistics.js';
import { openStore } from './store.js';

const usage = `npm run bench -- lease [options]
  --resources LIST  leases with so many blobs, each in turn (default 1k,10k,100k)
  --runs N          of each (default 3), and one more that looks how long the thread is held
  --dir DIR         where the stores are made; a real disk (default: temporary)`;

const { values: options } = parseArgs({
  args: process.argv.slice(2),
  options: {
    resources: { type: 'string', default: '1k,10k,100k' },
    runs: { type: 'string', default: '3' },
    dir: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

const ns = 'default';
const id = 'large';
const BLOBS_AT_ONCE = 1000;

async function fill(db: DB, resources: number): Promise<void> {
  await db.leases.create({ namespace: ns }, { id });
  const at = now();
  for (let from = 0; from < resources; from += BLOBS_AT_ONCE) {
    await db.engine.update((tx) => {
      for (let n = from; n < Math.min(from + BLOBS_AT_ONCE, resources); n++) {
        const blob = blobKey(ns, digestFor('lease', n));
        putRecord<BlobRecord>(tx, blob, { createdat: at, updatedat: at, size: 1 });
        tx.link(leaseKey(ns, id), Relation.holds, blob);
      }
    });
  }
}

/** Runs `remove` over a store with such a lease, in which the first collection is over. */
async function prepared<T>(resources: number, remove: (db: DB) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(options.dir ?? tmpdir(), 'ebbtide-bench-'));
  try {
    const filled = await openStore(dir);
    await fill(filled.db, resources);
    await filled.db.close();
    const { db } = await openStore(dir);
    await db.garbageCollect();
    const result = await remove(db);
    await db.close();
    return result;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const deletion = (db: DB): Promise<void> => db.leases.delete({ namespace: ns }, id);

async function collection(db: DB, resources: number): Promise<void> {
  const { removed } = await db.garbageCollect();
  if (removed.content !== resources) throw new Error(`${removed.content} of ${resources} blobs were removed`);
}

async function measure(resources: number): Promise<void> {
  const runs: { deleted: Taken; collected: Taken }[] = [];
  for (let n = 0; n < Number(options.runs); n++) {
    runs.push(
      await prepared(resources, async (db) => ({
        deleted: await taken(() => deletion(db)),
        collected: await taken(() => collection(db, resources)),
      })),
    );
  }
  const held = await prepared(resources, async (db) => ({
    deleting: await watched(() => deletion(db)),
    collecting: await watched(() => collection(db, resources)),
  }));
  const of = (take: (run: (typeof runs)[number]) => number): string =>
    `${Math.round(median(runs.map(take)))}`;
  const line = [
    `${resources.toLocaleString('en-US')} resources:`,
    `deletion ${of(({ deleted }) => deleted.ms)} ms, processor ${of(({ deleted }) => deleted.cpuMs)} ms;`,
    `collection ${of(({ collected }) => collected.ms)} ms, processor ${of(({ collected }) => collected.cpuMs)} ms;`,
    `together ${of(({ deleted, collected }) => deleted.ms + collected.ms)} ms,`,
    `processor ${of(({ deleted, collected }) => deleted.cpuMs + collected.cpuMs)} ms;`,
    `thread held at most ${held.deleting.longestMs.toFixed(1)} and ${held.collecting.longestMs.toFixed(1)} ms,`,
    `p99.9 ${held.deleting.p999Ms.toFixed(1)} and ${held.collecting.p999Ms.toFixed(1)} ms`,
  ];
  process.stdout.write(`${line.join(' ')}\n`);
}

/** `10k`. */
const numberOf = (text: string): number =>
  text.endsWith('k') ? 1000 * Number(text.slice(0, -1)) : Number(text);

if (options.help) process.stderr.write(`${usage}\n`);
else for (const resources of options.resources.split(',')) await measure(numberOf(resources));
