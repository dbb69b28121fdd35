/**
 * The LMDB engine: the embedded store of a directory. Called by db.ts and by embedders.
 *
 * Durability: a commit is on disk when `update` resolves, unless `visible` was asked for: such a commit is on its way
 * there and may be lost, with those behind it, when the process or the machine dies within the next moments (`flush`
 * waits for it). A directory has one owner
 * process; a second one is refused. The data file is checked before LMDB may touch it.
 */
import type { EngineOptions } from '../contract.js';
import { CoreEngine } from '../core/engine.js';
import { Checkpointer, readState, type StoreState } from './checkpoint.js';
import { createDataFile } from './create.js';
import { checkLayout, type Databases, openDatabases } from './databases.js';
import { DataFile, dataPath, fileError, inspectDataFile, ownDirectory, syncDirectory } from './files.js';
import { loadGraph } from './graph-loader.js';
import { LmdbStorage } from './storage.js';

export interface LmdbEngineOptions extends EngineOptions {
  /** Opens an existing store for reading; writes are FailedPrecondition, and the files stay as they are. */
  readOnly?: boolean;
}

/**
 * Opens the store in `dir`, making both when missing. Unavailable: another process has it open. FailedPrecondition:
 * not a directory, no permission, not a store of this program, a newer layout. Unknown: truncated or damaged.
 * NotFound: nothing there, and read-only.
 */
export async function openLmdbEngine(dir: string, options: LmdbEngineOptions): Promise<CoreEngine> {
  const readOnly = options.readOnly ?? false;
  const path = dataPath(dir);
  const owner = ownDirectory(dir, readOnly);
  try {
    const exists = inspectDataFile(path);
    if (exists) await checkLayout(path);
    else if (readOnly)
      throw fileError('open', path, Object.assign(new Error('no such file'), { code: 'ENOENT' }));
    else {
      await createDataFile(path);
      syncDirectory(dir);
    }
    const dbs = await openDatabases(path, readOnly);
    try {
      return await openEngine(dbs, path, { ...options, readOnly }, owner.release);
    } catch (error) {
      await dbs.env.close();
      throw error;
    }
  } catch (error) {
    owner.release();
    throw error;
  }
}

async function openEngine(
  dbs: Databases,
  path: string,
  options: LmdbEngineOptions & { readOnly: boolean },
  release: () => void,
): Promise<CoreEngine> {
  const { graph, indexer, readOnly } = options;
  const warn = options.warn ?? (() => {});
  const state: StoreState = readState(dbs) ?? { clean: true };
  if (!state.clean) warn(`${path} was not closed by its last owner`);
  const loaded = loadGraph(dbs, graph, indexer, state, warn);
  const file = new DataFile(path, readOnly);
  const storage = new LmdbStorage(dbs, file, path, { revision: loaded.revision, records: loaded.records });
  const engine = new CoreEngine({
    ...options,
    kind: 'lmdb',
    storage,
    revision: loaded.revision,
    cleanStart: state.clean,
  });
  const checkpointer = new Checkpointer(dbs, graph, storage, {
    state: loaded.rebuilt ? { clean: state.clean } : state,
    journalBytes: loaded.journalBytes,
    revision: () => engine.revision,
    warn,
  });
  if (!readOnly) {
    storage.onStored = (bytes) => checkpointer.grown(bytes);
    try {
      await checkpointer.markOpen();
    } catch (error) {
      file.close();
      throw error;
    }
  }
  storage.onClose = async () => {
    if (!readOnly) await checkpointer.close();
  };
  storage.onLost = warn;
  storage.afterClose = release;
  return engine;
}
