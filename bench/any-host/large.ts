/**
 * `npm run bench -- any-host-large [GIB]`: a bbolt file of more than 4 GiB (default 5), of records and of values of 64 MiB; read, written
 * again, and looked at page by page as `salvage` does. What is read is compared with what bbolt reads, byte by byte. Takes twice the room.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootBucket } from '../../src/bolt/bucket.js';
import { copyBucket } from '../../src/bolt/copy.js';
import { FileHeap } from '../../src/bolt/heap.js';
import { PageScan } from '../../src/bolt/scan.js';
import { readBolt } from '../../src/bolt/snapshot.js';
import { BoltWriter } from '../../src/bolt/writer.js';
import { inTurns } from '../../src/system/turns.js';
import { fill, ourSum, theirSum } from './files.js';

const [gib = 5] = process.argv.slice(2).map(Number);
const VALUE = 64 * 2 ** 20;
/** Every 500th record has a long value. */
const records = Math.ceil((gib * 2 ** 30) / (VALUE / 500 + 4200));

async function measured<T>(what: string, run: () => Promise<T>): Promise<T> {
  const before = process.cpuUsage();
  const result = await run();
  const { user, system } = process.cpuUsage(before);
  const memory = Math.round(process.memoryUsage().rss / 2 ** 20);
  console.log(`  ${what.padEnd(40)} ${((user + system) / 1e6).toFixed(1)} s CPU, ${memory} MiB in memory`);
  return result;
}

async function writeAgain(from: string, to: string): Promise<void> {
  await using heap = await FileHeap.create(`${to}.heap`);
  const snapshot = await readBolt(from, { heap });
  await using writer = await BoltWriter.create(to, { pageSize: snapshot.meta.pageSize });
  await inTurns(copyBucket(rootBucket(snapshot), writer));
  await writer.finish();
}

const same = (what: string, a: string, b: string): void => {
  if (a !== b) throw new Error(`${what}: ${a}, not ${b}`);
};

const directory = mkdtempSync(join(tmpdir(), 'ebbtide-any-host-bench-'));
try {
  const [path, copy] = [join(directory, 'file.db'), join(directory, 'copy.db')];
  fill(path, records, VALUE);
  const theirs = theirSum(path);
  console.log(`${(statSync(path).size / 2 ** 30).toFixed(2)} GiB, ${theirs.split(' ')[0]} entries`);
  const beginnings = await measured('read, the first MiB of values', () =>
    readBolt(path, { valueBytesMax: 2 ** 20 }),
  );
  let entries = 0;
  rootBucket(beginnings).each(({ bucket }) => bucket?.each(() => entries++));
  if (entries < records) throw new Error(`${entries} of ${records} records`);
  await measured('every page looked at', async () => {
    using scan = await PageScan.read(path);
    const far = scan.ids.filter((id) => id * scan.pageSize > 2 ** 32 && scan.page(id)?.kind === 'leaf');
    console.log(`  ${scan.ids.length} pages are whole, ${far.length} leaves of them beyond 4 GiB`);
    if (far.length === 0) throw new Error('none beyond 4 GiB');
  });
  same('read', ourSum(await measured('read, all', () => readBolt(path))), theirs);
  await measured('written again', () => writeAgain(path, copy));
  console.log(`  ${(statSync(copy).size / 2 ** 30).toFixed(2)} GiB`);
  rmSync(path);
  same('written again', theirSum(copy), theirs);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
