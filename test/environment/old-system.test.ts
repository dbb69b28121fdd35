/** Systems that lack what newer ones have: system calls that a filter refuses, types of directory entries, directories that can be flushed. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Cli } from '../cli/support.js';
import { Blobs, named, tarOfFiles } from '../images/fixtures.js';
import { tempDir } from '../support/temp.js';
import { buildFaults } from './faults.js';

/** A command on such a system, after it has unpacked an image of two layers. */
async function oldSystem(t: TestContext, what: string): Promise<Cli | undefined> {
  const dir = await tempDir(t);
  const library = buildFaults(dir, 'old-system');
  if ('missing' in library) {
    t.skip(library.missing);
    return undefined;
  }
  const blobs = new Blobs();
  const { manifest } = await blobs.image([[{ name: 'a', text: 'a' }], [{ name: 'b', text: 'b' }]]);
  const archive = join(dir, 'image.tar');
  writeFileSync(archive, await tarOfFiles(blobs.layout([named(manifest, 'example.com/one:1')])));
  const cli = new Cli(join(dir, 'root'), { LD_PRELOAD: library.path, [what]: '1' });
  const { code, stderr } = await cli.run('import', archive, '--unpack', 'native');
  assert.equal(code, 0, stderr);
  return cli;
}

test('given a filter that refuses the calls it does not know, when layers are unpacked and checked, then they are whole', async (t) => {
  const cli = await oldSystem(t, 'EBBTIDE_TEST_OLD_FILTER');
  if (cli === undefined) return;
  assert.match(await cli.ok('check', '--hash'), /2 snapshots\n.*\nsound/);
});

test('given a file system without types of entries, when a store is made there, then it has the native snapshotter', async (t) => {
  const cli = await oldSystem(t, 'EBBTIDE_TEST_NO_TYPES');
  if (cli === undefined) return;
  const { code, stderr } = await cli.run('snapshots', 'ls', '-s', 'overlayfs');
  assert.equal(code, 3, stderr);
});

test('given a file system that flushes no directory, when a store is made there, used and copied, then it has no objection', async (t) => {
  const cli = await oldSystem(t, 'EBBTIDE_TEST_NO_NAMES');
  if (cli === undefined) return;
  await cli.ok('compact');
  await cli.ok('backup', `${cli.root}-copy`);
  assert.match(await cli.ok('check', '--hash'), /2 snapshots\n.*\nsound/);
});
