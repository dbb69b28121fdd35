import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { blobKey, imageKey } from '../../src/engine/schema/keys.js';
import { isKind } from '../../src/errors.js';
import type { Collector } from '../../src/gc/collectors.js';
import type { BetweenRuns } from '../../src/gc/report/marked-run.js';
import type { ObjectName } from '../../src/gc/report/objects.js';
import { type Why, type WhyOptions, why } from '../../src/gc/report/why.js';
import { ResourceContent, ResourceStream } from '../../src/gc/types.js';
import { parseTimestamp } from '../../src/model/time.js';
import { digest, future, gc, past, type World, world } from '../support/gc-world.js';

const betweenRuns: BetweenRuns = (run) => run();

function ask(w: World, object: string | ObjectName, options: WhyOptions = {}): Promise<Why> {
  const name = typeof object === 'string' ? { name: object } : object;
  return why(w, betweenRuns, { namespace: w.ns }, name, options);
}

/** `kind name (via name)` for each step; digests by the short names of `known`. */
function ways({ paths }: Why, ...known: string[]): string[] {
  const names = new Map(known.map((name) => [digest(name), name]));
  return paths.map((path) =>
    path
      .map(({ kind, key, via, name }) => `${kind} ${names.get(key) ?? key} (${`${via} ${name}`.trim()})`)
      .join(' > '),
  );
}

/** app → index → manifest → layer, with a lease on the manifest and a container's chain. */
async function filled(t: TestContext): Promise<World> {
  const w = await world(t);
  await w.blob('layer');
  await w.blob('manifest', { [gc('ref.content.l.0')]: digest('layer') });
  await w.blob('index', { [gc('ref.content.m.0')]: digest('manifest') });
  await w.image('app', 'index');
  await w.snapshot('base');
  await w.snapshot('top', { parent: 'base' });
  await w.container('web', 'native', 'top');
  return w;
}

describe('why', () => {
  test('given an image, when a layer is asked for, then every step names its field or label', async (t) => {
    const w = await filled(t);
    const result = await ask(w, digest('layer'));
    assert.equal(result.state, 'kept');
    assert.deepEqual(result.object, { kind: 'content', namespace: 'ns1', key: digest('layer') });
    assert.deepEqual(ways(result, 'layer', 'manifest', 'index'), [
      'image app (root) > content index (field target) > content manifest (label containerd.io/gc.ref.content.m.0)' +
        ' > content layer (label containerd.io/gc.ref.content.l.0)',
    ]);
  });

  test('given several roots, when all are asked for, then each has its way, the shortest first', async (t) => {
    const w = await filled(t);
    const until = future();
    await w.lease('keep', { [gc('expire')]: until, owner: 'ci' }, w.blobKey('manifest'));
    const nearest = await ask(w, digest('layer'));
    assert.deepEqual(ways(nearest, 'layer', 'manifest'), [
      'lease keep (root) > content manifest (lease) > content layer (label containerd.io/gc.ref.content.l.0)',
    ]);
    const [lease] = nearest.paths[0]!;
    assert.equal(lease?.expiresAt, parseTimestamp(until));
    assert.deepEqual(lease?.labels, { [gc('expire')]: until, owner: 'ci' });
    assert.equal(lease?.createdAt, 1n);
    const all = await ask(w, digest('layer'), { all: true });
    assert.deepEqual(
      all.paths.map((path) => `${path[0]?.kind} ${path.length}`),
      ['lease 3', 'image 4'],
    );
    assert.equal(all.keptUntil, undefined, 'the image stays for good');
  });

  test('given roots that all expire, when all are asked for, then the last expiry is shown', async (t) => {
    const w = await world(t);
    await w.blob('a');
    const [soon, late] = ['2100-01-01T00:00:00Z', '2101-01-01T00:00:00Z'];
    await w.lease('soon', { [gc('expire')]: soon }, w.blobKey('a'));
    await w.image('late', 'a', { [gc('expire')]: late });
    const result = await ask(w, digest('a'), { all: true });
    assert.equal(result.keptUntil, parseTimestamp(late));
    assert.equal(result.paths.length, 2);
  });

  test('given a chain of snapshots under a container, when its base is asked for, then parent and container show', async (t) => {
    const w = await filled(t);
    assert.deepEqual(ways(await ask(w, 'native/base')), [
      'container web (root) > snapshot native/top (field snapshotKey) > snapshot native/base (field parent)',
    ]);
    assert.deepEqual(await ask(w, 'base'), await ask(w, 'native/base'));
  });

  test('given a root label, a back reference and a flat lease, when asked, then they are named', async (t) => {
    const w = await world(t);
    await w.blob('rooted', { [gc('root.x')]: 'yes' });
    await w.blob('child', { [gc('bref.content')]: digest('rooted') });
    await w.blob('leased');
    await w.lease('flat', { [gc('flat')]: 'true' }, w.blobKey('leased'));
    assert.deepEqual(ways(await ask(w, digest('rooted')), 'rooted'), [
      'content rooted (root containerd.io/gc.root.x)',
    ]);
    assert.deepEqual(ways(await ask(w, digest('child')), 'rooted', 'child'), [
      'content rooted (root containerd.io/gc.root.x) > content child (back label containerd.io/gc.bref.content)',
    ]);
    assert.deepEqual(ways(await ask(w, digest('leased')), 'leased'), [
      'lease flat (root) > content leased (flat lease)',
    ]);
  });

  test('given an ingest and a sandbox, when asked, then field and label show and the ingest its expiry', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.blob('b');
    await w.ingest('up', { expires: 'future', expected: 'a' });
    await w.sandbox('pod', { [gc('ref.content')]: digest('b') });
    const a = await ask(w, digest('a'));
    assert.deepEqual(ways(a, 'a'), ['ingest up (root) > content a (field expected)']);
    assert.equal(typeof a.paths[0]?.[0]?.expiresAt, 'bigint');
    assert.deepEqual(ways(await ask(w, digest('b')), 'b'), [
      'sandbox pod (root) > content b (label containerd.io/gc.ref.content)',
    ]);
  });

  test('given garbage, when asked, then it says so, since when, and when it goes', async (t) => {
    const w = await world(t);
    await w.blob('lost');
    const expiry = past();
    await w.lease('old', { [gc('expire')]: expiry }, w.blobKey('lost'));
    assert.deepEqual(await ask(w, digest('lost')), {
      object: { kind: 'content', namespace: 'ns1', key: digest('lost') },
      state: 'garbage',
      paths: [],
      since: { at: 1n, meaning: 'record last changed' },
      goes: 'with the next collection',
    });
    const lease = await ask(w, 'old');
    assert.equal(lease.state, 'garbage');
    assert.deepEqual(lease.since, { at: parseTimestamp(expiry), meaning: 'expired' });
  });

  test('given what only a condition keeps, when asked, then the label with the condition shows', async (t) => {
    const w = await world(t);
    await w.snapshot('cache', { labels: { [gc('cond.value-usedat')]: future() } });
    await w.blob('a', { [gc('cond.snapshot.native')]: 'usedat<1h|cache' });
    await w.image('app', 'a');
    assert.deepEqual(ways(await ask(w, 'cache'), 'a'), [
      'image app (root) > content a (field target) > snapshot native/cache (condition containerd.io/gc.cond.snapshot.native)',
    ]);
    const stats = await w.collect();
    assert.deepEqual(stats.removed, {}, 'the collection agrees');
  });

  test('given what only a collector keeps, when asked, then the collector shows and is cancelled', async (t) => {
    const w = await world(t);
    await w.blob('manifest', { [gc('ref.content')]: digest('layer') });
    await w.blob('layer');
    const ends: string[] = [];
    const collector: Collector = {
      referenceLabel: () => '',
      startCollection: () => ({
        all: () => {},
        active: (namespace, send) => send({ type: ResourceContent, namespace, key: digest('manifest') }),
        leased: () => {},
        remove: () => ends.push('remove'),
        cancel: () => void ends.push('cancel'),
        finish: () => void ends.push('finish'),
      }),
    };
    w.collectors.register(ResourceStream, collector);
    assert.deepEqual(ways(await ask(w, digest('layer')), 'manifest', 'layer'), [
      'content manifest (collector) > content layer (label containerd.io/gc.ref.content)',
    ]);
    assert.deepEqual(ends, ['cancel']);
  });

  test('given the beginning of a digest, when it is unique, then it is found; else the choice is shown', async (t) => {
    const w = await world(t);
    const d = await w.blob('a');
    const twin = `${d.slice(0, 40)}${'0'.repeat(31)}`;
    for (const short of [d.slice(0, 11), d.slice(7, 11), d.slice(7)]) {
      assert.equal((await ask(w, short)).object.key, d);
    }
    await w.put(blobKey('ns1', twin), { createdat: 1n, updatedat: 1n, size: 1 });
    await assert.rejects(ask(w, d.slice(0, 20)), (error: Error) => {
      assert.ok(isKind(error, 'InvalidArgument'));
      assert.match(error.message, new RegExp(`could be content .*${d.slice(7)}`));
      return true;
    });
    assert.equal((await ask(w, d)).object.key, d, 'a whole digest is exact');
    await assert.rejects(ask(w, d.slice(0, 10)), (error) => isKind(error, 'NotFound'), 'three digits');
  });

  test('given one name for two kinds, when asked, then the kind must be said', async (t) => {
    const w = await world(t);
    await w.blob('a');
    await w.image('same', 'a');
    await w.container('same');
    await assert.rejects(ask(w, 'same'), /could be image same, container same/);
    assert.equal((await ask(w, { name: 'same', kind: 'container' })).object.kind, 'container');
    await assert.rejects(ask(w, { name: 'same', kind: 'lease' }), (error) => isKind(error, 'NotFound'));
  });

  test('given wrong questions, when asked, then the errors have their kinds', async (t) => {
    const w = await world(t);
    await w.put(imageKey('ns1', 'x'), { createdat: 1n, updatedat: 1n, target: { digest: '', size: 0 } });
    await assert.rejects(ask(w, ''), (error) => isKind(error, 'InvalidArgument'));
    await assert.rejects(ask(w, 'nothing'), (error) => isKind(error, 'NotFound'));
    const kind = 'tree' as 'image';
    await assert.rejects(ask(w, { name: 'x', kind }), (error) => isKind(error, 'InvalidArgument'));
    await assert.rejects(why(w, betweenRuns, {}, { name: 'x' }), (error) =>
      isKind(error, 'FailedPrecondition'),
    );
  });
});
