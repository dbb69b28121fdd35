/** What a process gives to others: modes of files whatever the umask, descriptors of children, responses to SIGHUP. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, closeSync, lstatSync, mkdirSync, openSync, readdirSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { canMount, canMountOverlays } from '../../src/backends/mounts.js';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import { layout, openDB } from '../../src/open.js';
import { tarOf } from '../archive/support.js';
import { Cli, cli, layout as imageLayout, MAIN } from '../cli/support.js';

const src = (module: string): string => JSON.stringify(new URL(`../../src/${module}`, import.meta.url).href);

/** Removed after the test; what is mounted in it first. */
async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'ebbtide-process-'));
  t.after(() => {
    for (const target of mounted.splice(0).reverse()) sys.umount(target, UmountFlag.detach);
    return rm(path, { recursive: true, force: true });
  });
  return path;
}

const mounted: string[] = [];

function mount(type: string, target: string, options: string): void {
  sys.mount(type, target, type, 0, options);
  mounted.push(target);
}

/** Uses every part of a store; leaves an ingest open when it ends. */
const useAll = (root: string): string => `
  import { openDB } from ${src('open.js')};
  const db = await openDB({ root: ${JSON.stringify(root)} });
  const ctx = { namespace: 'test' };
  await db.namespaces.create({}, 'test');
  const keep = { labels: { 'containerd.io/gc.root': 'x' } };
  for (const ref of ['a', 'b']) {
    const writer = await db.content.writer(ctx, ref, {});
    await writer.write(Buffer.from('hello'));
    if (ref === 'a') await writer.commit(5, '', keep); else await writer.close();
  }
  for (const name of ['native', 'overlayfs']) {
    const s = db.snapshotter(name);
    await s.prepare(ctx, 'a', '', keep);
    await s.commit(ctx, 'c', 'a', keep);
    await s.prepare(ctx, 'b', 'c', keep);
  }`;

function modes(root: string): Record<string, string> {
  const found: Record<string, string> = { '.': (lstatSync(root).mode & 0o7777).toString(8) };
  for (const name of readdirSync(root, { recursive: true }).map(String)) {
    found[name] = (lstatSync(join(root, name)).mode & 0o7777).toString(8);
  }
  return found;
}

/** Of a name below a root. What containers see is theirs. */
function allowed(name: string): number {
  if (/snapshots\/\d+\/fs$|native\/snapshots\/\d+$/.test(name)) return 0o755;
  if (/snapshots\/\d+\/work$/.test(name)) return 0o711;
  if (/content$|content\/blobs(\/sha256)?$/.test(name)) return 0o755;
  if (/content\/blobs\/sha256\/./.test(name)) return 0o444;
  return name === '.' ? 0o711 : 0o700;
}

for (const umask of ['0000', '0022', '0077', '0777']) {
  test(`given the umask ${umask}, then every file and directory of a store has the mode that is meant`, async (t) => {
    const root = join(await directory(t), 'store');
    const run = (text: string): void => {
      const program = `process.umask(0o${umask.slice(1)});`;
      execFileSync(process.execPath, [
        '--input-type=module',
        '-e',
        text.replace('const db', `${program} const db`),
      ]);
    };
    run(`${useAll(root)} await db.close();`);
    const bad = Object.entries(modes(root)).filter(([name, mode]) => {
      const bits = Number.parseInt(mode, 8);
      const isFile = lstatSync(join(root, name)).isFile();
      const most = isFile && allowed(name) === 0o700 ? 0o600 : allowed(name);
      // Blobs and directories of others to the letter; what is the owner's alone may have less for him.
      return most === 0o700 || most === 0o600 ? (bits & ~most) !== 0 : bits !== most;
    });
    assert.deepEqual(bad, []);
    const db = await openDB({ root, log: () => undefined });
    assert.equal((await db.content.listStatuses({ namespace: 'test' })).length, 1);
    await db.close();
  });
}

test('given a store of an earlier version with open modes, when it is opened, then another user cannot lock or read it', async (t) => {
  const root = join(await directory(t), 'store');
  execFileSync(process.execPath, ['--input-type=module', '-e', `${useAll(root)} await db.close();`]);
  const database = layout.database(root);
  chmodSync(database, 0o711);
  for (const name of readdirSync(database)) chmodSync(join(database, name), 0o666);
  const native = layout.snapshotter(root, 'native');
  for (const name of ['metadata.db', 'metadata.lock']) chmodSync(join(native, name), 0o666);
  chmodSync(join(layout.content(root), 'ingest'), 0o777);
  await (await openDB({ root, log: () => undefined })).close();
  const found = modes(root);
  const readable = Object.entries(found).filter(
    ([name, mode]) => /metadata|ingest$/.test(name) && (Number.parseInt(mode, 8) & 0o077) !== 0,
  );
  assert.deepEqual(readable, []);
  if (process.geteuid?.() !== 0) return;
  const others = `import { openSync } from 'node:fs'; try { openSync(process.argv[1], 'r'); console.log('opened'); } catch (e) { console.log(e.code); }`;
  const lock = join(database, 'lock');
  const args = ['--input-type=module', '-e', others, lock];
  chmodSync(join(root, '..'), 0o755);
  assert.equal(execFileSync(process.execPath, args, { uid: 65534, cwd: '/' }).toString().trim(), 'EACCES');
});

test('given an open store, when the process starts another, then that has none of its descriptors', async (t) => {
  const root = join(await directory(t), 'store');
  const printed = execFileSync(process.execPath, [
    '--input-type=module',
    '-e',
    `${useAll(root)}
     import { spawnSync } from 'node:child_process';
     const { stdout } = spawnSync('ls', ['-l', '/proc/self/fd'], { encoding: 'utf8' });
     console.log(stdout);
     await db.close();`,
  ]).toString();
  assert.doesNotMatch(printed, /ebbtide-process-/);
});

test('given a daemon, when it gets SIGHUP, then it goes on', async (t) => {
  const run = await cli(t);
  const daemon = run.start('serve');
  t.after(() => daemon.child.kill('SIGKILL'));
  while (!daemon.stderr().includes('"serving"')) await new Promise((resolve) => setTimeout(resolve, 20));
  daemon.child.kill('SIGHUP');
  while (!daemon.stderr().includes('reloaded the configuration'))
    await new Promise((resolve) => setTimeout(resolve, 20));
  await run.ok('images', 'ls');
  daemon.child.kill('SIGTERM');
  assert.equal((await daemon.ended).code, 0);
});

test('given a verb at work, when its terminal goes away, then it stops as by Ctrl-C and the store is closed', async (t) => {
  const run = await cli(t);
  const fifo = join(await directory(t), 'images.tar');
  execFileSync('mkfifo', [fifo]);
  const started = run.start('import', fifo);
  const pipe = await open(fifo, 'w');
  const tar = await tarOf([{ name: 'big', text: randomBytes(1 << 20) }]);
  await pipe.write(tar, 0, 4096);
  started.child.kill('SIGHUP');
  while (!started.stderr().includes('stopping')) await new Promise((resolve) => setTimeout(resolve, 20));
  // The command looks up when the next bytes come.
  await pipe.write(tar, 4096, 65_536).catch(() => undefined);
  await pipe.close();
  const { code, signal, stderr } = await started.ended;
  assert.deepEqual({ code, signal }, { code: 130, signal: null }, stderr);
  await run.ok('images', 'ls');
});

test('given results that go to a full disk, then Unavailable and exit code 6', async (t) => {
  const run = await cli(t);
  await run.ok('images', 'ls');
  const full = openSync('/dev/full', 'w');
  const main = new URL('../../src/bundle/main.js', import.meta.url).pathname;
  const child = spawn(process.execPath, [main, '--root', run.root, 'images', 'ls'], {
    stdio: ['ignore', full, 'pipe'],
  });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number];
  closeSync(full);
  assert.equal(code, 6, said);
  assert.match(said, /cannot write to standard output: .*ENOSPC.*\(Unavailable\)/);
});

test('given a root on a read-only file system, when it is to be written, then FailedPrecondition with the path, a remedy and exit code 5', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount: ${reason}`);
  const disk = await directory(t);
  mount('tmpfs', disk, 'size=64m');
  const run = await new Cli(join(disk, 'store')).init();
  execFileSync('mount', ['-o', 'remount,ro', disk]);
  await run.fails(
    5,
    /store.*EROFS.*\(FailedPrecondition\)\n {2}mount the file system read-write/,
    'leases',
    'create',
  );
  execFileSync('mount', ['-o', 'remount,rw', disk]);
  const images = await imageLayout(t);
  await run.ok('import', images.path, '--json');
  mkdirSync(join(disk, 'ro'));
  mount('tmpfs', join(disk, 'ro'), 'size=64m');
  execFileSync('mount', ['-o', 'remount,ro', join(disk, 'ro')]);
  for (const to of ['out', 'out.tar']) {
    await run.fails(
      5,
      /export to .*EROFS.*\(FailedPrecondition\)/,
      'export',
      'example.com/one:1',
      '-o',
      join(disk, 'ro', to),
    );
  }
});

test('given a root on overlayfs, then doctor says that overlays do not work there', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount: ${reason}`);
  const disk = await directory(t);
  mount('tmpfs', disk, 'size=64m');
  const path = (name: string): string => join(disk, name);
  for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(path(name));
  const options = `lowerdir=${path('lower')},upperdir=${path('upper')},workdir=${path('work')}`;
  mount('overlay', path('merged'), options);
  const here = await canMountOverlays(path('merged'));
  const report = await new Cli(path('merged')).json<{ machine: { overlays: { ok: boolean } } }>('doctor');
  assert.equal(report.machine.overlays.ok, here.ok);
  // What the probe says is what a mount does.
  const below = (name: string): string => join(path('merged'), name);
  for (const name of ['l', 'u', 'w', 'm']) mkdirSync(below(name));
  let mounts = true;
  try {
    sys.mount(
      'overlay',
      below('m'),
      'overlay',
      0,
      `lowerdir=${below('l')},upperdir=${below('u')},workdir=${below('w')}`,
    );
    sys.umount(below('m'), UmountFlag.detach);
  } catch {
    mounts = false;
  }
  assert.equal(here.ok, mounts);
});

test('given a limit of file sizes below those of the store, then it is read, and changed by nobody', async (t) => {
  const run = await cli(t);
  await run.ok('namespaces', 'create', 'one');
  const under = (verb: string) =>
    spawnSync('bash', ['-c', `ulimit -f 100; "${process.execPath}" "${MAIN}" --root "${run.root}" ${verb}`], {
      encoding: 'utf8',
    });
  const read = under('namespaces ls -q');
  assert.deepEqual([read.status, read.stdout], [0, 'one\n'], read.stderr);
  assert.match(read.stderr, /read-only: the limit of file sizes/);
  const changed = under('namespaces create two');
  assert.equal(changed.status, 5);
  assert.match(changed.stderr, /\(FailedPrecondition\)\n {2}raise the limit of file sizes/);
  assert.equal(await run.ok('namespaces', 'ls', '-q'), 'one\n');
});

test('given a clock after 2262, then no store is opened, and none is made', async (t) => {
  const root = join(await directory(t), 'root');
  const clock = t.mock.method(Date, 'now', () => Date.UTC(2262, 0));
  await assert.rejects(openDB({ root }), {
    kind: 'FailedPrecondition',
    message: /the clock of this machine is at 2262-01-01/,
  });
  assert.deepEqual(readdirSync(join(root, '..')), []);
  clock.mock.restore();
  await (await openDB({ root })).close();
});

test('given no /proc, then what works without it does, and the rest says that it is missing', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount: ${reason}`);
  const run = await cli(t);
  const { path } = await imageLayout(t);
  const without = (...words: string[]) =>
    spawnSync(
      'unshare',
      [
        '--mount',
        'sh',
        '-c',
        'mount -t tmpfs none /proc && exec "$@"',
        'sh',
        process.execPath,
        MAIN,
        '--root',
        run.root,
      ].concat(words),
      { encoding: 'utf8' },
    );
  const imported = without('import', path);
  assert.equal(imported.status, 0, imported.stderr);
  const unpacked = without('import', '--unpack', 'native', path);
  assert.equal(unpacked.status, 5, unpacked.stderr);
  assert.match(unpacked.stderr, /\(FailedPrecondition\)\n {2}mount \/proc/);
  await run.ok('import', '--unpack', 'native', path);
});
