/**
 * Descriptors that libraries leave open to the programs that this process starts. Called where LMDB opens a file, which it
 * does without the flag.
 */
import { fstatSync, readdirSync, statSync } from 'node:fs';
import { loadAddon } from './addon.js';

const addon = loadAddon('ebbtide_sys') as { closeOnExec?(fd: number): number } | undefined;

/** Keeps every descriptor of a file from other programs. Without /proc or the addon nothing happens. */
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

/** Undefined: closed meanwhile. */
function statOf(fd: number): { dev: number; ino: number } | undefined {
  try {
    return fstatSync(fd);
  } catch {
    return undefined;
  }
}
