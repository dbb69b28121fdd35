/**
 * Where tests and benchmarks keep what is dear to make between runs: built Go programs, images. One directory of this
 * user, outside the temporary directory, which a test run leaves as it was.
 */
import { mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** `$XDG_CACHE_HOME/ebbtide-test`, or below `~/.cache`. Made (0700) when missing; safe to remove at any time. */
export function cacheDirectory(): string {
  const dir = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ebbtide-test');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  return dir;
}
