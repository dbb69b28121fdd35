/** A limit on threads that is reached (`ulimit -u`, TasksMax, pids of a container): no verb crashes or hangs, and nothing is lost. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { layout } from '../../src/open.js';
import { Cli } from '../cli/support.js';
import { Blobs, named, tarOfFiles } from '../images/fixtures.js';
import { tempDir } from '../support/temp.js';
import { buildFaults } from './faults.js';

/** Files whose removal is worth a thread. */
const MANY = Array.from({ length: 100 }, (_, i) => `file-${i}`);

/** Those of Node's own start with the first work. From then on none does. */
const LIMIT = `data:text/javascript,${encodeURIComponent(`
  import { readFile } from 'node:fs/promises';
  await Promise.all(Array.from({ length: 8 }, () => readFile('/dev/null')));
  process.env.EBBTIDE_TEST_NO_THREADS = '1';`)}`;

async function limited(t: TestContext): Promise<{ dir: string; env: Record<string, string> } | undefined> {
  const dir = await tempDir(t);
  const library = buildFaults(dir, 'no-threads');
  if ('missing' in library) {
    t.skip(library.missing);
    return undefined;
  }
  return { dir, env: { LD_PRELOAD: library.path, NODE_OPTIONS: `--import ${LIMIT}` } };
}

test('given no thread that can start, when verbs run, then they end with a sentence, and another one finds all', async (t) => {
  const place = await limited(t);
  if (place === undefined) return;
  const { dir, env } = place;
  const blobs = new Blobs();
  const archive = join(dir, 'image.tar');
  const { manifest } = await blobs.image([
    MANY.map((name) => ({ name, text: name })),
    [{ name: 'b', text: 'b' }],
  ]);
  writeFileSync(archive, await tarOfFiles(blobs.layout([named(manifest, 'example.com/one:1')])));
  const root = join(dir, 'root');
  const without = new Cli(root, env);
  let refusals = 0;
  for (const args of [
    ['init'],
    ['import', archive, '--unpack', 'native'],
    ['images', 'ls'],
    ['images', 'rm', 'example.com/one:1'],
    ['gc', '--full'],
  ]) {
    const { code, signal, stderr } = await without.run(...args);
    const story = `${args.join(' ')}: ${code} ${signal}\n${stderr}`;
    assert.equal(signal, null, story);
    assert.ok(code === 0 || code === 6, story);
    assert.doesNotMatch(stderr, /^ {4}at /m, story);
    if (stderr.includes('no thread can start')) refusals++;
    if (code !== 0) assert.match(stderr, /TasksMax/, story);
  }
  assert.ok(refusals > 0, 'a thread was wanted');
  const cli = new Cli(root);
  // It may have to read the log first, and says so.
  const { code, stderr } = await cli.run('gc', '--full');
  assert.equal(code, 0, stderr);
  assert.match(await cli.ok('doctor', '--check'), /sound/);
  assert.deepEqual(JSON.parse(await cli.ok('images', 'ls', '--json')), []);
  assert.deepEqual(readdirSync(join(layout.content(root), '.trash')), []);
});

/** A program in which threads cannot start for a while. */
function program(body: string): string {
  const module = (path: string): string =>
    JSON.stringify(new URL(`../../src/${path}.js`, import.meta.url).href);
  return `const { createDiskPool } = await import(${module('gc/sweep/disk-pool')});
    const { openDB } = await import(${module('open')});
    const { setTimeout: sleep } = await import('node:timers/promises');
    const threads = (can) => { if (can) delete process.env.EBBTIDE_TEST_NO_THREADS; else process.env.EBBTIDE_TEST_NO_THREADS = '1'; };
    ${body}`;
}

function run(env: Record<string, string>, body: string): unknown {
  const args = ['--input-type=module', '-e', program(body)];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.deepEqual([status, signal], [0, null], stderr);
  return JSON.parse(stdout);
}

test('given a pool for removals whose threads cannot start, when they can again, then it goes on; closing ends at once', async (t) => {
  const place = await limited(t);
  if (place === undefined) return;
  const trees = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => join(place.dir, name));
  for (const tree of trees) {
    mkdirSync(join(tree, 'x'), { recursive: true });
    for (const name of MANY) writeFileSync(join(tree, 'x', name), '');
  }
  const [a, b, c, d, e, f] = trees.map((tree) => JSON.stringify(tree));
  const outcome = run(
    place.env,
    `const told = ({ kind, remedy }) => [kind, remedy.includes('TasksMax')].join();
    const idle = createDiskPool();
    const failed = [told(await idle.removeTrees('s', [${f}]).catch((error) => error))];
    await idle.close();
    const pool = createDiskPool();
    threads(true);
    await pool.removeTrees('s', [${a}]);
    threads(false);
    // One thread is there: three streams share two lanes.
    const all = [pool.removeTrees('s', [${b}]), pool.removeTrees('t', [${c}]), pool.removeTrees('u', [${d}])];
    for (const one of await Promise.allSettled(all)) failed.push(one.status === 'fulfilled' ? 'done' : told(one.reason));
    threads(true);
    await pool.removeTrees('t', [${c}, ${e}, ${f}]);
    await pool.close();
    console.log(JSON.stringify(failed));`,
  );
  const refused = 'Unavailable,true';
  assert.deepEqual(outcome, [refused, 'done', refused, 'done']);
  assert.deepEqual(trees.map(existsSync), [false, false, false, false, false, false]);
});

/** Begins a program that opens a store of records, and keeps its warnings. */
const opening = (root: string): string =>
  `const warned = [];
    const log = (level, message) => { if (level !== 'info') warned.push(message); };
    const open = () => openDB({ root: ${JSON.stringify(root)}, engine: 'lmdb', snapshotters: [], log });`;

test('given a store whose tree no thread can write, when threads can start again, then all commits are in it', async (t) => {
  const place = await limited(t);
  if (place === undefined) return;
  const outcome = run(
    place.env,
    `${opening(join(place.dir, 'root'))}
    let db = await open();
    const write = async (from, to) => {
      for (let i = from; i < to; i += 500)
        await Promise.all(Array.from({ length: 500 }, (_, j) => db.leases.create({ namespace: 'ns' }, { id: 'l' + (i + j) })));
    };
    await write(0, 2500);
    for (let i = 0; i < 100 && warned.length === 0; i++) await sleep(50);
    threads(true);
    await write(2500, 3000);
    await db.close();
    db = await open();
    const { length } = await db.leases.list({ namespace: 'ns' });
    await db.close();
    console.log(JSON.stringify({ length, warned: warned.join().includes('no thread can start') }));`,
  );
  assert.deepEqual(outcome, { length: 3000, warned: true });
});

test('given a store with little to flush, when it is closed and no thread can start, then all of it is in the tree', async (t) => {
  const place = await limited(t);
  if (place === undefined) return;
  const outcome = run(
    place.env,
    `${opening(join(place.dir, 'root'))}
    const db = await open();
    for (let i = 0; i < 20; i++) await db.leases.create({ namespace: 'ns' }, { id: 'l' + i });
    await db.close();
    const again = await open();
    const { length } = await again.leases.list({ namespace: 'ns' });
    await again.close();
    console.log(JSON.stringify({ length, warned }));`,
  );
  assert.deepEqual(outcome, { length: 20, warned: [] });
});
