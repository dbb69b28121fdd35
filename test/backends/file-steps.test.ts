import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type FileStep,
  FileSteps,
  oneByOne,
  runSteps,
  type StepFailure,
} from '../../src/backends/file-steps.js';
import { fileStepsSupported } from '../../src/backends/sys.js';
import { tempDir } from './temp.js';

const at = 1_700_000_000_123_456_000n;
const { absent, makeDirectory, mode, optional, rename, syncDirectory, syncFile, times, write } = FileSteps;

/** Lists of steps in a directory that has the file `there`, the directory `full` with a file, and the open file `data`. */
const lists: Record<string, (dir: string, data: FileHandle) => FileStep[]> = {
  'everything works': (dir, data) => [
    makeDirectory(join(dir, 'new'), 0o700),
    write(join(dir, 'new/a'), 'text, ünïcode', 0o600),
    write(join(dir, 'new/empty'), '', 0o640),
    absent(join(dir, 'moved')),
    syncFile(join(dir, 'data'), data),
    rename(join(dir, 'data'), join(dir, 'moved')),
    times(join(dir, 'moved'), data, at),
    mode(join(dir, 'moved'), data, 0o444),
    syncDirectory(dir),
  ],
  'a time before 1970': (dir, data) => [times(join(dir, 'data'), data, -at)],
  'nothing to do': () => [],
  'a directory that exists': (dir) => [
    makeDirectory(join(dir, 'full'), 0o700),
    write(join(dir, 'later'), '', 0o600),
  ],
  'a parent that does not': (dir) => [
    write(join(dir, 'none/a'), 'x', 0o600),
    write(join(dir, 'later'), '', 0o600),
  ],
  'a file that exists': (dir) => [
    write(join(dir, 'there'), 'other', 0o600),
    write(join(dir, 'later'), '', 0o600),
  ],
  'a name that is taken': (dir) => [
    absent(join(dir, 'there')),
    rename(join(dir, 'data'), join(dir, 'there')),
  ],
  'a rename of nothing': (dir) => [rename(join(dir, 'none'), join(dir, 'moved'))],
  'a rename over a full directory': (dir) => [
    makeDirectory(join(dir, 'new'), 0o700),
    rename(join(dir, 'new'), join(dir, 'full')),
  ],
  'an optional step that fails': (dir) => [
    optional(rename(join(dir, 'none'), join(dir, 'moved'))),
    optional(makeDirectory(join(dir, 'full'), 0o700)),
    write(join(dir, 'later'), 'x', 0o600),
  ],
  'an optional one before one that is not': (dir) => [
    optional(absent(join(dir, 'there'))),
    syncDirectory(join(dir, 'none')),
    write(join(dir, 'later'), 'x', 0o600),
  ],
};

async function outcome(t: TestContext, run: typeof runSteps, list: (typeof lists)[string]): Promise<unknown> {
  const dir = await tempDir(t);
  writeFileSync(join(dir, 'there'), 'there');
  mkdirSync(join(dir, 'full'));
  writeFileSync(join(dir, 'full/file'), '');
  const data = await open(join(dir, 'data'), 'w+');
  await data.write('bytes');
  const steps = list(dir, data);
  const failures: StepFailure[] = await run(steps);
  await data.close();
  const failed = failures.map(({ step, error }) => [steps.indexOf(step), error.code, error.path]);
  const tree = (readdirSync(dir, { recursive: true }) as string[]).sort().map((name) => {
    const stats = statSync(join(dir, name));
    const time = name === 'moved' ? Math.floor(stats.mtimeMs) : 0;
    return [name, stats.mode.toString(8), time, stats.isFile() ? readFileSync(join(dir, name), 'utf8') : ''];
  });
  return JSON.parse(JSON.stringify({ failed, tree }).replaceAll(dir, '.'));
}

for (const [name, list] of Object.entries(lists)) {
  test(`given ${name}, then the steps do in one go what they do one by one`, async (t) => {
    if (!fileStepsSupported) return t.skip('the addon is not built');
    const single = await outcome(t, oneByOne, list);
    assert.deepEqual(await outcome(t, runSteps, list), single);
    t.diagnostic(JSON.stringify((single as { failed: unknown }).failed));
  });
}

test('given steps of which one fails, then it is the last', async (t) => {
  const { failed, tree } = (await outcome(t, runSteps, lists['a directory that exists']!)) as {
    failed: unknown[];
    tree: [string][];
  };
  assert.deepEqual(failed, [[0, 'EEXIST', './full']]);
  assert.ok(!tree.some(([name]) => name === 'later'));
});
