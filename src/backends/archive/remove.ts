/**
 * Removing what a layer replaces. Never follows a symlink. An ordinary user may have to open directories first
 * that an earlier layer made unwritable.
 */
import { chmod, lstat, readdir, rm, unlink } from 'node:fs/promises';
import { errnoOf } from '../fs-errors.js';
import { type BytePath, fsPath } from './paths.js';

export async function removeTree(path: BytePath): Promise<void> {
  try {
    const stats = await lstat(fsPath(path));
    if (!stats.isDirectory()) return await unlink(fsPath(path));
    await rm(fsPath(path), { recursive: true, force: true });
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOENT') return;
    if (code !== 'EACCES' && code !== 'EPERM') throw error;
    await openDirectories(path);
    await rm(fsPath(path), { recursive: true, force: true });
  }
}

async function openDirectories(path: BytePath): Promise<void> {
  const open = [path];
  for (let dir = open.pop(); dir !== undefined; dir = open.pop()) {
    if (!(await lstat(fsPath(dir))).isDirectory()) continue;
    await chmod(fsPath(dir), 0o700);
    for (const entry of await readdir(fsPath(dir), { encoding: 'latin1', withFileTypes: true })) {
      if (entry.isDirectory()) open.push(`${dir}/${entry.name}`);
    }
  }
}
