import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { type CallContext, withTransactionContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { now } from '../../src/model/time.js';
import type { Image } from '../../src/stores/images.js';
import { withId } from '../../src/stores/leases.js';
import { testDB } from '../support/db.js';
import { digest, image, manifest, ns1, ns2, rejects, target } from './fixtures.js';

const expire = 'containerd.io/gc.expire';
const names = (images: readonly Image[]): string[] => images.map((i) => i.name);
const held = async (db: DB, ctx: CallContext, lease: string): Promise<string[]> =>
  (await db.leases.listResources(ctx, lease)).map((r) => `${r.type} ${r.id}`);

describe('image create', () => {
  const broken = {
    'no target': { target: undefined },
    'size 0': { target: { ...target(), size: 0 } },
    'a negative size': { target: { ...target(), size: -1 } },
    'a fractional size': { target: { ...target(), size: 1.5 } },
    'no media type': { target: { ...target(), mediaType: '' } },
    'a malformed digest': { target: { ...target(), digest: 'sha256:xyz' } },
    'upper-case hex': { target: { ...target(), digest: `sha256:${'A'.repeat(64)}` } },
    'an empty name': { name: '' },
    'a NUL in the name': { name: 'a\0b' },
    'an oversized label': { labels: { a: 'x'.repeat(4096) } },
  };
  for (const [what, change] of Object.entries(broken)) {
    it(`[#13] given an image with ${what}, when created, then InvalidArgument and nothing is stored`, async (t) => {
      const db = await testDB(t);
      await rejects(db.images.create(ns1, { ...image('a'), ...change }), 'InvalidArgument');
      assert.deepEqual(await db.images.list(ns1), []);
      assert.deepEqual(await db.namespaces.list({}), []);
    });
  }

  it('[#14] given an image, when created again, then AlreadyExists and the first is unchanged', async (t) => {
    const db = await testDB(t);
    const first = await db.images.create(ns1, image('a', { labels: { l: '1' } }));
    await rejects(db.images.create(ns1, image('a', { labels: { l: '2' } })), 'AlreadyExists');
    assert.deepEqual(await db.images.get(ns1, 'a'), first);
  });

  it('given two creates of one name at once, then exactly one succeeds', async (t) => {
    const db = await testDB(t);
    const outcomes = await Promise.allSettled([
      db.images.create(ns1, image('a', { labels: { by: 'first' } })),
      db.images.create(ns1, image('a', { labels: { by: 'second' } })),
    ]);
    const [winner, ...others] = outcomes.filter((o) => o.status === 'fulfilled');
    assert.equal(others.length, 0);
    assert.deepEqual(await db.images.get(ns1, 'a'), winner?.value);
  });

  it('[#15] given a caller-supplied time, when created, then both times are now', async (t) => {
    const db = await testDB(t);
    const before = now();
    const given = { ...image('a'), createdAt: 5n, updatedAt: 6n };
    const created = await db.images.create(ns1, given);
    assert.equal(created.createdAt, created.updatedAt);
    assert.ok(created.createdAt >= before);
  });

  it('[#16] given a source date epoch, then create takes both times from it and update only updatedAt', async (t) => {
    const db = await testDB(t);
    const created = await db.images.create({ ...ns1, sourceDateEpoch: 1_000n }, image('a'));
    assert.deepEqual([created.createdAt, created.updatedAt], [1_000n, 1_000n]);
    const updated = await db.images.update({ ...ns1, sourceDateEpoch: 2_000n }, image('a'));
    assert.deepEqual([updated.createdAt, updated.updatedAt], [1_000n, 2_000n]);
    assert.deepEqual(await db.images.get(ns1, 'a'), updated);
  });

  it('given a descriptor with platform, urls and data, when created, then only the stored fields come back', async (t) => {
    const db = await testDB(t);
    const fat = { ...target(), annotations: { a: '1', b: '' }, platform: {}, urls: ['x'], data: 'y' };
    await db.images.create(ns1, image('a', { target: fat }));
    assert.deepEqual((await db.images.get(ns1, 'a')).target, { ...target(), annotations: { a: '1' } });
  });
});

describe('image update', () => {
  const stored = image('a', {
    labels: { foo: 'bar', keep: '1' },
    target: { ...target('old'), annotations: { foo: 'bar', x: 'y' } },
  });
  const change = image('a', {
    labels: { foo: 'baz' },
    target: {
      digest: digest('new'),
      mediaType: 'text/plain',
      size: 9,
      annotations: { fox: 'dog', foo: 'new' },
    },
  });
  const oldTarget = { ...target('old'), annotations: { foo: 'bar', x: 'y' } };
  const setUp = async (t: TestContext): Promise<{ db: DB; created: Image }> => {
    const db = await testDB(t);
    return { db, created: await db.images.create(ns1, stored) };
  };

  it('[#17] given no paths, then labels and target are replaced and updatedAt moves past createdAt', async (t) => {
    const { db, created } = await setUp(t);
    const updated = await db.images.update(ns1, change);
    assert.equal(updated.createdAt, created.createdAt);
    assert.ok(updated.updatedAt > updated.createdAt);
    assert.deepEqual(updated, {
      name: 'a',
      labels: { foo: 'baz' },
      target: change.target,
      createdAt: created.createdAt,
      updatedAt: updated.updatedAt,
    });
    assert.deepEqual(await db.images.get(ns1, 'a'), updated);
  });

  it('given a creation time ahead of the clock, when updated, then updatedAt is later all the same', async (t) => {
    const db = await testDB(t);
    const ahead = now() + 3_600_000_000_000n;
    await db.images.create({ ...ns1, sourceDateEpoch: ahead }, image('a'));
    assert.equal((await db.images.update(ns1, image('a'))).updatedAt, ahead + 1n);
  });

  const masks: Record<string, { paths: string[]; labels: object; target: object }> = {
    '[#18] labels only': { paths: ['labels'], labels: { foo: 'baz' }, target: oldTarget },
    '[#19] annotations and labels': {
      paths: ['annotations', 'labels'],
      labels: { foo: 'baz' },
      target: { ...oldTarget, annotations: { fox: 'dog', foo: 'new' } },
    },
    '[#20] one annotation': {
      paths: ['annotations.foo'],
      labels: { foo: 'bar', keep: '1' },
      target: { ...oldTarget, annotations: { foo: 'new', x: 'y' } },
    },
    '[#20] an annotation the object lacks': {
      paths: ['annotations.x'],
      labels: { foo: 'bar', keep: '1' },
      target: { ...oldTarget, annotations: { foo: 'bar' } },
    },
    '[#21] the target, annotations included': {
      paths: ['target'],
      labels: { foo: 'bar', keep: '1' },
      target: { ...change.target },
    },
  };
  for (const [what, { paths, labels, target: wanted }] of Object.entries(masks)) {
    it(`given a mask of ${what}, then nothing else changes`, async (t) => {
      const { db } = await setUp(t);
      const updated = await db.images.update(ns1, change, ...paths);
      assert.deepEqual({ labels: updated.labels, target: updated.target }, { labels, target: wanted });
      assert.deepEqual(await db.images.get(ns1, 'a'), updated);
    });
  }

  it('[#22] given path target with size 0, then InvalidArgument and the record is unchanged', async (t) => {
    const { db, created } = await setUp(t);
    const bad = image('a', { target: { ...target('new'), size: 0 } });
    await rejects(db.images.update(ns1, bad, 'target'), 'InvalidArgument');
    assert.deepEqual(await db.images.get(ns1, 'a'), created);
  });

  it('[#23] given an unknown path beside a good one, then InvalidArgument and nothing changes', async (t) => {
    const { db, created } = await setUp(t);
    for (const path of ['name', 'target.size', 'labelsfoo', 'annotationsx', 'createdAt', '']) {
      await rejects(
        db.images.update(ns1, change, 'labels', path),
        'InvalidArgument',
        'cannot update image field',
      );
    }
    assert.deepEqual(await db.images.get(ns1, 'a'), created);
  });

  it('[#24] given an unknown name, then NotFound; given an empty one, then InvalidArgument', async (t) => {
    const { db } = await setUp(t);
    await rejects(db.images.update(ns1, image('b')), 'NotFound');
    await rejects(db.images.update(ns1, image('')), 'InvalidArgument');
    await rejects(db.images.update({}, image('')), 'FailedPrecondition');
  });

  it('[#25] given no paths and no labels in the object, then all labels are deleted', async (t) => {
    const { db } = await setUp(t);
    await db.images.update(ns1, image('a'));
    assert.deepEqual((await db.images.get(ns1, 'a')).labels, {});
  });
});

describe('image delete', () => {
  it('[#26] given an unknown or deleted name, when deleted, then NotFound', async (t) => {
    const db = await testDB(t);
    await rejects(db.images.delete(ns1, 'a'), 'NotFound');
    await rejects(db.images.delete(ns1, ''), 'NotFound');
    await db.images.create(ns1, image('a'));
    const dirty: boolean[] = [];
    db.registerMutationCallback((deletions) => dirty.push(deletions));
    await db.images.delete(ns1, 'a', { synchronous: true });
    assert.deepEqual(dirty, [true]);
    await rejects(db.images.delete(ns1, 'a'), 'NotFound');
    await rejects(db.images.get(ns1, 'a'), 'NotFound');
  });

  it('[#27] given a target option, then only an image of that target is deleted', async (t) => {
    const db = await testDB(t);
    const created = await db.images.create(ns1, image('a'));
    await rejects(db.images.delete(ns1, 'a', { target: { digest: digest('other') } }), 'NotFound');
    assert.deepEqual(await db.images.get(ns1, 'a'), created);
    await rejects(db.images.delete(ns1, 'b', { target: { digest: digest('other') } }), 'NotFound');
    await db.images.delete(ns1, 'a', { target: target() });
    assert.deepEqual(await db.images.list(ns1), []);
  });

  it('[#28] given a target option with an empty digest, then it is not a condition', async (t) => {
    const db = await testDB(t);
    await db.images.create(ns1, image('a'));
    await db.images.delete(ns1, 'a', { target: { digest: '' } });
    assert.deepEqual(await db.images.list(ns1), []);
  });
});

describe('image list', () => {
  it('[#29] given filters, then their union is listed', async (t) => {
    const db = await testDB(t);
    for (let i = 0; i < 4; i++) {
      await db.images.create(ns1, {
        name: `image-${i}`,
        labels: { [i % 2 === 0 ? 'even' : 'odd']: 'true' },
        target: {
          ...target(),
          mediaType: i < 2 ? manifest : 'text/plain',
          annotations: { foo: i === 3 ? 'bar' : 'no' },
        },
      });
    }
    const all = ['image-0', 'image-1', 'image-2', 'image-3'];
    const expected: [string[], string[]][] = [
      [['labels.even==true', 'labels.odd==true'], all],
      [['labels.even==true'], ['image-0', 'image-2']],
      [['name==image-0'], ['image-0']],
      [['target.mediatype~=application/vnd.*'], ['image-0', 'image-1']],
      [[`target.digest==${digest('manifest')}`], all],
      [['annotations.foo==bar'], ['image-3']],
      [['annotations.foo==bar,labels.even'], []],
      [['target.size==7', 'target', 'other'], []],
      [[''], all],
      [[], all],
    ];
    for (const [filters, wanted] of expected) {
      assert.deepEqual(names(await db.images.list(ns1, ...filters)), wanted, filters.join(' | '));
    }
    await rejects(db.images.list(ns1, 'name==a', 'name===a'), 'InvalidArgument', 'parse error');
  });

  it('[#30] given a namespace that never had images, then none are listed', async (t) => {
    const db = await testDB(t);
    assert.deepEqual(await db.images.list(ns1), []);
    assert.deepEqual(await db.namespaces.list({}), []);
  });

  it('[#31] given names outside the basic plane, then the order is that of UTF-8 bytes', async (t) => {
    const db = await testDB(t);
    const ordered = ['a', 'b', 'é', '\uff5e', '\u{1f600}'];
    for (const name of ['b', '\u{1f600}', 'a', '\uff5e', 'é']) await db.images.create(ns1, image(name));
    assert.deepEqual(names(await db.images.list(ns1)), ordered);
  });

  it('[#32] given names of 600 bytes with a common beginning of 550, then they are distinct images', async (t) => {
    const db = await testDB(t);
    const common = 'registry/'.repeat(62).slice(0, 550);
    const [one, two] = [`${common}${'/a'.repeat(25)}`, `${common}${'/b'.repeat(25)}`];
    await db.images.create(ns1, image(two, { labels: { is: 'two' } }));
    await db.images.create(ns1, image(one, { labels: { is: 'one' } }));
    assert.deepEqual((await db.images.get(ns1, one)).labels, { is: 'one' });
    assert.deepEqual(names(await db.images.list(ns1)), [one, two]);
    await db.images.delete(ns1, one);
    assert.deepEqual(names(await db.images.list(ns1)), [two]);
    await rejects(db.images.create(ns1, image('x'.repeat(32_769))), 'InvalidArgument');
  });

  it('[#33] given images in two namespaces, then each sees its own', async (t) => {
    const db = await testDB(t);
    await db.images.create(ns1, image('a', { labels: { in: 'ns1' } }));
    await rejects(db.images.get(ns2, 'a'), 'NotFound');
    await db.images.create(ns2, image('a', { labels: { in: 'ns2' } }));
    await db.images.create(ns2, image('b'));
    assert.deepEqual(names(await db.images.list(ns1)), ['a']);
    assert.deepEqual((await db.images.get(ns1, 'a')).labels, { in: 'ns1' });
    await db.images.delete(ns2, 'a');
    assert.deepEqual((await db.images.get(ns1, 'a')).labels, { in: 'ns1' });
  });
});

describe('images and the lease of the context', () => {
  const leased: CallContext = { ...ns1, lease: 'l' };

  it('given an expiry label, even an empty one, when created, then the lease keeps the image', async (t) => {
    const db = await testDB(t);
    await db.leases.create(ns1, withId('l'));
    await db.images.create(leased, image('plain'));
    await db.images.create(leased, image('timed', { labels: { [expire]: '2030-01-01T00:00:00Z' } }));
    await db.images.create(leased, image('empty', { labels: { [expire]: '' } }));
    assert.deepEqual(await held(db, ns1, 'l'), ['images empty', 'images timed']);
    assert.deepEqual((await db.images.get(ns1, 'empty')).labels, {});
  });

  it('given an update that leaves or sets an expiry label, then the lease keeps the image', async (t) => {
    const db = await testDB(t);
    await db.leases.create(ns1, withId('l'));
    for (const name of ['a', 'b', 'c']) await db.images.create(ns1, image(name));
    await db.images.update(leased, image('a'));
    assert.deepEqual(await held(db, ns1, 'l'), []);
    const timed = { labels: { [expire]: '2030-01-01T00:00:00Z' } };
    await db.images.update(leased, image('a', timed), 'annotations');
    assert.deepEqual(await held(db, ns1, 'l'), []);
    await db.images.update(leased, image('a', timed), `labels.${expire}`);
    await db.images.update(leased, image('b', { labels: { [expire]: '' } }), 'labels');
    await db.images.update(ns1, image('c', timed));
    await db.images.update(leased, image('c'), 'annotations');
    assert.deepEqual(await held(db, ns1, 'l'), ['images a', 'images b', 'images c']);
  });

  it('given a missing lease, when an expiring image is created or updated, then NotFound and nothing is stored', async (t) => {
    const db = await testDB(t);
    const timed = image('a', { labels: { [expire]: '2030-01-01T00:00:00Z' } });
    await rejects(db.images.create(leased, timed), 'NotFound', 'lease');
    assert.deepEqual(await db.images.list(ns1), []);
    const created = await db.images.create(leased, image('a'));
    await rejects(db.images.create(leased, timed), 'NotFound', 'lease');
    await rejects(db.images.update(leased, timed), 'NotFound', 'lease');
    assert.deepEqual(await db.images.get(ns1, 'a'), created);
  });

  it('given two leases that keep an image, when deleted in one, then only that one lets go', async (t) => {
    const db = await testDB(t);
    for (const id of ['l', 'm']) {
      await db.leases.create(ns1, withId(id));
      await db.leases.addResource(ns1, id, { type: 'images', id: 'a' });
    }
    await db.images.create(ns1, image('a'));
    await db.images.delete(leased, 'a');
    assert.deepEqual([await held(db, ns1, 'l'), await held(db, ns1, 'm')], [[], ['images a']]);
    await db.images.create(ns1, image('b'));
    await db.images.delete({ ...ns1, lease: 'none' }, 'b');
  });
});

describe('image events', () => {
  it('given a publisher, then each successful change is announced with name and labels', async (t) => {
    const events: unknown[] = [];
    const publisher = {
      publish: async (...event: unknown[]) => void events.push(event),
    };
    const db = await testDB(t, { publisher });
    await db.images.create(ns1, image('a', { labels: { l: '1', gone: '' } }));
    await rejects(db.images.create(ns1, image('a')), 'AlreadyExists');
    await db.images.update(ns1, image('a', { labels: { l: '2' } }));
    await db.images.delete(ns1, 'a');
    assert.deepEqual(events, [
      ['ns1', '/images/create', { name: 'a', labels: { l: '1' } }],
      ['ns1', '/images/update', { name: 'a', labels: { l: '2' } }],
      ['ns1', '/images/delete', { name: 'a' }],
    ]);
  });

  it('[#233] given a context transaction, then nothing is announced before its commit', async (t) => {
    const events: unknown[] = [];
    const db = await testDB(t, { publisher: { publish: async (...event) => void events.push(event) } });
    await db.update(async (tx) => {
      await db.images.create(withTransactionContext(ns1, tx), image('a'));
      assert.deepEqual(events, []);
    });
    assert.deepEqual(names(await db.images.list(ns1)), ['a']);
    assert.equal(events.length, 1);
  });

  it('given a failing publisher, then the caller learns of it and the change is stored', async (t) => {
    const publisher = { publish: () => Promise.reject(new Error('bus is down')) };
    const db = await testDB(t, { publisher });
    await assert.rejects(db.images.create(ns1, image('a')), /bus is down/);
    assert.deepEqual(names(await db.images.list(ns1)), ['a']);
  });
});
