/**
 * The package as npm packs it, installed into an empty folder without running any script: as npm 12 does by default. What
 * it depends on comes from npm's cache, or from the registry.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { makeRoot } from '../any-host/root.js';
import { compile, execute, repository } from '../coverage/consumer.js';
import { readmeExample, readmePrinted } from '../coverage/readme.js';
import { nativeMissing } from '../native/cores.js';
import { tempDir } from '../support/temp.js';

const run = promisify(execFile);
const NO_NETWORK = /ENOTCACHED|EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|network/;

interface Manifest {
  name: string;
  scripts: Record<string, string>;
  files: string[];
}

/** A release is built from nothing (`prepack`); here, files may be left whose source is gone. */
function isStale(file: string): boolean {
  const module = /^(.*)\/dist(\/src\/(?!bundle\/).*?)(\.d\.ts|\.js|\.js\.map)$/.exec(file);
  return module !== null && !existsSync(`${module[1]}${module[2]}.ts`);
}

/** The tarball of what a release would be made of, the addons being those that are built here. */
async function pack(dir: string): Promise<string> {
  const stage = join(dir, 'stage');
  const { files } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as Manifest;
  const folders = new Set(files.map((file) => file.split('/')[0]!).filter((name) => name !== 'prebuilds'));
  for (const name of ['package.json', 'README.md', 'LICENSE', ...folders]) {
    const filter = (from: string): boolean => from !== join(repository, 'native/build') && !isStale(from);
    cpSync(join(repository, name), join(stage, name), { recursive: true, filter });
  }
  const addons = readdirSync(join(repository, 'build/Release')).filter((name) => name.endsWith('.node'));
  for (const name of addons) {
    cpSync(join(repository, 'build/Release', name), join(stage, `prebuilds/linux-${process.arch}`, name));
  }
  const { stdout } = await run('npm', ['pack', '--ignore-scripts', '--pack-destination', dir], {
    cwd: stage,
  });
  rmSync(stage, { recursive: true });
  return join(dir, stdout.trim().split('\n').at(-1)!);
}

test('given the packed package, when it is installed without scripts, then the README’s example runs on the addon, and on WebAssembly', {
  skip: nativeMissing ?? false,
}, async (t) => {
  const dir = await tempDir(t);
  const tarball = await pack(dir);
  t.diagnostic(`${Math.round(statSync(tarball).size / 1024)} KiB`);
  const project = join(dir, 'project');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), JSON.stringify({ type: 'module', private: true }));
  const install = ['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', tarball];
  try {
    await run('npm', install, { cwd: project, timeout: 300_000 });
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string }; // what execFile's errors carry
    assert.match(stderr, NO_NETWORK);
    return t.skip(
      `what the package depends on is neither in npm’s cache nor to be had: ${stderr.slice(0, 300)}`,
    );
  }

  const installed = join(project, 'node_modules/ebbtide');
  const { scripts } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as Manifest;
  assert.deepEqual(
    ['preinstall', 'install', 'postinstall'].filter((name) => name in scripts),
    [],
  );
  assert.equal(existsSync(join(installed, 'binding.gyp')), false);
  for (const map of readdirSync(join(installed, 'dist'), { recursive: true }).map(String)) {
    if (!map.endsWith('.js.map')) continue;
    const file = join(installed, 'dist', map);
    const { sources } = JSON.parse(readFileSync(file, 'utf8')) as { sources: string[] };
    for (const source of sources)
      assert.ok(existsSync(join(dirname(file), source)), `${map} is of ${source}`);
  }

  const types = join(project, 'node_modules/@types/node');
  rmSync(types, { recursive: true, force: true });
  mkdirSync(dirname(types), { recursive: true });
  symlinkSync(join(repository, 'node_modules/@types/node'), types);
  const prelude =
    'import { coreInfo } from "ebbtide/backend";\nconsole.log(Object.values(coreInfo()).join(" "));\n';
  const place = join(dir, 'run');
  writeFileSync(join(project, 'example.ts'), `${prelude}${await readmeExample(place)}`);
  writeFileSync(
    join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        target: 'es2023',
        lib: ['es2023', 'esnext.disposable'],
        module: 'nodenext',
        types: ['node'],
      },
    }),
  );
  assert.equal(await compile(project), '');
  for (const core of [
    /^native \S+\/prebuilds\/linux-\w+\/ebbtide_core\.node$/m,
    /^wasm \S+\.wasm .*does not exist/m,
  ]) {
    const printed = await execute(project, 'example.js');
    readmePrinted(printed);
    assert.match(printed, core);
    for (const gone of [join(place, 'root'), join(installed, 'prebuilds')])
      rmSync(gone, { recursive: true, force: true });
  }

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
