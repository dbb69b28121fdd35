/** Directories of snapshots whose metadata file was replaced: an older copy, or another root's. */
import assert from 'node:assert/strict';
import { copyFile, mkdir, readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openNative } from '../../src/backends/snapshotters/native.js';
import { openOverlayfs } from '../../src/backends/snapshotters/overlayfs.js';
import { addLayer } from './snapshotter-suite.js';
import { recordingLog, tempDir } from './temp.js';

const directories = async (root: string): Promise<string[]> =>
  (await readdir(join(root, 'snapshots'))).sort();

for (const openOne of [openNative, openOverlayfs]) {
  test(`given metadata of an older copy, when ${openOne.name} is used, then the directories of newer snapshots stay`, async (t) => {
    const root = await tempDir(t);
    const { log, lines } = recordingLog();
    const first = await openOne(root);
    await addLayer(first, 'base', '', (directory) => writeFile(join(directory, 'file'), 'x'));
    await first.close();
    await copyFile(join(root, 'metadata.db'), join(root, 'old.db'));
    const second = await openOne(root);
    await addLayer(second, 'next', 'base', (directory) => writeFile(join(directory, 'more'), 'x'));
    await second.prepare('gone', 'next');
    await second.remove('gone');
    await second.close();
    await rename(join(root, 'old.db'), join(root, 'metadata.db'));
    // What a crash leaves goes all the same.
    await mkdir(join(root, 'snapshots', '9', 'fs'), { recursive: true });

    const s = await openOne(root, { log });
    t.after(() => s.close());
    await s.cleanup();
    assert.deepEqual(await directories(root), ['1', '2']);
    assert.match(lines.join(), /holds 1 snapshots, that their metadata file does not know/);
    await s.prepare('new', 'base');
    await s.cleanup();
    assert.deepEqual(await directories(root), ['1', '10', '2']);
  });

  test(`given metadata of another root, when ${openOne.name} is used, then the directories stay`, async (t) => {
    const [root, other] = [await tempDir(t), await tempDir(t)];
    for (const [dir, count] of [
      [root, 22],
      [other, 30],
    ] as const) {
      const made = await openOne(dir);
      for (let i = 0; i < count; i++) await made.prepare(`s${i}`, '');
      if (dir === other) for (let i = 0; i < count; i++) await made.remove(`s${i}`);
      await made.close();
    }
    await copyFile(join(other, 'metadata.db'), join(root, 'metadata.db'));
    const s = await openOne(root, { log: () => undefined });
    t.after(() => s.close());
    await s.cleanup();
    assert.equal((await directories(root)).length, 22);
  });
}
