/**
 * BuildKit's own databases beside those of containerd's code: what keeps a snapshot has the name that BuildKit gives it, and what
 * its cache has lost is found. The values are as a BuildKit wrote them (Docker 20.10.24).
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openForeignRoot } from '../../src/any-host/open.js';
import { findOrphans } from '../../src/any-host/orphans.js';
import { ForeignStore } from '../../src/cli/foreign-store.js';
import { encodeTime, encodeUvarint } from '../../src/model/wire.js';
import { tempDir } from '../support/temp.js';
import { type Fields, writeFields } from './root.js';

interface Branch {
  name: string;
  bytes: number;
  children: Branch[];
}

const NANOS = 1_795_978_837_898_336_688n;
const at = { createdat: encodeTime(NANOS), updatedat: encodeTime(NANOS) };

const lease = (snapshot: string): Fields => ({
  createdat: encodeTime(NANOS),
  labels: { 'containerd.io/gc.flat': '2026-11-29T19:00:37.761781567Z' },
  snapshots: { overlayfs: { [snapshot]: '' } },
});

const record = (description: string, more: Fields = {}): Fields => ({
  'cache.cachePolicy': '{"value":1}',
  'cache.createdAt': `{"value":${NANOS}}`,
  'cache.description': JSON.stringify({ value: description }),
  'cache.equalMutable': '',
  'cache.lastUsedAt': `{"value":${NANOS + 1n}}`,
  'cache.usageCount': '{"value":2}',
  'snapshot.committed': '{"value":true}',
  'snapshot.size': '{"value":-1}',
  ...more,
});

/** A worker's directory; `wanted` is frozen of `mutable`, whose lease keeps its snapshot. */
async function makeWorker(t: TestContext): Promise<string> {
  const top = await tempDir(t);
  const root = join(top, 'runc-overlayfs');
  const names = ['mutable', 'apt', 'leaked', 'unkept'];
  for (const [n] of names.entries()) {
    const files = join(root, 'snapshots', 'snapshots', `${n + 1}`, 'fs');
    mkdirSync(files, { recursive: true });
    writeFileSync(join(files, 'file'), Buffer.alloc(8192, 'x'));
  }
  mkdirSync(join(root, 'content'));
  const stored = names.map((name, n): [string, Fields] => [
    `buildkit/${n + 1}/${name}`,
    { ...at, id: encodeUvarint(BigInt(n + 1)), kind: new Uint8Array([2]) },
  ]);
  await writeFields(join(root, 'snapshots', 'metadata.db'), {
    v1: { snapshots: Object.fromEntries(stored) },
  });
  const records = names.map((name, n): [string, Fields] => [
    name,
    { ...at, name: `buildkit/${n + 1}/${name}` },
  ]);
  await writeFields(join(root, 'containerdmeta.db'), {
    v1: {
      buildkit: {
        snapshots: { overlayfs: Object.fromEntries(records) },
        leases: {
          mutable: lease('mutable'),
          apt: lease('apt'),
          leaked: lease('leaked'),
          lost: lease('lost'),
          temporary: {
            createdat: encodeTime(NANOS),
            labels: { 'containerd.io/gc.expire': '2100-01-01T00:00:00Z' },
          },
        },
      },
    },
  });
  await writeFields(join(root, 'metadata_v2.db'), {
    _external: { mutable: { 'buildkit.contenthash.v0': 'x' } },
    _main: {
      apt: record('mount / from exec apt-get install', { 'snapshot.size': '{"value":8192}' }),
      gone: record('deleted', { 'cache.deleted': '{"value":true}' }),
      lost: record('its snapshot is not there'),
      mutable: record('local source for context', {
        'cache.recordType': '{"value":"source.local"}',
        'local.sharedKey:context:context:1': '{"value":"local.sharedKey:context:context:1","index":"1"}',
        'snapshot.committed': '',
      }),
      unkept: record('no lease keeps it', { 'cache.usageCount': '{"value":' }),
      wanted: record('frozen', {
        'cache.equalMutable': '{"value":"mutable"}',
        'cache.parent': '{"value":"apt"}',
      }),
    },
  });
  await writeFields(join(top, 'cache.db'), {
    _byresult: { 'worker::wanted': { 'sha256:1': '', 'sha256:2': '' }, 'worker::apt': { 'sha256:3': '' } },
  });
  return top;
}

test('given a root of BuildKit, when its leases are looked at, then each has the record of the cache that it keeps', async (t) => {
  const top = await makeWorker(t);
  const store = await ForeignStore.open(top);
  try {
    const { rows } = await store.du({}, { by: 'root', disk: false });
    const found = rows.map((row) => ('cache' in row ? [row.name, row.cache] : [row.name]));
    const times = { createdAt: NANOS, lastUsedAt: NANOS + 1n };
    const regular = { type: 'regular', isMutable: false };
    const apt = { id: 'apt', description: 'mount / from exec apt-get install', snapshot: 'apt', parents: [] };
    const wanted = { id: 'wanted', description: 'frozen', snapshot: 'mutable', parents: ['apt'] };
    const lost = { id: 'lost', description: 'its snapshot is not there', snapshot: 'lost', parents: [] };
    assert.deepEqual(Object.fromEntries(found.map(([name, cache]) => [name, cache])), {
      apt: { ...apt, ...regular, ...times, usageCount: 2, bytes: 8192, steps: 1 },
      mutable: { ...wanted, ...regular, ...times, usageCount: 2, steps: 2 },
      lost: { ...lost, ...regular, ...times, usageCount: 2, steps: 0 },
      leaked: undefined,
      temporary: undefined,
    });
    for (const disk of [false, true]) {
      let json = '';
      for await (const piece of store.picture({}, { disk })) json += piece;
      const usage = await store.du({}, { by: 'root', disk });
      const { bytes, tree } = JSON.parse(json) as { bytes: number; tree: { children: Branch[] } };
      assert.equal(
        bytes,
        usage.disk === undefined ? usage.kept + usage.garbage : usage.disk.total - usage.disk.lines.elsewhere,
      );
      const leases = tree.children[0]!.children.find(({ name }) => name === 'leases')!.children;
      assert.deepEqual(
        new Map(leases.map(({ name, bytes: frees }) => [name.split(' ')[0], frees])),
        new Map(usage.rows.map(({ name, retained }) => [name, retained]).reverse() as [string, number][]),
      );
      assert.ok(leases.some(({ name }) => name === 'mutable (build cache: frozen)'));
    }
    const { paths } = await store.why({}, 'wanted', {});
    assert.deepEqual(
      paths.map((steps) => steps.map((step) => [step.kind, step.key, 'cache' in step])),
      [
        [
          ['lease', 'mutable', true],
          ['snapshot', 'overlayfs/mutable', false],
        ],
      ],
    );
  } finally {
    await store[Symbol.asyncDispose]();
  }
});

test('given a root of BuildKit, when its orphans are listed, then the records and the leases that nothing needs are among them', async (t) => {
  const root = await openForeignRoot(await makeWorker(t));
  try {
    assert.deepEqual(root.notices.filter((notice) => notice.includes('usageCount')).length, 1);
    const { orphans } = await findOrphans(root, { youngest: 0n });
    const prune = 'buildctl prune --filter id==ebbtide-sweep';
    assert.deepEqual(orphans.map(({ reason, kind, name, command }) => [reason, kind, name, command]).sort(), [
      ['no bytes', 'cache record', 'lost (its snapshot is not there)', undefined],
      ['no cache record', 'lease', 'leaked', undefined],
      ['no lease', 'cache record', 'unkept (no lease keeps it)', undefined],
      ['nothing roots it', 'snapshot', 'overlayfs/unkept', prune],
    ]);
    assert.ok(orphans.find(({ name }) => name === 'leaked')!.bytes >= 8192);
  } finally {
    await root.db.close();
  }
});
