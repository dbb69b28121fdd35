/** A check of a whole store with real files: every kind of damage is found by name, and nothing else is. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { CheckOptions } from '../../src/check/check.js';
import type { CheckReport, Finding } from '../../src/check/findings.js';
import type { DB } from '../../src/db.js';
import { blobKey, snapshotKey } from '../../src/engine/schema/keys.js';
import { digestOf } from '../../src/model/digest.js';
import type { BlobRecord, SnapshotRecord } from '../../src/model/records.js';
import { layout, openDB } from '../../src/open.js';
import { putRecord, readRecord } from '../../src/stores/common.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { damages, rot } from '../stores/damage.js';
import { ns1, ns2, rejects } from '../stores/fixtures.js';
import { tempDir } from '../support/db.js';

interface World {
  root: string;
  db: DB;
}

async function world(t: TestContext): Promise<World> {
  const root = await tempDir(t, 'ebbtide-check-');
  const db = await openDB({ root, log: () => undefined });
  t.after(() => db.close());
  return { root, db };
}

async function add(db: DB, data: string | Buffer, ctx = ns1): Promise<string> {
  const bytes = Buffer.from(data);
  const digest = digestOf(bytes);
  const labels = { 'containerd.io/gc.root': 'yes' };
  await writeBlob(db.content, ctx, digest, bytes, { digest, size: bytes.length }, { labels });
  return digest;
}

const fileOf = (root: string, digest: string): string =>
  join(layout.content(root), 'blobs', 'sha256', digest.slice(7));

/** Kinds and objects of what a check finds. */
async function found(db: DB, options: CheckOptions = {}): Promise<string[]> {
  const all: Finding[] = [];
  const report = await db.check({}, { ...options, onFinding: (finding) => void all.push(finding) });
  assert.deepEqual(report.findings, all);
  assert.equal(report.damaged + report.leftovers, all.length);
  assert.equal(report.sound, report.damaged === 0);
  return all.map(({ kind, object }) => `${kind} ${object}`).sort();
}

test('given a store in use, then it is sound, whatever is looked at', async (t) => {
  const { db } = await world(t);
  await add(db, 'one');
  await add(db, 'one', ns2);
  await add(db, randomBytes(3_000_000));
  const writer = await db.content.writer(ns1, 'unfinished');
  await writer.write(Buffer.from('half'));
  for (const name of ['native', 'overlayfs']) {
    const s = db.snapshotter(name)!;
    await s.prepare(ns1, 'a', '');
    await s.commit(ns1, 'base', 'a');
    await s.prepare(ns1, 'b', 'base');
    await s.view(ns1, 'v', 'base');
    await s.prepare(ns1, 'gone', 'base');
    await s.remove(ns1, 'gone');
  }
  const report: CheckReport = await db.check({}, { hash: true });
  assert.equal(report.sound, true);
  assert.deepEqual(report.checked, {
    blobs: 3,
    snapshots: 6,
    files: 2,
    ingests: 1,
    layers: 0,
    layerEntries: 0,
    earlier: 0,
    hashedBytes: 3_000_003,
  });
  assert.equal(report.graph, 'agrees with the records');
  // What was removed waits for a collection.
  assert.deepEqual(report.counts, { 'snapshot-orphan': 2 });
  await db.garbageCollect();
  assert.deepEqual(await found(db, { hash: true }), []);
  await writer.close();
});

const kindOf: Readonly<Record<string, string>> = {
  missing: 'blob-missing',
  truncated: 'blob-size',
  empty: 'blob-size',
  grown: 'blob-size',
  'grown by a hole': 'blob-size',
};
for (const [what, damage] of Object.entries(damages)) {
  test(`given a blob whose file is ${what}, then it is found, and after a repair the next write makes it whole`, async (t) => {
    const { root, db } = await world(t);
    await add(db, 'sound');
    const digest = await add(db, 'about to be damaged');
    await damage(fileOf(root, digest));
    const expected = [`${kindOf[what] ?? 'blob-no-file'} ${digest}`];
    assert.deepEqual(await found(db), expected);
    assert.deepEqual(await found(db, { hash: true }), expected);
    assert.deepEqual(await found(db, { repair: true, hash: true }), expected);
    assert.deepEqual(await found(db, { hash: true }), [`blob-missing ${digest}`]);
    await rejects(db.content.readerAt(ns1, digest), 'NotFound');
    await add(db, 'about to be damaged');
    assert.deepEqual(await found(db, { hash: true }), []);
    const kept = await readdir(join(layout.content(root), '.damaged')).catch(() => []);
    assert.equal(kept.length, what === 'missing' ? 0 : 1);
    await db.garbageCollect({}, { fullSweep: true });
    assert.deepEqual(await found(db, { hash: true }), []);
  });
}

test('given a bit that has changed, then only digests show it, and after a repair the next write makes it whole', async (t) => {
  const { root, db } = await world(t);
  const digest = await add(db, randomBytes(700_000));
  const whole = await readFile(fileOf(root, digest));
  await rot(fileOf(root, digest));
  assert.deepEqual(await found(db), []);
  assert.deepEqual(await found(db, { hash: true }), [`blob-digest ${digest}`]);
  const { findings } = await db.check({}, { hash: true, repair: true });
  const path = /^moved to (.*)$/.exec(findings[0]?.repaired ?? '')?.[1];
  assert.equal((await readFile(path!)).length, whole.length);
  assert.deepEqual(await found(db, { hash: true }), [`blob-missing ${digest}`]);
  await add(db, whole);
  assert.deepEqual(await found(db, { hash: true }), []);
});

test('given records of the wrong size and of none, then they are found, and a repair believes the bytes', async (t) => {
  const { db } = await world(t);
  const wrong = await add(db, 'the size is wrong');
  const none = await add(db, 'there is no size');
  const sizes: [string, number][] = [
    [wrong, 3],
    [none, -1],
  ];
  await db.update((tx) => {
    for (const [digest, size] of sizes) {
      const record = readRecord<BlobRecord>(tx, blobKey('ns1', digest))!;
      putRecord<BlobRecord>(tx, blobKey('ns1', digest), { ...record, size });
    }
  });
  const expected = [`blob-record ${none}`, `blob-size ${wrong}`].sort();
  assert.deepEqual(await found(db), expected);
  assert.deepEqual(await found(db, { repair: true }), expected);
  assert.deepEqual(await found(db, { hash: true }), []);
  assert.equal((await db.content.info(ns1, wrong)).size, 'the size is wrong'.length);
});

test('given what nothing names, then it is a leftover and no damage, and a full collection takes it', async (t) => {
  const { root, db } = await world(t);
  const content = layout.content(root);
  await add(db, 'named');
  const orphan = digestOf(Buffer.from('orphan'));
  await writeFile(fileOf(root, orphan), 'orphan');
  await db.host.content.writer('ns1/1/nobody', {}).then((writer) => writer.close());
  const half = join(content, 'ingest', 'f'.repeat(64));
  await mkdir(half);
  await writeFile(join(half, 'ref'), '');
  await utimes(half, 1, 1);
  await db.host.backends.get('native')!.prepare('ns1/7/nobody', '');
  await mkdir(join(layout.snapshotter(root, 'overlayfs'), 'snapshots', '77', 'fs'), { recursive: true });
  assert.deepEqual(await found(db, { repair: true }), [
    `blob-orphan ${orphan}`,
    'directory-orphan 77',
    `ingest-damaged ${'f'.repeat(64)}`,
    'ingest-orphan ns1/1/nobody',
    'snapshot-orphan ns1/7/nobody',
  ]);
  await db.garbageCollect({}, { fullSweep: true, massGuard: false });
  assert.deepEqual(await found(db), []);
});

test('given snapshots without directory, record, or parent, then each is found, and mounts say so', async (t) => {
  const { root, db } = await world(t);
  const directories: [string, string][] = [
    ['native', ''],
    ['overlayfs', 'fs'],
  ];
  for (const [name, sub] of directories) {
    const s = db.snapshotter(name)!;
    const dir = (id: number): string => join(layout.snapshotter(root, name), 'snapshots', String(id), sub);
    await s.prepare(ns1, 'a', '');
    await s.commit(ns1, 'base', 'a');
    await s.prepare(ns1, 'work', 'base');
    await s.view(ns1, 'view', 'base');
    assert.deepEqual(await found(db), []);
    await rename(dir(1), `${dir(1)}.away`);
    const damaged = await found(db);
    assert.ok(
      damaged.some((line) => /^snapshot-directory ns1\/\d+\/a$|^snapshot-directory .*base$/.test(line)),
      String(damaged),
    );
    await rejects(s.prepare(ns1, 'more', 'base'), 'FailedPrecondition', 'missing directory');
    await rejects(s.stat(ns1, 'more'), 'NotFound');
    await rejects(s.mounts(ns1, 'view'), 'FailedPrecondition', dir(1));
    if (name === 'overlayfs') await rejects(s.mounts(ns1, 'work'), 'FailedPrecondition', dir(1));
    await rename(`${dir(1)}.away`, dir(1));
    await s.mounts(ns1, 'view');
    await rm(dir(2), { recursive: true });
    await writeFile(dir(2), 'a file in its place');
    await rejects(s.mounts(ns1, 'work'), 'FailedPrecondition', 'missing directory');
    await rm(dir(2));
    await mkdir(dir(2));
    assert.deepEqual(await found(db), []);
  }
  const record = readRecord<SnapshotRecord>(db.engine, snapshotKey('ns1', 'native', 'view'))!;
  await db.update((tx) => {
    putRecord<SnapshotRecord>(tx, snapshotKey('ns1', 'native', 'view'), { ...record, name: 'ns1/99/view' });
  });
  assert.deepEqual(await found(db), ['snapshot-missing view', `snapshot-orphan ${record.name}`]);
  await db.update((tx) => {
    const other = { ...record };
    delete other.parent;
    putRecord<SnapshotRecord>(tx, snapshotKey('ns1', 'native', 'view'), other);
  });
  assert.deepEqual(await found(db), ['snapshot-parent view']);
});

test('given writers and collections beside it, then a check of what is sound finds no damage', async (t) => {
  const { db } = await world(t);
  let running = true;
  const write = async (u: number): Promise<void> => {
    for (let i = 0; running; i++) {
      const digest = await add(db, `blob ${u} ${i % 40}`);
      if (i % 2 === 0) await db.content.delete(ns1, digest).catch(() => undefined);
      const s = db.snapshotter('native')!;
      await s.prepare(ns1, `s${u}`, '');
      // A collection may have been first.
      await s.remove(ns1, `s${u}`).catch(() => undefined);
    }
  };
  const collect = async (): Promise<void> => {
    for (; running; await new Promise((resolve) => setTimeout(resolve, 5)))
      await db.garbageCollect({}, { massGuard: false });
  };
  const others = [0, 1, 2].map(write).concat(collect());
  try {
    for (let i = 0; i < 12; i++) {
      const { damaged, findings } = await db.check({}, { hash: true });
      assert.equal(damaged, 0, JSON.stringify(findings));
    }
  } finally {
    running = false;
    await Promise.all(others);
  }
});

test('given thousands of findings and a signal, then the report keeps the first, and the signal ends the check', async (t) => {
  const { db } = await world(t);
  await add(db, 'first');
  await db.update((tx) => {
    for (let i = 0; i < 1500; i++) {
      const at = 1n;
      const digest = digestOf(Buffer.from(`lost ${i}`));
      putRecord<BlobRecord>(tx, blobKey('ns1', digest), { createdat: at, updatedat: at, size: 1 });
    }
  });
  let found = 0;
  const report = await db.check({}, { onFinding: () => void found++ });
  assert.deepEqual([found, report.damaged, report.findings.length], [1500, 1500, 1000]);
  const abort = new AbortController();
  const checking = db.check({ signal: abort.signal }, { onFinding: () => abort.abort() });
  await rejects(checking, 'Canceled');
});
