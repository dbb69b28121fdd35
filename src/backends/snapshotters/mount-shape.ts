/**
 * The directories that a mount stacks, whatever its other options. Used to find the snapshot of a mount.
 * Pure.
 */
import { isAbsolute, normalize } from 'node:path';
import type { Mount } from '../contract.js';

/**
 * The directories of a bind or overlay, top first, normalized; undefined for mounts of other kinds or several
 * mounts.
 */
export function directoriesOf(mounts: readonly Mount[]): string[] | undefined {
  const [mount, ...more] = mounts;
  if (mount === undefined || more.length > 0) return undefined;
  const directories = mount.type === 'bind' ? [mount.source] : mount.type === 'overlay' ? stackOf(mount) : [];
  if (directories.length === 0 || !directories.every(isAbsolute)) return undefined;
  return directories.map((path) => normalize(path).replace(/(?<=.)\/$/, ''));
}

function stackOf({ options }: Mount): string[] {
  const value = (name: string): string[] =>
    options.filter((option) => option.startsWith(`${name}=`)).map((option) => option.slice(name.length + 1));
  return [...value('upperdir'), ...value('workdir'), ...value('lowerdir').flatMap((list) => list.split(':'))];
}

export function sameDirectories(a: readonly Mount[], b: readonly Mount[]): boolean {
  const [x, y] = [directoriesOf(a), directoriesOf(b)];
  return x !== undefined && a[0]?.type === b[0]?.type && x.join('\0') === y?.join('\0');
}

export const isReadOnly = (mounts: readonly Mount[]): boolean =>
  mounts.some(({ options }) => options.includes('ro'));

/** The same mounts with the snapshot's own directory, and what is in it, in another place. */
export function movedTo(mounts: readonly Mount[], from: string, to: string): Mount[] {
  const moved = (path: string): string =>
    path === from || path.startsWith(`${from}/`) ? to + path.slice(from.length) : path;
  const option = (text: string): string => {
    const [, name, path] = /^(upperdir|workdir)=(.*)$/.exec(text) ?? [];
    return path === undefined ? text : `${name}=${moved(path)}`;
  };
  return mounts.map((mount) => ({
    ...mount,
    source: moved(mount.source),
    options: mount.options.map(option),
  }));
}
