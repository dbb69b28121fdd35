/**
 * The containerds beside which ours is judged, each with its own `ctr` and Go: 1 is this machine's packages, 2 those of a newer
 * Debian, unpacked into a folder (../support/newer-debian.ts).
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { newerDebian } from '../support/newer-debian.js';

export const releases = ['1', '2'] as const;
export type Release = (typeof releases)[number];

/** Environment in which `containerd`, `ctr` and the like are those of the release. Throws a sentence when they are not there. */
export function environmentOf(release: Release): NodeJS.ProcessEnv {
  if (release === '1') return process.env;
  return { ...process.env, PATH: `${join(newerDebian('containerd').dir, 'usr/bin')}:${process.env.PATH}` };
}

/** As containerd says itself, such as `1.6.20`. */
export function versionOf(release: Release): string {
  const { stdout } = spawnSync('containerd', ['--version'], {
    env: environmentOf(release),
    encoding: 'utf8',
  });
  return /\d+\.\d+\.\d+/.exec(stdout ?? '')?.[0] ?? 'of an unknown version';
}
