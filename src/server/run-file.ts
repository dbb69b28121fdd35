/**
 * Where a root's daemon listens, so that the command line finds it: a small file in the root, written by the daemon
 * when it serves and removed when it stops. It is a hint only: a stale one names a socket that nobody answers on.
 */
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fsError } from '../backends/fs-errors.js';

interface RunFile {
  address: string;
  pid: number;
}

const pathOf = (root: string): string => join(root, 'daemon.json');

export async function writeRunFile(root: string, address: string): Promise<void> {
  const path = pathOf(root);
  const content: RunFile = { address, pid: process.pid };
  try {
    await writeFile(`${path}.new`, `${JSON.stringify(content)}\n`, { mode: 0o644 });
    await rename(`${path}.new`, path);
  } catch (error) {
    throw fsError('write', path, error);
  }
}

export async function removeRunFile(root: string): Promise<void> {
  await rm(pathOf(root), { force: true }).catch(() => undefined);
}

/** The address of the daemon that serves, or served, the root; undefined when none is known. */
export async function daemonAddress(root: string): Promise<string | undefined> {
  try {
    const { address } = JSON.parse(await readFile(pathOf(root), 'utf8')) as Partial<RunFile>;
    return typeof address === 'string' ? address : undefined;
  } catch {
    return undefined;
  }
}
