/** Mounts of a snapshot's directory are found however they name it, in every mount namespace. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { canMount } from '../../src/backends/mounts.js';
import { mountPointOf } from '../../src/backends/snapshotters/mounted.js';
import { openNative } from '../../src/backends/snapshotters/native.js';
import { tempDir } from '../support/temp.js';

test('given mounts of a snapshot’s directory, when it is looked for, then each is found, and no other’s', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount: ${reason}`);
  const dir = await tempDir(t);
  const snapshots = join(dir, 'snapshots');
  // Not those of other stores on this machine, whose overlays may name layers without their directory, too.
  const [one, two, other] = [`${process.pid}`, `2${process.pid}`, `11${process.pid}`];
  for (const id of [one, two, other]) mkdirSync(join(snapshots, `${id}/fs`), { recursive: true });
  const at = join(dir, 'a mount');
  mkdirSync(at);
  symlinkSync(dir, join(dir, 'link'));
  const layer = (id: string): string => join(snapshots, `${id}/fs`);
  const places = [layer(one), layer(two), layer(other), join(dir, `link/snapshots/${one}/fs`)];
  const found = async (
    command: string,
    ...looks: (() => Promise<string | undefined>)[]
  ): Promise<boolean[]> => {
    // In a namespace of its own; it says when it has mounted, and ends with its input.
    const child = spawn(
      'unshare',
      ['-m', 'sh', '-c', `cd ${snapshots} && ${command} && echo mounted && cat`],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    );
    const ended = new Promise((resolve) => child.on('close', resolve));
    try {
      await Promise.race([new Promise((resolve) => child.stdout.once('data', resolve)), ended]);
      assert.equal(child.exitCode, null, command);
      const points = await Promise.all(
        looks.length > 0 ? looks.map((look) => look()) : places.map((place) => mountPointOf(place)),
      );
      for (const point of points) assert.ok([undefined, at].includes(point), point);
      return points.map((point) => point !== undefined);
    } finally {
      child.stdin.end();
      await ended;
    }
  };
  assert.deepEqual(await found(`mount --bind ${one}/fs '${at}'`), [true, false, false, true]);
  assert.deepEqual(
    await found(`mount -t overlay overlay -o lowerdir=${layer(two)}:${layer(other)} '${at}'`),
    [false, true, true, false],
  );
  assert.deepEqual(await found(`mount -t overlay overlay -o lowerdir=${other}/fs:${one}/fs '${at}'`), [
    true,
    false,
    true,
    true,
  ]);
  assert.deepEqual(await found(`mount -t tmpfs 1 '${at}'`), [false, false, false, false]);
  // Moved away after it was mounted.
  for (const command of [
    `mount --bind ${one}/fs '${at}'`,
    `mount -t overlay overlay -o lowerdir=${layer(one)}:${layer(two)} '${at}'`,
  ]) {
    assert.deepEqual(
      await found(`${command} && mv ${one} rm-${one}`, () =>
        mountPointOf(layer(one), join(snapshots, `rm-${one}/fs`)),
      ),
      [true],
    );
    renameSync(join(snapshots, `rm-${one}`), join(snapshots, one));
  }
});

test('given a crash between putting a new directory in place and deleting the old one, when it is opened, then the new one stays', async (t) => {
  const root = await tempDir(t);
  {
    await using snapshotter = await openNative(root);
    await snapshotter.prepare('active', '');
    await snapshotter.commit('done', 'active');
  }
  writeFileSync(join(root, 'snapshots/1/new'), '');
  mkdirSync(join(root, 'snapshots/rm-1'));
  writeFileSync(join(root, 'snapshots/rm-1/old'), '');
  {
    await using snapshotter = await openNative(root);
    await snapshotter.cleanup();
    const problems: string[] = [];
    await snapshotter.inspect((problem) => void problems.push(problem.path));
    assert.deepEqual(problems, []);
    await assert.rejects(snapshotter.prepare('x', 'none'));
  }
  // Before the new one was in its place the old one comes back.
  renameSync(join(root, 'snapshots/1'), join(root, 'snapshots/rm-1'));
  await using snapshotter = await openNative(root);
  assert.equal((await snapshotter.usage('done')).inodes > 0, true);
  const problems: string[] = [];
  await snapshotter.inspect((problem) => void problems.push(problem.path));
  assert.deepEqual(problems, []);
});
