/** The graph core's sources, for those who build it without an addon: all of native/ that needs no Node. */
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What sources include is found from here. */
export const native = dirname(fileURLToPath(import.meta.url));
/** Of the graph core; host/ belongs to the other addons. */
const folders = ['.', 'base', 'checkpoint', 'graph', 'mark'];

export const core = folders
  .flatMap((folder) => readdirSync(join(native, folder)).map((name) => join(native, folder, name)))
  .filter((file) => file.endsWith('.cc') && file !== join(native, 'addon.cc'))
  .sort();
