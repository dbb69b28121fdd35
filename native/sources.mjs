/** The graph core's sources, for those who build it without an addon: all of native/ that needs no Node. */
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const native = dirname(fileURLToPath(import.meta.url));
/** What needs Node, or belongs to the other addons. */
const others = new Set([
  'addon.cc',
  'file_steps.cc',
  'files.cc',
  'lmdb_guard.cc',
  'look_at.cc',
  'older_hosts.cc',
  'sys.cc',
  'zstd.cc',
]);

export const core = readdirSync(native)
  .filter((name) => name.endsWith('.cc') && !others.has(name))
  .sort()
  .map((name) => join(native, name));
