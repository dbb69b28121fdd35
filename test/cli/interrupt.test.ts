import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { open, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf } from '../../src/model/digest.js';
import { layout as paths } from '../../src/open.js';
import { tarOf } from '../archive/support.js';
import {
  Blobs,
  named,
  OCI_CONFIG,
  OCI_LAYER,
  OCI_MANIFEST,
  tarOfFiles,
  writeFiles,
} from '../images/fixtures.js';
import { tempDir } from '../support/temp.js';
import { type Cli, cli, type Ended, layout } from './support.js';

const NAME = 'example.com/big:1';
/** Bytes of the layer, and how many of them the first attempt gets. */
const LAYER = 4 << 20;
const SENT = 2 << 20;

/** Waits until `condition` is true; fails after a generous while. */
async function until(what: string, condition: () => Promise<boolean> | boolean): Promise<void> {
  // Often: what it waits for must still be under way.
  for (const end = Date.now() + 60_000; Date.now() < end; await sleep(2)) if (await condition()) return;
  assert.fail(`${what} did not happen`);
}

/** Bytes of unfinished ingests on the disk. */
async function ingested(root: string): Promise<number> {
  const dir = join(paths.content(root), 'ingest');
  const entries = await readdir(dir).catch(() => []);
  const sizes = await Promise.all(
    entries.map(async (entry) => (await stat(join(dir, entry, 'data')).catch(() => undefined))?.size ?? 0),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** An image with one large layer as a tar whose first member is that layer. */
async function archive(): Promise<{ tar: Buffer; layer: string }> {
  const blobs = new Blobs();
  const bytes = await tarOf([{ name: 'big', text: randomBytes(LAYER) }]);
  const layer = blobs.add(OCI_LAYER, bytes);
  const config = blobs.add(OCI_CONFIG, {
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [digestOf(bytes)] },
  });
  const manifest = blobs.add(OCI_MANIFEST, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config,
    layers: [layer],
  });
  const files = [...blobs.layout([named(manifest, NAME)])];
  const isLayer = (path: string): boolean => path.endsWith(layer.digest.slice(7));
  files.sort(([a], [b]) => Number(isLayer(b)) - Number(isLayer(a)));
  return { tar: await tarOfFiles(new Map(files)), layer: layer.digest };
}

interface Usage {
  rows: { kind: string; name: string; total: number }[];
  disk: { lines: Record<string, number> };
}

/** What is in the store and on its disk, but for the store's own files. */
async function held(run: Cli): Promise<unknown> {
  const { rows, disk } = await run.json<Usage>('du', '-A');
  const { store, ...lines } = disk.lines;
  return { rows, lines };
}

/** The command that an interrupted one has printed, which drops what it left. */
function dropOf({ root }: Cli, { code, signal, stdout, stderr }: Ended): { lease: string; words: string[] } {
  // By the signal itself where a read of the pipe cannot be ended.
  assert.ok(code === 130 || signal === 'SIGINT', stderr);
  assert.equal(stdout, '');
  const [, typed, lease] =
    /to drop what it has created: ebbtide (.*leases rm (\S+) --sync)\n/.exec(stderr) ?? [];
  assert.ok(typed && lease, stderr);
  assert.match(stderr, /context canceled \(Canceled\)/);
  assert.ok(!typed.includes(root), 'it is in the environment');
  return { lease, words: typed.split(' ') };
}

/** Large when unfolded: an unpacking of it takes a while. */
async function slowImage(t: TestContext): Promise<string> {
  const blobs = new Blobs();
  const zeros = Buffer.alloc(24 << 20);
  const layers = [
    [{ name: 'etc', text: 'e'.repeat(9000) }],
    ['a', 'b', 'c', 'd'].map((name) => ({ name, text: zeros })),
  ];
  const { manifest } = await blobs.image(layers);
  return writeFiles(await tempDir(t), blobs.layout([named(manifest, NAME)]));
}

const snapshotsIn = (root: string): Promise<string[]> =>
  readdir(join(paths.snapshotter(root, 'native'), 'snapshots')).catch(() => []);

describe('Ctrl-C', () => {
  test('given work under way, when interrupted, then the command it prints leaves the disk as it was before', async (t) => {
    const run = await cli(t);
    const { path } = await layout(t);
    await run.ok('import', path, '--unpack', 'native');
    await run.ok('gc');
    const before = await held(run);

    const fifo = join(run.root, '..', 'image.tar');
    assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
    const importing = run.start('import', fifo, '-n', 'other');
    t.after(() => importing.child.kill('SIGKILL'));
    const pipe = await open(fifo, 'r+');
    await pipe.write((await archive()).tar, 0, SENT);
    await until('the first part', async () => (await ingested(run.root)) > SENT / 2);
    importing.child.kill('SIGINT');
    await until('the response to the signal', () => importing.stderr().includes('stopping'));
    const imported = await importing.ended;
    await pipe.close();
    assert.match(imported.stderr, /ebbtide --namespace other leases rm /);
    const { lease } = dropOf(run, imported);
    assert.notDeepEqual(await held(run), before);
    await run.ok('-n', 'other', 'leases', 'rm', lease, '--sync');
    await run.ok('namespaces', 'rm', 'other');
    assert.deepEqual(await held(run), before);

    const slow = await slowImage(t);
    await run.ok('import', slow);
    const packed = await held(run);
    for (const verb of [
      ['import', slow, '--unpack', 'native'],
      ['containers', 'create', 'c', '--image', NAME],
    ]) {
      const count = (await snapshotsIn(run.root)).length;
      const unpacking = run.start(...verb);
      t.after(() => unpacking.child.kill('SIGKILL'));
      await until('the second layer', async () => (await snapshotsIn(run.root)).length >= count + 2);
      unpacking.child.kill('SIGINT');
      const { words } = dropOf(run, await unpacking.ended);
      assert.notDeepEqual(await held(run), packed, 'a lease keeps the first layer');
      await run.ok(...words);
      assert.deepEqual(await held(run), packed);
    }

    // Nothing can go on with what an export has written.
    const exporting = run.start('export', NAME, '-o', join(run.root, '..', 'out'));
    t.after(() => exporting.child.kill('SIGKILL'));
    exporting.child.kill('SIGINT');
    const ended = await exporting.ended;
    assert.ok(ended.signal === 'SIGINT' || ended.code === 130, ended.stderr);
    assert.doesNotMatch(ended.stderr, /leases/);
    assert.deepEqual(await held(run), packed);
  });

  test('given an import under way, when interrupted, then it ends with 130 and the next one goes on from there', async (t) => {
    const run = await cli(t);
    const { tar, layer } = await archive();
    const fifo = join(run.root, '..', 'image.tar');
    assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
    const first = run.start('import', fifo);
    t.after(() => first.child.kill('SIGKILL'));
    const pipe = await open(fifo, 'r+');
    await pipe.write(tar, 0, SENT);
    await until('the first part', async () => (await ingested(run.root)) > SENT / 2);
    first.child.kill('SIGINT');
    await until('the response to the signal', () => first.stderr().includes('stopping'));
    const { lease } = dropOf(run, await first.ended);
    await pipe.close();

    const [ingest] = await run.json<{ ref: string; offset: number; total: number }[]>(
      'content',
      'ls',
      '--ingests',
    );
    assert.equal(ingest?.ref, `import-${layer.replace(':', '-')}`);
    assert.ok(ingest.offset > SENT / 2 && ingest.offset < ingest.total, `${ingest.offset}`);
    assert.deepEqual((await run.json<{ removed: object }>('gc')).removed, {}, 'a lease keeps it for a day');
    const { rows, disk } = await run.json<Usage>('du');
    assert.deepEqual(
      rows.map(({ kind, name, total }) => [kind, name, total > SENT / 2]),
      [['lease', lease, true]],
    );
    assert.ok(disk.lines.unfinished! > SENT / 2);

    // What was there before is not read again: the second archive has other bytes in its place.
    const other = Buffer.from(tar);
    other.fill(0, 2048, 4096);
    const file = join(run.root, '..', 'again.tar');
    await writeFile(file, other);
    const images = await run.json<{ name: string }[]>('import', file);
    assert.deepEqual(
      images.map(({ name }) => name),
      [NAME],
    );
    assert.deepEqual(await run.json('content', 'ls', '--ingests'), []);
    assert.equal((await run.json<{ size: number }>('content', 'info', layer)).size, ingest.total);
    assert.match(await run.ok('doctor', '--check'), /state +sound/);
  });

  test('given an import under way, when interrupted twice, then it ends at once and the store is sound', async (t) => {
    const run = await cli(t);
    const { tar } = await archive();
    const fifo = join(run.root, '..', 'image.tar');
    assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
    const first = run.start('import', fifo);
    t.after(() => first.child.kill('SIGKILL'));
    const pipe = await open(fifo, 'r+');
    await pipe.write(tar, 0, SENT);
    await until('the first part', async () => (await ingested(run.root)) > SENT / 2);
    first.child.kill('SIGINT');
    await until('the response to the signal', () => first.stderr().includes('stopping'));
    first.child.kill('SIGINT');
    // A shell reports both as 130: the second signal's own effect, and an end that the first one had time for.
    const { signal, code: exit } = await first.ended;
    assert.ok(signal === 'SIGINT' || exit === 130, `ended with ${signal ?? exit}`);
    await pipe.close();
    // The first signal may have had time to close the store, or not.
    const { code, stdout } = await run.run('doctor', '--check');
    assert.equal(code, 0);
    assert.match(stdout, /state +sound/);
  });
});
