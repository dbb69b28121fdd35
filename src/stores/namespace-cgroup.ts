/**
 * A namespace delete option for hosts that keep each namespace's tasks below a cgroup of its name. Called by
 * NamespaceStore.delete, before anything is removed from the store.
 */
import { readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { wrap } from '../errors.js';
import { validateIdentifier } from '../model/identifiers.js';
import type { NamespaceDeleteOption } from './namespaces.js';

/**
 * Removes the namespace's cgroup below `root`: in the unified hierarchy, or for each controller in the old
 * one. A missing cgroup is fine; one with tasks keeps the namespace.
 */
export const withNamespaceCgroupDeletion =
  (root = '/sys/fs/cgroup'): NamespaceDeleteOption =>
  async (_ctx, { name }) => {
    // The name becomes a path; an identifier can be neither `..` nor contain a slash.
    validateIdentifier(name, 'namespace');
    const entries = await unlessAbsent(readdir(root, { withFileTypes: true }));
    const unified = entries?.some((entry) => entry.name === 'cgroup.controllers') ?? false;
    const controllers = unified ? [root] : directories(entries).map((entry) => join(root, entry));
    for (const controller of controllers) {
      await removeTree(join(controller, name)).catch((error: unknown) => {
        throw wrap(`cannot remove the cgroup of namespace "${name}"`, error, { object: name });
      });
    }
  };

/** Children first. The files of a cgroup cannot be removed; they go with their directory. */
async function removeTree(path: string): Promise<void> {
  const pending = [path];
  const found: string[] = [];
  for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
    const entries = await unlessAbsent(readdir(dir, { withFileTypes: true }));
    if (entries === undefined) continue;
    found.push(dir);
    for (const child of directories(entries)) pending.push(join(dir, child));
  }
  for (const dir of found.reverse()) await unlessAbsent(rmdir(dir));
}

const directories = (entries: readonly { name: string; isDirectory(): boolean }[] = []): string[] =>
  entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);

async function unlessAbsent<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
