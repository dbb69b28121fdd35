/** Releases of Node that are not the one that runs the tests: from npm's registry, kept in the cache of the tests. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cacheDirectory } from './cache.js';

const run = promisify(execFile);
const FETCH_MS_MAX = 300_000;

/** The program of the newest release of a major, for glibc. Rejects when npm's cache and its registry lack it. */
export async function nodeRelease(major: number, arch: string = process.arch): Promise<string> {
  const cache = cacheDirectory();
  const program = join(cache, `node-${major}-${arch}`);
  if (existsSync(program)) return program;
  const dir = mkdtempSync(join(cache, 'node-'));
  try {
    const pack = ['pack', '--silent', '--prefer-offline', '--pack-destination', dir];
    await run('npm', [...pack, `node-linux-${arch}@${major}`], { timeout: FETCH_MS_MAX });
    const [tarball = ''] = readdirSync(dir);
    await run('tar', ['-xzf', join(dir, tarball), '-C', dir, 'package/bin/node']);
    renameSync(join(dir, 'package/bin/node'), program);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  return program;
}
