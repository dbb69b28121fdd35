/**
 * A disk with no byte, or no file, left: every verb, on ext4 and tmpfs, after a clean close, after a kill, several times in a
 * row. Reads, removals, collections and the daemon work; everything else is Unavailable, with a path and a remedy, and what
 * was acknowledged stays. Loop devices and mounts need root.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Cli, type Ended, layout, type Started } from '../cli/support.js';
import { tempDir } from '../support/temp.js';
import { smallDisk } from './small-disk.js';
import { serving, works } from './verbs.js';

async function kill(started: Started): Promise<Ended> {
  started.child.kill('SIGKILL');
  return started.ended;
}

async function refuses(cli: Cli, ...args: string[]): Promise<void> {
  const { code, stderr } = await cli.run(...args);
  assert.equal(code, 6, `ebbtide ${args.join(' ')}: exit code ${code}: ${stderr}`);
  assert.match(stderr, /\(Unavailable\)\n {2}\S/);
  assert.match(stderr, /\//);
}

const names = async (cli: Cli): Promise<string[]> =>
  (JSON.parse(await works(cli, 'images', 'ls', '--json')) as { name: string }[])
    .map(({ name }) => name)
    .sort();

for (const kind of ['ext4', 'tmpfs'] as const) {
  for (const what of ['bytes', 'inodes'] as const) {
    test(`given ${kind} with 0 ${what} free, then reads, removals, collections and the daemon work, and the rest is Unavailable`, async (t) => {
      const small = await smallDisk(t, kind, what);
      if (small === undefined) return;
      const cli = new Cli(join(small.path, 'store'));
      const images = await layout(t);
      const elsewhere = await tempDir(t);
      await works(cli, 'import', images.path);
      for (const name of ['a', 'b', 'c']) await works(cli, 'leases', 'create', name);
      for (const name of ['s1', 's2', 's3']) await works(cli, 'snapshots', 'prepare', name);
      // The daemon was there before the disk was full, as on any host.
      const first = await serving(cli);
      first.child.kill('SIGTERM');
      assert.equal((await first.ended).code, 0);
      const before = await names(cli);
      small.fill();

      await t.test('reads, several opens in a row', async () => {
        for (let i = 0; i < 3; i++) assert.deepEqual(await names(cli), before);
        for (const verb of ['leases', 'content', 'snapshots', 'containers', 'namespaces'])
          await works(cli, verb, 'ls');
        await works(cli, 'content', 'cat', images.manifest);
        await works(cli, 'du');
        await works(cli, 'why', images.base);
        await works(cli, 'doctor');
        await works(cli, 'gc', '--dry-run');
        await works(cli, 'export', before[0]!, '-o', join(elsewhere, 'verb.tar'));
      });
      await t.test('what needs room is refused', async () => {
        if (what === 'bytes') {
          await refuses(cli, 'images', 'tag', before[0]!, 'example.com/more:1');
          await refuses(cli, 'leases', 'create', 'late');
          await refuses(cli, 'leases', 'add', 'a', 'content', images.base);
        }
        await refuses(cli, 'snapshots', 'prepare', 'late');
        await refuses(cli, 'import', '--unpack', 'native', images.path);
        await refuses(cli, 'export', before[0]!, '-o', join(small.path, 'out'));
        await refuses(cli, 'export', before[0]!, '-o', join(small.path, 'out.tar'));
        await refuses(cli, 'gc', '--plan', join(small.path, 'plan.json'));
      });
      await t.test('kill -9 of a daemon, then reads again', async () => {
        const daemon = await serving(cli);
        assert.deepEqual(await names(cli), before);
        await works(cli, 'export', before[0]!, '-o', join(elsewhere, 'daemon.tar'));
        assert.deepEqual(
          await readFile(join(elsewhere, 'daemon.tar')),
          await readFile(join(elsewhere, 'verb.tar')),
        );
        await kill(daemon);
        small.fill();
        assert.deepEqual(await names(cli), before);
      });
      await t.test('removals of one-shot verbs', async () => {
        await works(cli, 'leases', 'rm', 'b');
        await works(cli, 'snapshots', 'rm', 's2');
        small.fill();
      });
      await t.test('removals and a collection through the daemon', async () => {
        const daemon = await serving(cli);
        await works(cli, 'leases', 'rm', 'a');
        await works(cli, 'snapshots', 'rm', 's1');
        await works(cli, 'images', 'rm', before[0]!);
        const stats = JSON.parse(await works(cli, 'gc', '--json')) as { removed: Record<string, number> };
        assert.ok((stats.removed.content ?? 0) > 0);
        await kill(daemon);
        small.fill();
      });
      await t.test('removals and a collection of one-shot collections, to the last', async () => {
        await works(cli, 'images', 'rm', before[1]!);
        small.fill();
        await works(cli, 'gc', '--full', '--allow-mass-removal');
        small.fill();
        await works(cli, 'gc');
        assert.deepEqual(await names(cli), []);
        assert.equal((await works(cli, 'content', 'ls', '--json')).trim(), '[]');
      });
      await t.test('with room again everything works, and the reserve is there again', async () => {
        small.free();
        await works(cli, 'import', images.path);
        assert.deepEqual(await names(cli), before);
        small.fill();
        await works(cli, 'images', 'rm', before[0]!);
        await works(cli, 'gc');
        small.free();
        await works(cli, 'doctor', '--check');
      });
    });
  }
}
