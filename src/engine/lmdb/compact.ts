/**
 * Writes the file of a closed store again, without its free pages and with full ones, and gives the rest back to the disk. LMDB
 * uses free pages again but never ends a file earlier, and the pages of an index that grew in no order are two thirds full.
 * Called by embedders and the command; the store must not be open.
 *
 *   1  the store is opened, which brings the log into the tree, and closed with a new checkpoint; its lock stays
 *   2  a draft beside the file gets all rows in their order, is compared with it, and goes to disk
 *   3  the draft takes the file's name, and the directory goes to disk
 *
 * Durability: a crash before 3 leaves the old file, after it the new one. Both have the same rows, the state that says how
 * far the log has come among them, so the log fits either. A full disk ends it in 2, and the old file stays. A draft that a
 * crash leaves goes with the next opening.
 */
import { renameSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { present, unknownError } from '../../errors.js';
import { shown } from '../../held-paths.js';
import { lmdbLockPath, prepareFiles } from '../../system/lmdb/files.js';
import { syncDirectoryNow } from '../../system/sync-directory.js';
import type { EngineOptions } from '../contract.js';
import { DataFile, draftPath, fileError } from './disk/files.js';
import { writeError } from './disk/write-error.js';
import { openLmdbEngine } from './engine.js';
import { type Databases, openDatabases, type RawRow, rawRows, rawTables } from './tree/databases.js';
import { syncFile } from './tree-copy.js';

/** The unit of `st_blocks`, on every file system. */
const BLOCK_BYTES = 512;

/** Bytes of the file, and those that are kept after its end for a full disk. */
export interface Compaction {
  /** Bytes of the file before. */
  before: number;
  /** Bytes of the file now. */
  after: number;
  /** Bytes of it that are kept for removals on a full disk. */
  reserve: number;
}

/**
 * Gives the free pages of a store's file back to the disk. Takes room for what the store has in use, until it is done. Errors as
 * those of opening a store; Unavailable also without that room, and nothing is changed then.
 */
export async function compactLmdbStore(dir: string, options: EngineOptions): Promise<Compaction> {
  let outcome: Compaction | undefined;
  const afterClose = async (path: string): Promise<void> => {
    outcome = await compactFile(path);
  };
  await (await openLmdbEngine(dir, { ...options, create: false, afterClose })).close();
  return present(outcome, 'the outcome');
}

/** REQUIRES: the caller holds the directory's lock, and has the file not open. Unavailable: no room for the draft. */
async function compactFile(path: string): Promise<Compaction> {
  const draft = draftPath(path);
  const before = statSync(path).size;
  try {
    await writeDraft(path, draft);
    renameSync(draft, path);
    syncDirectoryNow(dirname(path));
    const { size: after, blocks } = statSync(path);
    return { before, after, reserve: Math.max(0, blocks * BLOCK_BYTES - after) };
  } catch (error) {
    rmSync(draft, { force: true });
    throw fileError('compact', path, error);
  } finally {
    rmSync(lmdbLockPath(draft), { force: true });
  }
}

async function writeDraft(path: string, draft: string): Promise<void> {
  const old = await openDatabases(path, true);
  try {
    rmSync(draft, { force: true });
    prepareFiles(draft);
    const copy = await openDatabases(draft, false);
    const file = new DataFile(draft, false);
    try {
      await copyRows(old, copy, file).catch((cause) => {
        throw writeError(draft, cause);
      });
      compare(old, copy, path);
      // The next owner may find the disk full.
      file.keepReserve();
    } finally {
      await copy.env.close();
      file.close();
    }
  } finally {
    await old.env.close();
  }
  syncFile(draft);
}

/** Of the rows of one transaction, about; and what a key and a place in a page take. */
const COPIED_BYTES = 4 * 1024 * 1024;
const ROW_BYTES = 64;

/** A row that comes after all others of its table is put behind them, so the pages before it stay as full as they are. */
async function copyRows(old: Databases, copy: Databases, file: DataFile): Promise<void> {
  const tables = rawTables(copy);
  const rows = rawRows(old);
  let next = rows.next();
  const putSome = (): void => {
    for (let left = COPIED_BYTES; !next.done && left > 0; next = rows.next()) {
      const { database, key, value } = next.value;
      void tables[database].put(key, value);
      left -= value.length + ROW_BYTES;
    }
  };
  while (!next.done) {
    // The rows, and as much again for pages that change.
    file.keepCushion(2 * COPIED_BYTES);
    copy.env.transactionSync(putSome);
    await setImmediate();
  }
}

/** The old file goes only if the new one has each of its rows. */
function compare(old: Databases, copy: Databases, path: string): void {
  const rows = rawRows(copy);
  for (const row of rawRows(old)) {
    const other = rows.next().value;
    if (other === undefined || !isSame(row, other)) throw differs(path, row.database);
  }
  const left = rows.next().value;
  if (left !== undefined) throw differs(path, left.database);
}

function isSame(a: RawRow, b: RawRow): boolean {
  if (a.database !== b.database || Buffer.compare(a.value, b.value) !== 0) return false;
  return a.key instanceof Uint8Array && b.key instanceof Uint8Array
    ? Buffer.compare(a.key, b.key) === 0
    : a.key === b.key;
}

const differs = (path: string, database: string): Error =>
  unknownError(`a copy of ${shown(path)} has other rows in "${database}": the file stays as it is`, {
    object: shown(path),
    remedy: 'compare the store with what is on disk: `ebbtide check`',
  });
