/**
 * The Debian package of a built clone, unpacked: the command in it works with what was left of its dependencies, and Debian's lintian
 * has nothing to say of it. `npm run test:conformance -- kit` installs it.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { repository } from '../coverage/consumer.js';
import { missingTools } from '../support/debian.js';
import { tempDir } from '../support/temp.js';

const script = join(repository, 'packaging/deb/build.mjs');

const isThere = (program: string): boolean => spawnSync(program, ['--version']).status === 0;

function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

describe('the Debian package', { skip: missingTools(['dpkg-deb', 'strip']) ?? false }, () => {
  let deb = '';
  before(async (t) => {
    deb = run(process.execPath, script, await tempDir(t)).trim();
  });

  test('given the package, when unpacked, then its command works: stores, the addons, the daemon’s API, etcd’s', async (t) => {
    const dir = await tempDir(t);
    run('dpkg-deb', '-x', deb, dir);
    const program = join(dir, 'usr/lib/ebbtide/dist/src/bundle/main.js');
    assert.match(readFileSync(program, 'utf8'), /^#!\/usr\/bin\/node --v8-pool-size=1\n/);
    const ebbtide = (...args: string[]): string => run(process.execPath, program, ...args);
    const root = join(dir, 'root');
    ebbtide('--root', root, 'synth', '--records', '500');
    assert.match(ebbtide('--root', root, 'gc', '--dry-run'), /content/);
    const doctor = ebbtide('--root', root, 'doctor');
    for (const fits of [/native/, /ebbtide_core/]) assert.match(doctor, fits);
    const all = ebbtide('--root', root, 'images', 'ls', '-n', 'k8s.io');
    assert.ok(all.split('\n').length > 5, all);
    // What is loaded only when it is needed.
    for (const name of ['etcd3', 'pino', 'lmdb', 'fs-native-extensions', '@grpc/grpc-js']) {
      const loads = `import(${JSON.stringify(name)}).then(() => console.log('loaded'))`;
      const from = join(dir, 'usr/lib/ebbtide/probe.mjs');
      writeFileSync(from, loads);
      assert.equal(run(process.execPath, from).trim(), 'loaded', name);
    }
  });

  test('given the package, when lintian looks at it, then it has nothing to say', {
    // Not installed for this: it is sixty packages.
    skip: isThere('lintian') ? false : 'needs lintian: apt-get install lintian',
  }, async (t) => {
    const home = await tempDir(t);
    mkdirSync(join(home, 'tmp'));
    const { status, stdout, stderr } = spawnSync(
      'lintian',
      ['--allow-root', '--fail-on', 'error,warning', deb],
      {
        encoding: 'utf8',
        env: { ...process.env, HOME: home, TMPDIR: join(home, 'tmp') },
      },
    );
    assert.deepEqual([status, stdout, stderr], [0, '', '']);
  });
});
