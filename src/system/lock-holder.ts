/**
 * Who has the lock of a file, for messages: the kernel tells it beside each open descriptor. Called when a lock is refused.
 */
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { join } from 'node:path';

/** Descriptors looked at: a machine may have any number of them. Some microseconds each. */
const LOOKS_MAX = 50_000;

/** "process 4711 (node)", "this process", or "another process" where the kernel does not tell this user. */
export function lockHolder(path: string): string {
  try {
    const pid = findHolder(realpathSync(path));
    if (pid === undefined) return 'another process';
    if (pid === process.pid) return 'this process';
    return `process ${pid} (${nameOf(pid)})`;
  } catch {
    return 'another process';
  }
}

/** A process may call itself anything. */
const nameOf = (pid: number): string =>
  readFileSync(`/proc/${pid}/comm`, 'latin1')
    .trim()
    .replace(/[^ -~]/g, '?');

function findHolder(path: string): number | undefined {
  let looks = 0;
  for (const pid of namesIn('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    for (const fd of namesIn(`/proc/${pid}/fd`)) {
      if (++looks > LOOKS_MAX) return undefined;
      if (hasLock(`/proc/${pid}`, fd, path)) return Number(pid);
    }
  }
  return undefined;
}

function hasLock(process: string, fd: string, path: string): boolean {
  try {
    if (readlinkSync(join(process, 'fd', fd)) !== path) return false;
    return /^lock:/m.test(readFileSync(join(process, 'fdinfo', fd), 'latin1'));
  } catch {
    // It was closed, or the process has ended.
    return false;
  }
}

/** None of what this user may not look at. */
function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
