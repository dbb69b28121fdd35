/**
 * Another directory in the place of a store's: mounted over, renamed, linked elsewhere, as a whole or in parts. Nothing may
 * ever be written to, or deleted from, what stands there, and what was acknowledged is in the original.
 */
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { canMount } from '../../src/backends/mounts.js';
import type { DB } from '../../src/db.js';
import { kindOf } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { tempDir } from '../support/temp.js';
import { replacements, treeOf } from './place.js';

const ctx = { namespace: 'test' };
const silentLog = (): void => undefined;

/** Left by a test that fails: a mount, or a directory elsewhere. Runs before the directory is removed. */
let undoLast: (() => void) | undefined;

async function store(t: TestContext): Promise<{ base: string; root: string; open: () => Promise<DB> }> {
  const base = await mkdtemp(join(tmpdir(), 'ebbtide-place-'));
  t.after(() => {
    undoLast?.();
    undoLast = undefined;
    return rm(base, { recursive: true, force: true });
  });
  const root = join(base, 'root');
  return { base, root, open: () => openDB({ root, log: silentLog }) };
}

async function addBlob(db: DB, ref: string, labels = {}): Promise<string> {
  const bytes = Buffer.from(ref.repeat(100));
  const writer = await db.content.writer(ctx, ref, {});
  await writer.write(bytes);
  await writer.commit(bytes.length, digestOf(bytes), { labels });
  return digestOf(bytes);
}

async function fill(db: DB): Promise<void> {
  await db.namespaces.create({}, 'test').catch(() => undefined);
  for (let i = 0; i < 20; i++) await addBlob(db, `kept-${i}`, { 'containerd.io/gc.root': 'x' });
  for (const name of ['native', 'overlayfs']) {
    await db.snapshotter(name)!.prepare(ctx, 'kept', '', { labels: { 'containerd.io/gc.root': 'x' } });
  }
}

/** Everything that opens, makes or removes something: what fails must be Unavailable, for the reason. */
async function everything(db: DB, round: string): Promise<{ acknowledged: string[]; refused: number }> {
  const acknowledged: string[] = [];
  let refused = 0;
  const attempt = async (work: () => Promise<unknown>): Promise<boolean> => {
    try {
      await work();
      return true;
    } catch (error) {
      assert.equal(kindOf(error), 'Unavailable', String((error as Error).stack));
      assert.match(String(error), /has been replaced/);
      assert.doesNotMatch(String(error), /\/proc\/self/);
      refused++;
      return false;
    }
  };
  for (let i = 0; i < 30; i++) {
    const name = `${round}-${i}`;
    const target = { mediaType: 'x/y', digest: digestOf(Buffer.from(name)), size: 1 };
    const isThere = await attempt(() => db.images.create(ctx, { name, target, labels: {} }));
    if (isThere) acknowledged.push(name);
  }
  await attempt(() => addBlob(db, `${round}-blob`));
  for (const name of ['native', 'overlayfs']) {
    const s = db.snapshotter(name)!;
    await attempt(() => s.prepare(ctx, `${round}-s`, ''));
    await attempt(() => s.mounts(ctx, 'kept'));
  }
  await attempt(() => db.garbageCollect({}, { fullSweep: true, massGuard: false }));
  return { acknowledged, refused };
}

/** Another store, with other blobs, snapshots and records, closed. Only copies of it are changed. */
let another: Promise<string> | undefined;
function anotherStore(): Promise<string> {
  another ??= (async () => {
    const root = join(await tempDir(), 'other');
    const db = await openDB({ root, log: silentLog });
    await fill(db);
    await addBlob(db, 'only-there');
    await db.close();
    return root;
  })();
  return another;
}

const parts: Readonly<Record<string, (root: string) => string>> = {
  root: (root) => root,
  database: layout.database,
  content: layout.content,
  'content/blobs': (root) => join(layout.content(root), 'blobs'),
  'native snapshotter': (root) => layout.snapshotter(root, 'native'),
  'overlay snapshots': (root) => join(layout.snapshotter(root, 'overlayfs'), 'snapshots'),
};

for (const [how, replace] of Object.entries(replacements)) {
  for (const [part, at] of Object.entries(parts)) {
    test(`given an open store, when its ${part} is ${how}, then the other one stays as it is and nothing acknowledged is lost`, async (t) => {
      if (how === 'mounted over') {
        const { ok, reason } = await canMount();
        if (!ok) return t.skip(`cannot mount: ${reason}`);
      }
      const { root, open } = await store(t);
      const other = await anotherStore();
      const db = await open();
      await fill(db);
      const place = at(root);
      const source = join(other, place.slice(root.length));
      const replaced = replace(place, (path) => cpSync(source, path, { recursive: true }));
      undoLast = replaced.undo;
      const before = treeOf(place);
      const { acknowledged, refused } = await everything(db, 'during');
      assert.ok(refused > 0, 'nothing was refused');
      await db.close();
      assert.deepEqual(treeOf(place), before);
      replaced.undo();
      undoLast = undefined;

      const again = await open();
      try {
        const names = new Set((await again.images.list(ctx)).map(({ name }) => name));
        for (const name of acknowledged) assert.ok(names.has(name), `${name} is lost`);
        for (let i = 0; i < 20; i++) {
          const digest = digestOf(Buffer.from(`kept-${i}`.repeat(100)));
          assert.equal((await again.content.info(ctx, digest)).digest, digest);
        }
        const later = await everything(again, 'after');
        assert.equal(later.refused, 0);
      } finally {
        await again.close();
      }
    });
  }
}

test('given a directory that comes back, then the same open store takes writes again', async (t) => {
  const { root, open } = await store(t);
  const db = await open();
  await fill(db);
  const replaced = replacements['renamed away and made again']!(root, () => undefined);
  assert.ok((await everything(db, 'during')).refused > 0);
  replaced.undo();
  assert.equal((await everything(db, 'back')).refused, 0);
  await db.close();
});

test('given commits under way, when the root is replaced at any moment, then what was acknowledged is in the original', async (t) => {
  const { root, open } = await store(t);
  const db = await open();
  await fill(db);
  const acknowledged: string[] = [];
  let goesOn = true;
  const writer = async (lane: number): Promise<void> => {
    for (let i = 0; goesOn; i++) {
      const name = `image-${lane}-${i}`;
      const target = { mediaType: 'x/y', digest: digestOf(Buffer.from(name)), size: 1 };
      await db.images.create(ctx, { name, target, labels: {} }).then(
        () => acknowledged.push(name),
        (error: unknown) => {
          assert.match(String(error), /has been replaced/);
          goesOn = false;
        },
      );
    }
  };
  const lanes = [0, 1, 2, 3].map(writer);
  // More than one transaction of the tree, whose thread starts late.
  while (acknowledged.length < 3000) await new Promise((resolve) => setTimeout(resolve, 20));
  const replaced = replacements['renamed away and made again']!(root, () => undefined);
  await Promise.all(lanes);
  await db.close();
  assert.deepEqual(treeOf(root), {});
  replaced.undo();
  const again = await open();
  const names = new Set((await again.images.list(ctx)).map(({ name }) => name));
  assert.deepEqual(
    acknowledged.filter((name) => !names.has(name)),
    [],
  );
  await again.close();
});

test('given a lock file that was removed, then writes are refused: another process could take a new one', async (t) => {
  const { root, open } = await store(t);
  const db = await open();
  await fill(db);
  await rm(join(layout.database(root), 'lock'));
  const target = { mediaType: 'x/y', digest: digestOf(Buffer.from('x')), size: 1 };
  await assert.rejects(db.images.create(ctx, { name: 'late', target, labels: {} }), /removed or replaced/);
  await db.close();
});
