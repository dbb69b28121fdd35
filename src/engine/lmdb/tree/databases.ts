/**
 * The LMDB environment of a store and its databases. Called by engine.ts.
 *
 * The free-list settings keep commits from reading a long free list each time (without them a commit of a file
 * with many free pages takes 70 ms). A batch resolves when it is flushed: overlapping flushes bring nothing when
 * commits are grouped anyway, and made a single caller slower.
 */
import { failedPrecondition } from '../../../errors.js';
import {
  type Database,
  open,
  openReadOnly,
  type RootDatabase,
  type Snapshot,
} from '../../../system/lmdb/lmdb.js';
import type { Readers } from '../../../system/lmdb/readers.js';
import type { ChildTable } from '../codec/child-links.js';
import { fileError, foreign } from '../disk/files.js';
import { Table } from './table.js';

type Bytes = Uint8Array;

export interface Databases {
  readonly env: RootDatabase;
  /** From keys to nodes (key-index.ts). */
  readonly keys: Table;
  readonly digests: Table;
  /** Node id → key, adjacency, value (node-codec.ts). */
  readonly nodes: Database<Bytes, number>;
  readonly links: Table;
  /** Links of children by ids (child-links.ts). */
  readonly children: ChildTable;
  readonly counters: Table;
  /** Revision (8 bytes, big-endian) → changes of the graph since the one before. */
  readonly journal: Database<Bytes, Bytes>;
  /** Slot and chunk number → part of a graph checkpoint. */
  readonly checkpoints: Database<Bytes, Bytes>;
  readonly meta: Database<Bytes, string>;
  /** What is read, of a file that is only read. */
  readonly snapshot: Snapshot | undefined;
  /** Of the owner: for readers beside it. */
  readers?: Readers;
}

/** How the file is laid out; apart from the schema revision, which says what the records mean. */
export const LAYOUT = 3;
const FORMAT = 'ebbtide';

const options = {
  noSubdir: true,
  maxDbs: 14,
  overlappingSync: false,
  // Every write is in a batch; the package's own batching by event turn would reject promises that no caller has.
  eventTurnBatching: false,
  maxFreeSpaceToLoad: 1000,
  maxFreeSpaceToRetain: 2000,
} as const;

/** Refuses a file of another program, of a newer layout, or (read-only) of an older one, without writing to it. */
export async function checkLayout(path: string, readOnly: boolean): Promise<void> {
  // The owner's may be opened without the addon as well.
  const { env } = readOnly ? openReadOnlyEnvironment(path) : { env: openEnvironment(path, true) };
  try {
    // In a file without it `openDB` returns undefined, whatever the typings say.
    const meta = env.openDB<Bytes, string>('meta', { encoding: 'binary' }) as
      | Database<Bytes, string>
      | undefined;
    checkFormat(path, readOnly, meta);
  } finally {
    await env.close();
  }
}

function checkFormat(path: string, readOnly: boolean, meta: Database<Bytes, string> | undefined): void {
  const stored = meta?.get('format');
  if (stored === undefined) throw foreign(path, 'it is an LMDB file of another program');
  const match = /^(\S+) (\d+)$/.exec(Buffer.from(stored).toString('latin1'));
  if (match === null || match[1] !== FORMAT) throw foreign(path, 'it is an LMDB file of another program');
  const layout = Number(match[2]);
  if (layout > LAYOUT) {
    throw failedPrecondition(`${path} has layout ${layout}; this version knows ${LAYOUT}`, {
      object: path,
      remedy: 'open it with the version that wrote it, or a newer one',
    });
  }
  if (layout < LAYOUT && readOnly) {
    throw failedPrecondition(`${path} has layout ${layout}, which is brought to ${LAYOUT} at opening`, {
      object: path,
      remedy: 'open it for writing once',
    });
  }
}

/** Layout of an open store. */
export function layoutOf({ meta }: Databases): number {
  const stored = meta.get('format');
  return stored === undefined ? LAYOUT : Number(Buffer.from(stored).toString('latin1').split(' ')[1]);
}

/** In a transaction. */
export function setLayout({ meta }: Databases): void {
  void meta.put('format', Buffer.from(`${FORMAT} ${LAYOUT}`));
}

/** A row as it is in the file. */
export interface RawRow {
  readonly database: (typeof NAMES)[number];
  readonly key: Uint8Array | number | string;
  readonly value: Bytes;
}

/** All rows of an open store. Of each, key and value are good until the next. */
export function* rawRows(dbs: Databases): Generator<RawRow> {
  const tables = rawTables(dbs);
  for (const database of NAMES) {
    for (const { key, value } of tables[database].getRange({})) yield { database, key, value };
  }
}

/** What takes the rows of each database. */
export function rawTables({ env }: Databases): Record<RawRow['database'], Database<Bytes, RawRow['key']>> {
  const table = (database: RawRow['database']): Database<Bytes, RawRow['key']> => {
    const keyEncoding = database === 'nodes' ? 'uint32' : database === 'meta' ? 'ordered-binary' : 'binary';
    return env.openDB<Bytes, RawRow['key']>(database, { keyEncoding, encoding: 'binary' });
  };
  const tables = NAMES.map((database) => [database, table(database)] as const);
  return Object.fromEntries(tables) as Record<RawRow['database'], Database<Bytes, RawRow['key']>>;
}

const NAMES = [
  'keys',
  'digests',
  'nodes',
  'links',
  'children',
  'counters',
  'journal',
  'checkpoints',
  'meta',
] as const satisfies readonly (keyof Databases)[];

export async function openDatabases(path: string, readOnly: boolean): Promise<Databases> {
  const { env, snapshot } = readOnly
    ? openReadOnlyEnvironment(path)
    : { env: openEnvironment(path, false), snapshot: undefined };
  const bytes = (name: string): Database<Bytes, Bytes> =>
    env.openDB<Bytes, Bytes>(name, { keyEncoding: 'binary', encoding: 'binary' });
  const databases: Databases = {
    env,
    keys: new Table(bytes('keys')),
    digests: new Table(bytes('digests')),
    nodes: env.openDB<Bytes, number>('nodes', { keyEncoding: 'uint32', encoding: 'binary' }),
    links: new Table(bytes('links')),
    children: bytes('children'),
    counters: new Table(bytes('counters')),
    journal: bytes('journal'),
    checkpoints: bytes('checkpoints'),
    meta: env.openDB<Bytes, string>('meta', { encoding: 'binary' }),
    snapshot,
  };
  // Last, so that a file with a format is a whole one.
  if (!readOnly && databases.meta.get('format') === undefined) {
    await databases.meta.put('format', Buffer.from(`${FORMAT} ${LAYOUT}`));
  }
  return databases;
}

function openEnvironment(path: string, readOnly: boolean): RootDatabase {
  try {
    return open({ ...options, path, readOnly });
  } catch (error) {
    throw fileError('open', path, error);
  }
}

function openReadOnlyEnvironment(path: string): ReturnType<typeof openReadOnly> {
  try {
    return openReadOnly({ ...options, path });
  } catch (error) {
    throw fileError('open', path, error);
  }
}
