import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Outstanding } from '../../src/gc/sweep/outstanding.js';
import { Slicer } from '../../src/gc/sweep/slicer.js';

test('given quick and slow slices, when they end, then the size follows the budget within its limits', () => {
  const slicer = new Slicer(2);
  for (let i = 0; i < 50; i++) slicer.ended(slicer.size, slicer.size * 0.01);
  assert.ok(Math.abs(slicer.size - 200) < 10, `${slicer.size} candidates of 0.01 ms fit into 2 ms`);
  for (let i = 0; i < 50; i++) slicer.ended(slicer.size, slicer.size * 10);
  assert.equal(slicer.size, 8);
  for (let i = 0; i < 50; i++) slicer.ended(slicer.size, 0);
  assert.equal(slicer.size, 4096);
  assert.equal(slicer.slices, 150);
});

test('given pauses, when they are counted, then the longest and the sum are known', () => {
  const slicer = new Slicer(2);
  slicer.ended(10, 1);
  slicer.paused(3);
  slicer.ended(10, 2);
  assert.deepEqual([slicer.pauseMax, slicer.pauseTotal, slicer.slices], [3, 6, 2]);
  assert.equal(
    slicer.timed(() => 'result'),
    'result',
  );
});

test('given commits under way, when there are too many, then the oldest is waited for', async () => {
  const commits = new Outstanding(1);
  let open = (): void => {};
  await commits.add(
    new Promise<void>((resolve) => {
      open = resolve;
    }),
  );
  let added = false;
  const second = commits.add(Promise.resolve()).then(() => {
    added = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(added, false);
  open();
  await second;
  await commits.drain();
});

test('given failed commits, when all have ended, then the first failure is thrown and all were waited for', async () => {
  const commits = new Outstanding(8);
  const log: string[] = [];
  await commits.add(Promise.reject(new Error('first')));
  await commits.add(Promise.reject(new Error('second')));
  await commits.add(new Promise<void>((resolve) => setImmediate(resolve)).then(() => void log.push('last')));
  await assert.rejects(commits.drain(), /first/);
  assert.deepEqual(log, ['last']);
  await commits.drain();
});
