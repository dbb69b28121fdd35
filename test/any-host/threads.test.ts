/** Metadata that several threads read, beside what one reads: the same records, links and graph, and the same damage. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Loaded, loadMetadata } from '../../src/any-host/load/load.js';
import { ForeignSnapshotter } from '../../src/any-host/snapshots/snapshotters.js';
import { BoltDamage } from '../../src/bolt/format.js';
import { digestOf } from '../../src/model/digest.js';
import { zeroTime } from '../../src/model/time.js';
import { encodeTime, encodeVarint } from '../../src/model/wire.js';
import { damage } from '../bolt/damage.js';
import { Random } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { type Fields, writeFields } from './root.js';

/** More than some batches of each thread. */
const BLOBS = 3000;
const DAMAGES = 20;

const at = encodeTime(1_700_000_000_000_000_000n);
const times = { createdat: at, updatedat: at };
const digests = Array.from({ length: BLOBS }, (_, n) => digestOf(Buffer.from(`blob ${n}`)));
const fill = (count: number, each: (n: number) => [string, Fields]): Fields =>
  Object.fromEntries(Array.from({ length: count }, (_, n) => each(n)));

/** Records of every kind, in leaves of both threads, that refer to one another, and to what is not there. */
const namespace = (snapshotter: string, count: number): Fields => {
  const digest = (n: number): string => digests[n % count] ?? '';
  return {
    labels: { owner: 'me', empty: '' },
    images: fill(count / 3, (n) => [
      `image-${n}`,
      {
        ...times,
        labels: { n: `${n}` },
        target: { digest: digest(n), mediatype: 'm', size: encodeVarint(n) },
      },
    ]),
    content: {
      blob: fill(count, (n) => [
        digest(n),
        {
          ...times,
          size: encodeVarint(n),
          labels: {
            'containerd.io/gc.ref.content.0': n % 5 === 0 ? `sha256:${'0'.repeat(60)}${n}` : digest(7 * n),
            [`containerd.io/gc.ref.snapshot.${snapshotter}`]: `snapshot-${n}`,
            ...(n % 9 === 0 && { 'containerd.io/gc.root': 'yes' }),
          },
        },
      ]),
      ingests: fill(count / 15, (n) => [`ingest-${n}`, { ref: `default/${n}`, expireat: at }]),
    },
    snapshots: {
      [snapshotter]: fill(count / 1.5, (n) => [
        `snapshot-${n}`,
        { ...times, name: `k8s.io/${n}`, parent: n % 4 === 0 ? '' : `snapshot-${n - 1}` },
      ]),
    },
    containers: fill(count / 6, (n) => [
      `container-${n}`,
      { ...times, image: `image-${n}`, snapshotter, snapshotKey: `snapshot-${n}` },
    ]),
    leases: fill(count / 7, (n) => [
      `lease-${n}`,
      {
        createdat: at,
        labels: {
          ...(n % 3 === 0 && { 'containerd.io/gc.flat': 'yes' }),
          ...(n % 2 === 0 && { 'containerd.io/gc.expire': '2030-01-01T00:00:00Z' }),
        },
        content: { [digest(n)]: '', [digest(count - n - 1)]: '' },
        snapshots: { [snapshotter]: { [`snapshot-${n}`]: '' } },
        ingests: { [`ingest-${n}`]: '' },
      },
    ]),
  };
};

const metadata = (count: number): Fields => ({
  v1: {
    version: encodeVarint(3),
    'k8s.io': namespace('overlayfs', count),
    default: namespace('native', count),
  },
  'k8s.io': { sandboxes: fill(count / 10, (n) => [`sandbox-${n}`, { ...times, sandboxer: 'podsandbox' }]) },
});

const COLLECTIONS = ['namespaces', 'images', 'blobs', 'ingests', 'snapshots', 'snapshotters', 'containers'];

function contentsOf({ engine, complaints, revision }: Loaded): unknown {
  const records = [...COLLECTIONS, 'sandboxes', 'leases'].flatMap((name) => [...engine.scan(name)]);
  const links = [...engine.scan('leases')].flatMap(([lease]) =>
    ['holds', 'holdsFlat'].map((relation) => [lease, relation, [...engine.links(lease, relation)]]),
  );
  assert.deepEqual(engine.verifyGraph(), []);
  const nodes: unknown[] = [];
  for (let id = 0, key = engine.keyOf(id); key !== undefined; key = engine.keyOf(++id))
    nodes.push([key, engine.isReferenced(key)]);
  return { records, links, nodes, complaints, revision };
}

/** As it is, or why not. */
async function loaded(path: string, pagesForTwo: number): Promise<unknown> {
  try {
    const found = await loadMetadata(path, { pagesForTwo });
    const contents = contentsOf(found);
    await found.engine.close();
    return contents;
  } catch (error) {
    if (!(error instanceof BoltDamage)) throw error;
    return error.message;
  }
}

/** How many begin from now on. */
function threadsOf(t: TestContext): { begun: number } {
  const threads = { begun: 0 };
  const count = (): number => ++threads.begun;
  process.on('worker', count);
  t.after(() => process.off('worker', count));
  return threads;
}

const alone = Number.POSITIVE_INFINITY;

test('given records of every kind, when two threads read them, then they are what one reads', async (t) => {
  const path = join(await tempDir(t), 'meta.db');
  await writeFields(path, metadata(BLOBS));
  const threads = threadsOf(t);
  const one = await loaded(path, alone);
  assert.equal(threads.begun, 0);
  assert.ok((one as { records: unknown[] }).records.length > 4 * BLOBS);
  assert.deepEqual(await loaded(path, 0), one);
  assert.equal(threads.begun, 1);
});

test('given damaged files, when two threads read them, then what comes is what comes of one', async (t) => {
  const path = join(await tempDir(t), 'meta.db');
  await writeFields(path, metadata(BLOBS / 10));
  const whole = readFileSync(path);
  const outcomes = new Set<string>();
  for (let seed = 0; seed < DAMAGES; seed++) {
    writeFileSync(path, damage(Buffer.from(whole), 4096, new Random(seed)));
    const one = await loaded(path, alone).catch(String);
    assert.deepEqual(await loaded(path, 0).catch(String), one, `seed ${seed}`);
    outcomes.add(typeof one);
  }
  assert.equal(outcomes.size, 2);
});

test('given a bucket that two records of different threads lead to, then both ways say that it belongs to two places', async (t) => {
  const path = join(await tempDir(t), 'meta.db');
  const names = digests.slice(0, 400).toSorted();
  const labels = { pad: 'x'.repeat(1500) };
  const blob = Object.fromEntries(names.map((name) => [name, { ...times, labels }]));
  await writeFields(path, { v1: { version: encodeVarint(3), default: { content: { blob } } } });
  const whole = readFileSync(path);
  const pageOf = (bytes: Buffer, name = ''): Buffer => {
    const at = bytes.indexOf(name) + name.length;
    return bytes.subarray(at, at + 8);
  };
  for (let n = 1; n < names.length; n += 40) {
    const bytes = Buffer.from(whole);
    pageOf(whole, names[0]).copy(pageOf(bytes, names[n]));
    writeFileSync(path, bytes);
    const one = await loaded(path, alone);
    assert.match(String(one), /it belongs to two places/);
    assert.equal(await loaded(path, 0), one);
  }
});

test('given the metadata of a snapshotter, when it is read, then each has what was written, also what cannot be read', async (t) => {
  const root = await tempDir(t);
  const path = join(root, 'metadata.db');
  const name = (n: number): string => `k8s.io/${n}/snapshot`;
  const labels = { n: '1', ['__proto__']: 'one' };
  const snapshots = fill(5000, (n) => [
    name(n),
    {
      id: encodeVarint(-(n + 1)),
      kind: Uint8Array.of(1 + (n % 3)),
      createdat: n === 7 ? 'no time' : at,
      ...(n % 2 === 0 && { updatedat: encodeTime(BigInt(n)) }),
      ...(n % 5 !== 0 && { parent: name(n - 1) }),
      ...(n % 4 === 0 && { labels }),
      inodes: encodeVarint(n),
      size: encodeVarint(1000 * n),
    },
  ]);
  await writeFields(path, { v1: { snapshots } });
  const read = async (): Promise<{ found: ForeignSnapshotter; complaints: string[] }> => {
    const complaints: string[] = [];
    const found = await ForeignSnapshotter.open('overlayfs', root, (what) => complaints.push(what));
    return { found, complaints };
  };
  const { found, complaints } = await read();
  assert.equal(complaints.length, 1);
  assert.equal(found.all.size, 5000);
  for (let n = 0; n < 5000; n++) {
    assert.deepEqual(await found.stat(name(n)), {
      kind: ['view', 'active', 'committed'][n % 3],
      name: name(n),
      parent: n % 5 === 0 ? '' : name(n - 1),
      labels: n % 4 === 0 ? labels : {},
      created: n === 7 ? zeroTime : 1_700_000_000_000_000_000n,
      updated: n % 2 === 0 ? BigInt(n) : zeroTime,
    });
    assert.equal(found.directoryOf?.(name(n)), `${2 * n + 1}`);
    if (n % 3 === 2) assert.deepEqual(await found.usage(name(n)), { inodes: n, size: 1000 * n });
  }
  assert.equal(found.has(name(5000)), false);
  await assert.rejects(found.stat(name(5000)), /has no snapshot/);
  writeFileSync(path, readFileSync(path).fill(0xee, 2 * 4096));
  assert.match(String((await read()).complaints), /cannot be read/);
});
