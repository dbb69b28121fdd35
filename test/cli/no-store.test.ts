import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { cliWithoutStore, layout } from './support.js';

/** Of those that make no store, of each room some; cli/matrix has every verb. */
const VERBS: readonly string[][] = [
  ['images', 'ls'],
  ['content', 'cat', `sha256:${'a'.repeat(64)}`],
  ['snapshots', 'prepare', 'a'],
  ['leases', 'create', 'a'],
  ['gc'],
  ['export', 'a', '-o', 'out'],
];

describe('a root without a store', () => {
  test('given a path that is not there, when a verb runs that makes no store, then "no store at", 3, and nothing is made', async (t) => {
    const run = await cliWithoutStore(t);
    for (const args of VERBS) await run.fails(3, new RegExp(`no store at ${run.root}.*(NotFound)`), ...args);
    const { code, stdout, stderr } = await run.run('doctor', '--check');
    assert.equal(code, 3);
    assert.match(stdout, /state +absent/);
    assert.match(stderr, /no store at/);
    assert.deepEqual(readdirSync(join(run.root, '..')), []);
  });

  test('given a directory with other things, when a verb reads, then it stays as it is', async (t) => {
    const run = await cliWithoutStore(t);
    const database = join(run.root, 'io.containerd.metadata.v1.ebbtide');
    mkdirSync(database, { recursive: true });
    await run.fails(3, /no store at/, 'images', 'ls');
    assert.deepEqual(readdirSync(run.root), ['io.containerd.metadata.v1.ebbtide']);
    assert.deepEqual(readdirSync(database), []);
  });

  test('given a root that cannot be, when verbs run, then an error at once', async (t) => {
    const run = await cliWithoutStore(t);
    const { path } = await layout(t);
    await run.fails(3, /no store at \/proc\/nope/, '--root', '/proc/nope', 'images', 'ls');
    await run.fails(
      3,
      /cannot make the root directory \/proc\/nope\/a/,
      '--root',
      '/proc/nope/a',
      'import',
      path,
    );
    await run.fails(5, /cannot make the root/, '--root', '/sys/nope', 'init');
    await run.fails(3, /\/proc\/nope/, '--root', run.root, 'serve', '--address', '/proc/nope/run/a.sock');
    const doctor = await run.run('--root', '/proc/nope', 'doctor');
    assert.equal(doctor.code, 0, doctor.stderr);
    rmSync(run.root, { recursive: true });
    symlinkSync('not-mounted/here', run.root);
    for (const args of [
      ['images', 'ls'],
      ['import', path],
      ['--root', join(run.root, 'below'), 'init'],
    ])
      await run.fails(5, /leads to not-mounted\/here, which is not there .*\n +mount the disk/, ...args);
    rmSync(run.root);
    writeFileSync(run.root, 'a file');
    for (const args of [['images', 'ls'], ['import', path], ['init']]) {
      await run.fails(5, /is not a directory/, ...args);
      await run.fails(5, /is not a directory/, '--root', join(run.root, 'below'), ...args);
    }
    const file = await run.run('doctor', '--check');
    assert.equal(file.code, 5);
    assert.doesNotMatch(file.stdout, /ENOTDIR/);
    assert.match(file.stdout, /state +unusable/);
    assert.match(file.stderr, /is not a directory/);
  });

  test('given wrong arguments of an import, when it runs, then nothing is made and the names there are are listed', async (t) => {
    const run = await cliWithoutStore(t);
    const { path } = await layout(t);
    await run.fails(
      3,
      /there is no snapshotter "zfs".*\n +there are: native, overlayfs/,
      'import',
      path,
      '--unpack',
      'zfs',
    );
    await run.fails(3, /cannot read .*nosuch/, 'import', `${path}/nosuch`);
    await run.fails(2, /platform/, 'import', path, '--unpack', 'native', '--platform', '//');
    assert.deepEqual(readdirSync(join(run.root, '..')), []);
    await run.run('init');
    await run.fails(3, /there is no snapshotter "zfs"/, 'import', path, '--unpack', 'zfs');
    await run.fails(
      3,
      /there is no snapshotter "zfs"/,
      'containers',
      'create',
      'a',
      '-s',
      'zfs',
      '--image',
      'b',
    );
    await run.fails(3, /there is no snapshotter "zfs"/, 'snapshots', 'ls', '-s', 'zfs');
    assert.deepEqual(await run.json('content', 'ls'), []);
  });

  test('given init, import and synth, when there is no store, then they make one and say so; again they do not', async (t) => {
    const run = await cliWithoutStore(t);
    const { path } = await layout(t);
    for (const [n, args] of [['init'], ['import', path], ['synth', '--records', '100']].entries()) {
      const root = join(run.root, `${n}`);
      const first = await run.run('--root', root, ...args);
      assert.deepEqual([first.code, first.stderr], [0, `ebbtide: created a store at ${root}\n`]);
      await run.ok('--root', root, 'images', 'ls', '-n', n === 2 ? 'k8s.io' : 'test');
    }
    await run.ok('--root', join(run.root, '0'), 'init');
  });

  test('given a namespace that is not there, when verbs read, then a line names those that are', async (t) => {
    const run = await cliWithoutStore(t);
    await run.run('init');
    await run.ok('images', 'ls');
    await run.ok('leases', 'create', 'a');
    const hint = /^ebbtide: there is no namespace "typo" yet; there are: test \(-n chooses\)$/m;
    for (const args of [['images', 'ls'], ['du'], ['leases', 'ls'], ['images', 'show', 'x'], ['why', 'x']]) {
      const { stderr } = await run.run('-n', 'typo', ...args);
      assert.match(stderr, hint, args.join(' '));
    }
    for (const args of [['gc'], ['namespaces', 'ls'], ['du', '-A'], ['leases', 'create', 'b']]) {
      await run.ok('-n', 'typo2', ...args);
    }
  });
});
