/**
 * Writes the command's code cache (code-cache.ts) for this Node, with the functions that usual verbs need: at the end of the
 * build, and of an installation by Debian's package.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { load } from './code-cache.js';

const { run, writeCache } = load(fileURLToPath(new URL('./command.cjs', import.meta.url)));
const root = mkdtempSync(join(tmpdir(), 'ebbtide-build-'));
try {
  for (const verb of ['init', 'images ls', 'leases create', 'content ls', 'gc'])
    await run([...verb.split(' '), '--root', root]);
  writeCache();
} finally {
  rmSync(root, { recursive: true, force: true });
}
