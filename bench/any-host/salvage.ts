/**
 * `npm run bench -- any-host-salvage [RECORDS] [DAMAGE…]`: processor time and memory of `salvage` on a `meta.db` (default 250,000 records,
 * 1 GiB), by the damage (default: each of `damages`). EBBTIDE_BENCH_OTHER: the `dist` of another build, which is measured in turn. Takes
 * three times the room.
 */
import { closeSync, copyFileSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PageScan } from '../../src/bolt/scan.js';
import { contentIn, mainOf, makeHost, metadataIn, run } from './verbs.js';

const [records = '250000', ...chosen] = process.argv.slice(2);
const RUNS = 2;
const other = process.env.EBBTIDE_BENCH_OTHER;

/** The first page of a bucket, and the size of a page. */
function pageOf(path: string, names: readonly string[]): [page: number, size: number] {
  using scan = new PageScan(path);
  let page = scan.metas[0]?.root ?? 0;
  for (const name of names) {
    const found = scan.page(page);
    const entry = found?.kind === 'leaf' ? found.entries.find(({ key }) => key === name) : undefined;
    page = (entry && scan.bucket(entry.value)?.page) ?? 0;
  }
  if (page < 2) throw new Error(`no page of ${names.join('/')}`);
  return [page, scan.pageSize];
}

function zero(path: string, at: number, length: number): void {
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.alloc(length), 0, length, at);
  closeSync(file);
}

/** The newer meta page, or the older one. */
function loseMeta(path: string, isNewer: boolean): void {
  using scan = new PageScan(path);
  const [newest] = scan.metas;
  if (newest === undefined) throw new Error('no meta page');
  const slot = Number(newest.transaction % 2n) ^ (isNewer ? 0 : 1);
  zero(path, slot * scan.pageSize, scan.pageSize);
}

const damages: Readonly<Record<string, (path: string) => void>> = {
  whole: () => undefined,
  'newer-meta': (path) => loseMeta(path, true),
  'older-meta': (path) => loseMeta(path, false),
  'page-of-blobs': (path) => {
    const [page, size] = pageOf(path, ['v1', 'k8s.io', 'content', 'blob']);
    zero(path, page * size, size);
  },
  metas: (path) => zero(path, 0, 2 * pageOf(path, ['v1'])[1]),
};

const root = mkdtempSync(join(tmpdir(), 'ebbtide-any-host-bench-'));
const beside = mkdtempSync(join(tmpdir(), 'ebbtide-any-host-bench-'));
try {
  makeHost(root, Number(records));
  // Without it nothing is left out because its file is not there.
  rmSync(contentIn(root), { recursive: true });
  const whole = join(beside, 'whole.db');
  copyFileSync(metadataIn(root), whole);
  const output = join(beside, 'out.db');
  for (const [what, damage] of Object.entries(damages)) {
    if (chosen.length > 0 && !chosen.includes(what)) continue;
    copyFileSync(whole, metadataIn(root));
    damage(metadataIn(root));
    for (let n = 0; n < RUNS; n++)
      for (const program of [undefined, ...(other === undefined ? [] : [mainOf(other)])]) {
        const { cpu, memory } = run(root, ['salvage', '-o', output], program);
        rmSync(output);
        const build = program === undefined ? '' : 'other build';
        console.log(
          `  ${what.padEnd(14)} ${cpu.toFixed(1)} s CPU, ${Math.round(memory)} MiB  ${build}`.trimEnd(),
        );
      }
  }
} finally {
  for (const directory of [root, beside]) rmSync(directory, { recursive: true, force: true });
}
