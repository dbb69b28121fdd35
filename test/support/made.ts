/** What a script makes from Debian's packages (images): made once, kept as long as the script is the same. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { cacheDirectory } from './cache.js';

/** Directory with what `script DIR` makes there, to be read only. Throws what the script says when it fails. */
export function madeBy(script: string): string {
  const hash = createHash('sha256').update(readFileSync(script)).digest('hex').slice(0, 16);
  const dir = join(cacheDirectory(), `${basename(script, '.sh')}-${hash}`);
  if (existsSync(dir)) return dir;
  process.stderr.write(`making images from Debian's packages (${basename(script)})\n`);
  const draft = `${dir}.${process.pid}`;
  mkdirSync(draft);
  try {
    const done = spawnSync('bash', [script, draft], { encoding: 'utf8', timeout: 600_000 });
    if (done.status !== 0) {
      throw new Error(`${script}: ${done.error?.message ?? ''}${done.stderr}${done.stdout}`);
    }
    renameSync(draft, dir);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
  return dir;
}
