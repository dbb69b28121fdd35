import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { layout as roots } from '../../src/open.js';
import { type Cli, cli, layout } from './support.js';

const ONE = 'example.com/one:1';
const TWO = 'example.com/two:1';

interface Stats {
  removed: Record<string, number>;
  bytesFreed: number;
  limited: boolean;
}
interface Plan {
  revision: number;
  objects: { kind: string; key: string }[];
}
interface Outcome {
  removed: unknown[];
  rest: { key: string; reason: string }[];
}

const blobs = async (run: Cli): Promise<number> => (await run.json<unknown[]>('content', 'ls')).length;

describe('gc on the command line', () => {
  test('given garbage, when planned and applied, then exactly what is garbage still goes', async (t) => {
    const run = await cli(t);
    const { path, manifest } = await layout(t);
    const file = join(run.root, '..', 'plan.json');
    await run.ok('import', path);
    await run.ok('images', 'rm', ONE, TWO);
    const printed = await run.ok('gc', '--plan', file);
    assert.match(
      printed,
      /plan.json: 7 objects, .* nothing was removed\nthe whole store: 0 B kept, .* garbage\n/,
    );
    assert.match(
      printed,
      /\nreclaimable .*\noldest garbage +20\d\d-.* content sha256:.* in test\noldest lease +none\n/,
    );
    const plan = JSON.parse(await readFile(file, 'utf8')) as Plan;
    assert.deepEqual([plan.objects.length, await blobs(run)], [7, 7]);
    await run.ok('leases', 'create', 'keep');
    await run.ok('leases', 'add', 'keep', 'content', manifest);
    const { removed, rest } = await run.json<Outcome>('gc', '--apply', file);
    // The manifest keeps its config and two layers; the other image's manifest, config and layer go.
    assert.equal(removed.length, 3);
    assert.deepEqual(
      rest.map(({ reason }) => reason),
      ['in use', 'in use', 'in use', 'in use'],
    );
    assert.ok(rest.some(({ key }) => key === manifest));
    assert.equal(await blobs(run), 4);
    assert.match(await run.ok('gc', '--apply', file), /removed +nothing of the plan's 7 objects\n/);
    await run.ok('leases', 'rm', 'keep');
    assert.equal((await run.json<Stats>('gc')).removed.content, 4);
    await writeFile(file, 'no plan');
    await run.fails(2, /is not JSON/, 'gc', '--apply', file);
    await writeFile(file, '{}');
    await run.fails(2, /not a plan of a collection/, 'gc', '--apply', file);
    await run.fails(3, /no such file/, 'gc', '--apply', `${file}.gone`);
    await run.fails(2, /cannot be used with option/, 'gc', '--apply', file, '--dry-run');
  });

  test('given limits, when collected, then a run removes so much and says that there is more', async (t) => {
    const run = await cli(t);
    const { path } = await layout(t);
    await run.ok('import', path);
    await run.ok('images', 'rm', ONE, TWO);
    assert.match(
      await run.ok('gc', '--max-objects', '2', '--slice-ms', '1'),
      /limited +there is more garbage/,
    );
    assert.equal(await blobs(run), 5);
    const one = await run.json<Stats>('gc', '--max-bytes', '1');
    assert.deepEqual([one.removed.content, one.limited], [1, true]);
    await run.fails(2, /must be a size/, 'gc', '--max-bytes', 'much');
    const rest = await run.json<Stats>('gc', '--full', '--max-bytes', '1G');
    assert.deepEqual([rest.removed.content, rest.limited], [4, false]);
  });

  test('given that nearly everything would go, when collected, then it must be confirmed', async (t) => {
    const run = await cli(t);
    await run.ok('synth', '--records', '2k', '--garbage', '1', '--leases', '0', '--ingests', '0');
    await run.fails(5, /(would remove \d+ of \d+|no root left)[\s\S]*--allow-mass-removal/, 'gc');
    const dry = await run.json<{ wouldRemove: unknown[] }>('gc', '--dry-run');
    assert.ok(dry.wouldRemove.length > 1000);
    const { removed } = await run.json<Stats>('gc', '--allow-mass-removal');
    assert.equal((removed.content ?? 0) + (removed.snapshot ?? 0), dry.wouldRemove.length);
  });
});

describe('gc on a store whose metadata was lost', () => {
  interface Dry {
    wouldRemove: { kind: string; key: string; size: number; orphan?: boolean }[];
    walked: string[];
  }
  const lost = /knows nothing of items in its backends.*"backends":\["content","native"\]/;

  async function emptied(t: TestContext): Promise<Cli> {
    const run = await cli(t);
    const { path } = await layout(t);
    await run.ok('import', path, '--unpack', 'native');
    await rm(roots.database(run.root), { recursive: true });
    await run.fails(3, /no store at .*metadata is lost or not mounted/, 'gc', '--full');
    assert.equal((await run.run('init')).code, 0);
    return run;
  }

  test('given an empty tree beside content, when collected in full, then it is listed, and goes with consent only', async (t) => {
    const run = await emptied(t);
    await run.fails(
      5,
      /7 blobs of 7 items in "content".*3 snapshots[\s\S]*--allow-mass-removal/,
      'gc',
      '--full',
    );
    const text = await run.run('gc', '--dry-run');
    assert.match(text.stderr, lost);
    assert.match(text.stdout, /backends were not surveyed for orphans; --full does that/);
    const full = await run.run('gc', '--dry-run', '--full');
    assert.match(full.stdout, /content +\(no record\) +sha256:/);
    assert.match(full.stdout, /10 objects, 10 of them without a record, .*; nothing was removed\n/);
    const { wouldRemove, walked } = JSON.parse(
      (await run.run('gc', '--dry-run', '--full', '--json')).stdout,
    ) as Dry;
    assert.deepEqual(walked, ['content', 'native', 'overlayfs']);
    assert.ok(wouldRemove.every(({ orphan, size }) => orphan && size > 0));
    assert.match(
      (await run.run('doctor', '--check')).stdout,
      /orphans +the store was empty when it was opened/,
    );

    const file = join(run.root, '..', 'plan.json');
    assert.match((await run.run('gc', '--full', '--plan', file)).stdout, /plan.json: 10 objects/);
    const plan = JSON.parse(await readFile(file, 'utf8')) as Plan;
    plan.objects.splice(0, 2);
    await writeFile(file, JSON.stringify(plan));
    const applied = JSON.parse((await run.run('gc', '--apply', file, '--json')).stdout) as Outcome;
    assert.deepEqual([applied.removed.length, applied.rest], [8, []]);

    const { stdout, code } = await run.run('gc', '--full', '--allow-mass-removal');
    assert.equal(code, 0);
    assert.match(stdout, /orphans +2 content without a record/);
    assert.match(await run.ok('gc', '--dry-run', '--full'), /0 objects/);
  });

  test('given a daemon on it, when it is asked to collect, then the same guard stops it, and metrics and doctor say why', async (t) => {
    const run = await emptied(t);
    const server = run.start('serve', '--metrics', '127.0.0.1:0', '--gc', 'on-request');
    t.after(() => server.child.kill('SIGKILL'));
    let metrics: string | undefined;
    while (metrics === undefined) {
      assert.equal(server.child.exitCode, null, server.stderr());
      await new Promise((resolve) => setTimeout(resolve, 50));
      metrics = /"metrics":"([^"]+)"/.exec(server.stderr())?.[1];
    }
    assert.match(server.stderr(), /"level":(40|"warn").*knows nothing of items/);
    await run.fails(5, /7 blobs of 7 items[\s\S]*--allow-mass-removal/, 'gc', '--full');
    assert.equal((await run.json<Dry>('gc', '--dry-run', '--full')).wouldRemove.length, 10);
    const page = async (): Promise<string> => (await fetch(`http://${metrics}/metrics`)).text();
    // As `du` prints it.
    const { disk } = await run.json<{
      disk: { lines: Record<string, number>; fileSystem: { size: number } };
    }>('du');
    let measured = await page();
    while (!measured.includes('ebbtide_disk_bytes{')) measured = await page();
    for (const part of ['kept', 'garbage', 'orphans', 'unfinished', 'trash', 'damaged'])
      assert.ok(measured.includes(`\nebbtide_disk_bytes{part="${part}"} ${disk.lines[part]}\n`), part);
    assert.ok(measured.includes(`\nebbtide_reclaimable_bytes ${disk.lines.orphans}\n`));
    assert.ok(measured.includes(`\nebbtide_file_system_bytes{state="size"} ${disk.fileSystem.size}\n`));
    assert.doesNotMatch(measured, /^ebbtide_oldest_(garbage|lease)_timestamp_seconds /m);
    assert.match(await page(), /\nebbtide_orphans_kept 10\n[\s\S]*\nebbtide_store_began_empty 1\n/);
    assert.match(await run.ok('doctor', '--check'), /orphans +the store was empty/);
    await run.ok('gc', '--full', '--allow-mass-removal');
    assert.match(await page(), /\nebbtide_store_began_empty 0\n/);
    server.child.kill('SIGTERM');
    await server.ended;
  });
});

describe('why and du on the command line', () => {
  test('given unpacked images, when asked why, then people and programs get the way from a root', async (t) => {
    const run = await cli(t);
    const { path, base, manifest } = await layout(t);
    await run.ok('import', path, '--unpack', 'native');
    await run.ok('leases', 'create', 'ci', '--expires', '24h', '--label', 'owner=ci');
    await run.ok('leases', 'add', 'ci', 'content', base);
    const text = await run.ok('why', base.slice(7, 19));
    assert.match(
      text,
      new RegExp(`^content ${base} is kept\n\n  lease ci  a root  created 20.*  expires 20`),
    );
    assert.match(text, /owner=ci\n {4}content sha256:[0-9a-f]{64} {2}kept by the lease\n$/);
    interface WhyJson {
      state: string;
      paths: { kind: string; key: string; via: string; name: string }[][];
    }
    const all = await run.json<WhyJson>('why', base, '--all');
    assert.deepEqual(
      all.paths.map((steps) => steps[0]?.key),
      ['ci', ONE, TWO],
    );
    assert.deepEqual(
      all.paths[1]?.map(({ via, name }) => `${via} ${name}`),
      ['root ', 'field target', 'label containerd.io/gc.ref.content.l.0'],
    );
    await run.ok('images', 'rm', ONE);
    const garbage = await run.ok('why', manifest, '--kind', 'content');
    assert.match(
      garbage,
      /is garbage\n {2}since +20.* at the earliest \(its record last changed\)\n {2}goes +with the next/,
    );
    await run.fails(3, /no object "nothing"/, 'why', 'nothing');
    await run.fails(2, /Allowed choices/, 'why', base, '--kind', 'tree');
  });

  test('given images over one base, when usage is asked for, then a removal frees what it says', async (t) => {
    const run = await cli(t);
    const { path } = await layout(t);
    await run.ok('import', path);
    interface Usage {
      kept: number;
      garbage: number;
      rows: { name: string; total: number; shared: number; retained: number }[];
    }
    const before = await run.json<Usage>('du');
    const one = before.rows.find(({ name }) => name === ONE)!;
    assert.ok(one.shared > 0 && one.retained > 0 && one.total === one.shared + one.retained);
    await run.ok('images', 'rm', ONE);
    const between = await run.json<Usage>('du');
    assert.equal(between.garbage, one.retained);
    await run.ok('gc');
    const after = await run.json<Usage>('du', '--by', 'image', '-A');
    assert.deepEqual([after.kept, after.garbage], [before.kept - one.retained, 0]);
    for (const by of ['namespace', 'snapshotter', 'lease']) {
      assert.match(await run.ok('du', '--by', by), new RegExp(`^${by.toUpperCase()} .*RETAINED\n`));
    }
    assert.match(
      (await run.run('du', '--by', 'image', '--no-disk', '--namespace', 'other')).stdout,
      /^IMAGE[^\n]*\nthe whole store: .* kept, 0 B garbage\n$/,
    );
    await run.fails(2, /Allowed choices/, 'du', '--by', 'owner');
  });
});
