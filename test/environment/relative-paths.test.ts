/** A relative path means the directory that the process was in when it was given. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { openDB } from '../../src/open.js';
import { MAIN } from '../cli/support.js';

const src = (module: string): string => JSON.stringify(new URL(`../../src/${module}`, import.meta.url).href);

/** Runs a program in `<base>/a`, beside which there is an empty `<base>/b` that it may change to. */
async function inDirectory(t: TestContext, program: string): Promise<{ base: string; printed: string }> {
  const base = await mkdtemp(join(tmpdir(), 'ebbtide-relative-'));
  t.after(() => rm(base, { recursive: true, force: true }));
  for (const name of ['a', 'b']) await mkdir(join(base, name));
  const args = ['--input-type=module', '-e', program];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: join(base, 'a') });
  return { base, printed: stdout.trim() };
}

test('given a relative root, when the process changes its directory, then every commit is where the store was opened', async (t) => {
  const { base, printed } = await inDirectory(
    t,
    `import { openDB } from ${src('open.js')};
     import { digestOf } from ${src('model/digest.js')};
     const db = await openDB({ root: 'store' });
     process.chdir('../b');
     const ctx = { namespace: 'test' };
     await db.namespaces.create({}, 'test');
     const digest = digestOf(Buffer.from('x'));
     const create = (i) => db.images.create(ctx, { name: 'i' + i, target: { mediaType: 'x/y', digest, size: 1 }, labels: {} });
     for (let i = 0; i < 3000; i += 100) await Promise.all(Array.from({ length: 100 }, (_, j) => create(i + j)));
     const writer = await db.content.writer(ctx, 'ref', {});
     await writer.write(Buffer.from('hello'));
     await writer.commit(5, '', { labels: { 'containerd.io/gc.root': 'x' } });
     const [mount] = await db.snapshotter('native').prepare(ctx, 'k', '');
     await db.garbageCollect({}, { fullSweep: true });
     await db.close();
     console.log(mount.source.startsWith('/'));`,
  );
  assert.equal(printed, 'true');
  assert.deepEqual(await readdir(join(base, 'b')), []);
  const db = await openDB({ root: join(base, 'a/store'), log: () => undefined });
  assert.equal((await db.images.list({ namespace: 'test' })).length, 3000);
  await db.close();
});

test('given relative paths for an engine, backends, an import and an export, then a change of directory changes nothing', async (t) => {
  const { base, printed } = await inDirectory(
    t,
    `import { openContent } from ${src('backends/content/store.js')};
     import { openNative } from ${src('backends/snapshotters/native.js')};
     import { openOverlayfs } from ${src('backends/snapshotters/overlayfs.js')};
     import { openDB } from ${src('open.js')};
     import { exportImages } from ${src('images/export.js')};
     import { importImage } from ${src('images/import.js')};
     import { Blobs, named, writeFiles } from ${JSON.stringify(new URL('../images/fixtures.js', import.meta.url).href)};
     const parts = [await openContent('content'), await openNative('native'), await openOverlayfs('overlay')];
     const db = await openDB({ root: 'store', snapshotters: ['native'] });
     const blobs = new Blobs();
     const one = await blobs.image([[{ name: 'etc', type: 'directory' }, { name: 'etc/a', text: 'a' }]]);
     await writeFiles('layout', blobs.layout([named(one.manifest, 'example.com/one:1')]));
     const ctx = { namespace: 'test' };
     const importing = importImage(db, ctx, 'layout');
     process.chdir('../b');
     const [image] = await importing;
     process.chdir('../a');
     const exporting = exportImages(db, ctx, [image.name], 'out.tar');
     process.chdir('../b');
     await exporting;
     for (const s of parts.slice(1)) { await s.prepare('k', ''); await s.remove('k'); await s.cleanup(); }
     const writer = await parts[0].writer('ref', {});
     await writer.write(Buffer.from('hello'));
     await writer.commit(5, '');
     for (const part of parts) await part.close();
     await db.close();
     console.log(image.name);`,
  );
  assert.equal(printed, 'example.com/one:1');
  assert.deepEqual(await readdir(join(base, 'b')), []);
  assert.ok((await readdir(join(base, 'a'))).includes('out.tar'));
});

test('given a working directory that has gone, when a verb gets a relative root, then it says so', async (t) => {
  const base = await mkdtemp(join(tmpdir(), 'ebbtide-relative-'));
  t.after(() => rm(base, { recursive: true, force: true }));
  const run = (root: string) =>
    promisify(execFile)(
      'sh',
      [
        '-c',
        `mkdir gone; cd gone; rmdir ../gone; exec "$0" "$1" --root ${root} images ls`,
        process.execPath,
        MAIN,
      ],
      {
        cwd: base,
      },
    );
  await assert.rejects(run('store'), ({ code, stderr }: { code: number; stderr: string }) => {
    assert.match(
      stderr,
      /the working directory has been removed \(FailedPrecondition\)\n {2}change to another/,
    );
    return code === 5;
  });
  await assert.rejects(run(join(base, 'store')), ({ stderr }: { stderr: string }) => /init/.test(stderr));
});
