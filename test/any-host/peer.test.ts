/**
 * Random roots written by containerd's own Go code: a dry run here says what is left when the peer has collected. Roots:
 * EBBTIDE_ANY_HOST_ROOTS (default 60); first seed: EBBTIDE_ANY_HOST_SEED (default: the clock, printed).
 */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ForeignStore } from '../../src/cli/foreign-store.js';
import { components } from '../../src/engine/schema/keys.js';
import type { Candidate } from '../../src/gc/stats.js';
import { buildPeer, Peer } from '../peer/program.js';
import { type PeerRecord, randomStore } from '../peer/stores.js';
import { tempDir } from '../support/temp.js';

const roots = Number(process.env.EBBTIDE_ANY_HOST_ROOTS ?? 60);
const firstSeed = Number(process.env.EBBTIDE_ANY_HOST_SEED ?? Date.now() % 1_000_000);

const peer = buildPeer();
const skip = 'missing' in peer ? peer.missing : false;
if (skip) console.log(`the peer is not compared with: ${skip}`);

/** containerd's root with nothing in it. */
async function emptyRoot(t: TestContext): Promise<{ root: string; metadata: string }> {
  const root = await tempDir(t, 'ebbtide-any-host-');
  const metadata = join(root, 'io.containerd.metadata.v1.bolt', 'meta.db');
  mkdirSync(dirname(metadata));
  mkdirSync(join(root, 'io.containerd.content.v1.content'));
  return { root, metadata };
}

/** Before 2.0 an image with an expiry stays as any other. */
const withExpiries = (records: readonly PeerRecord[]): PeerRecord[] =>
  records.map((record, n) =>
    record.kind === 'image' && n % 2 === 0
      ? { ...record, labels: { ...record.labels, 'containerd.io/gc.expire': '2001-02-03T04:05:06Z' } }
      : record,
  );

const words: Readonly<Record<string, string>> = {
  images: 'image',
  containers: 'container',
  leases: 'lease',
  blobs: 'blob',
  ingests: 'ingest',
  snapshots: 'snapshot',
};
const wordOf = ({ kind, namespace, key }: Candidate): string =>
  `${kind === 'content' ? 'blob' : kind}|${namespace}|${key}`;

/** Every record as the peer names it. */
function recordsOf({ parts }: ForeignStore): string[] {
  const all: string[] = [];
  for (const [collection, word] of Object.entries(words))
    for (const [record] of parts.loaded.engine.scan(collection)) {
      const [, namespace, ...name] = components(record);
      all.push(`${word}|${namespace}|${name.join('/')}`);
    }
  return all;
}

test(`${roots} random roots: what a dry run leaves is what the peer leaves`, { skip }, async (t) => {
  assert.ok('program' in peer);
  const { root, metadata } = await emptyRoot(t);
  await using other = new Peer(peer.program);
  const counts = { records: 0, left: 0 };
  for (let seed = firstSeed; seed < firstSeed + roots; seed++) {
    const records = withExpiries(randomStore(seed));
    const { left } = await other.collect(records, metadata);
    await using store = await ForeignStore.open(root);
    assert.deepEqual(store.parts.loaded.complaints, []);
    assert.deepEqual(store.parts.loaded.engine.verifyGraph(), []);
    const all = recordsOf(store);
    assert.equal(all.length, records.length);
    const { wouldRemove = [] } = await store.garbageCollect({}, { dryRun: true });
    const goes = new Set(wouldRemove.map(wordOf));
    assert.deepEqual(
      all.filter((one) => !goes.has(one)).sort(),
      left.sort(),
      `EBBTIDE_ANY_HOST_ROOTS=1 EBBTIDE_ANY_HOST_SEED=${seed} tells it again`,
    );
    counts.records += all.length;
    counts.left += left.length;
  }
  t.diagnostic(`first seed ${firstSeed}: ${JSON.stringify(counts)}`);
  if (roots < 20) return;
  assert.ok(counts.left > counts.records / 10 && counts.left < (counts.records * 9) / 10);
});

test('given records of every kind, then all that containerd wrote of them is read', { skip }, async (t) => {
  assert.ok('program' in peer);
  const { root, metadata } = await emptyRoot(t);
  await using other = new Peer(peer.program);
  const digest = `sha256:${'ab'.repeat(32)}`;
  const labels = { 'a/b': 'c', ß: 'ü' };
  const before = BigInt(Date.now() - 1000) * 1_000_000n;
  const at = { namespace: 'k8s.io', labels };
  const records: PeerRecord[] = [
    { ...at, kind: 'image', name: 'example.com/a:1', target: digest },
    { ...at, kind: 'container', name: 'c', snapshotter: 'native', snapshotKey: 's' },
    { ...at, kind: 'blob', name: digest },
    { ...at, kind: 'snapshot', name: 's', snapshotter: 'native', parent: 'p' },
    { ...at, kind: 'ingest', name: 'r', expected: digest, expiresIn: 3_600_000_000_000 },
    {
      ...at,
      kind: 'lease',
      name: 'l',
      labels: { 'containerd.io/gc.flat': 'yes' },
      resources: [
        { id: digest, type: 'content' },
        { id: 'r', type: 'ingests' },
        { id: 's', type: 'snapshots/native' },
      ],
    },
  ];
  await other.collect(records, metadata);
  await using store = await ForeignStore.open(root);
  assert.deepEqual(store.parts.notes, [
    'snapshotter native: it has no directory here, so its snapshots are counted without bytes',
  ]);
  const ctx = { namespace: 'k8s.io' };
  const [image] = await store.images.list(ctx);
  assert.deepEqual(
    { ...image, createdAt: 0n, updatedAt: 0n },
    {
      name: 'example.com/a:1',
      labels,
      target: { mediaType: 'application/x', digest, size: 1, annotations: {} },
      createdAt: 0n,
      updatedAt: 0n,
    },
  );
  assert.ok(image!.createdAt > before && image!.createdAt < before + 60_000_000_000n);
  const [container] = await store.containers.list(ctx);
  const { id, runtime, spec, snapshotter, snapshotKey } = container!;
  assert.deepEqual(
    { id, runtime: runtime.name, spec: spec.typeUrl, snapshotter, snapshotKey, labels: container!.labels },
    { id: 'c', runtime: 'runtime', spec: 'spec', snapshotter: 'native', snapshotKey: 's', labels },
  );
  const [lease] = await store.leases.list({ namespace: '' });
  assert.deepEqual(await store.leases.listResources({ namespace: '' }, lease!), [
    { id: digest, type: 'content' },
    { id: 'r', type: 'ingests' },
    { id: 's', type: 'snapshots/native' },
  ]);
  const { engine } = store.parts.loaded;
  const ingest = engine.get('ingests\0k8s.io\0r') as { ref: string; expected: string; expireat: bigint };
  assert.deepEqual([ingest.ref, ingest.expected], ['k8s.io/1/r', digest]);
  assert.ok(ingest.expireat > before + 3_600_000_000_000n);
  const snapshot = engine.get('snapshots\0k8s.io\0native\0s') as { parent: string; name: string };
  assert.deepEqual([snapshot.parent, snapshot.name], ['p', 'k8s.io/1/s']);
  assert.equal((await store.content.info({ namespace: '' }, digest)).size, 1);

  // Every call that would write, of the store and of what is in it.
  const writes = [
    () => store.images.create(ctx, { name: 'x' }),
    () => store.images.update(ctx, { name: 'x' }),
    () => store.images.delete(ctx, 'x'),
    () => store.containers.create(ctx, { id: 'x' }),
    () => store.containers.delete(ctx, 'x'),
    () => store.leases.create(ctx),
    () => store.leases.delete(ctx, { id: 'x' }),
    () => store.leases.addResource(ctx, { id: 'x' }, { id: 'x', type: 'ingests' }),
    () => store.namespaces.create(ctx, 'x'),
    () => store.namespaces.setLabel(ctx, 'x', 'a', 'b'),
    () => store.namespaces.delete(ctx, 'x'),
    () => store.content.update(ctx, { digest }),
    () => store.content.delete(ctx, digest),
    () => store.content.abort(ctx, 'r'),
    () => store.content.writer(ctx, 'r', {}),
    () => store.snapshotter('native')!.prepare(ctx, 'x', ''),
    () => store.snapshotter('native')!.view(ctx, 'x', ''),
    () => store.snapshotter('native')!.commit(ctx, 'x', 's'),
    () => store.snapshotter('native')!.remove(ctx, 's'),
    () => store.snapshotter('native')!.mounts(ctx, 's'),
    () => store.garbageCollect(),
    () => store.applyPlan(),
    () => store.check({}, { repair: true }),
    () => store.parts.content.delete(digest),
    () => store.parts.content.abort('r'),
    () => store.parts.content.writer('r'),
  ];
  for (const write of writes)
    await assert.rejects(write, { kind: 'FailedPrecondition', message: /is refused: .* is only read/ });
});
