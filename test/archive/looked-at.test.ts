/** Names looked at in batches: what is known of each is what a look at it alone shows, and it is released again. */
import assert from 'node:assert/strict';
import { link, lstat, mkdir, readdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Root } from '../../src/backends/archive/beneath.js';
import { LookedAt } from '../../src/backends/archive/looked-at.js';
import { toBytePath } from '../../src/backends/archive/paths.js';
import { sys } from '../../src/backends/sys.js';
import { run, tempDir } from './support.js';

const isRoot = process.geteuid?.() === 0;

test('given names of every kind, when a walk comes by, then each is known as it is', async (t) => {
  const dir = await tempDir(t);
  await mkdir(join(dir, 'in/sub'), { recursive: true });
  const here = join(dir, 'in');
  for (let i = 0; i < 600; i++) await writeFile(join(here, `f${i}`), 'x'.repeat(i % 3 === 0 ? 0 : i * 20));
  await utimes(join(here, 'f1'), 1, 1.25);
  await symlink('somewhere/else', join(here, 'link'));
  await link(join(here, 'f2'), join(here, 'other name of f2 ü'));
  run('mkfifo', [join(here, 'fifo')]);
  if (isRoot) run('mknod', [join(here, 'device'), 'c', '1', '3']);
  else t.diagnostic('no device: not root');
  sys.lsetxattr(join(here, 'f3'), 'user.one', Buffer.from('1'));
  sys.lsetxattr(join(here, 'f3'), 'user.empty', Buffer.alloc(0));
  const names = (await readdir(here)).map(toBytePath).sort();
  const place = { root: new Root(toBytePath(dir)), path: 'in' };
  t.after(() => place.root.close());
  const known = new LookedAt();
  const at = (name: string) => ({ root: place.root, path: `in/${name}` });
  let walked = 0;
  for await (const name of known.names([place], ['absent', ...names])) {
    walked++;
    const seen = known.seen(at(name));
    if (name === 'absent') {
      assert.equal(seen, undefined);
      assert.equal(await known.look(at(name), undefined), undefined);
      continue;
    }
    assert.ok(seen !== undefined, name);
    const path = join(here, Buffer.from(name, 'latin1').toString());
    const stats = await lstat(path, { bigint: true });
    const { status } = seen;
    assert.deepEqual(
      [status.mode, status.uid, status.gid, status.size, status.mtimeNs, status.rdev, status.nlink].map(
        BigInt,
      ),
      [stats.mode, stats.uid, stats.gid, stats.size, stats.mtimeNs, stats.rdev, stats.nlink],
    );
    assert.equal(status.inode, `${stats.dev}:${stats.ino}`);
    assert.deepEqual([...seen.xattrs.keys()].sort(), sys.llistxattr(path));
    for (const [xattr, value] of seen.xattrs) assert.deepEqual(value, sys.lgetxattr(path, xattr));
    assert.equal(seen.destination, stats.isSymbolicLink() ? 'somewhere/else' : undefined);
    if (!stats.isFile() || stats.size > 8192n) assert.equal(seen.content, undefined);
    else assert.deepEqual(seen.content, await readFile(path));
  }
  assert.equal(walked, names.length + 1);
  for (const name of names) assert.equal(known.seen(at(name)), undefined);
});

test('given more content than may be in memory, when a walk comes by, then the rest is left to the caller that needs it', async (t) => {
  const dir = await tempDir(t);
  const names = Array.from({ length: 700 }, (_, i) => `f${i}`);
  for (const name of names) await writeFile(join(dir, name), Buffer.alloc(8192, 1));
  const known = new LookedAt();
  // As on the way down through fourteen such directories.
  const walks = [];
  const roots = Array.from({ length: 14 }, () => new Root(toBytePath(dir)));
  t.after(() => {
    for (const root of roots) root.close();
  });
  let held = 0;
  for (const root of roots) {
    const walk = known.names([{ root, path: '' }], names);
    await walk.next();
    walks.push(walk);
    for (const path of names) held += known.seen({ root, path })?.content?.length ?? 0;
  }
  assert.ok(held > 1024 * 1024 && held <= 16 * 1024 * 1024, `${held}`);
  for (const walk of walks) await walk.return();
  const again = known.names([{ root: roots[0]!, path: '' }], names);
  await again.next();
  assert.ok(
    known.seen({ root: roots[0]!, path: 'f0' })?.content !== undefined,
    'what was in memory is released',
  );
  await again.return();
});

test('given a directory that is gone, or a symlink by now, when a walk comes by, then nothing is known', async (t) => {
  const dir = await tempDir(t);
  await mkdir(join(dir, 'real'));
  await writeFile(join(dir, 'real/f'), 'f');
  await symlink('real', join(dir, 'moved'));
  await rm(join(dir, 'gone'), { force: true });
  const root = new Root(toBytePath(dir));
  t.after(() => root.close());
  const known = new LookedAt();
  for (const path of ['moved', 'gone']) {
    for await (const name of known.names([{ root, path }], ['f'])) {
      assert.equal(known.seen({ root, path: `${path}/${name}` }), undefined);
    }
  }
});
