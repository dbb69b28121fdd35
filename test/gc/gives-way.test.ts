/** Between its steps a collection waits for the commits of others that are on their way to the disk. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { key } from '../../src/engine/schema/keys.js';
import { collect } from '../../src/gc/collect.js';
import { OrphanCandidates } from '../../src/gc/sweep/orphan-candidates.js';
import { sweepContent } from '../../src/gc/sweep/sweep-content.js';
import { digest, world } from '../support/gc-world.js';

const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

test('given a commit on its way to the disk, when records are removed, then the next slice waits for it', async (t) => {
  const w = await world(t);
  for (let i = 0; i < 500; i++) await w.blob(`garbage ${i}`);
  let release: () => void = () => {};
  let asked = 0;
  const arrived = new Promise<void>((resolve) => {
    release = resolve;
  });
  w.engine.foregroundDone = () => {
    asked++;
    return arrived;
  };
  const left = (): number => [...w.engine.scan(key('blobs', w.ns))].length;
  const run = collect(w);
  await turns(200);
  const meanwhile = left();
  release();
  await run;
  assert.ok(asked > 0 && meanwhile > 0, `${meanwhile} were left meanwhile, asked ${asked} times`);
  assert.equal(left(), 0);
});

test('given a commit on its way to the disk, when blobs are swept, then none goes before it has arrived', async (t) => {
  const w = await world(t);
  w.content.blobs.set(digest('a'), 1);
  let release: () => void = () => {};
  const arrived = new Promise<void>((resolve) => {
    release = resolve;
  });
  w.engine.foregroundDone = () => arrived;
  const items = OrphanCandidates.of([{ kind: 'blob', digest: digest('a') }]);
  const sweep = sweepContent(w, { items }, () => new Set());
  await turns(50);
  const meanwhile = w.content.blobs.size;
  release();
  await sweep;
  assert.deepEqual([meanwhile, w.content.blobs.size], [1, 0]);
});
