/** The packed package where it is installed: on this Node and on later ones, on the addon and on WebAssembly. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { makeRoot } from '../any-host/root.js';
import { repository } from '../coverage/consumer.js';
import { nativeMissing } from '../native/cores.js';
import { nodeRelease } from '../support/node-releases.js';
import { tempDir } from '../support/temp.js';
import { example, installed, type Manifest, NO_NETWORK, pack } from './packed.js';

const run = promisify(execFile);
/** Majors of Node that are supported besides the one that runs the tests. */
const releases = [22, 24];

/** What was to be had from the registry and is not: why a test is skipped. */
function whyMissing(what: string, error: unknown): string {
  const { stderr = '' } = error as { stderr?: string }; // what execFile's errors carry
  assert.match(stderr, NO_NETWORK);
  return `${what} is neither in npm’s cache nor to be had: ${stderr.slice(0, 300)}`;
}

test('given the packed package, when it is installed without scripts, then the README’s example runs on the addon, and on WebAssembly', {
  skip: nativeMissing ?? false,
}, async (t) => {
  const dir = await tempDir(t);
  const tarball = await pack(dir, { [process.arch]: join(repository, 'build/Release') });
  t.diagnostic(`${Math.round(statSync(tarball).size / 1024)} KiB`);
  let project: string;
  try {
    project = await installed(dir, tarball);
  } catch (error) {
    return t.skip(whyMissing('what the package depends on', error));
  }

  const here = join(project, 'node_modules/ebbtide');
  const { scripts } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8')) as Manifest;
  assert.deepEqual(
    ['preinstall', 'install', 'postinstall'].filter((name) => name in scripts),
    [],
  );
  assert.equal(existsSync(join(here, 'binding.gyp')), false);
  for (const map of readdirSync(join(here, 'dist'), { recursive: true }).map(String)) {
    if (!map.endsWith('.js.map')) continue;
    const file = join(here, 'dist', map);
    const { sources } = JSON.parse(readFileSync(file, 'utf8')) as { sources: string[] };
    for (const source of sources)
      assert.ok(existsSync(join(dirname(file), source)), `${map} is of ${source}`);
  }

  const runExample = await example(dir, project);
  const onAddon = /^v\S+ \S+ native \S+\/prebuilds\/linux-\w+\/ebbtide_core\.node$/;
  assert.match(await runExample(), onAddon);
  for (const major of releases) {
    await t.test(`on Node ${major}`, async (t) => {
      let node: string;
      try {
        node = await nodeRelease(major);
      } catch (error) {
        return t.skip(whyMissing(`Node ${major}`, error));
      }
      const core = await runExample([node]);
      assert.match(core, onAddon);
      assert.ok(core.startsWith(`v${major}.`), core);
    });
  }
  rmSync(join(here, 'prebuilds'), { recursive: true });
  assert.match(await runExample(), /^v\S+ \S+ wasm \S+\.wasm .*does not exist/);

  // The addons are gone: a host that has nothing else of ours.
  const theirs = join(dir, 'containerd');
  const digest = await makeRoot(theirs, 'example.com/one:1');
  const look = ['--no-install', 'ebbtide', '--containerd-root', theirs];
  const listed = await run('npx', [...look, 'images', 'ls', '--format', '{name} {target.digest}'], {
    cwd: project,
  });
  assert.equal(listed.stdout, `example.com/one:1 ${digest}\n`);
  const { stdout } = await run('npx', [...look, 'salvage', '-o', join(dir, 'meta.db')], { cwd: project });
  assert.match(stdout, /nothing is missing/);
});

test('given a clone without TypeScript, when npm prepares it, then one sentence says what to do', async (t) => {
  const dir = await tempDir(t);
  cpSync(join(repository, 'native/prepare.mjs'), join(dir, 'native/prepare.mjs'));
  await assert.rejects(run(process.execPath, [join(dir, 'native/prepare.mjs')]), (error) => {
    const { code, stderr } = error as { code?: number; stderr?: string }; // what execFile's errors carry
    assert.deepEqual([code, stderr?.trim().split('\n').length], [1, 1]);
    assert.match(stderr ?? '', /npm ci --include=dev/);
    return true;
  });
});
