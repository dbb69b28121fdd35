/**
 * LMDB as this package uses it: opened by the engine and by the metastore of snapshots, for both of which a failing disk must
 * neither end the process nor write to its terminal. The `lmdb` package prints a line for each page that cannot be written,
 * prints the error of a batch with its stack, and corrupts its memory (native/lmdb_guard.h). Without our addon it does so.
 */
import { getSystemErrorName } from 'node:util';
import {
  type Database,
  type Key,
  open as openLmdb,
  type RootDatabase,
  type RootDatabaseOptions,
  type Transaction,
} from 'lmdb';
import { notImplemented } from '../errors.js';
import { buildCommand, loadAddon } from './addon.js';
import { closeOnExec } from './descriptors.js';
import { fsError } from './system-errors.js';

export type { Database, RootDatabase } from 'lmdb';

const addon = loadAddon('ebbtide_sys') as
  | {
      guardLmdb?(): boolean;
      openingLmdb?(begins: boolean, withoutLocks?: boolean): void;
      opensWithoutLocks?(): boolean;
      lmdbLines?(): string[];
    }
  | undefined;

/**
 * `open` of the package, with errors that have names instead of numbers as codes; reads throw them as errors of ours. The
 * file's descriptors are close-on-exec. For who owns the file: see lmdb-readers.ts for others.
 */
export const open = ((options: { path: string }) => {
  addon?.guardLmdb?.();
  const env = prepared(options.path, () => openLmdb(options));
  const { transactionSync } = env;
  env.transactionSync = (work) => named(() => transactionSync.call(env, work) as ReturnType<typeof work>);
  return env;
}) as typeof openLmdb;

/** Which state of the file is read. */
export interface Snapshot {
  /** All reads from now on are of the newest state, until the next call. */
  take(): void;
  /** Reads fail with this from now on. */
  end(why: Error): void;
}

/**
 * A file that others may write, without a byte written: LMDB's own locks are left alone, so whoever calls has to see to it
 * that the owner leaves him the pages (lmdb-readers.ts). Before the first `take` each turn reads the newest state.
 * NotImplemented without our addon.
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

/** Keeps the newest state of a file as it is now: its pages are not used again until the answer's `done`. */
export function retain(env: RootDatabase): Transaction {
  env.resetReadTxn();
  const transaction = env.useReadTransaction();
  // Others get another one, and this one ends when it is done with.
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

/** `openDB` of the package may run a transaction, too. */
function opening<T>(work: () => T, withoutLocks: boolean): T {
  addon?.openingLmdb?.(true, withoutLocks);
  try {
    return named(work);
  } finally {
    addon?.openingLmdb?.(false);
  }
}

/** `db`: undefined in a file that is only read and has none of the name. */
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
  // It takes options, whatever the typings say.
  const getBinaryFast: (this: D, key: Key, options?: object) => Buffer | undefined = db.getBinaryFast;
  // Written out, because every read of a record comes by. What else reads comes by here, but for ranges.
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
  // A range is read when it is gone through: what fails then fails with the first read of anything.
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
