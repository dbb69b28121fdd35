/** A small file system of its own, and filling it to the last byte or file. Making one needs root. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  fsyncSync,
  openSync,
  rmdirSync,
  statfsSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { canMount } from '../../src/backends/mounts.js';
import { sys, UmountFlag } from '../../src/backends/sys.js';
import { ensurePackages } from '../conformance/debian.js';

export interface Disk {
  path: string;
  fill(): void;
  /** Takes the ballast away. */
  free(): void;
}

/** MiB. */
const SIZES = { ext4: 64, tmpfs: 64, btrfs: 256 } as const;

/** A small file system of some hundred files (btrfs: of any number), or a reason why not. */
export async function smallDisk(
  t: TestContext,
  kind: keyof typeof SIZES,
  what: 'bytes' | 'inodes',
): Promise<Disk | undefined> {
  const { ok, reason } = await canMount();
  if (!ok) {
    t.skip(`cannot mount: ${reason}`);
    return undefined;
  }
  const missing = kind === 'btrfs' ? ensurePackages(['btrfs-progs']) : undefined;
  if (missing !== undefined) {
    t.skip(missing);
    return undefined;
  }
  const base = await mkdtemp(join(tmpdir(), 'ebbtide-full-'));
  const path = join(base, 'disk');
  await mkdir(path);
  const removed = (): Promise<void> => rm(base, { recursive: true, force: true });
  try {
    if (kind === 'tmpfs') sys.mount('tmpfs', path, 'tmpfs', 0, `size=${SIZES.tmpfs}m,nr_inodes=600`);
    else {
      const image = join(base, 'image');
      execFileSync('truncate', ['-s', `${SIZES[kind]}M`, image]);
      // No blocks set aside for root: it is as full for us as for any user.
      if (kind === 'ext4') execFileSync('mkfs.ext4', ['-q', '-m', '0', '-N', '600', image]);
      else execFileSync('mkfs.btrfs', ['-q', image]);
      execFileSync('mount', ['-o', 'loop', image, path]);
    }
  } catch (error) {
    await removed();
    t.skip(`cannot make a small file system: ${(error as Error).message.split('\n')[0]}`);
    return undefined;
  }
  t.after(() => {
    sys.umount(path, UmountFlag.detach);
    return removed();
  });
  const ballast: string[] = [];
  return {
    path,
    fill: () => {
      if (what === 'inodes') fillInodes(path, ballast);
      else fillBytes(path, ballast);
      // It counts what it keeps for its own trees.
      if (what === 'bytes' && kind !== 'btrfs') assert.equal(statfsSync(path).bavail, 0);
    },
    free: () => {
      for (const name of ballast.splice(0)) unlinkSync(name);
      rmdirSync(join(path, 'ballast'));
    },
  };
}

function makeBallast(path: string): string {
  const directory = join(path, 'ballast');
  try {
    execFileSync('mkdir', ['-p', directory]);
  } catch {
    return path;
  }
  return directory;
}

function fillBytes(path: string, ballast: string[]): void {
  const name = join(makeBallast(path), `b${ballast.length}`);
  const fd = openSync(name, 'w');
  ballast.push(name);
  for (const size of [1024 * 1024, 4096, 1]) {
    try {
      for (;;) writeSync(fd, Buffer.alloc(size));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    }
  }
  fsyncSync(fd);
  closeSync(fd);
}

function fillInodes(path: string, ballast: string[]): void {
  const directory = makeBallast(path);
  try {
    for (;;) {
      const name = join(directory, `i${ballast.length}`);
      writeFileSync(name, '');
      ballast.push(name);
    }
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
  }
  assert.equal(statfsSync(path).ffree, 0);
}
