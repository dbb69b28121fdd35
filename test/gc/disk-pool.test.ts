import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { link, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { createDiskPool } from '../../src/gc/sweep/disk-pool.js';
import { tempDir } from '../support/db.js';

test('given trees, when removed, then they are gone and the freed bytes are counted', async (t) => {
  const dir = await tempDir(t);
  const pool = createDiskPool();
  t.after(() => pool.close());
  await mkdir(join(dir, 'a/b/c'), { recursive: true });
  await writeFile(join(dir, 'a/b/file'), Buffer.alloc(64 * 1024, 1));
  await writeFile(join(dir, 'kept'), Buffer.alloc(64 * 1024, 2));
  await link(join(dir, 'kept'), join(dir, 'a/linked'));
  await symlink(dir, join(dir, 'a/out'));
  const report = await pool.removeTrees('s', [join(dir, 'a'), join(dir, 'absent')]);
  assert.deepEqual(report.errors, []);
  assert.ok(report.bytes >= 64 * 1024 && report.bytes < 128 * 1024, `${report.bytes} bytes`);
  assert.equal(existsSync(join(dir, 'a')), false);
  assert.equal(existsSync(join(dir, 'kept')), true);
});

test('given many jobs of one stream, when removed, then they end in order; close waits for all', async (t) => {
  const dir = await tempDir(t);
  const pool = createDiskPool();
  const order: number[] = [];
  const jobs: Promise<unknown>[] = [];
  for (let i = 0; i < 20; i++) {
    const path = join(dir, `t${i}`);
    await mkdir(path);
    await writeFile(join(path, 'f'), 'x');
    jobs.push(pool.removeTrees(i % 2 ? 'odd' : 'even', [path]).then(() => order.push(i)));
  }
  await pool.close();
  await Promise.all(jobs);
  assert.deepEqual(
    order.filter((i) => i % 2 === 0),
    [0, 2, 4, 6, 8, 10, 12, 14, 16, 18],
  );
  assert.deepEqual(
    order.filter((i) => i % 2 === 1),
    [1, 3, 5, 7, 9, 11, 13, 15, 17, 19],
  );
  await pool.close();
  await assert.rejects(pool.removeTrees('s', [dir]), (e) => isKind(e, 'FailedPrecondition'));
});

test('given little to remove, then no thread starts; what is much starts one, which then removes what is little too', async (t) => {
  const dir = await tempDir(t);
  const pool = createDiskPool({ inlineMs: 60_000 });
  t.after(() => pool.close());
  let threads = 0;
  const started = (): void => void threads++;
  process.on('worker', started);
  t.after(() => process.off('worker', started));
  for (const [tree, files] of [
    ['little', 20],
    ['much', 200],
    ['later', 1],
  ] as const) {
    await mkdir(join(dir, tree, 'x'), { recursive: true });
    for (let i = 0; i < files; i++) await writeFile(join(dir, tree, 'x', String(i)), Buffer.alloc(4096));
  }
  const counts: number[] = [];
  for (const tree of ['little', 'much', 'later']) {
    const { removed, bytes, errors } = await pool.removeTrees('s', [join(dir, tree)]);
    assert.deepEqual([removed, errors], [1, []]);
    assert.ok(tree !== 'much' || bytes >= 200 * 4096, `${bytes} bytes`);
    counts.push(threads);
  }
  assert.deepEqual(counts, [0, 1, 1]);
  assert.deepEqual(await readdir(dir), []);
});

test('given a program that leaves its pool open, when its work is done, then it ends by itself', async (t) => {
  const dir = await tempDir(t);
  await mkdir(join(dir, 'tree'));
  for (let i = 0; i < 100; i++) await writeFile(join(dir, 'tree', String(i)), '');
  const module = new URL('../../src/gc/sweep/disk-pool.js', import.meta.url).href;
  const program = `const { createDiskPool } = await import(${JSON.stringify(module)});
    await createDiskPool().removeTrees('s', [${JSON.stringify(join(dir, 'tree'))}]);
    console.log('done');`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', program], { timeout: 30_000 });
  assert.equal(child.signal, null, 'it was not killed by the timeout');
  assert.equal(child.stdout.toString(), 'done\n');
  assert.equal(existsSync(join(dir, 'tree')), false);
});
