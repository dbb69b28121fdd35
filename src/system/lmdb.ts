/**
 * LMDB as this package uses it: opened by the engine and by the metastore of snapshots, for both of which a failing disk must
 * neither end the process nor write to its terminal. The `lmdb` package prints a line for each page that cannot be written,
 * prints the error of a batch with its stack, and corrupts its memory (native/lmdb_guard.h). Without our addon it does so.
 */
import { getSystemErrorName } from 'node:util';
import { type Database, open as openLmdb } from 'lmdb';
import { loadAddon } from './addon.js';
import { closeOnExec } from './descriptors.js';
import { fsError } from './system-errors.js';

export type { Database, RootDatabase } from 'lmdb';

const addon = loadAddon('ebbtide_sys') as
  | {
      guardLmdb?(): boolean;
      openingLmdb?(begins: boolean): void;
      lmdbLines?(): string[];
    }
  | undefined;

/**
 * `open` of the package, with errors that have names instead of numbers as codes; reads throw them as errors of ours. The
 * file's descriptors are close-on-exec.
 */
export const open = ((options: { path: string }) => {
  addon?.guardLmdb?.();
  const env = opening(() => openLmdb(options));
  closeOnExec(options.path);
  const { openDB, transactionSync, backup } = env;
  env.openDB = ((...args: Parameters<typeof openDB>) =>
    guarded(
      options.path,
      opening(() => openDB.apply(env, args)),
    )) as typeof openDB;
  env.transactionSync = (work) => named(() => transactionSync.call(env, work) as ReturnType<typeof work>);
  env.backup = async (path, compact) => {
    try {
      await backup.call(env, path, compact);
    } catch (error) {
      throw withCode(error);
    }
  };
  return env;
}) as typeof openLmdb;

/** `openDB` of the package may run a transaction, too. */
function opening<T>(work: () => T): T {
  addon?.openingLmdb?.(true);
  try {
    return named(work);
  } finally {
    addon?.openingLmdb?.(false);
  }
}

/** `db`: undefined in a file that is only read and has none of the name. */
function guarded<D extends Database>(path: string, db: D): D {
  if (db === undefined) return db;
  const reading = <T>(read: () => T): T => {
    try {
      return read();
    } catch (error) {
      throw fsError('read', path, withName(error));
    }
  };
  const { getBinary, getBinaryFast, doesExist, getKeys, getRange } = db;
  // Written out, because every read of a record comes by.
  // The typings of the package leave the options out.
  const readFast = getBinaryFast as (this: D, key: unknown, options?: object) => Buffer | undefined;
  db.getBinaryFast = ((key: unknown, options?: object) => {
    try {
      return readFast.call(db, key, options);
    } catch (error) {
      throw fsError('read', path, withName(error));
    }
  }) as typeof getBinaryFast;
  db.getBinary = ((...args: Parameters<typeof getBinary>) =>
    reading(() => getBinary.apply(db, args))) as typeof getBinary;
  db.doesExist = ((...args: Parameters<typeof doesExist>) =>
    reading(() => doesExist.apply(db, args))) as typeof doesExist;
  // A range is read when it is gone through: what fails then fails with the first read of anything.
  const probed =
    <A extends unknown[], R>(range: (...args: A) => R) =>
    (...args: A): R => {
      reading(() => getBinaryFast.call(db, PROBE));
      return range.apply(db, args);
    };
  db.getKeys = probed(getKeys);
  db.getRange = probed(getRange);
  return db;
}
const PROBE = Buffer.from('?');

const names = new Map([
  [-30797, 'MDB_PAGE_NOTFOUND'],
  [-30796, 'MDB_CORRUPTED'],
  [-30795, 'MDB_PANIC'],
  [-30792, 'MDB_MAP_FULL'],
  [-30790, 'MDB_READERS_FULL'],
  [-30788, 'MDB_TXN_FULL'],
]);

/** LMDB gives the numbers of the system's errors, and of its own. */
export function withName(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'number') return error;
  const { code } = error;
  // A read says EINVAL then.
  if (error.message.includes('MDB_PANIC')) error.code = 'MDB_PANIC';
  else error.code = code > 0 ? getSystemErrorName(-code) : (names.get(code) ?? `MDB ${code}`);
  return error;
}

/** A copy of a file fails with the text of the C library alone. */
const codes = new Map([
  ['No space left on device', 'ENOSPC'],
  ['Disk quota exceeded', 'EDQUOT'],
  ['Input/output error', 'EIO'],
  ['File too large', 'EFBIG'],
  ['Read-only file system', 'EROFS'],
  ['Permission denied', 'EACCES'],
  ['Too many open files', 'EMFILE'],
  ['Cannot allocate memory', 'ENOMEM'],
]);

function withCode(error: unknown): unknown {
  const code = error instanceof Error && !('code' in error) ? codes.get(error.message) : undefined;
  return code === undefined ? error : Object.assign(error as Error, { code });
}

function named<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw withName(error);
  }
}

/** What LMDB has printed since the last time, by any of its files in this process; empty, or ` (LMDB: …)`. */
export function lmdbSays(): string {
  const lines = addon?.lmdbLines?.() ?? [];
  return lines.length === 0 ? '' : ` (LMDB: ${[...new Set(lines)].join('; ').trim()})`;
}

let batches = 0;
const print = console.error;

/** The package prints the error of a batch before it rejects; the caller has it by then. */
function printOthers(...values: unknown[]): void {
  const [error] = values;
  const isOfBatch =
    values.length === 1 && error instanceof Error && /\/lmdb\/write\.js/.test(error.stack ?? '');
  if (!isOfBatch) print.apply(console, values);
}

/** Runs something that writes a batch. */
export async function withoutPrinting<T>(run: () => Promise<T>): Promise<T> {
  if (batches++ === 0) console.error = printOthers;
  try {
    return await run();
  } finally {
    if (--batches === 0) console.error = print;
  }
}
