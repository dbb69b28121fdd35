/**
 * Random roots written by containerd's own Go code: a dry run here says what is left when the peer has collected. Roots:
 * EBBTIDE_ANY_HOST_ROOTS (default 60); first seed: EBBTIDE_ANY_HOST_SEED (default: the clock, printed).
 */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { BoltDamage } from '../../src/bolt/format.js';
import { readBolt } from '../../src/bolt/snapshot.js';
import { ForeignStore } from '../../src/cli/foreign-store.js';
import { components } from '../../src/engine/schema/keys.js';
import type { Candidate } from '../../src/gc/stats.js';
import { zeroTime } from '../../src/model/time.js';
import { damage } from '../bolt/damage.js';
import { buildPeer, Peer } from '../peer/program.js';
import { type PeerRecord, randomStore } from '../peer/stores.js';
import { Random } from '../support/random.js';
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

/** Before 2.0 an image with an expiry stays as any other, and blobs and snapshots go in spite of these. */
const withLaterLabels = (records: readonly PeerRecord[]): PeerRecord[] =>
  records.map((record, n) => {
    const later =
      record.kind === 'image'
        ? { 'containerd.io/gc.expire': '2001-02-03T04:05:06Z' }
        : ['blob', 'snapshot'].includes(record.kind)
          ? LATER[n % LATER.length]
          : {};
    return n % 2 === 0 ? { ...record, labels: { ...record.labels, ...later } } : record;
  });
const LATER: readonly Record<string, string>[] = [
  { 'containerd.io/gc.root.later': 'x', 'containerd.io/gc.root/later': 'x' },
  {},
  { 'containerd.io/gc.bref.image': 'i1', 'containerd.io/gc.bref.container.0': 'c1' },
  {},
  { 'containerd.io/gc.cond.snapshot.native': 'x' },
  {},
];

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
    const records = withLaterLabels(randomStore(seed));
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
      `EBBTIDE_ANY_HOST_ROOTS=1 EBBTIDE_ANY_HOST_SEED=${seed} replays it`,
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
  assert.deepEqual(store.parts.notices, [
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

test("given the same root under BuildKit's names, or below Docker's directory, then it is found", {
  skip,
}, async (t) => {
  assert.ok('program' in peer);
  const { root, metadata } = await emptyRoot(t);
  await using other = new Peer(peer.program);
  await other.collect(
    [{ kind: 'blob', namespace: 'moby', name: `sha256:${'0'.repeat(64)}`, labels: {} }],
    metadata,
  );

  const docker = await tempDir(t);
  mkdirSync(join(docker, 'containerd'));
  cpSync(root, join(docker, 'containerd', 'daemon'), { recursive: true });
  const buildkit = await tempDir(t);
  const worker = join(buildkit, 'runc-overlayfs');
  mkdirSync(join(worker, 'snapshots', 'snapshots'), { recursive: true });
  cpSync(metadata, join(worker, 'containerdmeta.db'));
  cpSync(join(root, 'io.containerd.content.v1.content'), join(worker, 'content'), { recursive: true });
  for (const [directory, kind, at] of [
    [docker, 'containerd', join(docker, 'containerd', 'daemon')],
    [join(docker, 'containerd'), 'containerd', join(docker, 'containerd', 'daemon')],
    [buildkit, 'buildkit', worker],
    [worker, 'buildkit', worker],
  ] as const) {
    await using store = await ForeignStore.open(directory);
    const { places } = store.parts;
    assert.deepEqual([places.kind, places.root], [kind, at]);
    assert.deepEqual(await store.namespaces.list({}), ['moby']);
    const [one] = (await store.garbageCollect({}, { dryRun: true })).wouldRemove ?? [];
    assert.equal(one?.namespace, 'moby');
    assert.equal((await store.du({}, { by: 'none', disk: true })).disk?.root, at);
  }
  const empty = await tempDir(t);
  await assert.rejects(ForeignStore.open(empty), {
    kind: 'NotFound',
    remedy: /meta\.db .*containerdmeta\.db/,
  });
  await assert.rejects(ForeignStore.open(join(empty, 'none')), { kind: 'NotFound' });
  rmSync(join(worker, 'content'), { recursive: true });
  await assert.rejects(ForeignStore.open(worker), { kind: 'NotFound', remedy: /mount the disk/ });
});

test('given a damaged field, an odd name or a damaged page, then it is said, and what can be read is shown', {
  skip,
}, async (t) => {
  assert.ok('program' in peer);
  const { root, metadata } = await emptyRoot(t);
  await using other = new Peer(peer.program);
  const digest = `sha256:${'0'.repeat(64)}`;
  const names = ['one', 'two', 'ODD'];
  const images = names.map(
    (name): PeerRecord => ({ kind: 'image', namespace: 'k8s.io', name, labels: {}, target: digest }),
  );
  await other.collect(images, metadata);
  const file = readFileSync(metadata);
  // The version of a time, and a name that is not UTF-8. Copies of older transactions are changed as well.
  for (let at = file.indexOf('ODD'); at >= 0; at = file.indexOf('ODD', at + 1)) file[at + 2] = 0xff;
  for (let at = file.indexOf('createdat'); at >= 0; at = file.indexOf('createdat', at + 1))
    file[at + 'createdat'.length] = 9;
  writeFileSync(metadata, file);
  {
    await using store = await ForeignStore.open(root);
    const found = await store.images.list({});
    assert.deepEqual(
      found.map(({ name, createdAt, target }) => [name, createdAt, target.digest]),
      ['one', 'two'].map((name) => [name, zeroTime, digest]),
    );
    assert.deepEqual(store.parts.loaded.complaints.slice().sort(), [
      'image "OD\ufffd" is left out: its name is not UTF-8',
      'image "one" in k8s.io: createdat: time of unsupported version 9',
      'image "two" in k8s.io: createdat: time of unsupported version 9',
    ]);
  }
  const { meta } = await readBolt(metadata);
  file.fill(0xee, meta.root * meta.pageSize, (meta.root + 1) * meta.pageSize);
  writeFileSync(metadata, file);
  await assert.rejects(
    ForeignStore.open(root),
    (error) => error instanceof BoltDamage && error.page === meta.root,
  );
});

test('given damaged files, then a root is opened with what can be read, or the page that is damaged is named', {
  skip,
}, async (t) => {
  assert.ok('program' in peer);
  const { root, metadata } = await emptyRoot(t);
  await using other = new Peer(peer.program);
  await other.collect(
    withLaterLabels([...randomStore(1), ...randomStore(2).filter(({ kind }) => kind === 'ingest')]),
    metadata,
  );
  const whole = readFileSync(metadata);
  const outcomes = { opened: 0, complained: 0, damaged: 0 };
  for (let seed = 0; seed < DAMAGES; seed++) {
    writeFileSync(metadata, damage(Buffer.from(whole), 4096, new Random(seed)));
    try {
      await using store = await ForeignStore.open(root);
      await store.garbageCollect({}, { dryRun: true });
      assert.deepEqual(store.parts.loaded.engine.verifyGraph(), [], `seed ${seed}`);
      if (store.parts.loaded.complaints.length > 0) outcomes.complained++;
      else outcomes.opened++;
    } catch (error) {
      // The name of all there is may be what was damaged.
      const isNamed = error instanceof BoltDamage && error.page !== undefined;
      assert.ok(
        isNamed || /not laid out as containerd's/.test(String(error)),
        `seed ${seed}: ${String(error)}`,
      );
      outcomes.damaged++;
    }
  }
  t.diagnostic(JSON.stringify(outcomes));
  for (const [outcome, count] of Object.entries(outcomes)) assert.ok(count > 0, outcome);
});
const DAMAGES = 300;
