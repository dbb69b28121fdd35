/** One writer at a time, and whose a mount is: what the diff service asks of a backend. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate as step } from 'node:timers/promises';
import { openNative } from '../../src/backends/snapshotters/native.js';
import { openOverlayfs } from '../../src/backends/snapshotters/overlayfs.js';
import { failsWith, tempDir } from './temp.js';

for (const [name, openIn] of [
  ['native', openNative],
  ['overlayfs', openOverlayfs],
] as const) {
  const open = async (t: TestContext) => {
    const s = await openIn(await tempDir(t));
    t.after(() => s.close());
    return s;
  };

  test(`${name}: given a writer, then another one and a commit wait for it`, async (t) => {
    const s = await open(t);
    const mounts = await s.prepare('work', '');
    const order: string[] = [];
    const writer = (which: string) =>
      s.write('work', async (given, signal) => {
        assert.deepEqual(given, mounts);
        order.push(`${which} begins`);
        for (let i = 0; i < 5; i++) await step();
        order.push(`${which} ends ${signal.aborted}`);
      });
    await Promise.all([
      writer('one'),
      writer('two'),
      s.commit('base', 'work').then(() => order.push('commit')),
    ]);
    assert.deepEqual(order, ['one begins', 'one ends false', 'two begins', 'two ends false', 'commit']);
    await failsWith(
      s.write('base', async () => assert.fail('not writable')),
      'FailedPrecondition',
    );
    await failsWith(
      s.write('work', async () => assert.fail('gone')),
      'NotFound',
    );
  });

  test(`${name}: given a writer, when the snapshot is removed, then the writer is ended first`, async (t) => {
    const s = await open(t);
    await s.prepare('work', '');
    const writing = s.write('work', (_, signal) => {
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
      });
    });
    const [outcome] = await Promise.all([
      failsWith(writing, 'NotFound', /has been removed/),
      step().then(() => s.remove('work')),
    ]);
    assert.ok(outcome);
  });

  test(`${name}: given mounts, then their snapshot is found by the directories alone`, async (t) => {
    const s = await open(t);
    await s.prepare('one', '');
    await s.commit('base', 'one');
    await s.prepare('two', 'base');
    await s.commit('top', 'two');
    for (const key of ['active', 'more']) await s.prepare(key, 'top');
    await s.view('view', 'top');
    await s.view('low', 'base');
    const [active, view, low] = await Promise.all(['active', 'view', 'low'].map((key) => s.mounts(key)));
    assert.deepEqual(await s.ownerOf(active!), { key: 'active', mounts: active, writable: true });
    assert.deepEqual(await s.ownerOf(view!), { key: 'top', mounts: view, writable: false });
    assert.deepEqual(await s.ownerOf(low!), { key: 'base', mounts: low, writable: false });
    const [mount] = active!;
    const odd = { ...mount!, options: [...mount!.options, 'noatime'] };
    assert.equal((await s.ownerOf([odd]))?.key, 'active');
    assert.equal((await s.ownerOf([{ ...odd, options: [...odd.options, 'ro'] }]))?.writable, false);
    for (const mounts of [
      [],
      [mount!, mount!],
      [{ ...mount!, type: 'tmpfs' }],
      [
        {
          ...mount!,
          source: mount!.source.slice(1),
          options: mount!.options.map((o) => o.replace('=/', '=')),
        },
      ],
      [{ ...mount!, source: `${mount!.source}/x`, options: mount!.options.map((o) => `${o}/x`) }],
      [{ ...mount!, source: '/snapshots/1', options: ['lowerdir=/snapshots/1/fs'] }],
      [
        {
          ...mount!,
          source: `${mount!.source}9`,
          options: mount!.options.map((o) => o.replaceAll('/fs', '9/fs')),
        },
      ],
    ]) {
      assert.equal(await s.ownerOf(mounts), undefined, JSON.stringify(mounts));
    }
  });
}
