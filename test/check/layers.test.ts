/** What is in committed snapshots against the archives of their layers: every change of an entry is found, and nothing else is. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isRoot } from '../../src/backends/archive/metadata.js';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { importImage } from '../../src/images/import.js';
import { unpackImage } from '../../src/images/unpack.js';
import { layout, openDB } from '../../src/open.js';
import { Blobs, named, writeFiles } from '../images/fixtures.js';
import { tempDir } from '../support/temp.js';

const ctx = { namespace: 'test' };

const layers = [
  [
    { name: 'etc', type: 'directory' as const, mode: 0o755 },
    { name: 'etc/base', text: 'b'.repeat(3000), mode: 0o640 },
    { name: 'etc/linked', type: 'link' as const, linkname: 'etc/base' },
    { name: 'etc/short', type: 'symlink' as const, linkname: 'base' },
    { name: 'bin/tool', text: '#!', mode: 0o4755 },
    { name: 'gone', text: 'x' },
    { name: 'old/inner', text: 'x' },
  ],
  [
    { name: '.wh.gone', text: '' },
    { name: 'old', type: 'symlink' as const, linkname: 'etc' },
    { name: 'etc/base', text: 'changed', mode: 0o600 },
  ],
];

for (const snapshotter of isRoot ? ['overlayfs', 'native'] : ['native']) {
  test(`given an image that ${snapshotter} has, when layers are compared, then each kind of damage is found by its file`, async (t) => {
    const dir = await tempDir(t);
    const blobs = new Blobs();
    const { manifest, layers: archives } = await blobs.image(layers);
    const source = await writeFiles(join(dir, 'layout'), blobs.layout([named(manifest, 'one')]));
    const root = join(dir, 'root');
    await using db = await openDB({ root });
    const [image] = await importImage(db, ctx, source);
    const platform = { os: 'linux', architecture: 'amd64' };
    // The directories are numbered in the order of the layers.
    await unpackImage(db, ctx, image!, snapshotter, { platform, layersAtOnce: 1 });
    const check = () => db.check({}, { layers: true, graph: false });
    const sound = await check();
    assert.deepEqual([sound.findings, sound.checked.layers], [[], 2]);
    assert.equal(sound.checked.layerEntries, 7 + 2);

    // Each snapshotter numbers its snapshots from 1 on.
    const inside = (number: number, name: string): string =>
      join(
        layout.snapshotter(root, snapshotter),
        'snapshots',
        `${number}`,
        snapshotter === 'native' ? '' : 'fs',
        name,
      );
    const lower = (name: string): string => inside(1, name);
    const upper = (name: string): string => inside(2, name);
    truncateSync(lower('etc/linked'), 0);
    unlinkSync(lower('etc/short'));
    writeFileSync(lower('etc/short'), 'base');
    chmodSync(lower('bin/tool'), 0o755);
    rmSync(lower('old'), { recursive: true });
    truncateSync(upper('etc/base'), 3);
    const { findings, sound: isSound, checked } = await check();
    assert.equal(isSound, false);
    assert.equal(checked.layers, 2);
    const expected = [
      `file-mode ${lower('bin/tool')} mode 4755 mode 0755`,
      `file-missing ${lower('old/inner')}`,
      `file-size ${lower('etc/base')} 3000 bytes 0 bytes`,
      `file-size ${lower('etc/linked')} 3000 bytes 0 bytes`,
      `file-size ${upper('etc/base')} 7 bytes 3 bytes`,
      `file-type ${lower('etc/short')} symlink file`,
    ];
    const lines = findings.map(({ kind, path, expected: e, found }) => `${kind} ${path} ${e} ${found}`);
    assert.deepEqual(
      lines
        .map((line) => (line.startsWith('file-missing') ? line.split(' ').slice(0, 2).join(' ') : line))
        .sort(),
      expected.sort(),
    );
    assert.ok(findings.every(({ severity, namespace }) => severity === 'damage' && namespace === 'test'));

    // What leads out of a layer is not followed.
    rmSync(lower('etc'), { recursive: true });
    symlinkSync(dir, lower('etc'));
    const after = await check();
    assert.deepEqual(
      after.findings.filter(({ path }) => path?.startsWith(lower('etc'))).map(({ kind }) => kind),
      ['file-type'],
    );
    // An archive that is not the layer compares with nothing.
    const archive = join(layout.content(root), 'blobs', archives[1]!.digest.replace(':', '/'));
    chmodSync(archive, 0o644);
    writeFileSync(archive, 'x'.repeat(archives[1]!.size));
    assert.ok((await check()).findings.some(({ kind }) => kind === 'layer-archive'));
  });
}

for (const snapshotter of isRoot ? ['overlayfs', 'native'] : ['native']) {
  test(`given damaged layers of ${snapshotter}, when a check repairs, then they are unpacked again, but for one that is mounted`, async (t) => {
    const dir = await tempDir(t);
    const blobs = new Blobs();
    const { manifest, layers: archives } = await blobs.image(layers);
    const source = await writeFiles(join(dir, 'layout'), blobs.layout([named(manifest, 'one')]));
    const root = join(dir, 'root');
    const snapshots = join(layout.snapshotter(root, snapshotter), 'snapshots');
    const inside = (number: number, name: string): string =>
      join(snapshots, `${number}`, snapshotter === 'native' ? '' : 'fs', name);
    await using db = await openDB({ root });
    const [image] = await importImage(db, ctx, source);
    const { chainId } = await unpackImage(db, ctx, image!, snapshotter, {
      platform: { os: 'linux', architecture: 'amd64' },
      // The directories are numbered in the order of the layers.
      layersAtOnce: 1,
    });
    const before = readdirSync(snapshots).sort();
    const damage = (): void => {
      truncateSync(inside(1, 'etc/base'), 0);
      rmSync(inside(1, 'bin'), { recursive: true });
      truncateSync(inside(2, 'etc/base'), 3);
    };
    const repair = () => db.check({}, { layers: true, repair: true, graph: false });
    damage();
    const healed = await repair();
    assert.deepEqual(
      [healed.damaged, healed.repaired, healed.findings.map(({ repaired }) => repaired)],
      [healed.damaged, healed.damaged, Array(healed.damaged).fill('unpacked again')],
    );
    assert.ok(healed.damaged >= 3);
    assert.deepEqual((await repair()).findings, []);
    assert.equal(readFileSync(inside(2, 'etc/base'), 'utf8'), 'changed');
    assert.equal(statSync(inside(1, 'bin/tool')).mode & 0o7777, 0o4755);
    assert.deepEqual(readdirSync(snapshots).sort(), before);

    // Without its archive a layer stays as it is.
    damage();
    const archive = join(layout.content(root), 'blobs', archives[0]!.digest.replace(':', '/'));
    chmodSync(archive, 0o644);
    const bytes = readFileSync(archive);
    writeFileSync(archive, 'x'.repeat(bytes.length));
    const half = await repair();
    assert.ok(
      half.findings.some(({ path, repaired }) => path === inside(2, 'etc/base') && repaired !== undefined),
    );
    assert.equal(statSync(inside(1, 'etc/base')).size, 0);
    writeFileSync(archive, bytes);

    if (!(await canMount()).ok) return t.diagnostic('mounts: not tried without root');
    const mounts = await db.snapshotter(snapshotter)!.view(ctx, 'look', chainId);
    await withMounts(mounts, async (mounted) => {
      const { findings } = await repair();
      const lowest = findings.filter(({ path }) => path?.startsWith(inside(1, '')));
      // A view of the native snapshotter has copies.
      const stays = snapshotter === 'overlayfs';
      assert.ok(lowest.length > 0);
      for (const { repaired, remedy } of lowest) {
        assert.equal(repaired === undefined, stays, remedy);
        if (stays) assert.ok(remedy.includes(`is mounted at ${mounted}`), remedy);
      }
      assert.equal(statSync(inside(1, 'etc/base')).size, stays ? 0 : 3000);
    });
    await repair();
    assert.deepEqual((await repair()).findings, []);
  });
}
