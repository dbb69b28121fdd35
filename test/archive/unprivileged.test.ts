/** An ordinary user can unpack too: what it may not set is left out and counted, nothing fails for it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmod, chown, lstat, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Applied } from '../../src/backends/archive/apply.js';
import { type Item, tarOf, tempDir, treeOf } from './support.js';

const NOBODY = 65534;
const applyModule = new URL('../../src/backends/archive/apply.js', import.meta.url);

/** Runs in a process of its own: applies the layers to the directory as the user that runs it. */
const program = `
  import { createReadStream } from 'node:fs';
  const [module, root, ...layers] = process.argv.slice(1);
  const { applyLayer } = await import(module);
  const mounts = [{ type: 'bind', source: root, options: ['rbind', 'rw'] }];
  const done = [];
  for (const layer of layers) done.push(await applyLayer(mounts, createReadStream(layer)));
  process.stdout.write(JSON.stringify(done));
`;

const asNobody = { uid: NOBODY, gid: NOBODY };
const canRun = (): boolean =>
  spawnSync(
    process.execPath,
    ['-e', `require('fs').accessSync(${JSON.stringify(fileURLToPath(applyModule))})`],
    asNobody,
  ).status === 0;
const reason =
  process.getuid?.() !== 0
    ? 'only root can become another user'
    : canRun()
      ? false
      : 'nobody cannot read this package';
if (reason) console.log(`layers of ordinary users are not tested: ${reason}`);

test('given an ordinary user, layers apply without owners and devices, which are counted', {
  skip: reason,
}, async (t) => {
  const dir = await tempDir(t);
  const root = join(dir, 'root');
  await mkdir(root);
  await chown(root, NOBODY, NOBODY);
  await chmod(dir, 0o755);
  const layers: Item[][] = [
    [
      { name: 'closed', type: 'directory', mode: 0o555 },
      { name: 'closed/sub', type: 'directory', mode: 0 },
      { name: 'closed/sub/file', text: 'x', mode: 0o400 },
      { name: 'gone', type: 'directory', mode: 0o500 },
      { name: 'gone/deep', type: 'directory', mode: 0o500 },
      { name: 'gone/deep/file', text: 'x' },
      { name: 'suid', text: 's', mode: 0o4755 },
      { name: 'sda', type: 'block', major: 8, minor: 0 },
      {
        name: 'caps',
        text: 'c',
        xattrs: new Map([
          ['security.capability', Buffer.from('0100000200040000000000000000000000000000', 'hex')],
        ]),
      },
    ],
    [{ name: 'closed/sub/second', text: 'y' }, { name: '.wh.gone' }],
  ];
  const paths: string[] = [];
  for (const [i, layer] of layers.entries()) {
    const path = join(dir, `layer${i}.tar`);
    await writeFile(path, await tarOf(layer), { mode: 0o644 });
    paths.push(path);
  }
  const args = ['--input-type=module', '-e', program, applyModule.href, root, ...paths];
  const done = spawnSync(process.execPath, args, { ...asNobody, encoding: 'utf8' });
  assert.equal(done.status, 0, done.stderr);
  const [first] = JSON.parse(done.stdout) as Applied[];
  assert.equal(first?.skipped.devices, 1);
  assert.equal(first.skipped.owners, 8, 'all but the device, which is not there');
  assert.equal(first.skipped.xattrs, 1);
  assert.deepEqual(await treeOf(root), {
    caps: 'c',
    closed: 'dir',
    'closed/sub': 'dir',
    'closed/sub/file': 'x',
    'closed/sub/second': 'y',
    suid: 's',
  });
  const modes = await Promise.all(
    ['closed', 'closed/sub', 'suid'].map(async (p) => (await lstat(join(root, p))).mode & 0o7777),
  );
  assert.deepEqual(modes, [0o555, 0, 0o4755]);
});
