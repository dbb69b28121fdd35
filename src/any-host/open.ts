/**
 * Another program's root, opened: containerd's records of one moment in a memory engine, beside its content and its snapshotters,
 * which are only read. Called by the command line. Nothing is locked, made or changed there, and the owner may run meanwhile.
 */
import { readdir } from 'node:fs/promises';
import type { DB } from '../db.js';
import type { DBOpt } from '../db-options.js';
import { leaf } from '../engine/schema/keys.js';
import { newDB } from '../open.js';
import { ForeignContent } from './content.js';
import { type Loaded, loadMetadata } from './load.js';
import { findPlaces, type Places } from './places.js';
import { ForeignSnapshotter } from './snapshotters.js';

export interface ForeignRoot {
  /** Over all of the rest, which it closes. */
  readonly db: DB;
  readonly places: Places;
  readonly loaded: Loaded;
  readonly content: ForeignContent;
  readonly snapshotters: ReadonlyMap<string, ForeignSnapshotter>;
  /** What is shown with less than all, for the user. */
  readonly notes: readonly string[];
}

const COMPLAINTS_SHOWN = 5;

/** As `findPlaces` and `loadMetadata`; NotFound without a content directory. */
export async function openForeignRoot(directory: string, signal?: AbortSignal): Promise<ForeignRoot> {
  const places = await findPlaces(directory);
  const loaded = await loadMetadata(places.metadata, signal);
  const notes = loaded.complaints.slice(0, COMPLAINTS_SHOWN);
  const more = loaded.complaints.length - notes.length;
  if (more > 0) notes.push(`${more} more records cannot be read in full`);
  try {
    const content = await ForeignContent.open(places.content, (_level, message) => notes.push(message));
    const used = snapshottersIn(loaded);
    const snapshotters = new Map<string, ForeignSnapshotter>();
    for (const name of [...new Set([...places.snapshotters.keys(), ...used])].sort()) {
      const complain = (what: string) => notes.push(`snapshotter ${name}: ${what}`);
      const path = places.snapshotters.get(name);
      // Each snapshotter that is built in has a directory, also where it is not used.
      if (!used.has(name) && !(await hasMetadata(path))) continue;
      snapshotters.set(name, await ForeignSnapshotter.open(name, path, complain, signal));
    }
    // What expires when a clock is set is for the owner's collection to judge: it has no grace.
    const opts: DBOpt = { expiryGraceMs: 0, log: () => undefined };
    const db = await newDB(undefined, loaded.engine, content, Object.fromEntries(snapshotters), opts);
    return { db, places, loaded, content, snapshotters, notes };
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
