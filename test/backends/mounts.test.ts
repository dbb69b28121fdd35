import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Mount } from '../../src/backends/contract.js';
import { canMount, mountAt, unmountAt, withMounts } from '../../src/backends/mounts.js';
import { Output } from '../../src/cli/output/output.js';
import { printMounts } from '../../src/cli/verbs/objects/snapshots.js';
import { failsWith, tempDir } from './temp.js';

/** False, with the reason printed, where this process may not mount. */
async function mayMount(t: TestContext): Promise<boolean> {
  const { ok, reason } = await canMount();
  if (!ok) t.skip(`cannot mount here: ${reason}`);
  return ok;
}

const bind = (source: string, ...options: string[]): Mount => ({
  type: 'bind',
  source,
  options: ['rbind', ...options],
});
const isMounted = (path: string): boolean => readFileSync('/proc/self/mounts', 'utf8').includes(path);

test('given a bind, when fn ends or fails, then it is unmounted and its source untouched', async (t) => {
  if (!(await mayMount(t))) return;
  const source = await tempDir(t);
  let at = '';
  assert.equal(
    await withMounts([bind(source, 'rw')], async (directory) => {
      at = directory;
      await writeFile(join(directory, 'file'), 'x');
      assert.ok(isMounted(directory));
      return 7;
    }),
    7,
  );
  assert.ok(!isMounted(at) && !existsSync(at));
  const failure = new Error('inside');
  await assert.rejects(
    withMounts([bind(source, 'ro')], async (directory) => {
      at = directory;
      await assert.rejects(writeFile(join(directory, 'file'), 'y'), { code: 'EROFS' });
      throw failure;
    }),
    failure,
  );
  assert.ok(!isMounted(at) && !existsSync(at));
  assert.equal(await readFile(join(source, 'file'), 'utf8'), 'x');
});

test('given a second mount with a target, then it is below the first; leading out is refused', async (t) => {
  if (!(await mayMount(t))) return;
  const [a, b] = [await tempDir(t), await tempDir(t)];
  await mkdir(join(a, 'in/side'), { recursive: true });
  await writeFile(join(b, 'file'), 'b');
  await withMounts([bind(a), { ...bind(b), target: 'in/side' }], async (directory) => {
    assert.equal(await readFile(join(directory, 'in/side/file'), 'utf8'), 'b');
  });
  assert.deepEqual(await readdir(join(a, 'in/side')), []);
  for (const target of ['../x', '/x', 'a/../../x', '..']) {
    await failsWith(
      withMounts([bind(a), { ...bind(b), target }], () => assert.fail('not mounted')),
      'InvalidArgument',
      /leads out/,
    );
  }
  assert.ok(!isMounted(a));
});

test('given a chain whose second mount fails, then the first is unmounted; the error names the mount', async (t) => {
  if (!(await mayMount(t))) return;
  const source = await tempDir(t);
  const missing = bind(join(source, 'missing'));
  // Other tests mount, too: those that show this directory.
  const shown = (): boolean => readFileSync('/proc/self/mountinfo', 'utf8').includes(source);
  await withMounts([bind(source)], () => assert.ok(shown()));
  await failsWith(
    withMounts([bind(source), missing], () => assert.fail('not mounted')),
    'NotFound',
    /mount bind .*missing/,
  );
  assert.ok(!shown());
  await failsWith(
    withMounts([], () => undefined),
    'InvalidArgument',
  );
});

test('given a mount that is still in use, when fn ends, then it is gone from the tree all the same', async (t) => {
  if (!(await mayMount(t))) return;
  const source = await tempDir(t);
  await writeFile(join(source, 'file'), 'x');
  let at = '';
  const { open } = await import('node:fs/promises');
  const handle = await withMounts([bind(source)], (directory) => {
    at = directory;
    return open(join(directory, 'file'));
  });
  assert.ok(!isMounted(at) && !existsSync(at));
  assert.equal((await handle.readFile()).toString(), 'x');
  await handle.close();
});

test('given mapped ids, then mounting says that it cannot', async (t) => {
  const source = await tempDir(t);
  await failsWith(
    withMounts([bind(source, 'uidmap=0:1:1')], () => undefined),
    'NotImplemented',
  );
});

test('given any number of layers, then they mount, by the printed command too; what the kernel refuses is an error', async (t) => {
  if (!(await mayMount(t))) return;
  const root = join(await tempDir(t), 'a-root-with-a-long-name'.repeat(3), 'snapshots');
  const layer = (i: number): string => join(root, String(i), 'fs');
  for (let i = 1; i <= 501; i++) await mkdir(layer(i), { recursive: true });
  for (const i of [1, 128, 500]) await writeFile(join(layer(i), `f${i}`), '');
  await mkdir(join(root, 'work'));
  const target = join(root, "it's here");
  await mkdir(target);
  const overlay = (layers: number): Mount[] => {
    const lowers = Array.from({ length: layers }, (_, i) => layer(layers - i));
    const options = [
      `workdir=${join(root, 'work')}`,
      `upperdir=${layer(501)}`,
      `lowerdir=${lowers.join(':')}`,
    ];
    return [{ type: 'overlay', source: 'overlay', options }];
  };
  for (const layers of [1, 2, 127, 128, 130, 500]) {
    const shown = [1, 128, 500].filter((i) => i <= layers).map((i) => `f${i}`);
    mountAt(overlay(layers), target);
    assert.deepEqual((await readdir(target)).sort(), shown.sort(), `${layers} layers`);
    unmountAt(target);

    const lines: string[] = [];
    printMounts(recorded(lines), overlay(layers), target);
    const done = spawnSync('sh', ['-c', lines.join('\n')], { encoding: 'utf8' });
    assert.equal(done.status, 0, `${layers} layers: ${done.stderr}`);
    assert.deepEqual((await readdir(target)).sort(), shown.sort(), `${layers} layers`);
    unmountAt(target);
  }
  await failsWith(
    (async () => mountAt(overlay(501), target))(),
    'InvalidArgument',
    /501 lower layers: the kernel takes 500/,
  );
  await failsWith((async () => unmountAt(target))(), 'FailedPrecondition', /nothing is mounted/);
});

/** What a verb prints. */
function recorded(lines: string[]): Output {
  return new Output({}, { columns: undefined, write: (text) => void lines.push(text.trimEnd()) });
}
