/**
 * A file system that writes to other blocks than those that a file has (btrfs), full or with a quota that is used up: then not even
 * what has blocks can be written again, unless the file is made for that. Node has no name for the error of a quota.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EbbtideError, isKind } from '../../src/errors.js';
import { errnoName } from '../../src/system/errno-names.js';
import { errnoOf, fsError, meant, messageOf } from '../../src/system/system-errors.js';
import { Cli, layout } from '../cli/support.js';
import { smallDisk } from './small-disk.js';
import { serving, works } from './verbs.js';

test('given a disk that fills up under a daemon, then it goes on; reads, removals and collections work, after a kill too', async (t) => {
  const disk = await smallDisk(t, 'btrfs', 'bytes');
  if (disk === undefined) return;
  const cli = await new Cli(join(disk.path, 'store')).init();
  const images = await layout(t);
  await works(cli, 'import', '--unpack', 'native', images.path);
  const daemon = await serving(cli);
  try {
    const before = JSON.parse(await works(cli, 'images', 'ls', '--json')) as { name: string }[];
    const [first, second] = before.map(({ name }) => name);
    disk.fill();
    // What was written before is on disk now: LMDB's locks would be written again.
    execFileSync('sync', ['-f', disk.path]);
    assert.deepEqual(JSON.parse(await works(cli, 'images', 'ls', '--json')), before);
    await works(cli, 'images', 'rm', first!);
    const stats = JSON.parse(await works(cli, 'gc', '--json')) as { removed: Record<string, number> };
    assert.ok((stats.removed.content ?? 0) > 0 && (stats.removed.snapshot ?? 0) > 0);
    disk.fill();
    daemon.child.kill('SIGKILL');
    await daemon.ended;
    for (let i = 0; i < 2; i++)
      assert.doesNotMatch(await works(cli, 'images', 'ls', '--json'), new RegExp(first!));
    await works(cli, 'images', 'rm', second!);
    await works(cli, 'gc');
    assert.equal((await works(cli, 'content', 'ls', '--json')).trim(), '[]');
    disk.free();
    await cli.ok('import', '--unpack', 'native', images.path);
    assert.match(await cli.ok('doctor', '--check'), /sound/);
  } finally {
    daemon.child.kill('SIGKILL');
  }
});

test('given a quota that is used up, then reads work, what is refused says so, and with a higher one all goes on', async (t) => {
  const disk = await smallDisk(t, 'btrfs', 'bytes');
  if (disk === undefined) return;
  const place = join(disk.path, 'limited');
  const limit = (size: string): void => {
    execFileSync('btrfs', ['qgroup', 'limit', size, place]);
  };
  execFileSync('btrfs', ['quota', 'enable', disk.path]);
  execFileSync('btrfs', ['subvolume', 'create', place], { stdio: 'ignore' });
  limit('30M');
  const cli = await new Cli(join(place, 'store')).init();
  const images = await layout(t);
  await cli.ok('import', images.path);
  const before = await cli.ok('images', 'ls', '--json');
  const ballast = join(place, 'ballast');
  const fd = openSync(ballast, 'w');
  assert.throws(
    () => {
      for (;;) writeSync(fd, Buffer.alloc(4096));
    },
    (error) => errnoOf(error) === 'EDQUOT',
  );
  closeSync(fd);

  for (let i = 0; i < 2; i++) assert.equal(await works(cli, 'images', 'ls', '--json'), before);
  await works(cli, 'du');
  for (const words of [
    ['import', '--unpack', 'native', images.path],
    ['leases', 'create', 'late'],
    ['leases', 'create', 'later'],
  ]) {
    const { code, signal, stderr } = await cli.run(...words);
    assert.deepEqual([code, signal], [6, null], stderr);
    assert.match(stderr, /quota.*\(Unavailable\)\n {2}raise the user's disk quota/);
    assert.doesNotMatch(stderr, /Unknown|suppressed|^ {4}at /m);
  }

  limit('60M');
  rmSync(ballast);
  assert.equal(await works(cli, 'images', 'ls', '--json'), before);
  await cli.ok('import', '--unpack', 'native', images.path);
  await cli.ok('gc');
  assert.match(await cli.ok('doctor', '--check'), /sound/);
});

test('given errors that Node has no name for, then they have one, a kind and a remedy', () => {
  for (const [errno, name, kind] of [
    [122, 'EDQUOT', 'Unavailable'],
    [116, 'ESTALE', 'Unavailable'],
    [117, 'EUCLEAN', 'Unavailable'],
    [74, 'EBADMSG', 'Unavailable'],
    [28, 'ENOSPC', 'Unavailable'],
  ] as const) {
    assert.equal(errnoName(errno), name);
    if (name === 'ENOSPC') continue;
    const unnamed = `Unknown system error -${errno}`;
    for (const [code, text] of [
      [unnamed, unnamed],
      ['UNKNOWN', 'unknown error'],
    ]) {
      const error = Object.assign(new Error(`${code}: ${text}, write`), { code, errno: -errno });
      assert.equal(errnoOf(error), name);
      assert.match(messageOf(error), new RegExp(`^${name}: [a-z ]+, write$`));
      for (const told of [
        fsError('write', '/a', error),
        meant(error),
        meant(new Error('', { cause: error })),
      ]) {
        assert.ok(isKind(told, kind));
        assert.ok(told instanceof EbbtideError && told.remedy !== undefined);
        assert.doesNotMatch(told.message, /unknown/i);
      }
    }
  }
  assert.equal(errnoName(4000), 'Unknown system error -4000');
  // As the name of an archive's entry may say it.
  for (const number of ['0', '4096', '99999999999999999999']) {
    const text = `cannot write Unknown system error -${number}`;
    assert.doesNotThrow(() => messageOf(new Error(text)));
    assert.match(messageOf(new Error(text)), /^cannot write Unknown system error -?\d/);
  }
});

test('given an error, and another on the way out, then the first is what is told', async () => {
  const run = async (): Promise<void> => {
    await using _ = {
      [Symbol.asyncDispose]: () => Promise.reject(new Error('the second')),
    };
    throw new EbbtideError('NotFound', 'the first');
  };
  await assert.rejects(run(), (error) => {
    assert.equal((meant(error) as Error).message, 'the first');
    return true;
  });
});
