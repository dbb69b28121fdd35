import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as sys from '../../src/backends/sys.js';

const root = process.geteuid?.() === 0;
const notRoot = root ? false : 'needs root';
const noAddon = sys.xattrSupported ? false : sys.fallbackReason();
const code = (wanted: string) => (error: NodeJS.ErrnoException) =>
  error.code === wanted && error.syscall !== undefined;

describe('parseMountOptions', () => {
  it('given words, when parsed, then flags are set, later words win, and the rest is data', () => {
    const { flags, data, propagation } = sys.parseMountOptions([
      'ro',
      'rbind',
      'nosuid',
      'suid',
      'lowerdir=a:b',
      'rslave',
      '',
    ]);
    assert.deepEqual(
      [flags, data, propagation],
      [
        sys.MountFlag.rdonly | sys.MountFlag.bind | sys.MountFlag.rec,
        'lowerdir=a:b',
        sys.MountFlag.slave | sys.MountFlag.rec,
      ],
    );
    assert.deepEqual(sys.parseMountOptions(['ro', 'rw', 'constructor', '__proto__']), {
      flags: 0,
      data: 'constructor,__proto__',
      propagation: 0,
    });
  });
});

describe('system calls', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'ebbtide-sys-'));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it('given paths, then the first in their order that does not lead to a directory is returned, with the reason', async () => {
    const file = join(dir, 'file');
    const link = join(dir, 'é-link');
    writeFileSync(file, '');
    symlinkSync(dir, link);
    const first = async (...paths: string[]) => {
      const found = await sys.firstNoDirectory(paths);
      return found && [found.path, found.error.code];
    };
    assert.equal(await first(), undefined);
    assert.equal(await first(dir, link), undefined);
    assert.deepEqual(await first(dir, link, join(link, 'none'), file), [join(link, 'none'), 'ENOENT']);
    assert.deepEqual(await first(dir, file, 'none'), [file, 'ENOTDIR']);
    assert.deepEqual(await first(dir, join(file, 'x')), [join(file, 'x'), 'ENOTDIR']);
  });

  it('given nanoseconds, when set on a symlink, then the link and not its target has them', () => {
    const file = join(dir, 'times');
    const link = join(dir, 'link');
    writeFileSync(file, '');
    symlinkSync(file, link);
    const target = lstatSync(file, { bigint: true }).mtimeNs;
    const digits = noAddon ? 1_000_000n : 1n;
    const [atime, mtime] = [1_234_567_890_123_456_789n / digits, -999_999_999n / digits];
    sys.utimes(link, atime * digits, mtime * digits);
    const times = lstatSync(link, { bigint: true });
    assert.deepEqual([times.atimeNs / digits, times.mtimeNs / digits], [atime, mtime]);
    assert.equal(lstatSync(file, { bigint: true }).mtimeNs, target);
    // Later than 64 bits of nanoseconds, as a container may set it.
    sys.utimes(link, 0n, 9_900_000_000_000_000_001n);
    assert.equal(lstatSync(link, { bigint: true }).mtimeNs / 1_000_000_000n, 9_900_000_000n);
    assert.throws(() => sys.utimes(join(dir, 'nothing'), 0n, 0n), code('ENOENT'));
  });

  it('given attributes, when set, listed and removed, then they are as given, byte for byte', {
    skip: noAddon,
  }, (t) => {
    const file = join(dir, 'attributes');
    writeFileSync(file, '');
    const name = root ? 'trusted.ebbtide' : 'user.ebbtide';
    const value = Buffer.from([0, 1, 255, 0]);
    try {
      sys.lsetxattr(file, name, value);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOTSUP') throw error;
      t.skip('the temporary directory has no extended attributes');
      return;
    }
    sys.lsetxattr(file, `${name}.empty`, Buffer.alloc(0));
    assert.deepEqual(sys.lgetxattr(file, name), value);
    assert.deepEqual(sys.lgetxattr(Buffer.from(file), `${name}.empty`), Buffer.alloc(0));
    assert.deepEqual(
      sys.llistxattr(file).filter((n) => n.startsWith(name)),
      [name, `${name}.empty`],
    );
    sys.lremovexattr(file, name);
    assert.equal(sys.lgetxattr(file, name), undefined);
    assert.throws(() => sys.lremovexattr(file, name), code('ENODATA'));
    assert.throws(() => sys.lgetxattr(join(dir, 'nothing'), name), code('ENOENT'));
    assert.throws(() => sys.lsetxattr(file, 'nonsense', value), code('ENOTSUP'));
  });

  it('given a device and a pipe, when made, then type, numbers and mode are exact', { skip: notRoot }, () => {
    const device = join(dir, 'device');
    sys.mknod(device, 0o020000 | 0o666, 5, 300);
    const stats = lstatSync(device);
    assert(stats.isCharacterDevice());
    assert.deepEqual(
      [stats.mode & 0o7777, stats.rdev],
      [0o666, (300 & 0xff) | (5 << 8) | ((300 & ~0xff) << 12)],
    );
    sys.mknod(join(dir, 'pipe'), 0o010000 | 0o622);
    assert(lstatSync(join(dir, 'pipe')).isFIFO());
    assert.throws(() => sys.mknod(device, 0o020000, 0, 0), code('EEXIST'));
  });

  for (const libc of ['this', 'an old']) {
    it(`given ${libc} C library, when a pipe is made, then its mode is exact, and a link put in its place is not followed`, {
      skip: noAddon,
    }, (t) => {
      const library = join(dir, 'libc.so');
      const source = fileURLToPath(new URL('../../../test/native/libc.c', import.meta.url));
      const compiled = spawnSync(process.env.CC ?? 'cc', ['-shared', '-fPIC', '-o', library, source, '-ldl']);
      if (compiled.error !== undefined) {
        t.skip('no C compiler: apt-get install gcc libc6-dev');
        return;
      }
      assert.equal(compiled.status, 0, String(compiled.stderr));
      const place = join(dir, libc);
      mkdirSync(place);
      writeFileSync(join(place, 'victim'), '', { mode: 0o600 });
      const script = `const [, module, place] = process.argv;
        const sys = await import(module);
        process.umask(0o077);
        sys.mknod(place + '/pipe', 0o010622);
        try { sys.mknod(place + '/replaced', 0o010666); } catch (error) { console.log(error.code); }`;
      const module = new URL('../../src/backends/sys.js', import.meta.url).href;
      const env = {
        ...process.env,
        LD_PRELOAD: library,
        ...(libc === 'an old' && { EBBTIDE_OLD_LIBC: '1' }),
      };
      const { stdout, stderr } = spawnSync(
        process.execPath,
        ['--input-type=module', '-e', script, module, place],
        { env, encoding: 'utf8' },
      );
      assert.equal(stdout, 'ENOTSUP\n', stderr);
      assert.equal(lstatSync(join(place, 'pipe')).mode & 0o7777, 0o622);
      assert.equal(lstatSync(join(place, 'victim')).mode & 0o7777, 0o600);
    });
  }

  it('given a read-only bind, when mounted, then it is read-only until unmounted', { skip: notRoot }, (t) => {
    const [source, target] = [join(dir, 'source'), join(dir, 'target')];
    mkdirSync(source);
    mkdirSync(target);
    writeFileSync(join(source, 'file'), 'x');
    try {
      sys.mountWithOptions('bind', source, target, ['rbind', 'ro', 'rprivate']);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
      t.skip('this root may not mount');
      return;
    }
    try {
      assert.equal(readFileSync(join(target, 'file'), 'utf8'), 'x');
      assert.throws(() => writeFileSync(join(target, 'file'), 'y'), code('EROFS'));
    } finally {
      sys.umount(target);
    }
    assert(!existsSync(join(target, 'file')));
    assert.throws(() => sys.umount(target), code('EINVAL'));
  });

  it('given a directory to begin in, when paths are relative, then the process stays where it is', {
    skip: notRoot || noAddon,
  }, (t) => {
    mkdirSync(join(dir, 'here'));
    const before = process.cwd();
    try {
      sys.mount('tmpfs', 'here', 'tmpfs', 0, 'size=64k', dir);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
      t.skip('this root may not mount');
      return;
    }
    sys.umount(join(dir, 'here'));
    assert.equal(process.cwd(), before);
    assert.throws(() => sys.mount('tmpfs', 'nothing', 'tmpfs', 0, '', dir), code('ENOENT'));
    assert.throws(() => sys.mount('tmpfs', 'here', 'tmpfs', 0, 'x'.repeat(4096), dir), code('E2BIG'));
  });

  it('given what cannot be read at a position at once, when asked for, then never, whatever the arguments are', () => {
    const directory = openSync(dir, 'r');
    const into = Buffer.alloc(8);
    try {
      for (const fd of [directory, -1, 2 ** 31, 1.5, 10_000]) {
        assert.equal(sys.readNow(fd, into, 0), 'never', `${fd}`);
      }
      const file = openSync(fileURLToPath(import.meta.url), 'r');
      try {
        const counts = [sys.readNow(file, into, 0), sys.readNow(file, into, 2 ** 40)];
        assert.equal(
          [
            [8, 0],
            ['never', 'never'],
            ['later', 0],
          ].some((may) => `${may}` === `${counts}`),
          true,
          `${counts}`,
        );
        for (const position of [-1, 2 ** 53, Number.NaN])
          assert.equal(sys.readNow(file, into, position), 'never');
        for (const wrong of [undefined, [], new Uint32Array(2), new ArrayBuffer(8)]) {
          assert.equal(sys.readNow(file, wrong as never, 0), 'never');
        }
      } finally {
        closeSync(file);
      }
    } finally {
      closeSync(directory);
    }
  });

  it('given arguments of wrong types, when called, then EINVAL and no crash', { skip: noAddon }, () => {
    const loose = sys as unknown as Record<string, (...args: unknown[]) => unknown>;
    const strange = [undefined, null, {}, [], -1, 1.5, 'a\0b', 2n ** 70n, Symbol('s'), new Uint32Array(2)];
    for (const name of [
      'mount',
      'umount',
      'mknod',
      'lsetxattr',
      'lgetxattr',
      'llistxattr',
      'lremovexattr',
      'utimes',
    ]) {
      for (const argument of strange) {
        const args = [argument, argument, argument, argument, argument, argument];
        assert.throws(() => loose[name]!(...args), `${name}(${String(argument)})`);
      }
    }
  });
});
