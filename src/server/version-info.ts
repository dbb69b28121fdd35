/**
 * The daemon's name and version, for clients; the version of containerd whose API it speaks is in
 * docs/daemon.md.
 */
import { createRequire } from 'node:module';

const manifest = createRequire(import.meta.url)('../../../package.json') as {
  version: string;
  gitHead?: string;
};

export const version = `ebbtide-${manifest.version}`;
/** Set by npm when the package is published; '' in a work tree. */
export const revision = manifest.gitHead ?? '';
