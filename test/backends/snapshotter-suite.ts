/**
 * What every snapshotter must do. Run over the native and the overlay one, and over anything that has the shape of
 * a SnapshotterBackend (such as a store in front of one).
 */
import assert from 'node:assert/strict';
import { chmod, link, mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Mount, SnapshotInfo, SnapshotterBackend } from '../../src/backends/contract.js';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { describeTree, treeDifferences } from '../support/tree.js';
import { failsWith } from './temp.js';

export type OpenSnapshotter = (t: TestContext) => Promise<SnapshotterBackend>;

/** Works on the tree of some mounts: mounted where that is permitted, else straight in the directory of a bind. */
export async function onTree<T>(mounts: Mount[], fn: (directory: string) => Promise<T> | T): Promise<T> {
  if ((await canMount()).ok) return withMounts(mounts, fn);
  const [mount] = mounts;
  assert.equal(mount?.type, 'bind', 'only binds can be looked into without mounting');
  return fn(mount.source);
}

/** Prepares, lets `change` work on the tree, and commits. */
export async function addLayer(
  snapshotter: SnapshotterBackend,
  name: string,
  parent: string,
  change: (directory: string) => Promise<unknown> = async () => undefined,
): Promise<void> {
  await onTree(await snapshotter.prepare(`${name}-active`, parent), change);
  await snapshotter.commit(name, `${name}-active`);
}

async function all(snapshotter: SnapshotterBackend, ...filters: string[]): Promise<SnapshotInfo[]> {
  const infos: SnapshotInfo[] = [];
  await snapshotter.walk((info) => void infos.push(info), ...filters);
  return infos.sort((a, b) => (a.name < b.name ? -1 : 1));
}
const names = async (snapshotter: SnapshotterBackend, ...filters: string[]): Promise<string[]> =>
  (await all(snapshotter, ...filters)).map(({ name }) => name);

/** `base` ← `child` ← active `work`, view `look`; active `alone`. */
async function family(s: SnapshotterBackend): Promise<void> {
  await addLayer(s, 'base', '');
  await addLayer(s, 'child', 'base');
  await s.prepare('work', 'child');
  await s.view('look', 'child');
  await s.prepare('alone', '');
}

/** @param numbered whether case numbers go into the names of the tests */
export function snapshotterSuite(what: string, open: OpenSnapshotter, numbered = true): void {
  const given = (
    name: string,
    cases: string,
    body: (t: TestContext, s: SnapshotterBackend) => Promise<void>,
  ) => test(`${what}: ${name}${numbered ? ` ${cases}` : ''}`.trimEnd(), async (t) => body(t, await open(t)));

  given('given nothing, then walk finds nothing and all is NotFound', '', async (_, s) => {
    assert.deepEqual(await all(s), []);
    await failsWith(s.stat('x'), 'NotFound');
    await failsWith(s.usage('x'), 'NotFound');
    await failsWith(s.mounts('x'), 'NotFound');
    await failsWith(s.remove('x'), 'NotFound');
    await failsWith(s.commit('y', 'x'), 'NotFound');
    await failsWith(s.stat('y'), 'NotFound');
  });

  given('given prepare and commit, then parent, kind and times are right', '[#131]', async (_, s) => {
    await addLayer(s, 'base', '');
    await s.prepare('work', 'base');
    const active = await s.stat('work');
    assert.deepEqual([active.kind, active.name, active.parent], ['active', 'work', 'base']);
    assert.equal(active.created, active.updated);
    await s.commit('done', 'work');
    const done = await s.stat('done');
    assert.deepEqual([done.kind, done.name, done.parent, done.labels], ['committed', 'done', 'base', {}]);
    assert.equal(done.created, done.updated);
    assert.ok(done.created > active.created);
    await failsWith(s.stat('work'), 'NotFound');
    await s.view('look', 'done');
    assert.equal((await s.stat('look')).kind, 'view');
  });

  given('given a used key, when prepared or viewed again, then AlreadyExists', '[#132]', async (_, s) => {
    await family(s);
    for (const key of ['work', 'look', 'base']) {
      await failsWith(s.prepare(key, ''), 'AlreadyExists');
      await failsWith(s.view(key, 'child'), 'AlreadyExists');
    }
    assert.deepEqual(await names(s), ['alone', 'base', 'child', 'look', 'work']);
  });

  given(
    'given an unknown or active parent, then NotFound or InvalidArgument, nothing made',
    '[#133]',
    async (_, s) => {
      await family(s);
      await failsWith(s.prepare('x', 'missing'), 'NotFound');
      await failsWith(s.view('x', 'missing'), 'NotFound');
      await failsWith(s.prepare('x', 'alone'), 'InvalidArgument');
      await failsWith(s.view('x', 'look'), 'InvalidArgument');
      await failsWith(s.stat('x'), 'NotFound');
      await s.prepare('x', '');
    },
  );

  given('given a taken name or an unknown key, then commit changes nothing', '[#134]', async (_, s) => {
    await family(s);
    await failsWith(s.commit('base', 'work'), 'AlreadyExists');
    await failsWith(s.commit('work', 'work'), 'AlreadyExists');
    assert.equal((await s.stat('work')).kind, 'active');
    await failsWith(s.commit('new', 'unknown'), 'NotFound');
    await failsWith(s.stat('new'), 'NotFound');
  });

  given(
    'given a view or a committed one, when committed, then FailedPrecondition',
    '[#135]',
    async (_, s) => {
      await family(s);
      const before = await all(s);
      await failsWith(s.commit('new', 'look'), 'FailedPrecondition');
      await failsWith(s.commit('new', 'base'), 'FailedPrecondition');
      assert.deepEqual(await all(s), before);
    },
  );

  given(
    'given children, when removed, then FailedPrecondition; top to bottom works',
    '[#136]',
    async (_, s) => {
      await family(s);
      await failsWith(s.remove('base'), 'FailedPrecondition', /remove/);
      await failsWith(s.remove('child'), 'FailedPrecondition', /remove/);
      for (const key of ['work', 'look', 'child', 'base', 'alone']) await s.remove(key);
      assert.deepEqual(await all(s), []);
      await failsWith(s.remove('base'), 'NotFound');
    },
  );

  given('given removed keys, then they can be used again at once in any way', '[#137]', async (_, s) => {
    await addLayer(s, 'c', '');
    await s.prepare('r', 'c');
    await s.remove('r');
    await s.view('r', 'c');
    await s.remove('r');
    await s.prepare('r', '');
    await s.remove('c');
    await s.commit('c', 'r');
    assert.deepEqual(await names(s), ['c']);
  });

  given('given updates, then only labels change, and the time moves on', '[#138] [#139]', async (_, s) => {
    await addLayer(s, 'base', '');
    const label = (name: string): string => `containerd.io/snapshot/${name}`;
    const labels = { [label('l1')]: '1', [label('l2')]: '2', [label('l3')]: '3' };
    await s.prepare('k', 'base', { labels });
    const info = await s.stat('k');
    assert.deepEqual(info.labels, labels);

    const given: SnapshotInfo = { ...info, parent: 'other', kind: 'view', labels: { [label('l1')]: 'x' } };
    const partly = await s.update(given, `labels.${label('l1')}`, `labels.${label('l2')}`);
    assert.deepEqual(partly.labels, { [label('l1')]: 'x', [label('l3')]: '3' });
    assert.deepEqual([partly.parent, partly.kind, partly.created], ['base', 'active', info.created]);
    assert.ok(partly.updated > info.updated);
    assert.deepEqual(await s.stat('k'), partly);

    const fully = await s.update({ ...info, labels: { [label('n')]: 'n', [label('empty')]: '' } }, 'labels');
    assert.deepEqual(fully.labels, { [label('n')]: 'n' });
    assert.deepEqual((await s.update({ ...info, labels: {} })).labels, {});
    for (const path of ['parent', 'kind', 'labelsx'])
      await failsWith(s.update(info, path), 'InvalidArgument');
    await failsWith(s.update({ ...info, name: '' }), 'InvalidArgument');
    await failsWith(s.update({ ...info, name: 'missing' }), 'NotFound');
  });

  given('given labels at prepare, when committed without, then there are none', '[#142]', async (_, s) => {
    const labels = { 'containerd.io/snapshot/a': '1' };
    const given = { ...labels, 'containerd.io/snapshot/b': '' };
    await s.prepare('k', '', { labels: given });
    given['containerd.io/snapshot/a'] = 'changed by the caller';
    assert.deepEqual((await s.stat('k')).labels, labels);
    await s.commit('c', 'k');
    assert.deepEqual((await s.stat('c')).labels, {});
    await s.prepare('k', 'c');
    await s.commit('d', 'k', { labels });
    assert.deepEqual((await s.stat('d')).labels, labels);
  });

  given('given a committed child, when removed, then its parent is free', '[#143]', async (_, s) => {
    await addLayer(s, 'base', '');
    await addLayer(s, 'child', 'base');
    await failsWith(s.remove('base'), 'FailedPrecondition');
    await s.remove('child');
    await s.remove('base');
  });

  given('given filters, then walk finds what matches', '[#144]', async (_, s) => {
    await family(s);
    await s.update({ ...(await s.stat('alone')), labels: { 'containerd.io/snapshot/x': 'y' } });
    assert.deepEqual(await names(s, 'kind==active'), ['alone', 'work']);
    assert.deepEqual(await names(s, 'kind==view', 'kind==committed'), ['base', 'child', 'look']);
    assert.deepEqual(await names(s, 'name==base', 'name==work'), ['base', 'work']);
    assert.deepEqual(await names(s, 'parent==child'), ['look', 'work']);
    assert.deepEqual(await names(s, 'parent!=""'), ['child', 'look', 'work']);
    assert.deepEqual(await names(s, 'parent==""'), ['alone', 'base']);
    assert.deepEqual(await names(s, 'labels."containerd.io/snapshot/x"==y'), ['alone']);
    assert.deepEqual(await names(s, 'kind==Active'), []);
    await failsWith(all(s, 'kind=active'), 'InvalidArgument', /parse error/);
  });

  given('given 250 snapshots, then each is visited once and stat works inside', '[#145]', async (_, s) => {
    for (let i = 0; i < 250; i++) await s.prepare(`k${i}`, '');
    const seen: string[] = [];
    await s.walk(async (info) => {
      assert.deepEqual(await s.stat(info.name), info);
      seen.push(info.name);
    });
    assert.deepEqual(seen.sort(), Array.from({ length: 250 }, (_v, i) => `k${i}`).sort());
    const enough = new Error('enough');
    await assert.rejects(
      s.walk(() => Promise.reject(enough)),
      enough,
    );
  });

  given('given a committed or unknown one, then it has no mounts', '[#157]', async (_, s) => {
    await family(s);
    await failsWith(s.mounts('base'), 'FailedPrecondition');
    await failsWith(s.mounts('unknown'), 'NotFound');
    assert.deepEqual(await s.mounts('work'), await s.mounts('work'));
  });

  given(
    'given data is written, then the usage of the active grows; committed it is fixed',
    '[#158]',
    async (_, s) => {
      const mounts = await s.prepare('k', '');
      const empty = await s.usage('k');
      await onTree(mounts, async (directory) => {
        await writeFile(join(directory, 'data'), Buffer.alloc(100_000, 1));
        await link(join(directory, 'data'), join(directory, 'again'));
      });
      const full = await s.usage('k');
      assert.equal(full.inodes, empty.inodes + 1);
      assert.ok(full.size >= empty.size + 100_000 && full.size < empty.size + 200_000);
      await s.commit('c', 'k');
      assert.deepEqual(await s.usage('c'), full);
      await s.view('v', 'c');
      assert.deepEqual(await s.usage('v'), { inodes: 0, size: 0 });
    },
  );

  given('given it is closed twice, then nothing happens', '[#160]', async (_, s) => {
    await s.close();
    await s.close();
  });

  given(
    'given a parentless active, then its root has mode 0755, and what is written stays',
    '',
    async (_, s) => {
      const mask = process.umask(0o077);
      try {
        await s.prepare('k', '');
      } finally {
        process.umask(mask);
      }
      await onTree(await s.mounts('k'), async (directory) => {
        assert.equal((await stat(directory)).mode & 0o7777, 0o755);
        await writeFile(join(directory, 'file'), 'content');
      });
      await s.commit('c', 'k');
      await onTree(await s.view('v', 'c'), async (directory) => {
        assert.equal(await readFile(join(directory, 'file'), 'utf8'), 'content');
      });
    },
  );

  given(
    'given a base, when 40 users prepare, commit and remove at once, then all is as if one after the other',
    '',
    async (_, s) => {
      await addLayer(s, 'base', '');
      const user = async (i: number): Promise<void> => {
        await s.prepare(`a${i}`, 'base');
        if (i % 4 === 0) await s.remove(`a${i}`);
        else await s.commit(`c${i}`, `a${i}`);
        if (i % 4 === 1) await s.view(`v${i}`, `c${i}`);
      };
      const rivals = Array.from({ length: 10 }, () => s.prepare('one', 'base'));
      const removals = Array.from({ length: 5 }, () => s.remove('base'));
      const outcomes = await Promise.allSettled([...rivals, ...removals]);
      await Promise.all(Array.from({ length: 40 }, (_v, i) => user(i)));
      assert.equal(outcomes.slice(0, 10).filter((o) => o.status === 'fulfilled').length, 1);
      for (const o of outcomes) {
        if (o.status === 'rejected')
          assert.match(String(o.reason.kind), /^(AlreadyExists|FailedPrecondition)$/);
      }
      const expected = Array.from({ length: 40 }, (_v, i) => i).flatMap((i) =>
        i % 4 === 0 ? [] : i % 4 === 1 ? [`c${i}`, `v${i}`] : [`c${i}`],
      );
      assert.deepEqual(await names(s), ['base', 'one', ...expected].sort());
    },
  );

  test(`${what}: given changes over a base, when committed, then a view shows exactly the tree`, async (t) => {
    const { ok, reason } = await canMount();
    if (!ok) return t.skip(`cannot mount here: ${reason}`);
    const s = await open(t);
    await addLayer(s, 'base', '', makeBase);
    const mounts = await s.prepare('work', 'base');
    const written = await withMounts(mounts, async (directory) => {
      await changeBase(directory);
      return describeTree(directory);
    });
    await s.commit('changed', 'work');
    const seen = await withMounts(await s.view('look', 'changed'), (directory) => describeTree(directory));
    assert.deepEqual(treeDifferences(written, seen), []);
    assert.ok(!seen.has('gone') && !seen.has('dir/below') && seen.has('dir/fresh'));
    await withMounts(await s.view('old', 'base'), async (directory) => {
      assert.equal(await readFile(join(directory, 'edited'), 'utf8'), 'before');
      assert.equal(await readFile(join(directory, 'gone'), 'utf8'), 'gone');
    });
    await withMounts(await s.mounts('look'), (directory) =>
      assert.rejects(writeFile(join(directory, 'x'), ''), { code: 'EROFS' }),
    );
  });
}

/** A tree with something of everything; the change below touches each of them. */
export async function makeBase(directory: string): Promise<void> {
  const path = (name: string): string => join(directory, name);
  await writeFile(path('kept'), 'kept');
  await writeFile(path('edited'), 'before');
  await writeFile(path('gone'), 'gone');
  await writeFile(path('moved'), 'moved');
  await mkdir(path('dir'));
  await writeFile(path('dir/below'), 'below');
  await mkdir(path('opened'), { mode: 0o700 });
  await symlink('kept', path('link'));
  await link(path('kept'), path('hard'));
}

export async function changeBase(directory: string): Promise<void> {
  const path = (name: string): string => join(directory, name);
  await writeFile(path('edited'), 'after');
  await rm(path('gone'));
  await rename(path('moved'), path('moved-away'));
  await rm(path('dir'), { recursive: true });
  await mkdir(path('dir'));
  await writeFile(path('dir/fresh'), 'fresh');
  await chmod(path('opened'), 0o755);
  await rm(path('link'));
  await mkdir(path('link'));
  await writeFile(path('new'), 'new');
}
