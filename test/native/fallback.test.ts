import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isKind } from '../../src/errors.js';
import { coreInfo, createGraph } from '../../src/gc/graph.js';
import { nativeMissing } from './cores.js';

const root = process.geteuid?.() === 0;

describe('which core runs', () => {
  const forced = process.env.EBBTIDE_CORE;
  after(() => {
    if (forced === undefined) delete process.env.EBBTIDE_CORE;
    else process.env.EBBTIDE_CORE = forced;
  });

  it('given EBBTIDE_CORE, when a graph is created, then that core is used, and another word is an error', () => {
    process.env.EBBTIDE_CORE = 'typescript';
    assert.equal(createGraph().kind, 'typescript');
    assert.deepEqual(coreInfo(), { core: 'typescript', reason: 'EBBTIDE_CORE=typescript' });
    process.env.EBBTIDE_CORE = 'rust';
    assert.throws(
      () => createGraph(),
      (e) => isKind(e, 'InvalidArgument'),
    );
    assert.equal(createGraph('typescript').kind, 'typescript');
  });

  it('given the addon, when nothing is said, then it is used', { skip: nativeMissing ?? false }, () => {
    delete process.env.EBBTIDE_CORE;
    assert.equal(createGraph().kind, 'native');
    assert.equal(coreInfo().core, 'native');
    process.env.EBBTIDE_CORE = 'native';
    assert.equal(createGraph().kind, 'native');
  });
});

describe('a package whose addons were not built', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'ebbtide-fallback-'));
    writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
    const from = fileURLToPath(new URL('../../src', import.meta.url));
    cpSync(from, join(dir, 'dist/src'), { recursive: true });
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const run = (script: string, env: Record<string, string> = {}): { stdout: string; stderr: string } => {
    const { EBBTIDE_CORE: _, ...rest } = process.env;
    const args = ['--input-type=module', '-e', script];
    const options = { cwd: dir, encoding: 'utf8', env: { ...rest, ...env } } as const;
    const { stdout, stderr } = spawnSync(process.execPath, args, options);
    return { stdout: stdout.trim(), stderr: stderr.trim() };
  };

  it('given two graphs, when created, then the TypeScript core runs and says so once', () => {
    const script = `const { createGraph, coreInfo } = await import('./dist/src/gc/graph.js');
      console.log(createGraph().kind, createGraph().kind, coreInfo().core);`;
    const { stdout, stderr } = run(script);
    assert.equal(stdout, 'typescript typescript typescript');
    assert.match(stderr, /^ebbtide: using the slower TypeScript graph core: .*does not exist; .*rebuild.*$/);
  });

  it('given EBBTIDE_CORE=native, when a graph is created, then Unavailable names the file and a remedy', () => {
    const script = `const { createGraph } = await import('./dist/src/gc/graph.js');
      try { createGraph(); } catch (e) { console.log(e.kind, e.object, e.remedy); }`;
    const { stdout } = run(script, { EBBTIDE_CORE: 'native' });
    assert.match(stdout, /^Unavailable \S+ebbtide_core\.node build it with/);
  });

  it('given system calls, when made, then tools stand in and attributes are not supported', () => {
    const script = `const sys = await import('./dist/src/backends/sys.js');
      const { writeFileSync, statSync } = await import('node:fs');
      const code = (f) => { try { f(); return 'done'; } catch (e) { return e.code; } };
      writeFileSync('file', '');
      sys.utimes('file', 1500000000123456789n, 1600000000123456789n);
      console.log(sys.xattrSupported, sys.fallbackReason() !== '', Math.round(statSync('file').mtimeMs),
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
    const { stdout } = run(script, { EBBTIDE_CORE: 'typescript' });
    assert.equal(stdout, "[ 'a' ]\n[ 'a', 'b' ]\nNotImplemented build it with `npm rebuild`");
  });
});
