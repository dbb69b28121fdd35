/**
 * Copies of the tree: one of an open store at one moment, beside its writers, and one that is opened again to be read. Used
 * by backups. The thread that owns the store calls.
 *
 * LMDB copies the pages of one of its own snapshots, on a thread of the pool, and leaves free pages out. Which snapshot that
 * is cannot be said: the flusher goes on meanwhile. So the batches that the log takes from before the copy until after it are
 * kept, and those that the copy lacks are brought into it, as those of a crash after an opening. The moment of the copy is
 * the one in which the last of them was taken: one synchronous step, in which `taken` can look at other things too.
 *
 * Durability: `close` resolves when the copy is on disk. It relies on no log.
 */
import { closeSync, fdatasyncSync, openSync, rmSync } from 'node:fs';
import { present, unavailable } from '../../errors.js';
import { lmdbLockPath, prepareFiles } from '../../system/lmdb/files.js';
import type { RootDatabase } from '../../system/lmdb/lmdb.js';
import type { Key, ScanOptions, TreeCopy, Value } from '../contract.js';
import { CHUNK_BYTES, CHUNK_MAX } from '../core/reads.js';
import { decodeSlice } from '../schema/codec.js';
import { readState, type StoreState, writeState } from './checkpoint.js';
import { DataFile, fileError, foreign, inspectDataFile } from './disk/files.js';
import { newestRevision } from './graph-loader.js';
import { LmdbStorage } from './storage.js';
import { checkLayout, type Databases, openDatabases } from './tree/databases.js';
import { upgrade } from './upgrade.js';
import { batchRevision } from './wal/format.js';

/** Commits that are kept while the file is copied: some megabytes a second at most. */
const TAIL_BYTES_MAX = 256 * 1024 * 1024;

/** The newest snapshot of an environment as a new file, without free pages. What a failure leaves is removed. */
async function copyPages(env: RootDatabase, target: string): Promise<void> {
  try {
    rmSync(target, { force: true });
    await env.backup(target, true);
    prepareFiles(target);
  } catch (error) {
    for (const path of [target, lmdbLockPath(target)]) rmSync(path, { force: true });
    throw fileError('write', target, error);
  }
}

/** Puts a file's bytes on disk. */
export function syncFile(path: string): void {
  const fd = openSync(path, 'r+');
  try {
    fdatasyncSync(fd);
  } catch (error) {
    throw fileError('write', path, error);
  } finally {
    closeSync(fd);
  }
}

interface Tail {
  batches: { batch: Buffer; changes: number }[];
  bytes: number;
}

/**
 * Copies an open store to the file `target`: everything that was committed before the call, and more. `taken` runs in the
 * moment that the copy shows. Unavailable: no room, or the target is so slow that too much is committed meanwhile.
 */
export async function copyOpenTree(
  dbs: Databases,
  storage: LmdbStorage,
  target: string,
  taken: () => void,
): Promise<TreeCopy> {
  const tail: Tail = { batches: [], bytes: 0 };
  const untap = storage.tap((batch, changes) => {
    tail.bytes += batch.length;
    if (tail.bytes <= TAIL_BYTES_MAX) tail.batches.push({ batch, changes });
  });
  let moment: { revision: number; records: number };
  try {
    // What came before the tap is in the tree then, and so in the copy.
    await storage.drain();
    await copyPages(dbs.env, target);
    moment = storage.newest;
    taken();
  } finally {
    untap();
  }
  if (tail.bytes > TAIL_BYTES_MAX) {
    throw unavailable(`${target} takes longer to write than the pauses between commits`, {
      object: target,
      remedy: 'try again when less is written, or name a faster disk',
    });
  }
  return openCopy(target, moment, tail);
}

/** Opens a copy that was made earlier, of this layout or an older one. Errors as those of opening a store. */
export async function openTreeCopy(path: string): Promise<TreeCopy> {
  try {
    if (!inspectDataFile(path)) throw foreign(path, 'it is empty');
    prepareFiles(path);
    await checkLayout(path, false);
  } catch (error) {
    throw fileError('open', path, error);
  }
  return openCopy(path);
}

async function openCopy(
  path: string,
  moment?: { revision: number; records: number },
  { batches }: Tail = { batches: [], bytes: 0 },
): Promise<TreeCopy> {
  const dbs = await openDatabases(path, false);
  let storage: LmdbStorage | undefined;
  try {
    const file = new DataFile(path, false);
    upgrade(dbs, file);
    const state: StoreState = readState(dbs) ?? { clean: true };
    const known = newestRevision(dbs, state);
    const { revision, records } = moment ?? { revision: known, records: 0 };
    storage = new LmdbStorage(dbs, file, undefined, path, { revision, records });
    const { flusher } = storage;
    for (const { batch, changes } of batches) {
      if (batchRevision(batch) > known) flusher.push(batch, changes, { background: false, others: false });
    }
    await flusher.drain();
    const { generation = 0 } = state.log ?? {};
    const closed: StoreState = { ...state, clean: true, log: { generation, isBegun: false } };
    writeState(dbs, file, closed);
    return copyOf(storage, path, { revision, records });
  } catch (error) {
    await (storage ?? dbs.env).close().catch(() => undefined);
    throw fileError('write', path, error);
  }
}

function copyOf(
  storage: LmdbStorage,
  path: string,
  { revision, records }: { revision: number; records: number },
): TreeCopy {
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= storage.close().then(() => {
      rmSync(lmdbLockPath(path), { force: true });
      syncFile(path);
    });
    return closing;
  };
  return { revision, records, scan: (prefix, options) => scan(storage, prefix, options), close };
}

function* scan(
  storage: LmdbStorage,
  prefix: Key,
  { after, limit }: ScanOptions = {},
): Generator<[Key, Value]> {
  let left = limit ?? Number.POSITIVE_INFINITY;
  for (let from = after; left > 0; ) {
    const { entries, more } = storage.range(
      prefix,
      from,
      Math.min(CHUNK_MAX, left),
      decodeSlice,
      CHUNK_BYTES,
    );
    yield* entries;
    if (!more) return;
    left -= entries.length;
    from = present(entries.at(-1), 'the last entry')[0];
  }
}
