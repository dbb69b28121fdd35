/**
 * Opens another program's root: containerd's records as of one moment in a memory engine, with its content
 * and its snapshotters, which are only read. Called by the command line. Nothing is locked, created or
 * changed there, and the owner may be running.
 */
import { readdir } from 'node:fs/promises';
import type { DB } from '../db.js';
import type { DBOpt } from '../db-options.js';
import { leaf } from '../engine/schema/keys.js';
import { type Instant, now } from '../model/time.js';
import { newDB } from '../open.js';
import { type BuildCache, readBuildCache } from './build-cache.js';
import { ForeignContent } from './content.js';
import { type Loaded, loadMetadata } from './load/load.js';
import { findPlaces, type Places } from './places.js';
import { ForeignSnapshotter } from './snapshots/snapshotters.js';

export interface ForeignRoot {
  /** Covers all of the rest, and closes it. */
  readonly db: DB;
  readonly places: Places;
  /** What was made since may be missing in the records. */
  readonly readAt: Instant;
  readonly loaded: Loaded;
  readonly content: ForeignContent;
  readonly snapshotters: ReadonlyMap<string, ForeignSnapshotter>;
  readonly buildCache: BuildCache | undefined;
  /** Notices for the user about what is shown incompletely. */
  readonly notices: readonly string[];
}

const COMPLAINTS_SHOWN = 5;

/** Throws as `findPlaces` and `loadMetadata`; NotFound without a content directory. */
export async function openForeignRoot(directory: string, signal?: AbortSignal): Promise<ForeignRoot> {
  const places = await findPlaces(directory);
  const readAt = now();
  return await openParts(places, readAt, await loadMetadata(places.metadata, { signal }), signal);
}

async function openParts(
  places: Places,
  readAt: Instant,
  loaded: Loaded,
  signal: AbortSignal | undefined,
): Promise<ForeignRoot> {
  const notices = loaded.complaints.slice(0, COMPLAINTS_SHOWN);
  const more = loaded.complaints.length - notices.length;
  if (more > 0) notices.push(`${more} more records cannot be read in full`);
  try {
    const content = await ForeignContent.open(places.content, (_level, message) => notices.push(message));
    const used = snapshottersIn(loaded);
    const snapshotters = new Map<string, ForeignSnapshotter>();
    for (const name of [...new Set([...places.snapshotters.keys(), ...used])].sort()) {
      const complain = (what: string) => notices.push(`snapshotter ${name}: ${what}`);
      const path = places.snapshotters.get(name);
      // Each built-in snapshotter has a directory, even if it is not used.
      if (!used.has(name) && !(await hasMetadata(path))) continue;
      // After the records: a snapshot is made before its record, and would be missing.
      snapshotters.set(name, await ForeignSnapshotter.open(name, path, complain, signal));
    }
    // After the leases, which are made before what they keep is recorded.
    const buildCache = await readBuildCache(places, (what) => notices.push(what), signal);
    // An expiry by a clock that was set is for the owner's collection to judge, so there is no grace here.
    const opts: DBOpt = { expiryGraceMs: 0, log: () => undefined };
    const db = await newDB(undefined, loaded.engine, content, Object.fromEntries(snapshotters), opts);
    return { db, places, readAt, loaded, content, snapshotters, buildCache, notices };
  } catch (error) {
    await loaded.engine.close();
    throw error;
  }
}

function snapshottersIn({ engine }: Loaded): Set<string> {
  return new Set([...engine.scan('snapshotters')].map(([record]) => leaf(record)));
}

async function hasMetadata(directory: string | undefined): Promise<boolean> {
  if (directory === undefined) return false;
  const names = await readdir(directory).catch((): string[] => []);
  return names.includes('metadata.db');
}
