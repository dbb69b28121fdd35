/**
 * Makes a new data file. Called by engine.ts when there is none, with the directory's lock held.
 *
 * Durability: the file gets its name when it is whole and on disk. One that a crash or a power cut leaves half made
 * has another name and is made again; under the final name LMDB and we would have to take it for a foreign file.
 */
import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs';
import { lmdbLockPath, prepareFiles } from '../../system/lmdb/files.js';
import { DataFile, draftPath, fileError } from './disk/files.js';
import { openDatabases } from './tree/databases.js';

export async function createDataFile(path: string): Promise<void> {
  const draft = draftPath(path);
  const lock = lmdbLockPath(draft);
  try {
    for (const name of [draft, lock]) rmSync(name, { force: true });
    prepareFiles(draft);
    const dbs = await openDatabases(draft, false);
    await dbs.env.close();
    // LMDB may end the file before the last page in use.
    new DataFile(draft, false).close();
    const fd = openSync(draft, 'r+');
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    rmSync(lock, { force: true });
    renameSync(draft, path);
  } catch (error) {
    throw fileError('make', path, error);
  }
}
