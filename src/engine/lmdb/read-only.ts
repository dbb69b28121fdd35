/**
 * A store that is only read: one state of it, without a byte written. On a file system that is mounted read-only, as another
 * user, or beside the process that owns it and goes on. Called by engine.ts.
 *
 * The state is the tree's, and over it what the write-ahead log has that the tree lacks. The owner moves commits from one to the
 * other meanwhile, so the order counts: first the log is read, then the state of the tree is taken. A commit that was
 * acknowledged before is in the log then, or was brought into the tree before the log was read. If the two do not follow one
 * another (the log went on in its other file between two reads), both are taken again.
 *
 * The state of the tree stays as it is because the owner knows of its readers (system/lmdb/readers.ts).
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { unavailable } from '../../errors.js';
import { shown } from '../../held-paths.js';
import { HeldDirectory } from '../../system/held-directory.js';
import { newestTransaction, ReaderSeat, takeNewest } from '../../system/lmdb/readers.js';
import type { EngineOptions } from '../contract.js';
import { CoreEngine } from '../core/engine.js';
import { readState, type StoreState } from './checkpoint.js';
import { DataFile, dataPath, fileError, LOCK } from './disk/files.js';
import { loadGraph, newestRevision } from './graph-loader.js';
import { LmdbStorage } from './storage.js';
import { checkLayout, type Databases, openDatabases } from './tree/databases.js';
import { acceptedLossPath, type Recovered, readLog, recoverLog } from './wal/recovery.js';
import { overlay } from './wal-replay.js';

/** Attempts to find log and tree in one piece, and pauses between them, while an owner writes. */
const ATTEMPTS_MAX = 40;
const PAUSE_MS = 50;

/** Errors as those of opening to write; Unavailable beside an owner that does not know of readers, or writes too fast. */
export async function openReadOnlyEngine(dir: string, options: EngineOptions): Promise<CoreEngine> {
  const directory = HeldDirectory.open(dir);
  const path = dataPath(directory.at);
  let seat: ReaderSeat | undefined;
  try {
    seat = ReaderSeat.take(join(directory.at, LOCK), path);
    await checkLayout(path, true);
    const dbs = await openDatabases(path, true);
    try {
      return await openEngine(dbs, { directory, path, seat }, options);
    } catch (error) {
      await dbs.env.close();
      throw error;
    }
  } catch (cause) {
    // While the descriptor in the path still has its name.
    const error = fileError('read', path, cause);
    seat?.leave();
    directory.release();
    throw error;
  }
}

async function openEngine(dbs: Databases, place: Place, options: EngineOptions): Promise<CoreEngine> {
  const { graph, indexer } = options;
  const warn = (message: string): void => options.warn?.(shown(message));
  const { state, recovered, isOwned: hasOwner } = await takeState(dbs, place);
  if (recovered.loss !== undefined) warn(`${recovered.loss.message}; this was accepted`);
  const file = new DataFile(place.path, true);
  try {
    const loaded = loadGraph(dbs, graph, indexer, state, warn);
    const storage = new LmdbStorage(dbs, file, undefined, place.path, loaded);
    for (const batch of recovered.batches) overlay(storage, graph, batch);
    storage.journalBytes = () => loaded.journalBytes;
    storage.onTrouble = warn;
    place.seat.leaveOnRequest((why) => dbs.snapshot?.end(why));
    storage.afterClose = () => {
      place.seat.leave();
      place.directory.release();
    };
    return new CoreEngine({
      ...options,
      kind: 'lmdb',
      readOnly: true,
      storage,
      revision: storage.revision(),
      // Of a store in use it cannot be said.
      cleanStart: hasOwner || (state.clean && recovered.batches.length === 0),
    });
  } catch (error) {
    file.release();
    throw error;
  }
}

interface Taken {
  readonly state: StoreState;
  readonly recovered: Recovered;
  readonly isOwned: boolean;
}

async function takeState(dbs: Databases, place: Place): Promise<Taken> {
  for (let attempt = 1; ; attempt++) {
    const before = look(place);
    try {
      return { ...tryTakeState(dbs, place, before.isOwned), isOwned: before.isOwned };
    } catch (cause) {
      const after = look(place);
      const isMoving = before.isOwned || after.isOwned || before.transaction !== after.transaction;
      if (!isMoving) throw cause;
      if (attempt === ATTEMPTS_MAX) {
        throw unavailable(`the store in ${place.directory.path} changes too fast to be read`, {
          object: place.directory.path,
          remedy: 'try again; if it stays, look at the store in the process that has it open',
          cause,
        });
      }
    }
    await sleep(PAUSE_MS);
  }
}

function tryTakeState(
  dbs: Databases,
  { directory: { at }, path }: Place,
  hasOwner: boolean,
): Omit<Taken, 'isOwned'> {
  const log = readLog(at);
  if (dbs.snapshot !== undefined) takeNewest(dbs.snapshot, path);
  const state = readState(dbs) ?? { clean: true };
  const recovered = recoverLog(
    at,
    {
      flushed: newestRevision(dbs, state),
      begun: state.log?.isBegun ? state.log.generation : undefined,
      acceptsLoss: !hasOwner && existsSync(acceptedLossPath(at)),
    },
    log,
  );
  return { state, recovered };
}

/** The directory of a store, and the seat of this reader. */
interface Place {
  readonly directory: HeldDirectory;
  /** Of the data file. */
  readonly path: string;
  readonly seat: ReaderSeat;
}

const look = ({ seat, path }: Place): { isOwned: boolean; transaction: number } => ({
  isOwned: seat.isOwned,
  transaction: newestTransaction(path),
});
