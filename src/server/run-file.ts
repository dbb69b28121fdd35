/**
 * The address of a root's daemon, so that the command line finds it: a small file in the root, written by the
 * daemon when it serves and removed when it stops. It is a hint only: a stale one names a socket without a
 * listener, or of another root's daemon by now, as does the file in a copy of the root; without one the default address is tried.
 * So a daemon says which directory it has, and one that has another is not used.
 */
import { chmod, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { invalidArgument } from '../errors.js';
import { fsError } from '../system/system-errors.js';

interface RunFile {
  address: string;
  pid: number;
}

const pathOf = (root: string): string => join(root, 'daemon.json');

/** @param root as reached by this process */
export async function writeRunFile(root: string, address: string): Promise<void> {
  const path = pathOf(root);
  const content: RunFile = { address, pid: process.pid };
  try {
    await writeFile(`${path}.new`, `${JSON.stringify(content)}\n`, { mode: 0o644 });
    // Users of the daemon must be able to read it, whatever the umask.
    await chmod(`${path}.new`, 0o644);
    await rename(`${path}.new`, path);
  } catch (error) {
    await rm(`${path}.new`, { force: true }).catch(() => undefined);
    throw fsError('write', path, error);
  }
}

export async function removeRunFile(root: string): Promise<void> {
  await rm(pathOf(root), { force: true }).catch(() => undefined);
}

/**
 * What the metadata plugin of a daemon exports for our command: device and inode of its root. A path may lead each process
 * elsewhere.
 */
export const ROOT_IDENTITY = 'ebbtide.root-identity';

/**
 * The path of a socket that is given as one, or as `unix:///run/…`, which other programs of the field write. InvalidArgument for
 * another scheme: a directory of that name would be made.
 */
export function socketPath(address: string): string {
  const [, scheme, rest = address] = /^([a-z][a-z0-9+.-]*):(?:\/\/)?(.*)$/.exec(address) ?? [];
  if (rest !== '' && (scheme === undefined || scheme === 'unix')) return resolve(rest);
  throw invalidArgument(`the address "${address}" is not the path of a socket`, {
    object: address,
    remedy: 'give a path, or unix:// and a path',
  });
}

/** The default address of a root's daemon. */
export const defaultAddress = (root: string): string => join(root, 'run', 'ebbtide.sock');

/**
 * The address of the daemon that serves, or served, the root; the default address if no daemon has left one.
 */
export async function daemonAddress(root: string): Promise<string> {
  try {
    const { address } = JSON.parse(await readFile(pathOf(root), 'utf8')) as Partial<RunFile>;
    if (typeof address === 'string') return address;
  } catch {
    // There is none, or it is incomplete.
  }
  return defaultAddress(root);
}
