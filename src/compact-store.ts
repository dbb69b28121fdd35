/** Compacts the records of a store that nobody has open. Called by embedders and the command. */
import { resolve } from 'node:path';
import type { Log } from './db-host.js';
import { type Compaction, compactLmdbStore } from './engine/lmdb/compact.js';
import { metadataIndexer } from './gc/references.js';
import { createGraph } from './graph/carriers.js';
import { NoStore } from './no-store.js';
import { layout } from './system/root-layout.js';

export type { Compaction } from './engine/lmdb/compact.js';

/**
 * Writes the file of the records anew, without what is free in it, and gives that back to the disk. Needs room for the new file
 * beside the old one. Unavailable: the store is in use, or there is no such room; nothing is changed then. NotFound: no store.
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
