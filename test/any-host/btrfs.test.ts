/**
 * A real containerd whose snapshotter is btrfs: its snapshots are subvolumes, one of which has the files of all below it, so their sizes
 * are those of its metadata, and nothing of it is taken for lost.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MAIN } from '../cli/support.js';
import { ensurePackages } from '../conformance/debian.js';
import { smallDisk } from '../environment/small-disk.js';
import { Blobs, named, tarOfFiles } from '../images/fixtures.js';

const skip =
  process.getuid?.() === 0 ? (ensurePackages(['containerd', 'btrfs-progs']) ?? false) : 'needs root';

const ONE = 'example.com/one:1';
const FILE_BYTES = 200_000;

interface Usage {
  rows: { name: string; total: number }[];
  disk: { total: number; lines: Record<string, number> };
}

test('given snapshots in subvolumes, then they count as what they are, and nothing as an orphan', {
  skip,
}, async (t) => {
  const disk = await smallDisk(t, 'btrfs', 'bytes');
  if (disk === undefined) return;
  const [root, state, address] = ['root', 'state', 'c.sock'].map((name) => join(disk.path, name)) as [
    string,
    string,
    string,
  ];
  for (const dir of [root, state]) mkdirSync(dir);
  const config = join(disk.path, 'config.toml');
  const cri = 'disabled_plugins = ["io.containerd.grpc.v1.cri"]';
  writeFileSync(
    config,
    `version = 2\nroot = "${root}"\nstate = "${state}"\n${cri}\n[grpc]\n  address = "${address}"\n`,
  );
  const server = spawn('containerd', ['-c', config], { stdio: 'ignore' });
  t.after(async () => {
    server.kill('SIGKILL');
    if (server.exitCode === null && server.signalCode === null) await once(server, 'exit');
  });
  while (!existsSync(address)) {
    assert.equal(server.exitCode, null, 'containerd has ended');
    await sleep(20);
  }
  const ok = (program: string, ...args: string[]): string => {
    const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    assert.equal(status, 0, `${program} ${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  const ctr = (...args: string[]): string => ok('ctr', '-a', address, ...args);
  const jsonOf = <T>(...args: string[]): T =>
    JSON.parse(ok(process.execPath, MAIN, '--containerd-root', root, ...args, '--json')) as T;

  const blobs = new Blobs();
  const text = 'x'.repeat(FILE_BYTES);
  const { manifest } = await blobs.image([[{ name: 'below', text }], [{ name: 'above', text }]]);
  const archive = join(disk.path, 'image.tar');
  writeFileSync(archive, await tarOfFiles(blobs.layout([named(manifest, ONE)])));
  ctr('images', 'import', '--snapshotter', 'btrfs', archive);
  // What only the import needed goes now, not some time after it.
  ctr('leases', 'create', '--id', 'sweep');
  ctr('leases', 'rm', '--sync', 'sweep');

  const { rows, disk: found } = jsonOf<Usage>('du');
  const total = rows.find(({ name }) => name === ONE)?.total ?? 0;
  assert.ok(total >= 2 * FILE_BYTES, `${total} bytes`);
  assert.equal(found.lines.orphans, 0);
  const sum = Object.values(found.lines).reduce((all, bytes) => all + bytes, 0);
  assert.equal(sum, found.total);
  assert.deepEqual(jsonOf<{ orphans: unknown[] }>('orphans', '--older-than', '0s').orphans, []);
});
