import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { withTransactionContext } from '../../src/context.js';
import { ingestKey, snapshotKey, snapshotterKey } from '../../src/engine/schema/keys.js';
import type { IngestRecord } from '../../src/model/records.js';
import { putRecord } from '../../src/stores/common.js';
import type { RemovedContent } from '../../src/stores/host.js';
import { withId } from '../../src/stores/leases.js';
import { withNamespaceCgroupDeletion } from '../../src/stores/namespace-cgroup.js';
import { NamespaceStore } from '../../src/stores/namespaces.js';
import { tempDir, testDB } from '../support/db.js';
import { addBlobRecord, addSnapshotRecord, container, digest, image, ns1, rejects } from './fixtures.js';

describe('namespace create', () => {
  it('[#56] given a namespace, created outright or by a write into it, when created again, then AlreadyExists', async (t) => {
    const db = await testDB(t);
    await db.namespaces.create({}, 'x');
    await rejects(db.namespaces.create({}, 'x'), 'AlreadyExists');
    await db.images.create({ namespace: 'y' }, image('a'));
    await rejects(db.namespaces.create({}, 'y'), 'AlreadyExists');
  });

  it('[#57] given the name version, then nothing is created in or under it and reads find nothing', async (t) => {
    const db = await testDB(t);
    const version = { namespace: 'version' };
    await rejects(db.namespaces.create({}, 'version'), 'InvalidArgument');
    await rejects(db.namespaces.setLabel({}, 'version', 'a', 'b'), 'InvalidArgument');
    await rejects(db.images.create(version, image('a')), 'InvalidArgument');
    await rejects(db.containers.create(version, container('a')), 'InvalidArgument');
    await rejects(db.sandboxes.create(version, { id: 'a' }), 'InvalidArgument');
    await rejects(db.leases.create(version, withId('a')), 'InvalidArgument');
    assert.deepEqual(await db.images.list(version), []);
    assert.deepEqual(await db.namespaces.labels({}, 'version'), {});
    await rejects(db.images.get(version, 'a'), 'NotFound');
    await rejects(db.namespaces.delete({}, 'version'), 'NotFound');
  });

  it('given a bad name or an oversized label, then InvalidArgument and no namespace', async (t) => {
    const db = await testDB(t);
    for (const name of ['', 'a b', '-a', 'a'.repeat(77)]) {
      await rejects(db.namespaces.create({}, name), 'InvalidArgument');
      await rejects(db.namespaces.setLabel({}, name, 'a', 'b'), 'InvalidArgument');
    }
    await rejects(db.namespaces.create({}, 'x', { a: 'v'.repeat(4096) }), 'InvalidArgument');
    await rejects(db.namespaces.setLabel({}, 'x', 'a', 'v'.repeat(4096)), 'InvalidArgument');
    assert.deepEqual(await db.namespaces.list({}), []);
  });
});

describe('namespace labels', () => {
  it('[#58] given an empty value at create, then it is stored, and setting it to "" deletes it', async (t) => {
    const db = await testDB(t);
    const labels = { a: '', b: '1' };
    await db.namespaces.create({}, 'x', labels);
    labels.b = 'changed by the caller';
    assert.deepEqual(await db.namespaces.labels({}, 'x'), { a: '', b: '1' });
    await db.namespaces.setLabel({}, 'x', 'a', '');
    assert.deepEqual(await db.namespaces.labels({}, 'x'), { b: '1' });
    await db.namespaces.setLabel({}, 'x', 'b', '2');
    await db.namespaces.setLabel({}, 'x', 'c', '3');
    assert.deepEqual(await db.namespaces.labels({}, 'x'), { b: '2', c: '3' });
  });

  it('[#59] given an unknown namespace, then it has no labels, and setting one creates it', async (t) => {
    const db = await testDB(t);
    assert.deepEqual(await db.namespaces.labels({}, 'x'), {});
    assert.deepEqual(await db.namespaces.labels({}, ''), {});
    await db.namespaces.setLabel({}, 'x', 'a', '1');
    assert.deepEqual(await db.namespaces.labels({}, 'x'), { a: '1' });
    assert.deepEqual(await db.namespaces.list({}), ['x']);
  });
});

describe('namespace delete', () => {
  it('[#60] given no such namespace, then NotFound', async (t) => {
    const db = await testDB(t);
    await rejects(db.namespaces.delete({}, 'x'), 'NotFound');
    await rejects(db.namespaces.delete({}, ''), 'NotFound');
  });

  it('[#61] given a container and a snapshot, then FailedPrecondition names them', async (t) => {
    const db = await testDB(t);
    await db.containers.create(ns1, container('c'));
    await db.update((tx) => addSnapshotRecord(tx, 'ns1', 'testss', 's'));
    await rejects(
      db.namespaces.delete({}, 'ns1'),
      'FailedPrecondition',
      'still has containers, snapshots on "testss" snapshotter',
    );
    assert.deepEqual(await db.namespaces.list({}), ['ns1']);
  });

  it('[#62] given everything, then the text has it in order, snapshotters by name', async (t) => {
    const db = await testDB(t);
    await db.images.create(ns1, image('i'));
    await db.containers.create(ns1, container('c'));
    await db.update((tx) => {
      addBlobRecord(tx, 'ns1', 'b');
      for (const snapshotter of ['zfs', 'native', 'nat']) {
        for (let i = 0; i < 3; i++) addSnapshotRecord(tx, 'ns1', snapshotter, `s${i}`);
      }
      addSnapshotRecord(tx, 'ns10', 'other', 's');
    });
    await assert.rejects(db.namespaces.delete({}, 'ns1'), {
      kind: 'FailedPrecondition',
      message:
        'namespace "ns1" must be empty, but it still has images, blobs, containers, ' +
        'snapshots on "nat" snapshotter, snapshots on "native" snapshotter, snapshots on "zfs" snapshotter',
    });
  });

  it('[#63] given a namespace emptied again, then it is deleted', async (t) => {
    const db = await testDB(t);
    await db.images.create(ns1, image('a'));
    await rejects(db.namespaces.delete({}, 'ns1'), 'FailedPrecondition', 'it still has images');
    await db.images.delete(ns1, 'a');
    await db.namespaces.delete({}, 'ns1');
    assert.deepEqual(await db.namespaces.list({}), []);
    await db.namespaces.create({}, 'ns1');
  });

  it('[#64] given options, then they run first, in order, and a failing one keeps the namespace', async (t) => {
    const db = await testDB(t);
    await db.namespaces.create({}, 'x', { a: '1' });
    const ran: string[] = [];
    const failing = () => Promise.reject(new Error('cgroup is busy'));
    const note = (_: unknown, { name }: { name: string }) => void ran.push(name);
    await assert.rejects(db.namespaces.delete({}, 'x', note, failing, note), /cgroup is busy/);
    assert.deepEqual(ran, ['x']);
    assert.deepEqual(await db.namespaces.labels({}, 'x'), { a: '1' });
    await db.namespaces.delete({}, 'x', note);
    assert.deepEqual([ran, await db.namespaces.list({})], [['x', 'x'], []]);
  });

  it('given leases, ingests, sandboxes and sequences, then they go with their namespace and no other', async (t) => {
    const db = await testDB(t);
    for (const namespace of ['x', 'x2']) {
      const ctx = { namespace };
      await db.leases.create(ctx, withId('l'));
      await db.leases.addResource(ctx, 'l', { type: 'ingests', id: 'ref' });
      await db.sandboxes.create(ctx, { id: 's' });
      await db.update((tx) => {
        putRecord<IngestRecord>(tx, ingestKey(namespace, 'ref'), { ref: `${namespace}/1/ref` });
        addSnapshotRecord(tx, namespace, 'native', 's');
        tx.next(snapshotterKey(namespace, 'native'));
        tx.delete(snapshotKey(namespace, 'native', 's'));
      });
    }
    const dirty: boolean[] = [];
    db.registerMutationCallback((deletions) => dirty.push(deletions));
    await db.namespaces.delete({}, 'x');
    assert.deepEqual(dirty, [true]);

    const left = async (namespace: string): Promise<unknown> => {
      const counter = snapshotterKey(namespace, 'native');
      return {
        leases: (await db.leases.list({ namespace })).map((l) => l.id),
        sandboxes: (await db.sandboxes.list({ namespace })).map((s) => s.id),
        ingest: db.engine.has(ingestKey(namespace, 'ref')),
        snapshotter: db.engine.has(counter),
        next: await db.update((tx) => tx.next(counter)),
      };
    };
    const nothing = { leases: [], sandboxes: [], ingest: false, snapshotter: false, next: 1 };
    assert.deepEqual(await left('x'), nothing);
    const all = { leases: ['l'], sandboxes: ['s'], ingest: true, snapshotter: true, next: 2 };
    assert.deepEqual(await left('x2'), all);
    await db.leases.create({ namespace: 'x' }, withId('l'));
    assert.deepEqual(await db.leases.listResources({ namespace: 'x' }, 'l'), []);
  });

  it('given ingests, when their namespace is deleted, then the sweep gets what they leave', async (t) => {
    const db = await testDB(t);
    const expected = digest('shared');
    await db.namespaces.create({}, 'x');
    await db.update((tx) => {
      putRecord<IngestRecord>(tx, ingestKey('x', 'own'), { ref: 'x/1/own' });
      putRecord<IngestRecord>(tx, ingestKey('x', 'shared'), { ref: 'x/1/shared', expected });
      putRecord<IngestRecord>(tx, ingestKey('x', 'void'), { ref: '' });
    });
    const reported: (RemovedContent | undefined)[] = [];
    const spy = new Proxy(db.host, {
      get(host, name) {
        if (name === 'markContentDirty')
          return (_: unknown, removed?: RemovedContent) => reported.push(removed);
        const member: unknown = Reflect.get(host, name, host);
        return typeof member === 'function' ? member.bind(host) : member;
      },
    });
    await new NamespaceStore(spy).delete({}, 'x');
    assert.deepEqual(reported, [
      { kind: 'ingest', ref: 'x/1/own' },
      { kind: 'ingest', ref: 'x/1/shared' },
      { kind: 'blob', digest: expected },
      undefined,
    ]);
  });

  it('given a transaction in the context, then every operation joins it', async (t) => {
    const db = await testDB(t);
    await db.namespaces.create({}, 'old');
    const undone = db.update(async (tx) => {
      const ctx = withTransactionContext({}, tx);
      await db.namespaces.create(ctx, 'new', { a: '1' });
      await db.namespaces.setLabel(ctx, 'new', 'b', '2');
      await db.namespaces.delete(ctx, 'old');
      assert.deepEqual(await db.namespaces.list(ctx), ['new']);
      assert.deepEqual(await db.namespaces.labels(ctx, 'new'), { a: '1', b: '2' });
      throw new Error('changed my mind');
    });
    await assert.rejects(undone, /changed my mind/);
    assert.deepEqual(await db.namespaces.list({}), ['old']);
  });
});

it('[#65] given namespaces of all origins, then the list has their names in byte order, never version', async (t) => {
  const db = await testDB(t);
  await db.images.create({ namespace: 'b' }, image('a'));
  await db.namespaces.create({}, 'a.b');
  await db.namespaces.setLabel({}, 'a', 'l', '1');
  await db.leases.create({ namespace: 'a-b' }, withId('l'));
  assert.deepEqual(await db.namespaces.list({}), ['a', 'a-b', 'a.b', 'b']);
});

describe('cgroup removal', () => {
  const makeDirs = (...paths: string[]) => Promise.all(paths.map((p) => mkdir(p, { recursive: true })));

  it("given the unified hierarchy, then the namespace's cgroup goes with its children", async (t) => {
    const root = await tempDir(t);
    const db = await testDB(t);
    await writeFile(join(root, 'cgroup.controllers'), '');
    await makeDirs(join(root, 'x', 'c1', 'deep'), join(root, 'x', 'c2'), join(root, 'other'));
    await db.namespaces.create({}, 'x');
    await db.namespaces.delete({}, 'x', withNamespaceCgroupDeletion(root));
    assert.deepEqual([existsSync(join(root, 'x')), existsSync(join(root, 'other'))], [false, true]);
  });

  it('given one hierarchy for each controller, then the cgroups that are there go', async (t) => {
    const root = await tempDir(t);
    const db = await testDB(t);
    await makeDirs(join(root, 'cpu', 'x', 'c1'), join(root, 'memory', 'other'));
    await db.namespaces.create({}, 'x');
    await db.namespaces.delete({}, 'x', withNamespaceCgroupDeletion(root));
    assert.equal(existsSync(join(root, 'cpu', 'x')), false);
    assert.equal(existsSync(join(root, 'memory', 'other')), true);
  });

  it('given a cgroup that cannot be removed, then the namespace stays', async (t) => {
    const root = await tempDir(t);
    const db = await testDB(t);
    await makeDirs(join(root, 'cpu', 'x'));
    await writeFile(join(root, 'cpu', 'x', 'a-real-file'), '');
    await db.namespaces.create({}, 'x');
    await rejects(
      db.namespaces.delete({}, 'x', withNamespaceCgroupDeletion(root)),
      'Unknown',
      'cannot remove the cgroup of namespace "x"',
    );
    assert.deepEqual(await db.namespaces.list({}), ['x']);
  });

  it('given a name that leads out of the hierarchy, then InvalidArgument and nothing is touched', async (t) => {
    const root = await tempDir(t);
    const db = await testDB(t);
    await makeDirs(join(root, 'cgroups', 'cpu'), join(root, 'victim'));
    const option = withNamespaceCgroupDeletion(join(root, 'cgroups'));
    await rejects(db.namespaces.delete({}, '../../victim', option), 'InvalidArgument');
    assert.equal(existsSync(join(root, 'victim')), true);
  });
});
