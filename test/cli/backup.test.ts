/** `ebbtide backup`, `restore` and `compact`, on the store itself and through a daemon. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import type { BackupReport } from '../../src/backup/backup.js';
import { storeIn } from '../../src/backup/manifest.js';
import { layout as paths } from '../../src/open.js';
import { Cli, cli, layout, serve } from './support.js';

test('given a store, when it is backed up, itself and through a daemon, then restore makes one with the same images', async (t) => {
  const run = await cli(t);
  const { path, base } = await layout(t);
  await run.ok('import', path, '--unpack', 'native');
  const place = dirname(run.root);
  const monday = join(place, 'monday');
  const text = await run.ok('backup', monday);
  assert.match(
    text,
    /^.*monday: the store as of 20\d\d-.*Z\nblobs +7, .* KiB\nsnapshots +3 with 5 files\ncopied /,
  );
  await serve(t, run);
  const tuesday = join(place, 'tuesday');
  const report = await run.json<BackupReport>('backup', tuesday, '--base', monday);
  assert.deepEqual([report.blobs, report.linked, report.copiedBytes, report.problems], [7, 12, 0, 0]);
  await run.fails(4, /is there already/, 'backup', tuesday);
  await run.fails(2, /inside of what is backed up/, 'backup', join(run.root, 'inside'));
  await run.fails(6, /a daemon has the store .* open \(Unavailable\)\n {2}stop the daemon/, 'compact');

  const other = new Cli(join(place, 'other'));
  assert.match(await other.ok('restore', tuesday, '--hash'), /other: the store as of /);
  assert.match(await other.ok('check', '--hash'), /\nsound\n$/);
  assert.deepEqual(await other.json('images', 'ls'), await run.json('images', 'ls'));
  await other.fails(4, /is not empty/, 'restore', tuesday);
  await new Cli(join(place, 'none')).fails(3, /is not a backup/, 'restore', path);
  assert.equal(existsSync(join(place, 'none')), false);

  await rm(join(paths.content(storeIn(monday)), 'blobs', 'sha256', base.slice(7)));
  const late = new Cli(join(place, 'late'));
  await late.fails(5, /1 objects of the backup .* are damaged/, 'restore', monday);
  const { code, stdout } = await late.run('restore', monday, '--damaged');
  assert.equal(code, 5, 'there is something missing');
  assert.match(stdout, new RegExp(`missing +1\n {2}blob {2}${base} {2}no file of`));
});

test('given a store, when it is compacted, then sizes are printed; where there is none, nothing is made', async (t) => {
  const run = await cli(t);
  assert.match(
    await run.ok('compact'),
    /^before +[\d.]+ KiB\nafter +[\d.]+ KiB, and .* kept for a full disk\n$/,
  );
  const { beforeBytes: before, afterBytes: after } = await run.json<{
    beforeBytes: number;
    afterBytes: number;
  }>('compact');
  assert.ok(after <= before);
  const none = new Cli(join(dirname(run.root), `no-${basename(run.root)}`));
  await none.fails(3, /no store at/, 'compact');
  await none.fails(3, /no store at/, 'backup', join(dirname(run.root), 'backup'));
  assert.equal(existsSync(none.root), false);
});
