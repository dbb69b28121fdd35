/** Compacts the records of a store that is not open. Called by embedders and the command. */
import { resolve } from 'node:path';
import type { Log } from './db-host.js';
import { type Compaction, compactLmdbStore } from './engine/lmdb/compact.js';
import { metadataIndexer } from './gc/references.js';
import { createGraph } from './graph/carriers.js';
import { NoStore } from './no-store.js';
import { layout } from './system/root-layout.js';

export type { Compaction } from './engine/lmdb/compact.js';

/**
 * Rewrites the file of the records without its free pages and with full ones, and frees their space. Needs space for the new
 * file beside the old one. Unavailable: the store is in use, or there is no such space; nothing is changed
 * then. NotFound: no store.
 */
export async function compactStore(root: string, options: { log?: Log } = {}): Promise<Compaction> {
  const path = resolve(root);
  try {
    return await compactLmdbStore(layout.database(path), {
      indexer: metadataIndexer,
      graph: createGraph(),
      warn: (message) => options.log?.('warn', message),
    });
  } catch (error) {
    throw error instanceof NoStore ? new NoStore(error.place, path) : error;
  }
}
