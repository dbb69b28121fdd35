/** What goes wrong in a backend is said in the caller's names, not in those the backend knows things by. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EbbtideError } from '../../src/errors.js';
import { layout } from '../../src/open.js';
import { inCallersNames } from '../../src/stores/caller-names.js';
import { tempDir, testDB } from '../support/db.js';

const ctx = { namespace: 'ns.1' };

/** Message and object of what must fail. */
async function failure(call: Promise<unknown>): Promise<{ message: string; object: string | undefined }> {
  const error = await call.then(
    () => assert.fail('it must fail'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof EbbtideError, String(error));
  assert.doesNotMatch(`${error.message} ${error.object} ${error.remedy}`, /ns\.1\/\d/);
  return { message: error.message, object: error.object };
}

test('given uploads, when the backend refuses something, then the error names the ref of the caller', async (t) => {
  const root = join(await tempDir(t), 'root');
  const db = await testDB(t, { root });
  const writer = await db.content.writer(ctx, 'layer-1');
  const held = await failure(db.content.writer(ctx, 'layer-1'));
  assert.match(held.message, /^ref layer-1 locked/);
  assert.equal(held.object, 'layer-1');
  await writer.write(Buffer.from('abc'));
  assert.match((await failure(writer.truncate(2))).message, /ingest "layer-1"/);
  assert.match((await failure(writer.commit(5, ''))).message, /ingest "layer-1" has 3 bytes/);
  const second = await db.content.writer(ctx, 'layer-2');
  rmSync(join(layout.content(root), 'ingest'), { recursive: true });
  await failure(second.commit(0, ''));
  await failure(db.content.status(ctx, 'layer-2'));
});

test('given snapshots, when the backend refuses something, then the error names the key of the caller', async (t) => {
  const root = join(await tempDir(t), 'root');
  const db = await testDB(t, { root });
  const native = db.snapshotter('native')!;
  await native.prepare(ctx, 'active', '');
  await native.commit(ctx, 'base', 'active');
  assert.match((await failure(native.mounts(ctx, 'base'))).message, /snapshot "base" is committed/);
  await native.view(ctx, 'look', 'base');
  assert.match((await failure(native.commit(ctx, 'more', 'look'))).message, /"look"/);
  const { name } = db.engine.get(['snapshots', 'ns.1', 'native', 'look'].join('\0')) as { name: string };
  await db.host.backends.get('native')!.remove(name);
  for (const call of [native.stat(ctx, 'look'), native.usage(ctx, 'look'), native.mounts(ctx, 'look')]) {
    assert.match((await failure(call)).message, /snapshot "look" does not exist/);
  }
});

test('given names of callers that look like those of backends, when an error is rephrased, then only the outer part goes', () => {
  const said = (message: string): string =>
    (inCallersNames('a.b', new EbbtideError('NotFound', message)) as Error).message;
  assert.equal(said('snapshot "a.b/7/a.b/1/x" is gone'), 'snapshot "a.b/1/x" is gone');
  assert.equal(said('parent "a.b/12/base" of "a.b/13/top"'), 'parent "base" of "top"');
  assert.equal(said('open /root/a.b/7/x'), 'open /root/a.b/7/x');
  assert.equal(said('aXb/7/x'), 'aXb/7/x');
  const plain = new Error('a.b/7/x');
  assert.equal(inCallersNames('a.b', plain), plain);
});
