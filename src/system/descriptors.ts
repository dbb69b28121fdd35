/**
 * Descriptors that libraries would leak into programs that this process starts. Called where LMDB opens a
 * file, because it does so without O_CLOEXEC.
 */
import { fstatSync, readdirSync, statSync } from 'node:fs';
import { loadAddon } from './addon.js';

const addon = loadAddon('ebbtide_sys') as { closeOnExec?(fd: number): number } | undefined;

/** Makes every descriptor of a file close-on-exec. Does nothing without /proc or the addon. */
export function closeOnExec(path: string): void {
  if (addon?.closeOnExec === undefined) return;
  try {
    const { dev, ino } = statSync(path);
    for (const fd of readdirSync('/proc/self/fd').map(Number)) {
      const found = statOf(fd);
      if (found?.ino === ino && found.dev === dev) addon.closeOnExec(fd);
    }
  } catch {
    // No /proc.
  }
}

/** Undefined: closed in the meantime. */
function statOf(fd: number): { dev: number; ino: number } | undefined {
  try {
    return fstatSync(fd);
  } catch {
    return undefined;
  }
}
