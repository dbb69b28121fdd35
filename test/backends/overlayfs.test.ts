import assert from 'node:assert/strict';
import { chown, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { openNative } from '../../src/backends/snapshotters/native.js';
import { type OverlayOptions, openOverlayfs } from '../../src/backends/snapshotters/overlayfs.js';
import { describeTree, treeDifferences } from '../support/tree.js';
import { addLayer, changeBase, makeBase, snapshotterSuite } from './snapshotter-suite.js';
import { failsWith, tempDir } from './temp.js';

async function open(t: TestContext, options: OverlayOptions = {}, root?: string) {
  const directory = root ?? (await tempDir(t));
  const snapshotter = await openOverlayfs(directory, options);
  t.after(() => snapshotter.close());
  return { root: directory, s: snapshotter };
}

snapshotterSuite('overlayfs', async (t) => (await open(t)).s);
snapshotterSuite(
  'overlayfs, removing at once',
  async (t) => (await open(t, { asyncRemove: false })).s,
  false,
);

const bare = { switches: [], userXattr: false } as const;
const directories = async (root: string): Promise<string[]> =>
  (await readdir(join(root, 'snapshots'))).sort();

/** Commits `names` one on another, without looking inside. */
async function chain(s: Awaited<ReturnType<typeof open>>['s'], ...names: string[]): Promise<void> {
  let parent = '';
  for (const name of names) {
    await s.prepare(`${name}-active`, parent);
    await s.commit(name, `${name}-active`);
    parent = name;
  }
}

test('given snapshots of every kind, then their mounts are the documented ones [#161]', async (t) => {
  const { root, s } = await open(t, { system: bare });
  const path = (id: number, name = 'fs'): string => join(root, 'snapshots', String(id), name);
  assert.deepEqual(await s.prepare('a', ''), [{ type: 'bind', source: path(1), options: ['rw', 'rbind'] }]);
  assert.deepEqual(await s.view('empty', ''), [{ type: 'bind', source: path(2), options: ['ro', 'rbind'] }]);
  await s.commit('one', 'a');
  assert.deepEqual(await s.view('v1', 'one'), [{ type: 'bind', source: path(1), options: ['ro', 'rbind'] }]);
  assert.deepEqual(await s.prepare('b', 'one'), [
    {
      type: 'overlay',
      source: 'overlay',
      options: [`workdir=${path(4, 'work')}`, `upperdir=${path(4)}`, `lowerdir=${path(1)}`],
    },
  ]);
  await s.commit('two', 'b');
  assert.deepEqual(await s.view('v2', 'two'), [
    { type: 'overlay', source: 'overlay', options: [`lowerdir=${path(4)}:${path(1)}`] },
  ]);
  assert.equal((await stat(path(1))).mode & 0o7777, 0o755);
  assert.equal((await stat(path(4, 'work'))).mode & 0o7777, 0o711);
  assert.deepEqual(await readdir(join(root, 'snapshots/3')), ['fs']);
  for (const made of [root, join(root, 'snapshots')]) assert.equal((await stat(made)).mode & 0o7777, 0o700);
});

const optionCases: { given: OverlayOptions; overlay: string[] }[] = [
  { given: { system: { switches: ['index'], userXattr: false } }, overlay: ['index=off'] },
  {
    given: { system: { switches: ['index', 'metacopy', 'redirect_dir'], userXattr: false } },
    overlay: ['redirect_dir=off', 'metacopy=off', 'index=off'],
  },
  {
    given: { system: { switches: ['index', 'metacopy', 'redirect_dir'], userXattr: true } },
    overlay: ['userxattr', 'index=off'],
  },
  {
    given: { system: { switches: ['index', 'redirect_dir'], userXattr: false }, mountOptions: ['index=on'] },
    overlay: ['index=on', 'redirect_dir=off'],
  },
  {
    given: { system: { switches: ['index'], userXattr: true }, mountOptions: ['volatile', 'userxattr'] },
    overlay: ['volatile', 'userxattr', 'index=off'],
  },
];
for (const { given, overlay } of optionCases) {
  test(`given ${JSON.stringify(given)}, then overlays end in ${overlay} and binds are plain [#162]`, async (t) => {
    const { s } = await open(t, given);
    await chain(s, 'one', 'two');
    const [active] = await s.prepare('a', 'one');
    assert.deepEqual(active!.options.slice(3), overlay);
    const [deep] = await s.view('v', 'two');
    assert.deepEqual(deep!.options.slice(1), overlay);
    const [view] = await s.view('w', 'one');
    assert.deepEqual(view!.options, ['ro', 'rbind']);
    const [alone] = await s.prepare('b', '');
    assert.deepEqual(alone!.options, ['rw', 'rbind']);
  });
}

test('given unknown directories, when cleaned up beside creations, then only they go [#163]', async (t) => {
  const { root, s } = await open(t);
  await chain(s, 'base');
  for (const name of ['77', 'new-left', 'whatever'])
    await mkdir(join(root, 'snapshots', name, 'fs'), { recursive: true });
  await writeFile(join(root, 'snapshots/77/fs/data'), Buffer.alloc(50_000, 1));
  const made = Array.from({ length: 40 }, (_, i) => s.prepare(`k${i}`, 'base'));
  const reports = await Promise.all(Array.from({ length: 8 }, () => s.cleanup()));
  await Promise.all(made);
  assert.equal((await directories(root)).length, 41);
  for (let i = 0; i < 40; i++) {
    const [mount] = await s.mounts(`k${i}`);
    const upper = mount!.options[1]!.slice('upperdir='.length);
    assert.ok((await stat(upper)).isDirectory());
  }
  assert.ok(reports.reduce((sum, report) => sum + report.bytes, 0) >= 50_000);
});

test('given asynchronous removal, then the directory stays until cleanup; else it goes at once [#164]', async (t) => {
  const deferred = await open(t);
  await chain(deferred.s, 'one', 'two');
  await deferred.s.remove('two');
  assert.deepEqual(await directories(deferred.root), ['1', 'rm-2']);
  const report = await deferred.s.cleanup();
  assert.deepEqual([report.removed, report.errors], [1, []]);
  assert.ok(report.bytes > 0);
  assert.deepEqual(await directories(deferred.root), ['1']);

  const immediate = await open(t, { asyncRemove: false });
  await chain(immediate.s, 'one', 'two');
  await immediate.s.remove('two');
  assert.deepEqual(await directories(immediate.root), ['1']);
});

test('given what crashes leave, when opened, then half-made ones go and numbers are not used again', async (t) => {
  const root = await tempDir(t);
  const first = await openOverlayfs(root);
  await chain(first, 'base');
  await first.close();
  for (const name of ['new-1', '9']) await mkdir(join(root, 'snapshots', name));
  const { s } = await open(t, {}, root);
  const [mount] = await s.prepare('a', '');
  assert.equal(mount!.source, join(root, 'snapshots/10/fs'));
  await s.cleanup();
  assert.deepEqual(await directories(root), ['1', '10']);
});

test('given a file system without entry types, when opened, then refused with what to do', async (t) => {
  const root = await tempDir(t);
  const error = await failsWith(
    openOverlayfs(root, { system: { entryTypes: false } }),
    'FailedPrecondition',
    /types/,
  );
  assert.ok('remedy' in error && /ftype=1/.test(String(error.remedy)));
  assert.deepEqual(await readdir(root), []);
});

test('given the label option, then stat, update and walk show the upper directory and do not store it', async (t) => {
  const { root, s } = await open(t, { upperdirLabel: true });
  await s.prepare('a', '');
  const labels = { 'containerd.io/snapshot/overlay.upperdir': join(root, 'snapshots/1/fs') };
  const info = await s.stat('a');
  assert.deepEqual(info.labels, labels);
  assert.deepEqual((await s.update({ ...info, labels: { a: 'b' } })).labels, { a: 'b', ...labels });
  await s.walk((found) => assert.deepEqual(found.labels, { a: 'b', ...labels }));
  await s.close();
  const { s: plain } = await open(t, {}, root);
  assert.deepEqual((await plain.stat('a')).labels, { a: 'b' });
});

const mapping = {
  'containerd.io/snapshot/uidmapping': '0:100000:1000,5000:200000:10',
  'containerd.io/snapshot/gidmapping': '1:7:2,0:300000:1',
};

test('given id mappings, then the mount says so and fs belongs to the mapped root', async (t) => {
  if (process.geteuid?.() !== 0) return t.skip('only root can give directories away');
  const { root, s } = await open(t, { remapIds: true, system: bare });
  const [mount] = await s.prepare('a', '', { labels: mapping });
  assert.deepEqual(mount!.options, [
    'uidmap=0:100000:1000,5000:200000:10',
    'gidmap=1:7:2,0:300000:1',
    'rw',
    'rbind',
  ]);
  const own = await stat(join(root, 'snapshots/1/fs'));
  assert.deepEqual([own.uid, own.gid], [100000, 300000]);
  await s.commit('c', 'a');
  const [child] = await s.prepare('b', 'c', { labels: mapping });
  assert.equal(child!.options[0], 'uidmap=0:100000:1000,5000:200000:10');
  assert.match(child!.options[2]!, /^workdir=/);
  for (const bad of ['', '0:1', '0:1:0', '1:1:1', 'a:b:c', '0:4294967295:2', '0:1:1;', '0:1:1,']) {
    if (bad === '') continue;
    const labels = { 'containerd.io/snapshot/uidmapping': bad };
    await failsWith(s.prepare('bad', '', { labels }), 'InvalidArgument', /mapping/);
  }
  await failsWith(s.stat('bad'), 'NotFound');
  assert.deepEqual(await directories(root), ['1', '2']);
});

test('given a parent whose root belongs to a user, then a child belongs to that user too', async (t) => {
  if (process.geteuid?.() !== 0) return t.skip('only root can give directories away');
  const { root, s } = await open(t);
  await s.prepare('a', '', { labels: mapping });
  await chown(join(root, 'snapshots/1/fs'), 1234, 5678);
  await s.commit('c', 'a');
  await s.prepare('b', 'c');
  const { uid, gid } = await stat(join(root, 'snapshots/2/fs'));
  assert.deepEqual([uid, gid], [1234, 5678]);
});

test('given 128 layers, then they can be mounted and show all of them', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount here: ${reason}`);
  const { root, s } = await open(t);
  let parent = '';
  for (let i = 1; i <= 128; i++) {
    await s.prepare('a', parent);
    const fs = join(root, 'snapshots', String(i), 'fs');
    await writeFile(join(fs, `layer-${i}`), String(i));
    await writeFile(join(fs, 'top'), String(i));
    parent = `layer ${i}`;
    await s.commit(parent, 'a');
  }
  for (const mounts of [await s.view('v', parent), await s.prepare('p', parent)]) {
    await withMounts(mounts, async (directory) => {
      assert.equal((await readdir(directory)).length, 129);
      assert.equal(await readFile(join(directory, 'top'), 'utf8'), '128');
    });
  }
});

test('given the same changes through native and overlay, then the trees are equal', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount here: ${reason}`);
  const native = await openNative(await tempDir(t));
  t.after(() => native.close());
  const { s: overlay } = await open(t);
  const trees = [];
  for (const s of [native, overlay]) {
    await addLayer(s, 'base', '', makeBase);
    await addLayer(s, 'changed', 'base', changeBase);
    trees.push(
      await withMounts(await s.view('v', 'changed'), (directory) => withoutTimes(describeTree(directory))),
    );
  }
  assert.deepEqual(treeDifferences(trees[0]!, trees[1]!), []);
});

/** The two were written one after the other; a file with several names is one in native trees only. */
const withoutTimes = (tree: Map<string, string>): Map<string, string> =>
  new Map([...tree].map(([path, line]) => [path, line.replace(/mtime=\d+/, '')]));
