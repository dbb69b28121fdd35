import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { withTransactionContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import {
  addExtension,
  addLabel,
  getExtension,
  getLabel,
  type Sandbox,
  type SandboxInput,
} from '../../src/stores/sandboxes.js';
import { testDB } from '../support/db.js';
import { any, ns1, ns2, rejects, withKind } from './fixtures.js';

const stored: SandboxInput = {
  id: 'pod',
  labels: { l: '1', m: '2' },
  runtime: { name: 'runc', options: any('options') },
  spec: any('spec'),
  sandboxer: 'shim',
  extensions: { e: any('e'), f: any('f') },
};
const change: SandboxInput = {
  id: 'pod',
  labels: { l: '9', n: '3' },
  runtime: { name: 'runc', options: any('other options') },
  spec: any('other spec'),
  sandboxer: 'other',
  extensions: { e: any('other e'), g: any('g') },
};

async function setUp(t: TestContext): Promise<{ db: DB; created: Sandbox }> {
  const db = await testDB(t);
  return { db, created: await db.sandboxes.create(ns1, stored) };
}

/** The parts of a sandbox that an update may touch, opaque messages by their type. */
const outline = (s: Sandbox) => ({
  labels: s.labels,
  runtime: [s.runtime.name, s.runtime.options?.typeUrl],
  spec: s.spec?.typeUrl,
  sandboxer: s.sandboxer,
  extensions: Object.fromEntries(Object.entries(s.extensions).map(([name, e]) => [name, e.typeUrl])),
});
const before = {
  labels: { l: '1', m: '2' },
  runtime: ['runc', 'test/options'],
  spec: 'test/spec',
  sandboxer: 'shim',
  extensions: { e: 'test/e', f: 'test/f' },
};

describe('sandbox create', () => {
  it('given a sandbox, then it comes back whole', async (t) => {
    const { db, created } = await setUp(t);
    const read = await db.sandboxes.get(ns1, 'pod');
    assert.deepEqual(read, created);
    assert.deepEqual(outline(read), before);
    assert.equal(read.createdAt, read.updatedAt);
    assert.deepEqual(Buffer.from(read.spec?.value ?? []), Buffer.from('spec'));
  });

  it('given nothing but an id, then it is created without spec', async (t) => {
    const db = await testDB(t);
    await db.sandboxes.create(ns1, { id: 'bare' });
    const { createdAt: _, updatedAt: __, ...read } = await db.sandboxes.get(ns1, 'bare');
    assert.deepEqual(read, { id: 'bare', labels: {}, runtime: { name: '' }, sandboxer: '', extensions: {} });
  });

  it('[#48] given one created twice, then AlreadyExists; given a bad id, then InvalidArgument', async (t) => {
    const { db, created } = await setUp(t);
    await rejects(db.sandboxes.create(ns1, { id: 'pod' }), 'AlreadyExists');
    assert.deepEqual(await db.sandboxes.get(ns1, 'pod'), created);
    for (const id of ['', 'a/b', 'a b']) await rejects(db.sandboxes.create(ns1, { id }), 'InvalidArgument');
  });

  it('[#54] given a label of 10 000 bytes, then it is accepted', async (t) => {
    const db = await testDB(t);
    const labels = { big: 'x'.repeat(10_000), none: '' };
    await db.sandboxes.create(ns1, { id: 'pod', labels });
    assert.deepEqual((await db.sandboxes.get(ns1, 'pod')).labels, { big: labels.big });
  });

  it('[#55] given a transaction that is rolled back, then the sandbox is absent', async (t) => {
    const db = await testDB(t);
    const undone = db.update(async (tx) => {
      const ctx = withTransactionContext(ns1, tx);
      const created = await db.sandboxes.create(ctx, stored);
      assert.deepEqual(await db.sandboxes.get(ctx, 'pod'), created);
      throw new Error('changed my mind');
    });
    await assert.rejects(undone, /changed my mind/);
    await rejects(db.sandboxes.get(ns1, 'pod'), 'NotFound');
    assert.deepEqual(await db.namespaces.list({}), []);
  });
});

describe('sandbox update', () => {
  it('[#50] given paths of a label, an extension and the spec, then only those change', async (t) => {
    const { db, created } = await setUp(t);
    const updated = await db.sandboxes.update(ns1, change, 'labels.l', 'extensions.e', 'spec');
    assert.deepEqual(outline(updated), {
      ...before,
      labels: { l: '9', m: '2' },
      spec: 'test/other spec',
      extensions: { e: 'test/other e', f: 'test/f' },
    });
    assert.deepEqual(await db.sandboxes.get(ns1, 'pod'), updated);
    assert.equal(updated.createdAt, created.createdAt);
    assert.ok(updated.updatedAt > created.updatedAt);
  });

  it('given no paths, then labels, extensions, runtime and spec are replaced, the sandboxer stays', async (t) => {
    const { db } = await setUp(t);
    await db.sandboxes.update(ns1, change);
    assert.deepEqual(outline(await db.sandboxes.get(ns1, 'pod')), {
      labels: { l: '9', n: '3' },
      runtime: ['runc', 'test/other options'],
      spec: 'test/other spec',
      sandboxer: 'shim',
      extensions: { e: 'test/other e', g: 'test/g' },
    });
    const { spec: _, ...bare } = change;
    await db.sandboxes.update(ns1, { ...bare, extensions: {} });
    assert.deepEqual(Object.keys(await db.sandboxes.get(ns1, 'pod')).includes('spec'), false);
    assert.deepEqual((await db.sandboxes.get(ns1, 'pod')).extensions, {});
  });

  it('[#51] given another runtime name, then it takes the path runtime to change it', async (t) => {
    const { db, created } = await setUp(t);
    const renamed = { ...change, runtime: { name: 'crun' } };
    await rejects(db.sandboxes.update(ns1, renamed), 'InvalidArgument', 'runtime');
    assert.deepEqual(await db.sandboxes.get(ns1, 'pod'), created);
    const updated = await db.sandboxes.update(ns1, renamed, 'runtime');
    assert.deepEqual(outline(updated), { ...before, runtime: ['crun', undefined] });
  });

  it('[#52] given path sandboxer or id, then InvalidArgument and nothing changes', async (t) => {
    const { db, created } = await setUp(t);
    for (const path of ['sandboxer', 'id', 'runtime.name', 'specs']) {
      await rejects(
        db.sandboxes.update(ns1, change, 'labels', path),
        'InvalidArgument',
        'cannot update sandbox field',
      );
    }
    assert.deepEqual(await db.sandboxes.get(ns1, 'pod'), created);
  });

  it('given an unknown id, then NotFound', async (t) => {
    const { db } = await setUp(t);
    await rejects(db.sandboxes.update(ns1, { ...change, id: 'other' }), 'NotFound');
    await rejects(db.sandboxes.update(ns2, change), 'NotFound');
    await rejects(db.sandboxes.update(ns1, { ...change, id: '' }), 'NotFound');
  });
});

it('[#49] given a namespace without sandboxes, then get is NotFound and the list empty', async (t) => {
  const { db } = await setUp(t);
  await rejects(db.sandboxes.get(ns2, 'pod'), 'NotFound');
  await rejects(db.sandboxes.get(ns2, ''), 'NotFound');
  assert.deepEqual(await db.sandboxes.list(ns2), []);
});

it('[#53] given a missing sandbox, when deleted, then NotFound; deleting one counts as a deletion', async (t) => {
  const { db } = await setUp(t);
  const dirty: boolean[] = [];
  db.registerMutationCallback((deletions) => dirty.push(deletions));
  await rejects(db.sandboxes.delete(ns1, 'other'), 'NotFound');
  await rejects(db.sandboxes.delete(ns1, ''), 'NotFound');
  await db.sandboxes.delete(ns1, 'pod');
  assert.deepEqual(dirty, [true]);
  await rejects(db.sandboxes.delete(ns1, 'pod'), 'NotFound');
});

it('given sandboxes, when listed by id or label, then those match, by id', async (t) => {
  const { db } = await setUp(t);
  await db.sandboxes.create(ns1, { id: 'a-pod', labels: { l: '1' } });
  const listed = async (...filters: string[]): Promise<string[]> =>
    (await db.sandboxes.list(ns1, ...filters)).map((s) => s.id);
  assert.deepEqual(await listed(), ['a-pod', 'pod']);
  assert.deepEqual(await listed('id==pod'), ['pod']);
  assert.deepEqual(await listed('labels.l==1,labels.m'), ['pod']);
  assert.deepEqual(await listed('sandboxer==shim'), []);
  await rejects(db.sandboxes.list(ns1, 'id==pod,'), 'InvalidArgument', 'parse error');
});

describe('sandbox helpers', () => {
  it('given a sandbox, when a label or extension is added, then a new sandbox has it and the old has not', () => {
    const sandbox: SandboxInput = { id: 'pod', labels: { a: '1' } };
    const more = addLabel(addExtension(sandbox, 'e', any('e')), 'b', '2');
    assert.deepEqual(more.labels, { a: '1', b: '2' });
    assert.equal(getLabel(more, 'b'), '2');
    assert.equal(getExtension(more, 'e').typeUrl, 'test/e');
    assert.deepEqual(sandbox, { id: 'pod', labels: { a: '1' } });
  });

  it('given a missing label or extension, then NotFound', () => {
    assert.throws(() => getLabel({ id: 'pod' }, 'a'), withKind('NotFound', 'label "a"'));
    assert.throws(() => getLabel({ id: 'pod', labels: {} }, 'constructor'), withKind('NotFound'));
    assert.throws(() => getExtension({ id: 'pod' }, 'e'), withKind('NotFound', 'extension "e"'));
  });

  it('given an extension read back, when changed, then the sandbox keeps its own', () => {
    const sandbox = addExtension({ id: 'pod' }, 'e', any('e'));
    getExtension(sandbox, 'e').value.fill(0);
    assert.deepEqual(Buffer.from(getExtension(sandbox, 'e').value), Buffer.from('e'));
  });
});
