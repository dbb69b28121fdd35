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
// What the verbs say is of interest if one fails.
const said: string[] = [];
const { write } = process.stderr;
process.stderr.write = (text: string | Uint8Array) => said.push(String(text)) > 0;
try {
  for (const verb of ['init', 'images ls', 'leases create', 'content ls', 'gc'])
    await run([...verb.split(' '), '--root', root]);
  writeCache();
} finally {
  process.stderr.write = write;
  if (process.exitCode) process.stderr.write(said.join(''));
  rmSync(root, { recursive: true, force: true });
}
