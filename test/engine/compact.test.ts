/** Compaction: the file of the records gives its free pages back, and is at every moment one that opens with all of them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, readdirSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { compactStore } from '../../src/compact-store.js';
import type { Engine } from '../../src/engine/contract.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { openDatabases } from '../../src/engine/lmdb/tree/databases.js';
import { key } from '../../src/engine/schema/keys.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { createGraph } from '../../src/graph/carriers.js';
import { layout, openDB } from '../../src/open.js';
import { failsWith } from '../backends/temp.js';
import { buildFaults, FaultControl, faultsEnvironment } from '../environment/faults.js';
import { smallDisk } from '../environment/small-disk.js';
import { tempDir } from '../support/temp.js';

const child = fileURLToPath(new URL('./compact-child.js', import.meta.url));
const MiB = 2 ** 20;
const KEPT = 148;

const open = (root: string): Promise<Engine> =>
  openLmdbEngine(layout.database(root), { indexer: metadataIndexer, graph: createGraph() });

const dataFile = (root: string): string => join(layout.database(root), 'meta.mdb');

/** A store of so many bytes of records, all but a few of which are removed again. */
async function emptied(root: string, bytes: number): Promise<void> {
  const engine = await open(root);
  const value = 'x'.repeat(16_000);
  const count = Math.ceil(bytes / value.length);
  const put = (from: number, to: number): Promise<void> =>
    engine.update((tx) => {
      for (let n = from; n < to; n++) tx.put(key('raw', String(n).padStart(8, '0')), value);
    });
  for (let n = 0; n < count; n += 64) await put(n, Math.min(count, n + 64));
  await engine.update((tx) => {
    tx.put(key('namespaces', 'test'), {});
    for (let n = 0; n < KEPT; n++) tx.put(key('images', 'test', `image-${n}`), imageOf(n));
  });
  for (let n = 0; n < count; n += 64) {
    await engine.update((tx) => {
      for (let i = n; i < Math.min(count, n + 64); i++) tx.delete(key('raw', String(i).padStart(8, '0')));
    });
  }
  await engine.close();
}

const imageOf = (n: number) => ({
  createdat: 1n,
  updatedat: 1n,
  target: { mediatype: 'x', digest: `sha256:${String(n).padStart(64, '0')}`, size: 1 },
});

/** The records are what `emptied` leaves, and the graph is theirs. */
async function assertWhole(root: string): Promise<void> {
  await using engine = await open(root);
  const images = [...engine.scan(key('images'))];
  assert.equal(images.length, KEPT);
  assert.deepEqual(images[0]![1], imageOf(0));
  assert.deepEqual(engine.verifyGraph(), []);
  assert.deepEqual([...engine.scan(key('raw'))], []);
}

test('given 148 records in a file of 73 MB, when compacted, then the file is small and the records are the same', async (t) => {
  const root = join(await tempDir(t), 'store');
  await emptied(root, 70 * MiB);
  const size = statSync(dataFile(root)).size;
  assert.ok(size > 70 * MiB, `${size} bytes`);
  const { before, after, reserve } = await compactStore(root);
  assert.equal(before, size);
  assert.equal(after, statSync(dataFile(root)).size);
  assert.ok(after < MiB, `${after} bytes`);
  assert.ok(reserve <= 3 * MiB, `${reserve} bytes`);
  assert.deepEqual(readdirSync(layout.database(root)).sort(), ['lock', 'log.0', 'log.1', 'meta.mdb']);
  assert.equal(statSync(dataFile(root)).mode & 0o777, 0o600);
  await assertWhole(root);
  await using engine = await open(root);
  await engine.update((tx) => tx.put(key('raw', 'new'), 'value'));
  assert.equal(engine.get(key('raw', 'new')), 'value');
});

test('given records that came in no order, when compacted, then the pages of the index are full', async (t) => {
  const root = join(await tempDir(t), 'store');
  const engine = await open(root);
  const keys = Array.from({ length: 6000 }, (_, n) =>
    key('blobs', 'test', `sha256:${createHash('sha256').update(String(n)).digest('hex')}`),
  );
  for (let n = 0; n < keys.length; n += 200) {
    await engine.update((tx) => {
      for (const k of keys.slice(n, n + 200)) tx.put(k, { size: 1 });
    });
    await engine.flush();
  }
  await engine.close();
  const before = await fillOf(root);
  await compactStore(root);
  const after = await fillOf(root);
  assert.ok(before < 0.8 && after > 0.9, `${before} before, ${after} after`);
  await using again = await open(root);
  assert.deepEqual(
    [...again.scan(key('blobs'))].map(([k]) => k),
    keys.sort(),
  );
  assert.deepEqual(again.verifyGraph(), []);
});

/** How full the pages of the index of digests are. */
async function fillOf(root: string): Promise<number> {
  const { env, digests } = await openDatabases(dataFile(root), true);
  const { entryCount, treeLeafPageCount, pageSize } = env
    .openDB({ name: 'digests', keyEncoding: 'binary' })
    .getStats() as Record<string, number>;
  const row = digests.range(Buffer.alloc(0), false, undefined, 1)[0]!;
  // With its head and its place in the page.
  const bytes = 10 + row[0].length + row[1].length;
  await env.close();
  return (entryCount! * (bytes + (bytes % 2))) / (treeLeafPageCount! * (pageSize! - 16));
}

test('given a compaction, when it is killed before any of its steps, then the store opens with all it had, and what is left goes', async (t) => {
  const dir = realpathSync(await tempDir(t));
  const built = buildFaults(dir);
  if ('missing' in built) return t.skip(built.missing);
  const store = join(dir, 'store');
  await emptied(store, 2 * MiB);
  // Not closed: the log has a commit that the tree lacks.
  const writer = `import { openDB } from ${JSON.stringify(new URL('../../src/open.js', import.meta.url).href)};
    const db = await openDB({ root: process.argv[1], log: () => {} });
    await db.put('last', 'acknowledged');
    process.kill(process.pid, 'SIGKILL');`;
  spawnSync(process.execPath, ['--input-type=module', '-e', writer, store]);
  const control = new FaultControl(join(dir, 'control'));
  const run = (root: string, at: number): { signal: string | null; stderr: string } => {
    control.killAt(at);
    const env = { ...process.env, ...faultsEnvironment(built.path, control.path, root) };
    return spawnSync(process.execPath, [child, root], { env, encoding: 'utf8' });
  };
  const copyOf = (name: string): string => {
    const root = join(dir, name);
    cpSync(store, root, { recursive: true });
    return root;
  };
  const whole = copyOf('whole');
  assert.equal(run(whole, 0).stderr, '');
  const { count } = control.seen;
  assert.ok(count > 20, `${count} calls`);
  rmSync(whole, { recursive: true });
  // The last calls are those of the compaction itself; of those before, which are an opening's and a close's, a few.
  const points = Array.from({ length: count }, (_, i) => i + 1).filter((n) => n > count - 12 || n % 16 === 0);
  const sizes = new Set<boolean>();
  for (const at of points) {
    const root = copyOf(`killed-${at}`);
    const { signal, stderr } = run(root, at);
    assert.equal(signal, 'SIGKILL', `call ${at} of ${count}: ${stderr}`);
    sizes.add(statSync(dataFile(root)).size < MiB);
    await using db = await openDB({ root, create: false, log: () => {} });
    assert.equal((await db.get('last')).get('last'), 'acknowledged', `killed before ${control.seen.what}`);
    await db.close();
    await compactStore(root);
    assert.equal(existsSync(`${dataFile(root)}.new`), false);
    assert.ok(statSync(dataFile(root)).size < MiB);
    const engine = await open(root);
    assert.equal([...engine.scan(key('images'))].length, KEPT);
    assert.deepEqual(engine.verifyGraph(), []);
    await engine.close();
    rmSync(root, { recursive: true });
  }
  assert.deepEqual(
    sizes,
    new Set([false, true]),
    'some were killed before the new file had its name, some after',
  );
  control.close();
});

test('given a full disk, when a store is compacted, then that is Unavailable and the old file stays', async (t) => {
  const disk = await smallDisk(t, 'tmpfs', 'bytes');
  if (disk === undefined) return;
  const root = join(disk.path, 'store');
  const engine = await open(root);
  await engine.update((tx) => {
    tx.put(key('namespaces', 'test'), {});
    for (let n = 0; n < KEPT; n++) tx.put(key('images', 'test', `image-${n}`), imageOf(n));
    for (let n = 0; n < 1200; n++) tx.put(key('foreign', 'test', 'x', String(n)), 'x'.repeat(10_000));
  });
  await engine.close();
  const before = statSync(dataFile(root)).size;
  const room = join(disk.path, 'room');
  writeFileSync(room, Buffer.alloc(10 * MiB));
  disk.fill();
  const fails = async (): Promise<void> => {
    const error = await failsWith(compactStore(root), 'Unavailable', /no space left/i);
    assert.match((error as { remedy?: string }).remedy ?? '', /free disk space/);
    // A close on a full disk keeps the reserve in the file.
    assert.ok(statSync(dataFile(root)).size >= before);
    assert.equal(existsSync(`${dataFile(root)}.new`), false);
  };
  await fails();
  // There is room for the beginning of the new file.
  rmSync(room);
  await fails();
  disk.free();
  await assertWhole(root);
});

test('given a store that is open, or none, when compacted, then it is refused', async (t) => {
  const root = join(await tempDir(t), 'store');
  const engine = await open(root);
  await failsWith(compactStore(root), 'Unavailable', /in use by/);
  await engine.close();
  await compactStore(root);
  await failsWith(compactStore(join(root, 'none')), 'NotFound', /no store at/);
  writeFileSync(dataFile(root), 'other');
  await failsWith(compactStore(root), 'FailedPrecondition', /not a store of this program/);
});
