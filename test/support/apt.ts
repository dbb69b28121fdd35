/** Debian's packages for the tests, which run side by side: one installation at a time, the others wait for it. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { cacheDirectory } from './cache.js';

/** What an installation contains. */
export const aptLock = join(cacheDirectory(), 'apt.lock');

/** Whether `apt-get` with these arguments succeeded. As root only. */
export function aptGet(args: readonly string[], timeoutMs = 300_000): boolean {
  return (
    spawnSync('flock', [aptLock, 'apt-get', '-o', 'DPkg::Lock::Timeout=120', ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      stdio: 'ignore',
      timeout: timeoutMs,
    }).status === 0
  );
}

/** Installs packages, with the lists made new when that is needed. */
export function aptInstall(packages: readonly string[]): boolean {
  const install = ['install', '-y', '-q', '--no-install-recommends', ...packages];
  if (aptGet(install)) return true;
  aptGet(['update', '-q']);
  return aptGet(install);
}
