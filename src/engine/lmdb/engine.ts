/**
 * The LMDB engine: the embedded store of a directory. Called by open.ts and by embedders.
 *
 * Durability: a commit is on disk when `update` resolves, unless `visible` was asked for: such a commit is on its way
 * there and may be lost, with those after it, when the process or the machine dies within the next moments (`flush`
 * waits for it). A directory has one owner process, and a second one is refused; any number may read (read-only.ts). The data file is checked before LMDB may touch it.
 */
import { existsSync, rmSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { failedPrecondition, isKind, unavailable } from '../../errors.js';
import { shown } from '../../held-paths.js';
import { NoStore } from '../../no-store.js';
import { prepareFiles } from '../../system/lmdb/files.js';
import { awaitOlderReaders, Readers } from '../../system/lmdb/readers.js';
import { writtenInto } from '../../system/lmdb/written-state.js';
import { syncDirectoryNow } from '../../system/sync-directory.js';
import type { EngineOptions } from '../contract.js';
import { CoreEngine } from '../core/engine.js';
import { Checkpointer, readState, type StoreState, writeState } from './checkpoint.js';
import { createDataFile } from './create.js';
import {
  DataFile,
  dataPath,
  draftPath,
  fileError,
  inspectDataFile,
  type Owner,
  ownDirectory,
} from './disk/files.js';
import { writeError } from './disk/write-error.js';
import { flushBatches } from './flush/flush.js';
import { type LoadedGraph, loadGraph, newestRevision } from './graph-loader.js';
import { openReadOnlyEngine } from './read-only.js';
import { Room } from './room.js';
import { LmdbStorage } from './storage.js';
import { checkLayout, type Databases, LAYOUT, layoutOf, openDatabases } from './tree/databases.js';
import { copyOpenTree } from './tree-copy.js';
import { upgrade } from './upgrade.js';
import { acceptedLossPath, type Recovered, recoverLog } from './wal/recovery.js';
import { Wal } from './wal/wal.js';
import { overlay } from './wal-replay.js';

/** How an engine on LMDB is opened. */
export interface LmdbEngineOptions extends EngineOptions {
  /**
   * Opens an existing store for reading: writes are FailedPrecondition, and the files stay as they are. Another process may
   * have it open; what it had acknowledged is seen, and what it does later is not.
   */
  readOnly?: boolean;
  /** false: NotFound where there is no store, and nothing is made. Default true. */
  create?: boolean;
  /** Called with the path of the data file when the store has been closed, with a new checkpoint; its lock is held until it resolves. */
  afterClose?: (path: string) => Promise<void>;
}

/**
 * Opens the store in `dir`, making both when missing. Unavailable: another process has it open. FailedPrecondition:
 * not a directory, no permission, not a store of this program, a newer layout. Unknown: truncated or damaged.
 * NotFound: nothing there, and read-only or not to be made.
 */
export async function openLmdbEngine(dir: string, options: LmdbEngineOptions): Promise<CoreEngine> {
  const readOnly = options.readOnly ?? false;
  const creates = options.create ?? !readOnly;
  // Before the lock file is made.
  if (!creates) requireStore(resolve(dir));
  if (readOnly) return openReadOnlyEngine(resolve(dir), options);
  const owner = ownDirectory(resolve(dir));
  const { at } = owner.directory;
  const path = dataPath(at);
  try {
    const exists = inspectDataFile(path);
    if (exists) {
      // What a compaction left that did not come to its end.
      rmSync(draftPath(path), { force: true });
      prepareFiles(path);
      await checkLayout(path, false);
      await awaitOlderReaders(path, owner.lock);
    } else if (!creates) {
      throw new NoStore('directory', owner.directory.path);
    } else {
      checkLogBeside(at, path);
      await createDataFile(path);
      syncDirectoryNow(at);
      prepareFiles(path);
    }
    const dbs = await openDatabases(path, false);
    try {
      return await openEngine(dbs, owner, options);
    } catch (error) {
      await dbs.env.close();
      throw error;
    }
  } catch (cause) {
    // While the descriptor in the path still has its name.
    const error = fileError('open', path, cause);
    owner.release();
    throw error;
  }
}

async function openEngine(dbs: Databases, owner: Owner, options: LmdbEngineOptions): Promise<CoreEngine> {
  const { graph, indexer } = options;
  const dir = owner.directory.at;
  const path = dataPath(dir);
  const warn = (message: string): void => options.warn?.(shown(message));
  bringUp(dbs, path, warn);
  const state: StoreState = readState(dbs) ?? { clean: true };
  if (!state.clean) warn(`${path} was not closed by its last owner`);
  if (statSync(path).nlink > 1) {
    // A copy by `cp -al`, or a backup that links what seems unchanged.
    warn(
      `${path} has another name, by a hard link: what is written here changes that, too; copy it, or use a backup`,
    );
  }
  // Nothing is changed before it is known that the log is whole.
  const recovered = recoverLog(dir, {
    flushed: newestRevision(dbs, state),
    begun: state.log?.isBegun ? state.log.generation : undefined,
    hasMarks: state.log !== undefined,
    acceptsLoss: existsSync(acceptedLossPath(dir)),
  });
  if (recovered.loss !== undefined) warn(`${recovered.loss.message}; this was accepted`);
  const file = new DataFile(path, false);
  const readers = new Readers(owner.lock.fd, file.fd, dbs.env);
  dbs.readers = readers;
  try {
    // Opening need not wait for what the tree lacks: reads see it over the tree, which gets it later.
    const waiting = recovered.loss === undefined ? recovered.batches : bringIn(dbs, file, dir, recovered);
    const loaded = loadGraph(dbs, graph, indexer, state, warn);
    const known = loaded.rebuilt ? withoutCheckpoint(state) : state;
    const owned = own(dbs, file, dir, { state: known, recovered, waiting, loaded, warn });
    const { log } = owned;
    const storage = new LmdbStorage(dbs, file, log, path, loaded);
    for (const bytes of waiting) {
      const changes = overlay(storage, graph, bytes);
      storage.flusher.push(Buffer.from(new Uint8Array(bytes).buffer), changes, {
        background: false,
        others: false,
      });
    }
    storage.room = new Room(dir, file, log);
    const cleanStart = state.clean && recovered.batches.length === 0;
    return makeEngine(dbs, storage, {
      ...options,
      state: owned.state,
      log,
      loaded,
      cleanStart,
      warn,
      owner,
    });
  } catch (error) {
    readers.release();
    file.release();
    throw error;
  }
}

/** NoStore unless `dir` has one; FailedPrecondition when there was one, which has lost its data file. */
export function requireStore(dir: string): void {
  const path = dataPath(dir);
  if (inspectDataFile(path)) return;
  checkLogBeside(dir, path);
  throw new NoStore('directory', dir);
}

/** A new data file must not begin where a lost one ended: the log has only what came after that one. */
function checkLogBeside(dir: string, path: string): void {
  try {
    // From the first commit on, the log is all there is to know.
    recoverLog(dir, { flushed: 0 });
  } catch (cause) {
    if (!isKind(cause, 'Unknown')) throw cause;
    throw failedPrecondition(
      `${shown(path)} is missing or empty, but the write-ahead log beside it goes on with it`,
      {
        object: shown(path),
        remedy: 'restore meta.mdb; to begin an empty store instead, move log.0 and log.1 away',
        cause,
      },
    );
  }
}

/** An older layout had no log. */
function bringUp(dbs: Databases, path: string, warn: (message: string) => void): void {
  if (layoutOf(dbs) === LAYOUT) return;
  const file = new DataFile(path, false);
  try {
    if (upgrade(dbs, file)) warn(`${path} was brought to layout ${LAYOUT}`);
  } catch (error) {
    throw writeError(path, error);
  } finally {
    file.release();
  }
}

/** Brings what a loss has left of the log into the tree at once: the log begins anew. Unavailable: no room for it. */
function bringIn(dbs: Databases, file: DataFile, dir: string, { batches }: Recovered): [] {
  try {
    for (let at = 0; at < batches.length; at += BATCHES_AT_ONCE) {
      flushBatches(dbs, file, batches.slice(at, at + BATCHES_AT_ONCE));
    }
  } catch (cause) {
    const error = writeError(dataPath(dir), cause);
    throw error.kind === 'Unavailable' ? noRoomAfterLoss(dir) : error;
  }
  dbs.env.resetReadTxn();
  return [];
}
const BATCHES_AT_ONCE = 512;

const noRoomAfterLoss = (dir: string) =>
  unavailable(`${dir} has no room to go on without the commits that are missing`, {
    object: dir,
    remedy: 'free disk space and try again',
  });

const withoutCheckpoint = ({ checkpoint: _, ...state }: StoreState): StoreState => state;

/**
 * Makes the log ready and stores the owner in the tree. At every moment what the tree says of the log is true: it ceases to rely
 * on it before it is emptied, and relies on it again when it has its mark. On a full disk what is stored may be missing.
 */
function own(
  dbs: Databases,
  file: DataFile,
  dir: string,
  options: {
    state: StoreState;
    recovered: Recovered;
    waiting: readonly Buffer[];
    loaded: LoadedGraph;
    warn: (message: string) => void;
  },
): { log: Wal; state: StoreState } {
  const { recovered, waiting, loaded, warn } = options;
  let { state } = options;
  const stored = (next: StoreState): boolean => {
    try {
      writeState(dbs, file, next);
      state = next;
      return true;
    } catch (cause) {
      const error = writeError('the store', cause);
      if (error.kind !== 'Unavailable') throw error;
      warn(error.message);
      return false;
    }
  };
  const generation = Math.max(recovered.generation, state.log?.generation ?? 0);
  const log = new Wal(dir, generation, loaded.revision);
  const isFree =
    waiting.length === 0 &&
    (!state.log?.isBegun || stored({ ...state, log: { generation, isBegun: false } }));
  if (!isFree && recovered.loss !== undefined) throw noRoomAfterLoss(dir);
  let isBegun = true;
  if (isFree) isBegun = log.begin();
  else log.resume(recovered);
  // True whenever it gets there: with a checkpoint at the latest.
  const open = { ...state, clean: false, log: { generation: log.generation, isBegun } };
  stored(open);
  if (existsSync(acceptedLossPath(dir))) {
    rmSync(acceptedLossPath(dir));
    syncDirectoryNow(dir);
  }
  return { log, state: open };
}

function makeEngine(
  dbs: Databases,
  storage: LmdbStorage,
  options: LmdbEngineOptions & {
    state: StoreState;
    log: Wal;
    loaded: LoadedGraph;
    cleanStart: boolean;
    warn: (message: string) => void;
    owner: Owner;
  },
): CoreEngine {
  const { state, log, loaded, warn, owner, afterClose } = options;
  const engine = new CoreEngine({
    ...options,
    kind: 'lmdb',
    storage,
    revision: storage.revision(),
  });
  const checkpointer = new Checkpointer(dbs, () => engine.graph, storage, {
    state,
    journalBytes: loaded.journalBytes,
    revision: () => engine.revision,
    logGeneration: () => log.generation,
    warn,
  });
  storage.onFlushed = (bytes) => checkpointer.grown(bytes);
  storage.onClose = (isWhole) => checkpointer.close(isWhole, afterClose !== undefined);
  storage.copyTo = (target, taken) => copyOpenTree(dbs, storage, target, taken);
  if (afterClose !== undefined) storage.beforeRelease = () => afterClose(dataPath(owner.directory.at));
  storage.journalBytes = () => checkpointer.journalBytes;
  storage.onTrouble = warn;
  storage.verifyPlace = () => {
    owner.verify();
    if (!log.isOurs) throw writtenInto(owner.directory.path);
  };
  storage.afterClose = () => owner.release();
  return engine;
}
