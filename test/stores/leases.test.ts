import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { withTransactionContext } from '../../src/context.js';
import {
  blobKey,
  imageKey,
  ingestKey,
  leaseKey,
  Relation,
  snapshotKey,
} from '../../src/engine/schema/keys.js';
import type { StringMap } from '../../src/model/records.js';
import { NANOS_PER_SECOND, now, parseTimestamp } from '../../src/model/time.js';
import { addToLease, removeFromLease } from '../../src/stores/lease-context.js';
import { LEASE_LINKS_AT_ONCE } from '../../src/stores/lease-links.js';
import {
  type LeaseOption,
  withExpiration,
  withId,
  withLabel,
  withLabels,
  withRandomId,
} from '../../src/stores/leases.js';
import { testDB } from '../support/db.js';
import { digest, image, ns1, ns2, rejects, withKind } from './fixtures.js';

const expire = 'containerd.io/gc.expire';
const flat = 'containerd.io/gc.flat';

describe('lease create and delete', () => {
  it('[#168] given no id, then InvalidArgument before the namespace is looked at', async (t) => {
    const db = await testDB(t);
    await rejects(db.leases.create(ns1), 'InvalidArgument');
    await rejects(db.leases.create({}, withLabel('a', '1')), 'InvalidArgument');
    await rejects(db.leases.create({}, withId('l')), 'FailedPrecondition');
    await rejects(db.leases.create(ns1, withId('a\0b')), 'InvalidArgument');
  });

  it('[#168] given a lease, when created again, then AlreadyExists; deleting a missing one is NotFound', async (t) => {
    const db = await testDB(t);
    const before = now();
    const created = await db.leases.create(ns1, withId('any / text'), withLabels({ a: '1' }));
    assert.ok(created.createdAt > before);
    await rejects(db.leases.create(ns1, withId('any / text')), 'AlreadyExists');
    assert.deepEqual(await db.leases.list(ns1), [created]);
    await db.leases.delete(ns1, created, { synchronous: true });
    await rejects(db.leases.delete(ns1, 'any / text'), 'NotFound');
    await rejects(db.leases.delete(ns1, ''), 'NotFound');
    assert.deepEqual(await db.leases.list(ns1), []);
  });

  it('[#169] given random ids, then they differ and have the agreed form', async (t) => {
    const db = await testDB(t);
    const ids = new Set<string>();
    for (let i = 0; i < 20; i++) ids.add((await db.leases.create(ns1, withRandomId())).id);
    assert.equal(ids.size, 20);
    for (const id of ids) assert.match(id, /^\d{1,9}-[A-Za-z0-9_-]{4}$/);
  });

  for (const [unit, duration] of [
    ['milliseconds', 3_600_000],
    ['nanoseconds', 3600n * NANOS_PER_SECOND],
  ] as const)
    it(`[#171] given an expiration of one hour in ${unit}, then the label says so, to the second`, async (t) => {
      const db = await testDB(t);
      const hour = 3600n * NANOS_PER_SECOND;
      const before = now() + hour;
      const { labels } = await db.leases.create(ns1, withId('l'), withExpiration(duration));
      const label = labels[expire] ?? '';
      assert.match(label, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      const at = parseTimestamp(label) ?? 0n;
      assert.ok(at > before - NANOS_PER_SECOND && at <= now() + hour, label);
    });

  it('given an expiration that is not a valid time, then InvalidArgument', async (t) => {
    const db = await testDB(t);
    for (const duration of [Number.NaN, Number.POSITIVE_INFINITY, 1e300, 1n << 65n]) {
      await assert.rejects(
        db.leases.create(ns1, withId('l'), withExpiration(duration)),
        withKind('InvalidArgument'),
      );
    }
    const { labels } = await db.leases.create(ns1, withId('l'), withExpiration(-5000));
    assert.ok((parseTimestamp(labels[expire] ?? '') ?? now()) < now());
  });

  it('given options as one object, then they are the same, and a label may have any name', async (t) => {
    const db = await testDB(t);
    const named = Object.fromEntries([['__proto__', 'x']]);
    const { id, labels } = await db.leases.create(ns1, {
      id: 'l',
      labels: named,
      expiresAfter: 3_600_000,
    });
    assert.equal(id, 'l');
    assert.deepEqual(Object.keys(labels).sort(), ['__proto__', expire]);
    const random = await db.leases.create(ns1, { randomId: true });
    assert.match(random.id, /^\d{1,9}-[A-Za-z0-9_-]{4}$/);
    const old = ((draft: { id: string }) => {
      draft.id = 'old';
    }) as unknown as LeaseOption;
    await assert.rejects(db.leases.create(ns1, withId('l2'), old), withKind('InvalidArgument'));
  });

  it('[#172] given withLabels and withLabel, then they merge in order and the given map is left alone', async (t) => {
    const db = await testDB(t);
    const given = { a: '1', b: '1' };
    const options = [withLabel('z', '0'), withLabels(given), withLabel('b', '2'), withExpiration(1000)];
    const { labels } = await db.leases.create(ns1, withId('l'), ...options);
    const { [expire]: _, ...others } = labels;
    assert.deepEqual(others, { z: '0', a: '1', b: '2' });
    assert.deepEqual(given, { a: '1', b: '1' });
  });

  it('[#180] given a lease on an image, when deleted, then a deletion is counted and the image stays', async (t) => {
    const db = await testDB(t);
    const dirty: boolean[] = [];
    await db.leases.create(ns1, withId('l'));
    await db.images.create(ns1, image('a'));
    await db.leases.addResource(ns1, 'l', { type: 'images', id: 'a' });
    db.registerMutationCallback((deletions) => dirty.push(deletions));
    await db.leases.delete(ns1, 'l');
    assert.deepEqual(dirty, [true]);
    assert.equal((await db.images.get(ns1, 'a')).name, 'a');
    await rejects(db.leases.listResources(ns1, 'l'), 'NotFound');
    await db.leases.create(ns1, withId('l'));
    assert.deepEqual(await db.leases.listResources(ns1, 'l'), []);
  });
});

it('[#170] given filters on id and labels, then those leases are listed by id; an empty label is not present', async (t) => {
  const db = await testDB(t);
  await db.leases.create(ns1, withId('b'), withLabels({ k: '1', none: '' }));
  await db.leases.create(ns1, withId('a'), withLabel('k', '2'));
  await db.leases.create(ns1, withId('c'));
  const listed = async (...filters: string[]): Promise<string[]> =>
    (await db.leases.list(ns1, ...filters)).map((l) => l.id);
  assert.deepEqual(await listed(), ['a', 'b', 'c']);
  assert.deepEqual(await listed('id==b'), ['b']);
  assert.deepEqual(await listed('labels.k'), ['a', 'b']);
  assert.deepEqual(await listed('labels.k==2', 'id==c'), ['a', 'c']);
  assert.deepEqual(await listed('labels.none', 'createdat'), []);
  await rejects(db.leases.list(ns1, 'id=b'), 'InvalidArgument', 'parse error');
});

describe('lease resources', () => {
  const types: [type: string, id: string, outcome: string][] = [
    ['content', digest('a'), 'held'],
    ['ingests', 'some/ref', 'held'],
    ['images', 'docker.io/library/busybox:latest', 'held'],
    ['snapshots/native', 'sha256:chain', 'held'],
    ['snapshots', 'x', 'InvalidArgument'],
    ['snapshots/', 'x', 'InvalidArgument'],
    ['snapshots/a/b', 'x', 'InvalidArgument'],
    ['content/x', digest('a'), 'InvalidArgument'],
    ['ingests/x', 'x', 'InvalidArgument'],
    ['images/x', 'x', 'InvalidArgument'],
    ['leases', 'x', 'NotImplemented'],
    ['containers', 'x', 'NotImplemented'],
    ['', 'x', 'NotImplemented'],
    ['content', '', 'InvalidArgument'],
    ['ingests', '', 'InvalidArgument'],
    ['images', '', 'InvalidArgument'],
    ['snapshots/native', '', 'InvalidArgument'],
  ];
  for (const [type, id, outcome] of types) {
    it(`[#173] given type "${type}"${id ? '' : ' without id'}, then ${outcome}`, async (t) => {
      const db = await testDB(t);
      await db.leases.create(ns1, withId('l'));
      const adding = db.leases.addResource(ns1, 'l', { type, id });
      if (outcome === 'held') {
        await adding;
        assert.deepEqual(await db.leases.listResources(ns1, 'l'), [{ id, type }]);
      } else {
        const kind = outcome === 'NotImplemented' ? 'NotImplemented' : 'InvalidArgument';
        await rejects(adding, kind);
        await rejects(db.leases.deleteResource(ns1, 'l', { type, id }), kind);
        assert.deepEqual(await db.leases.listResources(ns1, 'l'), []);
      }
    });
  }

  it('[#174] given content that is not a digest, then InvalidArgument', async (t) => {
    const db = await testDB(t);
    await db.leases.create(ns1, withId('l'));
    for (const id of ['foo', 'sha256:short', digest('a').toUpperCase()]) {
      await rejects(db.leases.addResource(ns1, 'l', { type: 'content', id }), 'InvalidArgument');
    }
  });

  it('[#175] given an absent resource added twice, then it is listed once', async (t) => {
    const db = await testDB(t);
    await db.leases.create(ns1, withId('l'));
    const resource = { type: 'content', id: digest('nowhere') };
    await db.leases.addResource(ns1, 'l', resource);
    await db.leases.addResource(ns1, 'l', resource);
    assert.deepEqual(await db.leases.listResources(ns1, 'l'), [resource]);
  });

  it('[#176] given a missing lease and a bad type, then NotFound', async (t) => {
    const db = await testDB(t);
    for (const id of ['l', '']) {
      await rejects(db.leases.addResource(ns1, id, { type: 'nonsense', id: 'x' }), 'NotFound');
      await rejects(db.leases.deleteResource(ns1, id, { type: 'snapshots', id: 'x' }), 'NotFound');
      await rejects(db.leases.listResources(ns1, id), 'NotFound');
    }
  });

  it('[#177] given a resource, when deleted twice, then both succeed and count as deletions', async (t) => {
    const db = await testDB(t);
    await db.leases.create(ns1, withId('l'));
    const resource = { type: 'ingests', id: 'ref' };
    const dirty: boolean[] = [];
    db.registerMutationCallback((deletions) => dirty.push(deletions));
    await db.leases.deleteResource(ns1, 'l', resource);
    assert.deepEqual(dirty, [true]);
    await db.leases.addResource(ns1, 'l', resource);
    await db.leases.deleteResource(ns1, 'l', resource);
    assert.deepEqual(await db.leases.listResources(ns1, 'l'), []);
  });

  for (const labels of [{}, { [flat]: 'false' }] as StringMap[]) {
    const kind = flat in labels ? 'flat' : 'plain';
    it(`[#178] given a ${kind} lease, then content, images, ingests and snapshots are listed in that order`, async (t) => {
      const db = await testDB(t);
      await db.leases.create(ns1, withId('l'), withLabels(labels));
      const [low = '', high = ''] = [digest('a'), digest('b')].sort();
      const ordered = [
        { type: 'content', id: low },
        { type: 'content', id: high },
        { type: 'images', id: 'i1' },
        { type: 'images', id: 'i2' },
        { type: 'ingests', id: '\uff5e' },
        { type: 'ingests', id: '\u{1f600}' },
        { type: 'snapshots/a', id: 'z' },
        { type: 'snapshots/b', id: 'a' },
        { type: 'snapshots/b', id: 'b' },
      ];
      for (const resource of ordered.toReversed()) await db.leases.addResource(ns1, 'l', resource);
      assert.deepEqual(await db.leases.listResources(ns1, 'l'), ordered);
      for (const resource of ordered) await db.leases.deleteResource(ns1, 'l', resource);
      assert.deepEqual(await db.leases.listResources(ns1, 'l'), []);
    });
  }

  it('[#179] given one id in two namespaces, then they are two leases', async (t) => {
    const db = await testDB(t);
    await db.leases.create(ns1, withId('l'), withLabel('in', 'ns1'));
    await rejects(db.leases.addResource(ns2, 'l', { type: 'images', id: 'a' }), 'NotFound');
    const expiring = image('a', { labels: { [expire]: '2030-01-01T00:00:00Z' } });
    await rejects(db.images.create({ ...ns2, lease: 'l' }, expiring), 'NotFound', 'lease');
    await db.leases.create(ns2, withId('l'), withLabel('in', 'ns2'));
    await db.leases.addResource(ns2, 'l', { type: 'images', id: 'a' });
    assert.deepEqual(await db.leases.listResources(ns1, 'l'), []);
    await db.leases.delete(ns2, 'l');
    assert.deepEqual(
      (await db.leases.list(ns1)).map((l) => l.labels),
      [{ in: 'ns1' }],
    );
  });
});

describe('what a lease keeps, as links', () => {
  const targets = [
    blobKey('ns1', digest('a')),
    imageKey('ns1', 'i'),
    ingestKey('ns1', 'r'),
    snapshotKey('ns1', 'native', 's'),
  ];
  for (const labels of [{}, { [flat]: 'false' }] as StringMap[]) {
    const isFlat = flat in labels;
    it(`given a ${isFlat ? 'flat' : 'plain'} lease in the context, then relations fit and removal undoes them`, async (t) => {
      const db = await testDB(t);
      await db.leases.create(ns1, withId('l'), withLabels(labels));
      const ctx = { ...ns1, lease: 'l' };
      const links = (relation: string) => [...db.engine.links(leaseKey('ns1', 'l'), relation)];
      await db.update((tx) => {
        for (const target of targets) addToLease(tx, ctx, 'ns1', target);
      });
      const flatTargets = isFlat ? targets.filter((k) => !k.startsWith('ingests')) : [];
      assert.deepEqual(links(Relation.holdsFlat).sort(), flatTargets.toSorted());
      assert.deepEqual(
        links(Relation.holds).sort(),
        targets.filter((k) => !flatTargets.includes(k)).toSorted(),
      );
      await db.update((tx) => {
        for (const target of targets) removeFromLease(tx, ctx, 'ns1', target);
      });
      assert.deepEqual([links(Relation.holds), links(Relation.holdsFlat)], [[], []]);
    });
  }

  it('given no or a missing lease in the context, then removal is silent and adding asks for the lease', async (t) => {
    const db = await testDB(t);
    const target = imageKey('ns1', 'i');
    await db.update((tx) => {
      for (const ctx of [ns1, { ...ns1, lease: '' }]) {
        addToLease(tx, ctx, 'ns1', target);
        removeFromLease(tx, ctx, 'ns1', target);
      }
      removeFromLease(tx, { ...ns1, lease: 'l' }, 'ns1', target);
    });
    const adding = db.update((tx) => addToLease(tx, { ...ns1, lease: 'l' }, 'ns1', target));
    await rejects(adding, 'NotFound', 'lease "l" not found');
  });

  it('given a lease whose expiry is past, then it can be added to until it is collected', async (t) => {
    const db = await testDB(t);
    await db.leases.create(ns1, withId('l'), withExpiration(-60_000));
    await db.leases.addResource(ns1, 'l', { type: 'images', id: 'a' });
    assert.deepEqual(await db.leases.listResources(ns1, 'l'), [{ type: 'images', id: 'a' }]);
  });
});

describe('a lease that keeps much', () => {
  const fill = async (db: Awaited<ReturnType<typeof testDB>>, id: string): Promise<void> => {
    await db.leases.create(ns1, withId(id), withLabel('a', 'b'));
    await db.update(async (tx) => {
      for (let i = 0; i < 700; i++) {
        const resource = { type: i % 2 === 0 ? 'images' : 'ingests', id: `r${i}` };
        await db.leases.addResource(withTransactionContext(ns1, tx), id, resource);
      }
    });
  };

  it('given it, when deleted, then it goes in pieces, and one of its name keeps nothing', async (t) => {
    const db = await testDB(t);
    await fill(db, 'l');
    const { revision } = db.engine;
    await db.leases.delete(ns1, 'l');
    assert.ok(
      db.engine.revision - revision >= 700 / (LEASE_LINKS_AT_ONCE + 1),
      `${db.engine.revision - revision}`,
    );
    await rejects(db.leases.delete(ns1, 'l'), 'NotFound');
    await db.leases.create(ns1, withId('l'));
    assert.deepEqual(await db.leases.listResources(ns1, 'l'), []);
    assert.deepEqual([...db.engine.links(leaseKey('ns1', 'l'), Relation.holds)], []);
  });

  it('given its deletion, when the call ends early, then it has expired and a collection does the rest', async (t) => {
    const db = await testDB(t);
    await fill(db, 'l');
    const abort = new AbortController();
    // At once: it may end before the other one does.
    const ended = assert.rejects(db.leases.delete({ ...ns1, signal: abort.signal }, 'l'));
    await db.engine.update(() => abort.abort());
    await ended;
    const [lease] = await db.leases.list(ns1);
    if (db.engine.shared !== undefined && !(expire in (lease?.labels ?? {}))) {
      // The first commit is on its way to etcd then, and may be given up: nothing of the deletion has happened.
      assert.equal((await db.leases.listResources(ns1, 'l')).length, 700);
      return;
    }
    assert.deepEqual(lease?.labels, { a: 'b', [expire]: '1970-01-01T00:00:00Z' });
    const { removed } = await db.garbageCollect();
    assert.equal(removed.lease, 1);
    assert.deepEqual(await db.leases.list(ns1), []);
  });

  it('given its deletion, when it is collected meanwhile and another comes by its name, then that one stays', async (t) => {
    const db = await testDB(t);
    await fill(db, 'l');
    const deletion = db.leases.delete(ns1, 'l');
    await db.engine.update((tx) => {
      tx.delete(leaseKey('ns1', 'l'));
      tx.put(leaseKey('ns1', 'l'), { createdat: 7n });
    });
    await deletion;
    assert.deepEqual(await db.leases.list(ns1), [{ id: 'l', createdAt: 7n, labels: {} }]);
  });

  it('given a transaction, when deleted in it, then it goes whole or not at all', async (t) => {
    const db = await testDB(t);
    await fill(db, 'l');
    const failed = db.update(async (tx) => {
      await db.leases.delete(withTransactionContext(ns1, tx), 'l');
      throw new Error('no');
    });
    await assert.rejects(failed, /no/);
    assert.equal((await db.leases.listResources(ns1, 'l')).length, 700);
    await db.update((tx) => db.leases.delete(withTransactionContext(ns1, tx), 'l'));
    assert.deepEqual(await db.leases.list(ns1), []);
  });
});
