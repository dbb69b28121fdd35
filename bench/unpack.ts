/**
 * Layers of an image that are unpacked at once, beside one after the other, alternately in one process.
 *
 *   npm run bench -- unpack [--rounds N] [--dir DIR]
 *
 * Two images: 8 layers of 8 MiB in 300 files each, and 40 layers of 20 small files. Medians; CPU is that of all threads.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { importImage } from '../src/images/import.js';
import { unpackImage } from '../src/images/unpack.js';
import { openDB } from '../src/open.js';
import type { Item } from '../test/archive/support.js';
import { Blobs, named, writeFiles } from '../test/images/fixtures.js';
import { median } from './statistics.js';

const AT_ONCE = [1, 2, 4] as const;
const ctx = { namespace: 'bench' };

/** Files of which half can be compressed. */
function layersOf(layers: number, files: number, size: number): Item[][] {
  const content = (of: string): Buffer => {
    const random = createHash('shake256', { outputLength: size >> 1 })
      .update(of)
      .digest();
    return Buffer.concat([random, Buffer.alloc(size - random.length, 'text ')]);
  };
  return Array.from({ length: layers }, (_, layer) => [
    { name: `${layer}`, type: 'directory' as const },
    ...Array.from({ length: files }, (_, n) => ({ name: `${layer}/${n}`, text: content(`${layer} ${n}`) })),
  ]);
}

interface Taken {
  wallMs: number;
  cpuMs: number;
}

async function once(dir: string, layout: string, layersAtOnce: number): Promise<Taken> {
  const root = mkdtempSync(join(dir, 'root-'));
  const db = await openDB({ root, snapshotters: ['overlayfs'], log: () => {} });
  try {
    const [image] = await importImage(db, ctx, layout);
    const [started, before] = [performance.now(), process.cpuUsage()];
    await unpackImage(db, ctx, image!, 'overlayfs', { layersAtOnce });
    const { user, system } = process.cpuUsage(before);
    return { wallMs: performance.now() - started, cpuMs: (user + system) / 1000 };
  } finally {
    await db.close();
    rmSync(root, { recursive: true });
  }
}

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, dir: { type: 'string', default: tmpdir() } },
});
const dir = mkdtempSync(join(values.dir, 'bench-unpack-'));
try {
  process.stdout.write(`${availableParallelism()} processors; medians of ${values.rounds} rounds\n`);
  for (const [layers, files, size] of [
    [8, 300, 28_000],
    [40, 20, 2000],
  ] as const) {
    const blobs = new Blobs();
    const { manifest } = await blobs.image(layersOf(layers, files, size));
    const layout = await writeFiles(join(dir, `${layers}`), blobs.layout([named(manifest, 'bench')]));
    const taken = new Map<number, Taken[]>(AT_ONCE.map((atOnce) => [atOnce, []]));
    // The first one warms up.
    await once(dir, layout, 1);
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const atOnce of AT_ONCE) taken.get(atOnce)?.push(await once(dir, layout, atOnce));
    }
    for (const [atOnce, all] of taken) {
      const wall = median(all.map(({ wallMs }) => wallMs));
      const cpu = median(all.map(({ cpuMs }) => cpuMs));
      const text = `${layers} layers of ${files} files, ${atOnce} at once: ${wall.toFixed(0)} ms, ${cpu.toFixed(0)} ms of CPU`;
      process.stdout.write(`${text}\n`);
    }
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
