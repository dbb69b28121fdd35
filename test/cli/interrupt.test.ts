import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { open, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf } from '../../src/model/digest.js';
import { layout as paths } from '../../src/open.js';
import { tarOf } from '../archive/support.js';
import { Blobs, named, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, tarOfFiles } from '../images/fixtures.js';
import { cli } from './support.js';

const NAME = 'example.com/big:1';
/** Bytes of the layer, and how many of them the first attempt gets. */
const LAYER = 4 << 20;
const SENT = 2 << 20;

/** Waits until `condition` holds; fails after a generous while. */
async function until(what: string, condition: () => Promise<boolean> | boolean): Promise<void> {
  for (const end = Date.now() + 60_000; Date.now() < end; await sleep(20)) if (await condition()) return;
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

describe('Ctrl-C', () => {
  test('given an import under way, when interrupted, then it ends with 130 and the next one goes on from there', async (t) => {
    const run = await cli(t);
    const { tar, layer } = await archive();
    const fifo = join(run.root, '..', 'image.tar');
    assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
    const first = run.start('import', fifo);
    t.after(() => first.child.kill('SIGKILL'));
    const pipe = await open(fifo, 'w');
    await pipe.write(tar, 0, SENT);
    await until('the first part', async () => (await ingested(run.root)) > SENT / 2);
    first.child.kill('SIGINT');
    await until('the answer to the signal', () => first.stderr().includes('stopping'));
    // The command looks up when the next bytes come.
    await pipe.write(tar, SENT, 65_536).catch(() => undefined);
    await pipe.close();
    const ended = await first.ended;
    assert.deepEqual([ended.code, ended.stdout], [130, '']);
    assert.match(ended.stderr, /context canceled \(Canceled\)/);

    const [ingest] = await run.json<{ ref: string; offset: number; total: number }[]>(
      'content',
      'ls',
      '--ingests',
    );
    assert.equal(ingest?.ref, `import-${layer.replace(':', '-')}`);
    assert.ok(ingest.offset > SENT / 2 && ingest.offset < ingest.total, `${ingest.offset}`);
    assert.deepEqual((await run.json<{ removed: object }>('gc')).removed, {}, 'a lease holds it for a day');

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
    const pipe = await open(fifo, 'w');
    await pipe.write(tar, 0, SENT);
    await until('the first part', async () => (await ingested(run.root)) > SENT / 2);
    first.child.kill('SIGINT');
    await until('the answer to the signal', () => first.stderr().includes('stopping'));
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
