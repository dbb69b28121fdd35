/** Full disks, missing permissions, ordinary users: errors say what, where, and what to do; nothing is left. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdir, mkdtemp, readdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { openContent } from '../../src/backends/content/store.js';
import { canMount } from '../../src/backends/mounts.js';
import { openNative } from '../../src/backends/snapshotters/native.js';
import { openOverlayfs } from '../../src/backends/snapshotters/overlayfs.js';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import { digestOf } from '../../src/model/digest.js';
import { failsWith, tempDir } from './temp.js';

/** A file system of this size in memory; undefined, with the reason printed, where mounting is not permitted. */
async function smallDisk(t: TestContext, size: string): Promise<string | undefined> {
  const { ok, reason } = await canMount();
  if (!ok) {
    t.skip(`cannot mount a small file system: ${reason}`);
    return undefined;
  }
  const disk = await mkdtemp(join(tmpdir(), 'ebbtide-disk-'));
  sys.mount('tmpfs', disk, 'tmpfs', 0, `size=${size}`);
  t.after(async () => {
    sys.umount(disk, UmountFlag.detach);
    await rmdir(disk);
  });
  return disk;
}

test('given a full disk, when a blob is written, then Unavailable, and after freeing it goes on where it was', async (t) => {
  const disk = await smallDisk(t, '4m');
  if (disk === undefined) return;
  const content = await openContent(join(disk, 'content'));
  await writeFile(join(disk, 'ballast'), Buffer.alloc(2 * 1024 * 1024));
  const bytes = randomBytes(3 * 1024 * 1024);
  const writer = await content.writer('ref', {});
  const error = await failsWith(writer.write(bytes), 'Unavailable', /ENOSPC/);
  assert.ok('remedy' in error && /free disk space/.test(String(error.remedy)));
  const { offset } = await writer.status();
  assert.ok(offset < bytes.length);
  assert.equal(writer.digest(), digestOf(bytes.subarray(0, offset)));

  await rm(join(disk, 'ballast'));
  await writer.write(bytes.subarray(offset));
  await writer.commit(bytes.length, digestOf(bytes));
  assert.equal((await content.info(digestOf(bytes))).size, bytes.length);
});

test('given a full disk, when a snapshot is copied, then Unavailable, its rest is deleted and the key is free', async (t) => {
  const disk = await smallDisk(t, '4m');
  if (disk === undefined) return;
  const s = await openNative(join(disk, 'native'));
  const [mount] = await s.prepare('a', '');
  await writeFile(join(mount!.source, 'data'), randomBytes(2 * 1024 * 1024));
  await s.commit('base', 'a');
  const error = await failsWith(s.prepare('b', 'base'), 'Unavailable', /ENOSPC/);
  assert.ok('remedy' in error && /free disk space/.test(String(error.remedy)));
  await failsWith(s.stat('b'), 'NotFound');
  assert.deepEqual(await readdir(join(disk, 'native/snapshots')), ['1']);
  await s.prepare('b', '');
  await s.close();
});

test('given a disk that is too full for metadata, then creations fail cleanly, reads go on, and later it works', async (t) => {
  const disk = await smallDisk(t, '1m');
  if (disk === undefined) return;
  const root = join(disk, 'overlayfs');
  const s = await openOverlayfs(root);
  const labels = { 'containerd.io/snapshot/x': 'x'.repeat(3000) };
  await s.prepare('first', '', { labels });
  await writeFile(join(disk, 'ballast'), Buffer.alloc(600 * 1024));
  let made = 0;
  const failure = await failsWith(
    (async () => {
      for (; made < 1000; made++) await s.prepare(`k${made}`, '', { labels });
    })(),
    'Unavailable',
  );
  assert.match(failure.message, /metadata|snapshots|No space|ENOSPC/);
  assert.equal((await s.stat('first')).name, 'first');
  await failsWith(s.stat(`k${made}`), 'NotFound');
  assert.equal((await readdir(join(root, 'snapshots'))).length, made + 1);
  await rm(join(disk, 'ballast'));
  await s.prepare(`k${made}`, '', { labels });
  await s.close();
  const again = await openOverlayfs(root);
  assert.equal((await again.stat(`k${made}`)).kind, 'active');
  await again.close();
});

/** Runs a program as user and group 65534 and returns what it prints. */
async function asNobody(t: TestContext, program: string, directory: string): Promise<string | undefined> {
  if (process.geteuid?.() !== 0) {
    t.skip('only root can become another user');
    return undefined;
  }
  await chmod(directory, 0o755);
  const url = (module: string): string => new URL(`../../src/${module}`, import.meta.url).href;
  const imports = [
    `import { openContent } from '${url('backends/content/store.js')}';`,
    `import { openNative } from '${url('backends/snapshotters/native.js')}';`,
    `import { openOverlayfs } from '${url('backends/snapshotters/overlayfs.js')}';`,
    "import { chmodSync, mkdirSync } from 'node:fs';",
    `const root = ${JSON.stringify(directory)};`,
    'const failure = (e) => JSON.stringify({ kind: e.kind, object: e.object, remedy: e.remedy });',
  ];
  const args = ['--input-type=module', '-e', [...imports, program].join('\n')];
  const { stdout } = await promisify(execFile)(process.execPath, args, { uid: 65534, gid: 65534, cwd: '/' });
  return stdout.trim();
}

test('given an ordinary user, then content and both snapshotters can be opened and used', async (t) => {
  const directory = await tempDir(t);
  if (process.geteuid?.() === 0) await chown(directory, 65534, 65534);
  const printed = await asNobody(
    t,
    `for (const open of [openNative, openOverlayfs]) {
       const s = await open(root + '/' + open.name);
       await s.prepare('a', '');
       await s.commit('base', 'a', { labels: { a: 'b' } });
       await s.prepare('b', 'base');
       await s.view('v', 'base');
       const [mount] = await s.prepare('sealed', '');
       mkdirSync(mount.source + '/closed/inside', { recursive: true });
       chmodSync(mount.source + '/closed', 0);
       for (const key of ['b', 'sealed']) await s.remove(key);
       const { removed, errors } = await s.cleanup();
       console.log(removed, errors.length);
       let n = 0;
       await s.walk(() => { n++; });
       console.log(n);
       await s.close();
     }
     const content = await openContent(root + '/content');
     const writer = await content.writer('ref', {});
     await writer.write(Buffer.from('hello'));
     await writer.commit(5, '');
     console.log((await content.deleteMany([writer.digest()])).removed);`,
    directory,
  );
  if (printed !== undefined) assert.equal(printed, '2 0\n2\n2 0\n2\n1');
});

test('given no permission, then the error has a kind, the path and a remedy', async (t) => {
  const directory = await tempDir(t);
  await mkdir(join(directory, 'closed'), { mode: 0o700 });
  const printed = await asNobody(
    t,
    `for (const open of [openNative, openOverlayfs, openContent]) {
       await open(root + '/closed/x').then(() => console.log('opened'), (e) => console.log(failure(e)));
     }`,
    directory,
  );
  if (printed === undefined) return;
  for (const line of printed.split('\n')) {
    assert.deepEqual(JSON.parse(line), {
      kind: 'FailedPrecondition',
      object: join(directory, 'closed/x'),
      remedy: 'give this user access to the path, or run as its owner',
    });
  }
});
