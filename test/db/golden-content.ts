/** What golden/make.mjs writes, for the tests that open it again: of stores here, of trees in etcd in test/etcd/golden.test.ts. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DB } from '../../src/db.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { digestOf } from '../../src/model/digest.js';
import { readBlob } from '../../src/stores/content/content-helpers.js';
import { missingTools } from '../support/debian.js';
import { tempDir } from '../support/temp.js';

export const golden = fileURLToPath(new URL('../../../test/db/golden/', import.meta.url));
export const skip = missingTools(['xz']) ?? false;
export const namesOf = (pattern: RegExp): string[] =>
  readdirSync(golden).filter((name) => pattern.test(name));
export const ctx = { namespace: 'golden' };
export const options = { snapshotters: ['native'], log: () => undefined } as const;
export const of = (text: string): string => digestOf(Buffer.from(text));

export async function unpacked(t: object, name: string): Promise<string> {
  const root = join(await tempDir(t), 'root');
  mkdirSync(root);
  const { status, stderr } = spawnSync('tar', ['-xJf', join(golden, name), '-C', root], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return root;
}

/** What make.mjs wrote. */
export async function assertContent(db: DB): Promise<void> {
  const images = await db.images.list(ctx);
  const long = `example.com/${'long/'.repeat(500)}name:1`;
  const numbered = Array.from({ length: 20 }, (_, i) => `example.com/image:${i}`);
  assert.deepEqual(images.map(({ name }) => name).sort(), [...numbered, long].sort());
  for (const { name, labels, target } of images) {
    assert.deepEqual([target.digest, target.size], [of('manifest'), 8], name);
    // The newest versions also write when an image was used.
    const { 'containerd.io/gc.cond.value-usedat': _, ...made } = labels;
    assert.deepEqual(made, name === long ? {} : { n: name.split(':')[1] });
  }
  assert.deepEqual(
    (await db.images.list({ namespace: 'other' })).map(({ name }) => name),
    ['elsewhere'],
  );
  for (const text of ['layer', 'base', 'manifest']) {
    assert.equal((await db.content.info(ctx, of(text))).size, text.length);
    const reader = await db.content.readerAt(ctx, { digest: of(text) });
    assert.equal((await readBlob(db.content, ctx, { digest: of(text), size: text.length })).toString(), text);
    await reader.close();
  }
  const [half, ...others] = await db.content.listStatuses(ctx);
  assert.deepEqual([half?.ref, half?.offset, others.length], ['half', 10, 0]);
  const web = await db.containers.get(ctx, 'web');
  assert.deepEqual([web.image, web.snapshotKey, web.labels], ['example.com/image:1', 'work', { a: 'b' }]);
  assert.deepEqual(await db.namespaces.labels({}, 'golden'), { colour: 'blue' });
  const snapshotter = db.snapshotter('native');
  const work = await snapshotter?.stat(ctx, 'work');
  assert.deepEqual([work?.parent, work?.kind], [of('chain'), 'active']);
  assert.equal((await snapshotter?.mounts(ctx, 'work'))?.length, 1);
  const [keep] = await db.leases.list(ctx);
  assert.deepEqual([keep?.id, keep?.labels.owner], ['keep', 'ci']);
  assert.deepEqual(await db.leases.listResources(ctx, { id: 'keep' }), [{ type: 'content', id: of('base') }]);
  assert.deepEqual((await db.sandboxes.get(ctx, 'pod')).labels, { p: 'q' });
  assert.deepEqual([...(await db.get('counter'))], [['counter', '7']]);
}

/** It works as a store of this version: what is garbage goes, what is not stays. */
export async function assertWorks(db: DB): Promise<void> {
  // An upload that nobody goes on with is garbage after a day.
  await (await db.content.writer(ctx, 'half')).close();
  const report = await db.check({}, { graph: true, hash: true });
  assert.deepEqual(report.findings, []);
  const { removed } = await db.garbageCollect({}, { fullSweep: true });
  assert.deepEqual(removed, { content: 1 });
  await assert.rejects(db.content.info(ctx, of('garbage')), assertKind('NotFound'));
}
