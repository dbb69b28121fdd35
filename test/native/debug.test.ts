/**
 * The graph core with assertions: a change of the graph needs its lock, and after each batch of ops the counts and
 * indexes agree with the nodes. Runs other tests over that build; they say what is right, the assertions where it went wrong.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { cacheDirectory } from '../support/cache.js';

const repository = fileURLToPath(new URL('../../../', import.meta.url));
const script = join(repository, 'test/native/debug/build.mjs');
const tests = fileURLToPath(new URL('../', import.meta.url));

/** Tests of the core, and some that use it from above. */
const wanted = ['native/graph', 'native/steps', 'native/threads', 'gc/concurrent'];

const WEEK_MS = 7 * 24 * 3_600_000;

/** The build of these sources; made once, as it takes half a minute. */
function debugBuild(): string {
  const hash = createHash('sha256').update(`${process.version} ${process.arch}`);
  for (const dir of ['native', 'test/native/debug'].map((name) => join(repository, name))) {
    for (const name of readdirSync(dir).sort()) {
      if (/\.(cc|h|mjs)$/.test(name)) hash.update(name).update(readFileSync(join(dir, name)));
    }
  }
  const made = join(cacheDirectory(), `debug-core-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(made)) return made;
  const draft = `${made}.${process.pid}`;
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, draft], { encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
  for (const name of readdirSync(draft)) if (name.endsWith('.o')) rmSync(join(draft, name));
  for (const name of readdirSync(cacheDirectory())) {
    const path = join(cacheDirectory(), name);
    // Other clones use theirs; a draft is of a build that was ended.
    if (name.startsWith('debug-core-') && Date.now() - statSync(path).mtimeMs > WEEK_MS)
      rmSync(path, { recursive: true, force: true });
  }
  try {
    renameSync(draft, made);
  } catch (error) {
    // Another run was quicker.
    rmSync(draft, { recursive: true });
    if (!existsSync(made)) throw error;
  }
  return made;
}

const compiler = spawnSync(process.env.CXX ?? 'g++', ['--version']).status === 0;
const headers = existsSync(join(process.execPath, '../../include/node/node_api.h'));
const skip = compiler && headers ? false : `needs g++ and Node's headers next to ${process.execPath}`;

test('given what an assertion forbids, when it is done, then the process ends with its text', {
  skip,
}, () => {
  const program = join(debugBuild(), 'assertions');
  const outcome = (broken: string[]) => {
    const { status, signal, stderr } = spawnSync(program, broken, { encoding: 'utf8' });
    return [status ?? signal, stderr];
  };
  assert.deepEqual(outcome([]), [0, '']);
  const [lock, count] = [outcome(['lock']), outcome(['count'])];
  assert.equal(lock[0], 'SIGABRT');
  assert.match(String(lock[1]), /assertion failed: a change of the graph needs its lock/);
  assert.equal(count[0], 'SIGABRT');
  assert.match(
    String(count[1]),
    /assertion failed: edges lead to ids that exist, whose in-degrees count them/,
  );
});

test('given the core with assertions, when its tests run over it, then all pass', { skip }, () => {
  const env: NodeJS.ProcessEnv = { ...process.env, EBBTIDE_ADDONS: debugBuild(), EBBTIDE_CORE: 'native' };
  // A test run within a test reports to the outer one otherwise.
  delete env.NODE_TEST_CONTEXT;
  const files = wanted.map((name) => join(tests, `${name}.test.js`));
  for (const file of files) assert.ok(existsSync(file), file);
  const used = `const { coreInfo } = await import(${JSON.stringify(join(repository, 'dist/src/graph/carriers.js'))});
    console.log(coreInfo().path);`;
  const shown = spawnSync(process.execPath, ['--input-type=module', '-e', used], { encoding: 'utf8', env });
  assert.equal(shown.stdout.trim(), join(debugBuild(), 'ebbtide_core.node'), shown.stderr);
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--test', '--test-concurrency=1', '--test-reporter=spec', ...files],
    { encoding: 'utf8', env, maxBuffer: 1 << 26 },
  );
  assert.equal(status, 0, `${stdout.slice(-8000)}${stderr.slice(-4000)}`);
  assert.match(stdout, /^ℹ pass [1-9]/m);
});
