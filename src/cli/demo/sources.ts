/** Real files that exist wherever this package runs: its installed dependencies. */
import { createRequire } from 'node:module';
import { dirname } from 'node:path';

/** Directories for the shared base layer and the two upper layers. */
export function layerSources(): [string, string, string] {
  const require = createRequire(import.meta.url);
  const packageDir = (entry: string, name: string): string => {
    let dir = dirname(require.resolve(entry));
    while (!dir.endsWith(`/${name}`)) dir = dirname(dir);
    return dir;
  };
  return [packageDir('lmdb', 'lmdb'), packageDir('re2js', 're2js'), packageDir('piscina', 'piscina')];
}
