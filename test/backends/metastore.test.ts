import assert from 'node:assert/strict';
import { mkdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Metastore } from '../../src/backends/snapshotters/metastore.js';
import { failsWith, tempDir } from './temp.js';

const noUsage = { inodes: 0, size: 0 };

async function fixture(t: TestContext): Promise<{ path: string; meta: Metastore }> {
  const path = join(await tempDir(t), 'metadata.db');
  const meta = await Metastore.open(path);
  t.after(() => meta.close());
  return { path, meta };
}

const prepare = (meta: Metastore, key: string, parent = '') =>
  meta.write((tx) => tx.create('active', key, parent, undefined));
const view = (meta: Metastore, key: string, parent = '') =>
  meta.write((tx) => tx.create('view', key, parent, undefined));
const commit = (meta: Metastore, name: string, key: string, rebase = '') =>
  meta.write((tx) => tx.commit(name, key, noUsage, undefined, rebase));

/** committed-1 ← committed-2 ← active-3, view-1; active-1 and view-0 without parent; active-2 on committed-1. */
async function baseSet(meta: Metastore): Promise<void> {
  await prepare(meta, 'committed-tmp-1');
  await commit(meta, 'committed-1', 'committed-tmp-1');
  await prepare(meta, 'committed-tmp-2', 'committed-1');
  await commit(meta, 'committed-2', 'committed-tmp-2');
  await prepare(meta, 'active-1');
  await prepare(meta, 'active-2', 'committed-1');
  await prepare(meta, 'active-3', 'committed-2');
  await view(meta, 'view-0');
  await view(meta, 'view-1', 'committed-2');
}

const chain = (meta: Metastore, key: string): (string | undefined)[] =>
  meta.ancestors(meta.get(key)).map((id) => meta.byId(id)?.key);

test('given a file that was never written, then there is nothing and a get is NotFound', async (t) => {
  const { meta } = await fixture(t);
  assert.deepEqual(meta.ids(), []);
  assert.equal(meta.find('x'), undefined);
  assert.throws(() => meta.get('x'), { kind: 'NotFound', object: 'x' });
});

test('given the base set, then ids start at 1, survive a commit, and chains are nearest first [#166]', async (t) => {
  const { meta } = await fixture(t);
  const first = await prepare(meta, 'a');
  assert.deepEqual(first, { id: 1, parents: [] });
  assert.equal((await commit(meta, 'base', 'a')).id, 1);
  assert.equal(meta.get('base').kind, 'committed');
  assert.equal(meta.find('a'), undefined);
  await meta.write((tx) => tx.remove('base'));

  await baseSet(meta);
  assert.deepEqual([meta.get('committed-1').id, meta.get('committed-2').id], [2, 3]);
  assert.deepEqual(chain(meta, 'committed-1'), []);
  assert.deepEqual(chain(meta, 'committed-2'), ['committed-1']);
  assert.deepEqual(chain(meta, 'active-3'), ['committed-2', 'committed-1']);
  assert.deepEqual(chain(meta, 'view-1'), ['committed-2', 'committed-1']);
  const made = await prepare(meta, 'new', 'committed-2');
  assert.deepEqual(made.parents, [3, 2]);
  assert.deepEqual(
    [2, 3, 4].map((id) => [id, meta.byId(id)?.key]),
    [
      [2, 'committed-1'],
      [3, 'committed-2'],
      [4, 'active-1'],
    ],
  );
});

test('given a long chain, then its ancestors are read once, and those of its removed snapshots not again', async (t) => {
  const { meta } = await fixture(t);
  for (let i = 1; i <= 30; i++) {
    await prepare(meta, 'a', i === 1 ? '' : `layer-${i - 1}`);
    await commit(meta, `layer-${i}`, 'a');
  }
  let reads = 0;
  const byId = meta.byId.bind(meta);
  meta.byId = (id) => {
    reads++;
    return byId(id);
  };
  const descending = (from: number): number[] => Array.from({ length: from }, (_, i) => from - i);
  assert.deepEqual(meta.ancestors(meta.get('layer-30')), descending(29));
  reads = 0;
  assert.deepEqual(meta.ancestors(meta.get('layer-30')), descending(29));
  assert.ok(reads <= 2, `${reads} reads`);
  await meta.write((tx) => tx.remove('layer-30'));
  await prepare(meta, 'layer-30', 'layer-28');
  assert.deepEqual(meta.ancestors(meta.get('layer-30')), descending(28));
});

test('given removed snapshots and failed writes, then ids are never used again, also after reopening [#166]', async (t) => {
  const { path, meta } = await fixture(t);
  await prepare(meta, 'a');
  await meta.write((tx) => tx.remove('a'));
  assert.equal((await prepare(meta, 'a')).id, 2);
  await assert.rejects(
    meta.write((tx) => {
      tx.create('active', 'b', '', undefined);
      throw new Error('the directory could not be made');
    }),
    /could not be made/,
  );
  assert.equal(meta.find('b'), undefined);
  assert.equal((await prepare(meta, 'b')).id, 4);
  await meta.write((tx) => tx.remove('b'));
  await meta.close();
  const again = await Metastore.open(path);
  assert.equal((await prepare(again, 'c')).id, 5);
  assert.deepEqual(again.get('a').id, 2);
  await again.close();
});

test('given every way to break the rules, then the kinds are the documented ones and nothing changes', async (t) => {
  const { meta } = await fixture(t);
  await baseSet(meta);
  const before = meta.ids().map((id) => meta.byId(id));
  await failsWith(prepare(meta, 'x', 'missing'), 'NotFound');
  await failsWith(prepare(meta, 'x', 'active-1'), 'InvalidArgument');
  await failsWith(prepare(meta, 'x', 'view-0'), 'InvalidArgument');
  await failsWith(prepare(meta, 'active-1', 'missing'), 'NotFound');
  for (const used of ['active-1', 'view-0', 'committed-1']) {
    await failsWith(prepare(meta, used), 'AlreadyExists');
    await failsWith(view(meta, used, 'committed-2'), 'AlreadyExists');
    await failsWith(commit(meta, used, 'active-1'), 'AlreadyExists');
  }
  await failsWith(prepare(meta, ''), 'InvalidArgument');
  await failsWith(prepare(meta, '\ud800'), 'InvalidArgument');
  await failsWith(commit(meta, 'x', 'missing'), 'NotFound');
  await failsWith(commit(meta, 'x', 'view-0'), 'FailedPrecondition');
  await failsWith(commit(meta, 'x', 'committed-2'), 'FailedPrecondition');
  await failsWith(commit(meta, '', 'active-1'), 'InvalidArgument');
  for (const parent of ['committed-1', 'committed-2']) {
    await failsWith(
      meta.write((tx) => tx.remove(parent)),
      'FailedPrecondition',
      /remove/,
    );
  }
  await failsWith(
    meta.write((tx) => tx.remove('missing')),
    'NotFound',
  );
  assert.deepEqual(
    meta.ids().map((id) => meta.byId(id)),
    before,
  );
});

const rebases = [
  { active: '', onto: 'base', result: 'base' },
  { active: 'base', onto: 'base', result: 'base' },
  { active: 'base', onto: '', result: 'base' },
  { active: 'base', onto: 'other', kind: 'InvalidArgument' },
  { active: '', onto: 'missing', kind: 'NotFound' },
  { active: '', onto: 'open', kind: 'FailedPrecondition' },
  { active: 'base', onto: 'missing', kind: 'InvalidArgument' },
] as const;
for (const rebase of rebases) {
  const { active, onto } = rebase;
  test(`given an active on "${active}", when committed onto "${onto}", then rebased or refused [#167]`, async (t) => {
    const { meta } = await fixture(t);
    for (const name of ['base', 'other']) {
      await prepare(meta, `${name}-tmp`);
      await commit(meta, name, `${name}-tmp`);
    }
    await prepare(meta, 'open');
    await prepare(meta, 'a', active);
    const committing = commit(meta, 'c', 'a', onto);
    if ('kind' in rebase) {
      await failsWith(committing, rebase.kind);
      assert.equal(meta.get('a').kind, 'active');
      return;
    }
    await committing;
    assert.deepEqual(chain(meta, 'c'), [rebase.result]);
    await failsWith(
      meta.write((tx) => tx.remove('base')),
      'FailedPrecondition',
    );
    await meta.write((tx) => tx.remove('c'));
    await meta.write((tx) => tx.remove('base'));
  });
}

test('given keys of 3000 bytes that differ at their end, and odd labels, then all are kept apart', async (t) => {
  const { path, meta } = await fixture(t);
  const long = 'k'.repeat(3000);
  const labels = JSON.parse('{"__proto__": "x", "a": "é\\u0000"}');
  for (const key of [`${long}1`, `${long}2`, 'ns/1/ü']) {
    await meta.write((tx) => tx.create('active', key, '', labels));
  }
  await failsWith(prepare(meta, `${long}1`), 'AlreadyExists');
  await meta.close();
  const again = await Metastore.open(path);
  assert.deepEqual(
    again.ids().map((id) => again.byId(id)?.key),
    [`${long}1`, `${long}2`, 'ns/1/ü'],
  );
  assert.deepEqual(Object.entries(again.get('ns/1/ü').labels ?? {}), [
    ['__proto__', 'x'],
    ['a', 'é\0'],
  ]);
  await again.close();
});

test('given 50 writes at once, then they run one after another and each sees the one before', async (t) => {
  const { meta } = await fixture(t);
  let running = 0;
  await Promise.all(
    Array.from({ length: 50 }, (_, i) =>
      meta.write(async (tx) => {
        assert.equal(++running, 1);
        assert.equal(meta.ids().length, i);
        tx.create('active', `k${i}`, '', undefined);
        await new Promise((resolve) => setImmediate(resolve));
        running--;
      }),
    ),
  );
  assert.equal(meta.ids().length, 50);
});

test('given a closed metastore, then everything fails with FailedPrecondition and closing again is fine', async (t) => {
  const { path, meta } = await fixture(t);
  const last = prepare(meta, 'a');
  await meta.close();
  await meta.close();
  await failsWith(last, 'FailedPrecondition', /closed/);
  await failsWith(prepare(meta, 'b'), 'FailedPrecondition', /closed/);
  assert.throws(() => meta.get('a'), { kind: 'FailedPrecondition' });
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});

const foreign: Record<string, { bytes: Buffer; kind: 'FailedPrecondition' | 'Unknown'; text: RegExp }> = {
  'text file': { bytes: Buffer.from('hello\n'), kind: 'FailedPrecondition', text: /is not an LMDB file/ },
  'bolt file': {
    bytes: Buffer.concat([Buffer.alloc(16), Buffer.from('edda0ced02000000', 'hex'), Buffer.alloc(8000)]),
    kind: 'FailedPrecondition',
    text: /containerd/,
  },
};
for (const [name, { bytes, kind, text }] of Object.entries(foreign)) {
  test(`given a ${name} as metadata.db, then it is refused and left as it is`, async (t) => {
    const path = join(await tempDir(t), 'metadata.db');
    await writeFile(path, bytes);
    await failsWith(Metastore.open(path), kind, text);
    assert.deepEqual(await readFile(path), bytes);
  });
}

test('given a file that was cut short, or a directory, then it is refused with its path', async (t) => {
  const { path, meta } = await fixture(t);
  for (let i = 0; i < 400; i++)
    await meta.write((tx) => tx.create('active', `k${i}`, '', { l: 'x'.repeat(2000) }));
  await meta.close();
  await truncate(path, 3 * 4096);
  await failsWith(Metastore.open(path), 'Unknown', /metadata\.db is damaged: .* pages are missing/);
  const directory = join(await tempDir(t), 'metadata.db');
  await mkdir(directory);
  await failsWith(Metastore.open(directory), 'FailedPrecondition', /not a regular file/);
});
