/**
 * LMDB as this package uses it: opened by the engine and by the metastore of snapshots. For both, a failing
 * disk must neither end the process nor write to its terminal. On its own the `lmdb` package prints a line
 * for each page that cannot be written, prints the error of a batch with its stack, and corrupts its memory
 * (native/host/lmdb_guard.h); it still does so where our addon is missing.
 */
import {
  type Database,
  type Key,
  open as openLmdb,
  type RootDatabase,
  type RootDatabaseOptions,
  type Transaction,
} from 'lmdb';
import { notImplemented } from '../../errors.js';
import { buildCommand, loadAddon } from '../addon.js';
import { closeOnExec } from '../descriptors.js';
import { errnoName } from '../errno-names.js';
import { fsError } from '../system-errors.js';

export type { Database, RootDatabase } from 'lmdb';

const addon = loadAddon('ebbtide_sys') as
  | {
      guardLmdb?(): boolean;
      openingLmdb?(begins: boolean, withoutLocks?: boolean): void;
      opensWithoutLocks?(): boolean;
      lmdbLines?(): string[];
    }
  | undefined;

/** Whether LMDB's locks are in memory: they are for the threads of the owner's process only. */
export const locksInMemory = (): boolean =>
  addon?.guardLmdb?.() === true && addon.opensWithoutLocks?.() === true;

/**
 * `open` of the package, but errors have names instead of numbers as codes, and reads throw them as
 * EbbtideError. The file's descriptors are close-on-exec. For the file's owner; others use readers.ts.
 */
export const open = ((options: { path: string }) => {
  addon?.guardLmdb?.();
  const env = prepared(options.path, () => openLmdb(options));
  const { transactionSync } = env;
  env.transactionSync = (work) => named(() => transactionSync.call(env, work) as ReturnType<typeof work>);
  return env;
}) as typeof openLmdb;

/** The state of the file that reads see. */
export interface Snapshot {
  /** Until the next call, all reads see the state that is the newest now. */
  take(): void;
  /** All later reads throw `why`. */
  end(why: Error): void;
}

/**
 * Opens a file that others may write, without writing a byte. LMDB's own locks are not used, so the caller
 * has to make sure that the owner keeps the pages (readers.ts). Before the first `take`, each event-loop
 * turn reads the newest state. NotImplemented without our addon.
 */
export function openReadOnly(options: RootDatabaseOptions & { path: string }): {
  env: RootDatabase;
  snapshot: Snapshot;
} {
  addon?.guardLmdb?.();
  if (addon?.opensWithoutLocks?.() !== true) {
    throw notImplemented('a store can be opened read-only only with the addon ebbtide_sys', {
      object: options.path,
      remedy: `build it: ${buildCommand()}`,
    });
  }
  const reading: Reading = { transaction: undefined, ended: undefined };
  const env = prepared(options.path, () => openLmdb({ ...options, readOnly: true }), reading);
  const release = (): void => {
    reading.transaction?.done();
    reading.transaction = undefined;
  };
  const { close } = env;
  env.close = () => {
    release();
    return close.call(env);
  };
  const take = (): void => {
    release();
    reading.transaction = retain(env);
  };
  const end = (why: Error): void => {
    release();
    reading.ended = why;
  };
  return { env, snapshot: { take, end } };
}

/** Pins the newest state of a file: its pages are not reused until `done` of the result. */
export function retain(env: RootDatabase): Transaction {
  env.resetReadTxn();
  const transaction = env.useReadTransaction();
  // Other reads get a new transaction; this one ends when its user is done.
  env.resetReadTxn();
  return transaction;
}

interface Reading {
  /** Undefined: the newest state. */
  transaction: Transaction | undefined;
  ended: Error | undefined;
}

function prepared<R extends RootDatabase>(path: string, openEnv: () => R, reading?: Reading): R {
  const isReadOnly = reading !== undefined;
  const env = opening(openEnv, isReadOnly);
  closeOnExec(path);
  const { openDB, backup } = env;
  env.backup = async (path, compact) => {
    try {
      await backup.call(env, path, compact);
    } catch (error) {
      throw withCode(error);
    }
  };
  env.openDB = ((...args: Parameters<typeof openDB>) =>
    guarded(
      path,
      opening(() => openDB.apply(env, args), isReadOnly),
      reading,
    )) as typeof openDB;
  return env;
}

/** `openDB` of the package may also run a transaction. */
function opening<T>(work: () => T, withoutLocks: boolean): T {
  addon?.openingLmdb?.(true, withoutLocks);
  try {
    return named(work);
  } finally {
    addon?.openingLmdb?.(false);
  }
}

/** `db` is undefined if a read-only file has no database of that name. */
function guarded<D extends Database>(path: string, db: D, state?: Reading): D {
  if (db === undefined) return db;
  const reading = <T>(read: () => T): T => {
    try {
      return read();
    } catch (error) {
      throw fsError('read', path, withName(error));
    }
  };
  const { getBinary, doesExist, getKeys, getRange } = db;
  // It takes options, although the typings do not say so.
  const getBinaryFast: (this: D, key: Key, options?: object) => Buffer | undefined = db.getBinaryFast;
  // Written out, because every read of a record passes here. All other reads do too, except for ranges.
  db.getBinaryFast =
    state === undefined
      ? (key: Key, options?: object) => {
          try {
            return getBinaryFast.call(db, key, options);
          } catch (error) {
            throw fsError('read', path, withName(error));
          }
        }
      : (key) => {
          if (state.ended !== undefined) throw state.ended;
          return reading(() => getBinaryFast.call(db, key, state));
        };
  db.getBinary = (...args: Parameters<typeof getBinary>) => reading(() => getBinary.apply(db, args));
  db.doesExist = ((...args: Parameters<typeof doesExist>) =>
    reading(() => doesExist.apply(db, args))) as typeof doesExist;
  // A range is read while it is iterated. What fails then is reported by the first read of anything.
  const probed =
    <O extends object, R>(range: (options?: O) => R) =>
    (options?: O): R => {
      db.getBinaryFast(PROBE);
      return range.call(
        db,
        state === undefined ? options : ({ ...options, transaction: state.transaction } as O),
      );
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
  [-30783, 'MDB_BAD_RSLOT'],
]);

/** LMDB reports the numbers of system errors, and its own. */
export function withName(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'number') return error;
  const { code } = error;
  // Reads then fail with EINVAL.
  error.message = error.message.replace(/: Attempting to write page .*$/s, '');
  const told = /MDB_(PANIC|BAD_RSLOT)/.exec(error.message);
  if (told !== null) error.code = told[0];
  else error.code = code > 0 ? errnoName(code) : (names.get(code) ?? `MDB ${code}`);
  return error;
}

/** A failed copy of a file only has the C library's text. */
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

/**
 * What LMDB has printed since the last call, for any of its files in this process; empty, or ` (LMDB: …)`.
 */
export function lmdbSays(): string {
  const lines = addon?.lmdbLines?.() ?? [];
  return lines.length === 0 ? '' : ` (LMDB: ${[...new Set(lines.map((line) => line.trim()))].join('; ')})`;
}

let batches = 0;
const print = console.error;

/** The package prints the error of a batch before it rejects; the caller already gets it. */
function printOthers(...values: unknown[]): void {
  const [error] = values;
  const isOfBatch =
    values.length === 1 &&
    error instanceof Error &&
    /\/lmdb\/(write\.js|dist\/index\.cjs)/.test(error.stack ?? '');
  if (!isOfBatch) print.apply(console, values);
}

/** Runs something that writes a batch, without the package's own printing. */
export async function withoutPrinting<T>(run: () => Promise<T>): Promise<T> {
  if (batches++ === 0) console.error = printOthers;
  try {
    return await run();
  } finally {
    if (--batches === 0) console.error = print;
  }
}
