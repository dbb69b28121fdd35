/** Runs of file system calls: the addon's and Node's do the same, down to the errors. */
import assert from 'node:assert/strict';
import { constants } from 'node:fs';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  optional,
  runSteps,
  runStepsInNode,
  type Step,
  type StepRun,
  step,
} from '../../src/backends/steps.js';
import { fallbackReason } from '../../src/backends/sys.js';
import { tempDir } from './temp.js';

type Run = (steps: readonly Step[]) => Promise<readonly number[]>;
const inAddon: Run = async (steps) => (await runSteps(steps)).results;
const runs: [string, Run][] = [['Node', runStepsInNode]];
if (fallbackReason() === '') runs.push(['the addon', inAddon]);
else console.log(`steps of the addon are not tested: ${fallbackReason()}`);

const ENOENT = -2;
const EEXIST = -17;
const ENOTEMPTY = -39;

for (const [name, run] of runs) {
  test(`steps in ${name}: given a whole ingest, then its data has the blob's name, and nothing else is left`, async (t) => {
    const dir = await tempDir(t);
    const at = (path: string): string => join(dir, path);
    await mkdir(at('blobs'));
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC;
    const begin = [
      step.mkdir(at('in'), 0o755),
      step.put(at('in/ref'), 'refé'),
      step.open(at('in/data'), flags),
    ];
    const [made, put, fd] = await run(begin);
    assert.deepEqual([made, put], [0, 0]);
    assert.equal(await readFile(at('in/ref'), 'utf8'), 'refé');
    await writeFile(at('in/data'), 'bytes');
    assert.deepEqual(await run([step.sync(fd!), step.size(fd!)]), [0, 5]);
    const target = at('blobs/b');
    const end = [
      ...[step.absent(target), step.rename(at('in/data'), target), step.syncDirectory(at('blobs'))],
      ...[step.touch(fd!), step.readOnly(fd!), optional(step.unlink(at('in/total')))],
      ...[step.unlink(at('in/ref')), step.rmdir(at('in')), step.close(fd!)],
    ];
    assert.deepEqual(await run(end), [0, 0, 0, 0, 0, ENOENT, 0, 0, 0]);
    assert.deepEqual(await readdir(dir), ['blobs']);
    assert.equal((await stat(target)).mode & 0o777, 0o444);
    assert.equal(await readFile(target, 'utf8'), 'bytes');
  });

  test(`steps in ${name}: given a step that fails, then those behind it are not carried out`, async (t) => {
    const dir = await tempDir(t);
    const at = (path: string): string => join(dir, path);
    await mkdir(at('full/of'), { recursive: true });
    assert.deepEqual(await run([step.absent(at('full')), step.mkdir(at('x'), 0o755)]), [EEXIST]);
    assert.deepEqual(await run([optional(step.rmdir(at('full'))), step.mkdir(at('x'), 0o700)]), [
      ENOTEMPTY,
      0,
    ]);
    assert.deepEqual(await run([step.rename(at('no'), at('y')), step.mkdir(at('z'), 0o755)]), [ENOENT]);
    assert.deepEqual(await run([step.chmod(at('x'), 0o711), step.mkdir(at('x'), 0o755)]), [0, EEXIST]);
    assert.equal((await stat(at('x'))).mode & 0o777, 0o711);
    assert.deepEqual((await readdir(dir)).sort(), ['full', 'x']);
    assert.deepEqual(await run([]), []);
  });
}

test('given a step that fails, then the error is like one of Node', async (t) => {
  const path = join(await tempDir(t), 'missing', 'x');
  const { error }: StepRun = await runSteps([step.mkdir(path, 0o755)]);
  assert.deepEqual(
    { code: error?.code, errno: error?.errno, syscall: error?.syscall, path: error?.path },
    { code: 'ENOENT', errno: ENOENT, syscall: 'mkdir', path },
  );
  assert.equal((await runSteps([optional(step.mkdir(path, 0o755))])).error, undefined);
});

test('given malformed steps, then the addon refuses them before anything is done', async (t) => {
  if (fallbackReason() !== '') return t.skip(fallbackReason());
  const dir = await tempDir(t);
  const good = step.mkdir(join(dir, 'made'), 0o755);
  const [op, path] = good;
  const bad: unknown[] = [
    ...[undefined, {}, [], [op, path], [99, path, '', 0, 0, false], [op, 'a\0b', '', 0, 0, false]],
    ...[
      [op, path, '', -1, 0, false],
      [op, path, '', 0.5, 0, false],
      [op, path, '', 0, 1e6, false],
    ],
    ...[
      [op, path, '', 0, 0, 1],
      [op, 7, '', 0, 0, false],
    ],
  ];
  for (const one of bad) await assert.rejects(runSteps([good, one as Step]), TypeError, JSON.stringify(one));
  await assert.rejects(runSteps(Array<Step>(65).fill(good)), TypeError);
  assert.deepEqual(await readdir(dir), []);
});
