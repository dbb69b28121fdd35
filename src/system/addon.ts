/**
 * Finds and loads the compiled addons of this package. Used by graph/carriers.ts and backends. If an addon
 * does not load, the reason is kept; nothing throws.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type AddonName = 'ebbtide_core' | 'ebbtide_sys' | 'ebbtide_zstd';

const require = createRequire(import.meta.url);
const loaded = new Map<AddonName, { addon?: object; error?: string }>();

/** The nearest parent directory that has a package.json. */
function packageRoot(): string {
  let root = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(root, 'package.json')) && dirname(root) !== root) root = dirname(root);
  return root;
}

/** A file of the package. */
export const packageFile = (...path: string[]): string => join(packageRoot(), ...path);

/** Where the addon is, or would be: in EBBTIDE_ADDONS (a debug build), built here, or shipped with the package. */
export function addonPath(name: AddonName): string {
  const debug = process.env.EBBTIDE_ADDONS && join(process.env.EBBTIDE_ADDONS, `${name}.node`);
  if (debug && existsSync(debug)) return debug;
  const built = packageFile('build', 'Release', `${name}.node`);
  const prebuilt = packageFile('prebuilds', `linux-${process.arch}`, `${name}.node`);
  return existsSync(built) || !existsSync(prebuilt) ? built : prebuilt;
}

/** The command that builds the addons, in a clone and in an installed package. */
export const buildCommand = (): string => `node ${packageFile('native', 'build.mjs')}`;

export function loadAddon(name: AddonName): object | undefined {
  let entry = loaded.get(name);
  if (entry === undefined) {
    entry = load(name);
    loaded.set(name, entry);
  }
  return entry.addon;
}

/** Why the addon did not load; empty if it did. */
export function addonError(name: AddonName): string {
  loadAddon(name);
  return loaded.get(name)?.error ?? '';
}

function load(name: AddonName): { addon?: object; error?: string } {
  const path = addonPath(name);
  if (!existsSync(path)) return { error: `${path} does not exist` };
  try {
    const addon: unknown = require(path);
    if (typeof addon === 'object' && addon !== null) return { addon };
    return { error: `${path} is not an addon` };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}
