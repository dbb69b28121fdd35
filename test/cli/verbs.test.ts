import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Label } from '../../src/model/labels.js';
import { cli, layout } from './support.js';

const ONE = 'example.com/one:1';
const TWO = 'example.com/two:1';

interface ImageRow {
  name: string;
  chainId?: string;
  target: { digest: string };
  labels: Record<string, string>;
}

describe('the command', () => {
  test('given a layout, when images are imported, shown, tagged, labelled, exported and removed, then each verb works', async (t) => {
    const run = await cli(t);
    const { path, manifest } = await layout(t);
    const imported = await run.json<ImageRow[]>('import', path, '--unpack', 'native');
    assert.deepEqual(
      imported.map(({ name, target }) => [name, target.digest.slice(0, 7)]),
      [
        [ONE, 'sha256:'],
        [TWO, 'sha256:'],
      ],
    );
    assert.match(imported[0]!.chainId ?? '', /^sha256:[0-9a-f]{64}$/);
    assert.match(await run.ok('images', 'ls'), /^NAME +DIGEST[^\n]*\nexample.com\/one:1 +sha256:/);
    assert.match(await run.ok('images', 'show', ONE), new RegExp(`digest +${manifest}`));
    assert.equal(await run.ok('images', 'tag', ONE, 'mine'), 'mine\n');
    await run.fails(4, /already exists/, 'images', 'tag', TWO, 'mine');
    assert.equal(await run.ok('images', 'tag', TWO, 'mine', '--force'), 'mine\n');
    const labelled = await run.json<ImageRow>('images', 'label', 'mine', 'colour=blue', 'size=');
    assert.deepEqual(labelled.labels, { colour: 'blue' });
    assert.deepEqual(
      (await run.json<ImageRow[]>('images', 'ls', 'labels.colour==blue')).map(({ name }) => name),
      ['mine'],
    );
    const target = join(run.root, '..', 'out');
    const exported = await run.json<{ blobs: number }>('export', ONE, '-o', target);
    assert.equal(exported.blobs, 4);
    assert.match(await readFile(join(target, 'index.json'), 'utf8'), new RegExp(manifest));
    assert.deepEqual(await run.json('images', 'rm', 'mine', TWO, '--sync'), { removed: ['mine', TWO] });
    await run.fails(3, /"?mine"? not found/, 'images', 'show', 'mine');
  });

  test('given blobs, when listed, shown, read and removed, then each verb works', async (t) => {
    const run = await cli(t);
    const { path, manifest, base } = await layout(t);
    await run.ok('import', path);
    const rows = await run.json<{ digest: string; size: number }[]>('content', 'ls');
    assert.equal(rows.length, 7);
    assert.equal((await run.json<unknown[]>('content', 'ls', `digest==${base}`)).length, 1);
    assert.deepEqual(await run.json('content', 'ls', '--ingests'), []);
    assert.match(await run.ok('content', 'info', manifest), /size +\d+ bytes/);
    const blob = JSON.parse(await run.ok('content', 'cat', manifest)) as { schemaVersion: number };
    assert.equal(blob.schemaVersion, 2);
    assert.equal(await run.ok('content', 'rm', base), `${base}\n`);
    await run.fails(3, /not found/, 'content', 'cat', base);
    await run.fails(2, /digest/, 'content', 'info', 'sha256:xyz');
  });

  test('given snapshots and containers, when made and removed, then each verb works', async (t) => {
    const run = await cli(t);
    const { path } = await layout(t);
    assert.match(await run.ok('snapshots', 'prepare', 'work'), /^mount -t bind .* <target> -o rbind,rw\n$/);
    assert.match(await run.ok('snapshots', 'mounts', 'work', '/mnt'), / \/mnt -o /);
    assert.equal(await run.ok('snapshots', 'commit', 'done', 'work', '--label', 'a=b'), 'done\n');
    assert.match(await run.ok('snapshots', 'view', 'look', 'done'), /-o rbind,ro\n/);
    interface Info {
      key: string;
      kind: string;
      parent: string;
      labels: Record<string, string>;
    }
    const infos = await run.json<Info[]>('snapshots', 'ls');
    assert.deepEqual(
      infos.map(({ key, kind, parent, labels: { [Label.gcCondUsedat]: used, ...labels } }) => [
        ...[key, kind, parent, labels, used !== undefined],
      ]),
      [
        ['done', 'committed', '', { a: 'b' }, true],
        ['look', 'view', 'done', {}, false],
      ],
    );
    assert.match(await run.ok('snapshots', 'info', 'done'), /usage +[\d.]+ KiB in \d+ inodes/);
    await run.fails(5, /child/, 'snapshots', 'rm', 'done');
    assert.equal(await run.ok('snapshots', 'rm', 'look', 'done'), 'look\ndone\n');
    await run.fails(3, /no snapshotter "tape"/, 'snapshots', 'ls', '-s', 'tape');

    await run.ok('import', path);
    assert.equal(
      await run.ok('containers', 'create', 'web', '--image', ONE, '--label', 'tier=front'),
      'web\n',
    );
    const [web] = await run.json<{ id: string; snapshotter: string; snapshotKey: string }[]>(
      'containers',
      'ls',
    );
    assert.deepEqual([web?.id, web?.snapshotter, web?.snapshotKey], ['web', 'native', 'web']);
    await run.fails(4, /already exists/, 'containers', 'create', 'web');
    assert.deepEqual(await run.json('containers', 'rm', 'web'), { removed: ['web'] });
  });

  test('given leases and namespaces, when made and removed, then each verb works', async (t) => {
    const run = await cli(t);
    const { path, base } = await layout(t);
    await run.ok('import', path);
    assert.equal(
      await run.ok('leases', 'create', 'keep', '--expires', '24h', '--flat', '--label', 'a=b'),
      'keep\n',
    );
    await run.fails(2, /is not a valid duration/, 'leases', 'create', '--expires', 'soon');
    assert.equal(await run.ok('leases', 'add', 'keep', 'content', base), `keep content ${base}\n`);
    const [lease] = await run.json<{ id: string; resources: unknown[] }[]>('leases', 'ls', 'id==keep');
    assert.deepEqual([lease?.id, lease?.resources], ['keep', [{ id: base, type: 'content' }]]);
    assert.equal(await run.ok('leases', 'rm', 'keep', '--sync'), 'keep\n');

    assert.equal(await run.ok('namespaces', 'create', 'other', '--label', 'x=1'), 'other\n');
    assert.equal(await run.ok('namespaces', 'label', 'other', 'x=', 'y=2'), 'y=2\n');
    assert.deepEqual(await run.json('namespaces', 'ls'), [
      { name: 'other', labels: { y: '2' } },
      { name: 'test', labels: {} },
    ]);
    assert.equal(
      await run.ok('images', 'ls', '--namespace', 'other'),
      'NAME  DIGEST  SIZE  TYPE  UPDATED  LABELS\n',
    );
    await run.fails(5, /must be empty/, 'namespaces', 'rm', 'test');
    assert.equal(await run.ok('namespaces', 'rm', 'other'), 'other\n');
  });

  test('given any store, when the doctor is asked, then it names the core, and checks what is there', async (t) => {
    const run = await cli(t);
    interface Report {
      core: { inUse: string };
      paths: { root: string };
      store?: { state: string };
    }
    const report = await run.json<Report>('doctor', '--check');
    assert.match(report.core.inUse, /^(native|wasm)$/);
    assert.equal(report.paths.root, run.root);
    assert.equal(report.store?.state, 'sound');
    await run.ok('namespaces', 'create', 'a');
    assert.match(await run.ok('doctor', '--check'), /state +sound\n/);
  });

  test('given a size, when a store is made up, then a dry run finds its garbage and a run removes it', async (t) => {
    const run = await cli(t);
    const made = await run.json<{ records: number; garbage: Record<string, number> }>(
      'synth',
      '--records',
      '1k',
      '--seed',
      'cli',
    );
    assert.ok(made.records > 900 && made.records < 1100, `${made.records}`);
    const dry = await run.json<{ wouldRemove: unknown[] }>('gc', '--dry-run');
    const garbage = Object.values(made.garbage).reduce((sum, n) => sum + n, 0);
    assert.equal(dry.wouldRemove.length, garbage);
    const { removed } = await run.json<{ removed: Record<string, number> }>('gc');
    assert.equal(
      Object.values(removed).reduce((sum, n) => sum + n, 0),
      garbage,
    );
    await run.fails(2, /must be a number/, 'synth', '--records', 'many');
  });

  test('given a layout, when the demo runs, then it ends where it began', async (t) => {
    const run = await cli(t);
    const { path } = await layout(t);
    assert.match(await run.ok('demo', path, '-s', 'native'), /the disk is back to where it was/);
  });
});

describe('usage and errors', () => {
  test('given wrong arguments, when run, then the exit code is 2 and nothing is made', async (t) => {
    const run = await cli(t);
    await run.fails(2, /unknown command 'fly'/, 'fly');
    await run.fails(2, /missing required argument/, 'import');
    await run.fails(2, /unknown option '--speed'/, 'gc', '--speed');
    await run.fails(2, /a label is key=value/, 'images', 'label', 'x', 'nothing');
    await run.fails(2, /needs a destination/, 'export', 'x');
    assert.match((await run.run('doctor')).stdout, /free disk/);
  });

  test('given help or version, when asked, then it is printed with exit code 0', async (t) => {
    const run = await cli(t);
    const help = await run.run('--help');
    assert.equal(help.code, 0);
    for (const verb of [
      'doctor',
      'demo',
      'import',
      'export',
      'images',
      'content',
      'snapshots',
      'containers',
    ]) {
      assert.match(help.stdout, new RegExp(`^  ${verb}`, 'm'));
    }
    for (const verb of ['leases', 'namespaces', 'gc', 'why', 'du', 'synth']) {
      assert.match(help.stdout, new RegExp(`^  ${verb}`, 'm'));
    }
    assert.match((await run.run('--version')).stdout, /^\d+\.\d+\.\d+\n$/);
  });

  test('given a source that is not there or no image, when imported, then kind and code say so', async (t) => {
    const run = await cli(t);
    await run.fails(3, /no such file/, 'import', join(run.root, 'nothing'));
    await run.fails(2, /no image archive|not an? |damaged/, 'import', import.meta.filename);
  });
});
