/**
 * Which process holds the lock of a file, for messages: the kernel shows it with each open descriptor. Called
 * when a lock is refused.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type FileIdentity, identityAt, isSame } from './file-identity.js';

/** Limit on the descriptors examined, at some microseconds each: a machine may have any number of them. */
const LOOKS_MAX = 50_000;

/**
 * "process 4711 (node)", "this process", or "another process" where the kernel does not show it to this user.
 */
export const lockHolder = (path: string): string => holderOf(path, 'WRITE');

/** The same for the holder of a shared lock. */
export const lockReader = (path: string): string => holderOf(path, 'READ');

type Access = 'READ' | 'WRITE';

function holderOf(path: string, access: Access): string {
  try {
    const identity = identityAt(path);
    const pid = identity && findHolder({ identity, name: basename(path), access });
    if (pid === undefined) return 'another process';
    if (pid === process.pid) return 'this process';
    return `process ${pid} (${nameOf(pid)})`;
  } catch {
    return 'another process';
  }
}

/** A process may choose any name. */
const nameOf = (pid: number): string =>
  readFileSync(`/proc/${pid}/comm`, 'latin1')
    .trim()
    .replace(/[^ -~]/g, '?');

/** Compared by identity: other processes may know the file by another path. */
interface Sought {
  readonly identity: FileIdentity;
  readonly name: string;
  readonly access: Access;
}

function findHolder(sought: Sought): number | undefined {
  let looks = 0;
  for (const pid of namesIn('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    for (const fd of namesIn(`/proc/${pid}/fd`)) {
      if (++looks > LOOKS_MAX) return undefined;
      if (hasLock(`/proc/${pid}`, fd, sought)) return Number(pid);
    }
  }
  return undefined;
}

/** A line of a lock: `lock:	1: OFDLCK ADVISORY  WRITE -1 08:01:4711 0 EOF`. */
function hasLock(process: string, fd: string, { identity, name, access }: Sought): boolean {
  try {
    const path = join(process, 'fd', fd);
    if (basename(readlinkSync(path)) !== name) return false;
    const found = identityAt(path);
    if (found === undefined || !isSame(found, identity)) return false;
    const info = readFileSync(join(process, 'fdinfo', fd), 'latin1');
    return info.split('\n').some((line) => line.startsWith('lock:') && line.includes(` ${access} `));
  } catch {
    // It was closed, or the process has ended.
    return false;
  }
}

/** Empty where this user has no access. */
function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
