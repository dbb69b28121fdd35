/**
 * `npm run test:platforms`: the packed package with the addons of a release, on other releases of Node and on the other
 * processor, which qemu emulates. Needs Debian's cross compiler and qemu-user, and Node's releases from npm's registry.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ensurePackages } from '../conformance/debian.js';
import { repository } from '../coverage/consumer.js';
import { nodeRelease } from '../support/node-releases.js';
import { tempDir } from '../support/temp.js';
import { example, installed, pack } from './packed.js';

const emulators: Readonly<Record<string, { arch: string; command: string[]; packages: string[] }>> = {
  x64: {
    arch: 'arm64',
    command: ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu'],
    packages: ['g++-aarch64-linux-gnu', 'qemu-user'],
  },
  arm64: {
    arch: 'x64',
    command: ['qemu-x86_64', '-L', '/usr/x86_64-linux-gnu'],
    packages: ['g++-x86-64-linux-gnu', 'qemu-user'],
  },
};
const releases = [20, 22, 24, 26];

test('given the addons of a release, when the package runs on each Node and processor, then the README’s example does', {
  timeout: 1_800_000,
}, async (t) => {
  const other = emulators[process.arch];
  assert.ok(other !== undefined, `no release has addons for ${process.arch}`);
  const missing = ensurePackages(other.packages);
  assert.equal(missing, undefined);
  const dir = await tempDir(t);
  // A copy, so that what this clone has built stays.
  const clone = join(dir, 'clone');
  mkdirSync(clone);
  const filter = (from: string): boolean => from !== join(repository, 'native/build');
  cpSync(join(repository, 'native'), join(clone, 'native'), { recursive: true, filter });
  cpSync(join(repository, 'package.json'), join(clone, 'package.json'));
  symlinkSync(join(repository, 'node_modules'), join(clone, 'node_modules'));
  execFileSync(process.execPath, [join(clone, 'native/build.mjs'), '--prebuild'], { stdio: 'inherit' });
  const prebuilds = Object.fromEntries(
    readdirSync(join(clone, 'prebuilds')).map((name) => [
      name.replace('linux-', ''),
      join(clone, 'prebuilds', name),
    ]),
  );
  assert.deepEqual(Object.keys(prebuilds).sort(), ['arm64', 'x64']);
  const tarball = await pack(dir, prebuilds);
  t.diagnostic(`${Math.round(statSync(tarball).size / 1024)} KiB`);
  for (const [arch, command] of [
    [process.arch, []],
    [other.arch, other.command],
  ] as const) {
    const project = await installed(dir, tarball, arch);
    const runExample = await example(dir, project);
    const runAll = async (core: RegExp): Promise<void> => {
      for (const major of releases) {
        const line = await runExample([...command, await nodeRelease(major, arch)]);
        t.diagnostic(line.split('/')[0] ?? '');
        assert.match(line, core);
        assert.ok(line.startsWith(`v${major}.`) && line.includes(` ${arch} `), line);
      }
    };
    await runAll(/ native \S+\/prebuilds\/linux-\w+\/ebbtide_core\.node$/);
    rmSync(join(project, 'node_modules/ebbtide/prebuilds'), { recursive: true });
    await runAll(/ wasm \S+\.wasm .*does not exist/);
  }
});
