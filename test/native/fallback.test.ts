import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isKind } from '../../src/errors.js';
import { coreInfo, createGraph } from '../../src/graph/carriers.js';
import { wasmPath } from '../../src/graph/wasm-graph.js';
import { addonPath } from '../../src/system/addon.js';
import { nativeMissing } from './cores.js';

const root = process.geteuid?.() === 0;

describe('which core runs', () => {
  const forced = process.env.EBBTIDE_CORE;
  after(() => {
    if (forced === undefined) delete process.env.EBBTIDE_CORE;
    else process.env.EBBTIDE_CORE = forced;
  });

  it('given EBBTIDE_CORE, when a graph is created, then that carrier is used, and another word is an error', () => {
    process.env.EBBTIDE_CORE = 'wasm';
    assert.equal(createGraph().kind, 'wasm');
    assert.deepEqual(coreInfo(), {
      core: 'wasm',
      path: wasmPath(),
      reason: 'asked for (--core, EBBTIDE_CORE)',
    });
    process.env.EBBTIDE_CORE = 'rust';
    assert.throws(
      () => createGraph(),
      (e) => isKind(e, 'InvalidArgument'),
    );
    assert.equal(createGraph('wasm').kind, 'wasm');
  });

  it('given the addon, when nothing is said, then it is used', { skip: nativeMissing ?? false }, () => {
    delete process.env.EBBTIDE_CORE;
    assert.equal(createGraph().kind, 'native');
    assert.deepEqual(coreInfo(), { core: 'native', path: addonPath('ebbtide_core') });
    process.env.EBBTIDE_CORE = 'native';
    assert.equal(createGraph().kind, 'native');
  });
});

describe('a package whose addons were not built', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'ebbtide-fallback-'));
    writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
    cpSync(fileURLToPath(new URL('../../src', import.meta.url)), join(dir, 'dist/src'), { recursive: true });
    cpSync(dirname(wasmPath()), join(dir, 'native/wasm'), { recursive: true });
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const run = (script: string, env: Record<string, string> = {}): { stdout: string; stderr: string } => {
    const { EBBTIDE_CORE: _, ...rest } = process.env;
    const args = ['--input-type=module', '-e', script];
    const options = { cwd: dir, encoding: 'utf8', env: { ...rest, ...env } } as const;
    const { stdout, stderr } = spawnSync(process.execPath, args, options);
    return { stdout: stdout.trim(), stderr: stderr.trim() };
  };

  it('given a graph, when created, then it is WebAssembly, and coreInfo says why', () => {
    const script = `const { createGraph, coreInfo } = await import('./dist/src/graph/carriers.js');
      const { core, path, reason } = coreInfo();
      console.log(createGraph().kind, core, path, reason);`;
    const { stdout, stderr } = run(script);
    assert.match(
      stdout,
      /^wasm wasm \S+ebbtide_core\.wasm \S+ebbtide_core\.node does not exist; build it: node \S+build\.mjs/,
    );
    assert.equal(stderr, '');
  });

  const create = `const { createGraph } = await import('./dist/src/graph/carriers.js');
    try { createGraph(); } catch (e) { console.log(e.kind, e.message, e.object, e.remedy); }`;

  it('given EBBTIDE_CORE=native, when a graph is created, then Unavailable names the file and a remedy', () => {
    const { stdout } = run(create, { EBBTIDE_CORE: 'native' });
    assert.match(stdout, /^Unavailable .* \S+ebbtide_core\.node build it: node /);
  });

  it('given no module either, or a damaged one, when a graph is created, then Unavailable names both', () => {
    const module = join(dir, 'native/wasm/ebbtide_core.wasm');
    const whole = readFileSync(module);
    rmSync(module);
    assert.match(run(create).stdout, /^Unavailable .*addon did not load: .*WebAssembly did not: ENOENT/);
    writeFileSync(module, whole.subarray(0, 1000));
    assert.match(run(create).stdout, /^Unavailable .*addon did not load: .*WebAssembly did not: .*Module/);
    writeFileSync(module, whole);
  });

  it('given system calls, when made, then tools stand in and attributes are not supported', () => {
    const script = `const sys = await import('./dist/src/backends/sys.js');
      const { writeFileSync, statSync } = await import('node:fs');
      const code = (f) => { try { f(); return 'done'; } catch (e) { return e.code; } };
      writeFileSync('file', '');
      sys.utimes('file', 1500000000123456789n, 1600000000123456789n);
      console.log(sys.xattrSupported, sys.lacking().includes(sys.fallbackReason()), Math.round(statSync('file').mtimeMs),
        code(() => sys.lgetxattr('file', 'user.a')), code(() => sys.mknod('pipe', 0o010640)),
        code(() => sys.mknod('pipe', 0o010640)), (statSync('pipe').mode).toString(8), code(() => sys.umount('file')),
        (await sys.firstNoDirectory(['.', 'file'])).error.code, await sys.firstNoDirectory(['.']));`;
    const { stdout, stderr } = run(script);
    const umount = root ? 'EINVAL' : 'E[A-Z]+';
    assert.match(
      stdout,
      new RegExp(`^false true 1600000000123 ENOTSUP done EEXIST 10640 ${umount} ENOTDIR undefined$`),
      stderr,
    );
  });

  it('given a store, when opened, then it is written as ever, and to be opened read-only it needs the addon', () => {
    symlinkSync(fileURLToPath(new URL('../../../node_modules', import.meta.url)), join(dir, 'node_modules'));
    const script = `const { openDB } = await import('./dist/src/open.js');
      const open = (more) => openDB({ root: 'store', log: () => undefined, ...more });
      for (const name of ['a', 'b']) {
        const db = await open({});
        await db.namespaces.create({}, name);
        console.log(await db.namespaces.list({}));
        await db.close();
      }
      await open({ readOnly: true }).catch((e) => console.log(e.kind, e.remedy));`;
    const { stdout } = run(script, { EBBTIDE_CORE: 'wasm' });
    assert.match(stdout, /^\[ 'a' \]\n\[ 'a', 'b' \]\nNotImplemented build it: node \S+build\.mjs$/);
  });
});
