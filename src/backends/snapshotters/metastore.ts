/**
 * The metastore of a snapshotter: its snapshots, their parents, and the directory of each. A small LMDB file
 * of its own, separate from the store of records. Called by the snapshotters.
 *
 *   snapshots  id → record (JSON)          keys     key → id
 *   parents    parent id, child id → ''    meta     `sequence` → last id issued, `format`
 *
 * Reads are synchronous and see the newest committed state. Writes run one after another through `write`,
 * whose body may work on directories before the commit: a scan of the directories in another body therefore
 * never sees a directory whose record is not committed yet. A resolved write is on disk.
 */
import {
  alreadyExists,
  EbbtideError,
  failedPrecondition,
  invalidArgument,
  notFound,
  unknownError,
} from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import { now, nowAfter } from '../../model/time.js';
import type { LockFile } from '../../system/lmdb-readers.js';
import { fsError } from '../../system/system-errors.js';
import type { Usage } from '../contract.js';
import { MetastoreFile, type Table, type TableWrite } from './metastore-file.js';
import {
  decodeSnapshot,
  encodeSnapshot,
  idBytes,
  keyBytes,
  type StoredSnapshot,
} from './metastore-records.js';

export type { StoredSnapshot } from './metastore-records.js';

const FORMAT = 1;
const TABLES = 8;
const FORMAT_KEY = Buffer.from('format');
const SEQUENCE_KEY = Buffer.from('sequence');
const PRESENT = Buffer.from([1]);
/** Number of recent commits that are kept: far more than are ever under way at once. */
const MAX_LAST_ACTIVE = 1024;
/** Parents that are cached, some 50 bytes each. */
const MAX_KNOWN_PARENTS = 100_000;

export interface Created {
  id: number;
  /** Ids of the ancestors, nearest first. */
  parents: number[];
}

export class Metastore {
  /** False when this open created the file. */
  readonly existed: boolean;
  readonly #file: MetastoreFile;
  readonly #snapshots: Table;
  readonly #keys: Table;
  readonly #parents: Table;
  readonly #meta: Table;
  #sequence: number;
  /** Parents of committed snapshots, by id: neither changes any more, and ids are never reused. */
  readonly #knownParents = new Map<number, number>();
  /** Snapshots before their commit, by their key then; of the most recent commits. */
  readonly #lastActive = new Map<string, StoredSnapshot>();
  #tail: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  private constructor(file: MetastoreFile) {
    this.#file = file;
    this.existed = file.existed;
    this.#snapshots = file.table('snapshots');
    this.#keys = file.table('keys');
    this.#parents = file.table('parents');
    this.#meta = file.table('meta');
    file.take();
    const stored = this.#meta.getBinary(SEQUENCE_KEY);
    this.#sequence = stored === undefined ? 0 : stored.readUIntBE(0, stored.length);
  }

  /** Opens (or creates) the file. Errors: not ours, damaged, of a newer version, no access. */
  static async open(path: string, lock?: LockFile): Promise<Metastore> {
    return Metastore.#of(await MetastoreFile.open(path, TABLES, lock));
  }

  /**
   * One state of an existing file, which may have an owner: changes are FailedPrecondition. NotFound: there
   * is not a file.
   */
  static openToRead(path: string): Promise<Metastore> {
    return Metastore.#of(MetastoreFile.openToRead(path, TABLES));
  }

  static async #of(file: MetastoreFile): Promise<Metastore> {
    try {
      const store = new Metastore(file);
      await store.#checkFormat();
      return store;
    } catch (error) {
      await file.close();
      throw error instanceof EbbtideError ? error : fsError('open the snapshot metadata', file.path, error);
    }
  }

  async #checkFormat(): Promise<void> {
    const stored = this.#meta.getBinary(FORMAT_KEY);
    if (stored === undefined) {
      await this.#file.write([{ table: this.#meta, key: FORMAT_KEY, value: Buffer.from([FORMAT]) }]);
    } else if (stored[0] !== FORMAT) {
      throw failedPrecondition(`${this.#file.path} has format ${stored[0]}, this version knows ${FORMAT}`, {
        object: this.#file.path,
        remedy: 'open it with the newer version that wrote it',
      });
    }
  }

  /** Read-only files: reads fail with this from now on. */
  end(why: Error): void {
    this.#file.end(why);
  }

  /** The last id issued. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Never issues ids up to this one, because their directories exist. */
  skipTo(id: number): void {
    this.#sequence = Math.max(this.#sequence, id);
  }

  find(key: string): StoredSnapshot | undefined {
    this.#assertOpen();
    if (key === '') return undefined;
    const id = this.#keys.getBinary(keyBytes(key));
    return id === undefined ? undefined : this.byId(id.readUIntBE(0, id.length));
  }

  /** NotFound when there is none. */
  get(key: string): StoredSnapshot {
    const found = this.find(key);
    if (found === undefined) throw notFound(`snapshot "${key}" does not exist`, { object: key });
    return found;
  }

  byId(id: number): StoredSnapshot | undefined {
    this.#assertOpen();
    const bytes = this.#snapshots.getBinary(idBytes(id));
    return bytes === undefined ? undefined : decodeSnapshot(id, bytes);
  }

  /** Key of the parent, '' when there is none. */
  parentKey(snapshot: StoredSnapshot): string {
    if (snapshot.parent === 0) return '';
    return (this.byId(snapshot.parent) ?? this.#lostParent(snapshot.key, snapshot.parent)).key;
  }

  #lostParent(key: string, parent: number): never {
    throw unknownError(`snapshot "${key}" has lost its parent, number ${parent}`, { object: key });
  }

  /** Ids of the ancestors, nearest first. */
  ancestors(snapshot: StoredSnapshot): number[] {
    const chain: number[] = [];
    for (let id = snapshot.parent; id !== 0; id = this.#parentOf(id, chain.at(-2), snapshot)) chain.push(id);
    return chain;
  }

  /**
   * @param child the one whose parent `id` is
   * @param snapshot checked for existence: undefined throws
   */
  #parentOf(id: number, child: number | undefined, snapshot: StoredSnapshot): number {
    const known = this.#knownParents.get(id);
    if (known !== undefined) return known;
    const found = this.byId(id);
    if (found === undefined) {
      const key = child === undefined ? snapshot.key : this.byId(child)?.key;
      return this.#lostParent(key ?? snapshot.key, id);
    }
    if (found.kind === 'committed') {
      if (this.#knownParents.size >= MAX_KNOWN_PARENTS) this.#knownParents.clear();
      this.#knownParents.set(id, found.parent);
    }
    return found.parent;
  }

  hasChildren(id: number): boolean {
    const start = Buffer.concat([idBytes(id), idBytes(0)]);
    const end = Buffer.concat([idBytes(id + 1), idBytes(0)]);
    for (const _ of this.#parents.getKeys({ start, end, limit: 1 })) return true;
    return false;
  }

  has(id: number): boolean {
    this.#assertOpen();
    return this.#snapshots.doesExist(idBytes(id));
  }

  /** The next snapshots in the order of their ids, for walks in steps. */
  after(id: number, limit: number): StoredSnapshot[] {
    this.#assertOpen();
    const found: StoredSnapshot[] = [];
    for (const { key, value } of this.#snapshots.getRange({ start: idBytes(id + 1), limit })) {
      found.push(decodeSnapshot(key.readUIntBE(0, key.length), value));
    }
    return found;
  }

  /** Ids of all snapshots, ascending. Cost is linear in their number. */
  ids(): number[] {
    this.#assertOpen();
    return [...this.#snapshots.getKeys().map((key) => key.readUIntBE(0, key.length))];
  }

  /** Keys by id, to find the owners of directories. */
  idMap(): Map<number, string> {
    return new Map(this.ids().map((id) => [id, this.byId(id)?.key ?? '']));
  }

  /**
   * Runs `body` exclusively and commits the changes of its transaction when it resolves; a body that throws
   * changes nothing. Unavailable when the commit fails; nothing is changed then either.
   */
  write<T>(body: (tx: MetaTransaction) => Promise<T> | T): Promise<T> {
    const run = this.#tail.then(async () => {
      this.#assertOpen();
      const tx = new MetaTransaction(this, this.#tables());
      const result = await body(tx);
      const writes = tx.end();
      if (writes.length > 0) await this.#file.write(writes);
      return result;
    });
    this.#tail = run.catch(() => undefined);
    return run;
  }

  #tables(): Tables {
    return { snapshots: this.#snapshots, keys: this.#keys, parents: this.#parents, meta: this.#meta };
  }

  /** The next id. A failing transaction does not return it, so that no directory ever has two owners. */
  nextId(): number {
    this.#sequence += 1;
    return this.#sequence;
  }

  /**
   * The current state, until it is released. A snapshot that has just been committed is also found by its
   * previous key, in its previous state: the record that names it so may not be updated yet.
   */
  freeze(): FrozenMetastore {
    this.#assertOpen();
    const { read, release } = this.#file.freeze();
    const lastActive = new Map(this.#lastActive);
    const byId = (id: number): StoredSnapshot | undefined => {
      const bytes = read(this.#snapshots, idBytes(id));
      return bytes === undefined ? undefined : decodeSnapshot(id, bytes);
    };
    const find = (key: string): StoredSnapshot | undefined => {
      const id = key === '' ? undefined : read(this.#keys, keyBytes(key));
      return id === undefined ? lastActive.get(key) : byId(id.readUIntBE(0, id.length));
    };
    return { sequence: this.#sequence, byId, find, release };
  }

  /** Copies the snapshots of another metastore, with their ids. REQUIRES: it is new and has no other user. */
  async fill(sequence: number, snapshots: Iterable<StoredSnapshot>): Promise<void> {
    let writes: TableWrite[] = [];
    const write = async (): Promise<void> => {
      await this.#file.write(writes);
      writes = [];
    };
    for (const { id, key, parent, ...rest } of snapshots) {
      const value = encodeSnapshot({ id, key, parent, ...rest });
      writes.push({ table: this.#snapshots, key: idBytes(id), value });
      writes.push({ table: this.#keys, key: keyBytes(key), value: idBytes(id) });
      if (parent !== 0) writes.push({ table: this.#parents, key: linkBytes(parent, id), value: PRESENT });
      if (writes.length >= WRITES_AT_ONCE) await write();
    }
    writes.push({ table: this.#meta, key: SEQUENCE_KEY, value: idBytes(sequence) });
    await write();
  }

  /** Called before the commit of a snapshot is written. */
  remember(active: StoredSnapshot): void {
    for (const key of this.#lastActive.keys()) {
      if (this.#lastActive.size < MAX_LAST_ACTIVE) break;
      this.#lastActive.delete(key);
    }
    this.#lastActive.set(active.key, active);
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw failedPrecondition('the snapshotter is closed');
  }

  /** Waits for the writes under way. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#tail.then(() => this.#file.close());
    return this.#closing;
  }
}

const WRITES_AT_ONCE = 4096;

/** The state of a metastore at one moment. */
export interface FrozenMetastore {
  readonly sequence: number;
  byId(id: number): StoredSnapshot | undefined;
  find(key: string): StoredSnapshot | undefined;
  /** Call it soon: until then no pages are freed, and the file grows. */
  release(): void;
}

interface Tables {
  snapshots: Table;
  keys: Table;
  parents: Table;
  meta: Table;
}

/** One change to the metastore: the checks of an operation, and the entries it writes. */
export class MetaTransaction {
  readonly #store: Metastore;
  readonly #tables: Tables;
  readonly #writes: TableWrite[] = [];
  #ended = false;

  constructor(store: Metastore, tables: Tables) {
    this.#store = store;
    this.#tables = tables;
  }

  /** The entries to commit; the transaction is unusable afterwards. */
  end(): TableWrite[] {
    this.#ended = true;
    return this.#writes;
  }

  /**
   * Records a new active snapshot or view. Parent unknown: NotFound; parent not committed: InvalidArgument; key
   * in use: AlreadyExists; key empty: InvalidArgument.
   */
  create(kind: 'active' | 'view', key: string, parentKey: string, labels: StringMap | undefined): Created {
    this.#begin();
    const parent = checkCreate(this.#store, key, parentKey);
    const id = this.#store.nextId();
    const time = now();
    this.#put({
      id,
      key,
      kind,
      parent: parent?.id ?? 0,
      created: time,
      updated: time,
      labels,
      inodes: 0,
      size: 0,
    });
    this.#writes.push(
      { table: this.#tables.keys, key: keyBytes(key), value: idBytes(id) },
      { table: this.#tables.meta, key: SEQUENCE_KEY, value: idBytes(id) },
    );
    if (parent === undefined) return { id, parents: [] };
    this.#link(parent.id, id);
    return { id, parents: [parent.id, ...this.#store.ancestors(parent)] };
  }

  /**
   * Commits the active snapshot `key` as the snapshot `name`, with the same id. `rebase` is a parent for one
   * that has none; the parent it has already is accepted as well.
   */
  commit(
    name: string,
    key: string,
    usage: Usage,
    labels: StringMap | undefined,
    rebase = '',
  ): StoredSnapshot {
    this.#begin();
    const active = checkCommit(this.#store, name, key);
    const parent = this.#rebased(active, rebase);
    const time = now();
    const committed: StoredSnapshot = {
      ...active,
      key: name,
      kind: 'committed',
      parent,
      created: time,
      updated: time,
      labels,
      inodes: usage.inodes,
      size: usage.size,
    };
    this.#put(committed);
    this.#writes.push(
      { table: this.#tables.keys, key: keyBytes(key) },
      { table: this.#tables.keys, key: keyBytes(name), value: idBytes(active.id) },
    );
    if (parent !== active.parent) this.#link(parent, active.id);
    this.#store.remember(active);
    return committed;
  }

  #rebased(active: StoredSnapshot, parentKey: string): number {
    if (parentKey === '') return active.parent;
    const parent = this.#store.find(parentKey);
    if (active.parent !== 0 && parent?.id !== active.parent) {
      throw invalidArgument(`snapshot "${active.key}" does not have the parent "${parentKey}"`, {
        object: active.key,
        remedy: 'only a snapshot without a parent can be given one when it is committed',
      });
    }
    if (parent === undefined) {
      throw notFound(`parent snapshot "${parentKey}" does not exist`, { object: parentKey });
    }
    if (parent.kind !== 'committed') {
      throw failedPrecondition(`parent snapshot "${parentKey}" is not committed`, { object: parentKey });
    }
    return parent.id;
  }

  /** NotFound; FailedPrecondition while it has children. Returns what was removed. */
  remove(key: string): StoredSnapshot {
    this.#begin();
    const snapshot = this.#store.get(key);
    if (this.#store.hasChildren(snapshot.id)) {
      throw failedPrecondition(`cannot remove snapshot "${key}": it has children`, {
        object: key,
        remedy: 'remove its children first',
      });
    }
    this.#writes.push(
      { table: this.#tables.snapshots, key: idBytes(snapshot.id) },
      { table: this.#tables.keys, key: keyBytes(key) },
    );
    if (snapshot.parent !== 0) {
      this.#writes.push({ table: this.#tables.parents, key: linkBytes(snapshot.parent, snapshot.id) });
    }
    return snapshot;
  }

  /** Replaces the labels by the result of `change` and advances the time of the last update. NotFound. */
  relabel(key: string, change: (labels: StringMap | undefined) => StringMap | undefined): StoredSnapshot {
    this.#begin();
    const snapshot = this.#store.get(key);
    const changed = { ...snapshot, labels: change(snapshot.labels), updated: nowAfter(snapshot.updated) };
    this.#put(changed);
    return changed;
  }

  /** Reads see committed state only, so a transaction may make only one change. */
  #begin(): void {
    if (this.#ended || this.#writes.length > 0)
      throw unknownError('a metastore transaction may make only one change');
  }

  #put(snapshot: StoredSnapshot): void {
    const value = encodeSnapshot(snapshot);
    this.#writes.push({ table: this.#tables.snapshots, key: idBytes(snapshot.id), value });
  }

  #link(parent: number, child: number): void {
    this.#writes.push({ table: this.#tables.parents, key: linkBytes(parent, child), value: PRESENT });
  }
}

const linkBytes = (parent: number, child: number): Buffer => Buffer.concat([idBytes(parent), idBytes(child)]);

/**
 * The preconditions for creating a snapshot; returns its parent. Also checked before the work on directories.
 */
export function checkCreate(store: Metastore, key: string, parentKey: string): StoredSnapshot | undefined {
  keyBytes(key);
  const parent = parentKey === '' ? undefined : store.find(parentKey);
  if (parentKey !== '' && parent === undefined) {
    throw notFound(`parent snapshot "${parentKey}" does not exist`, { object: parentKey });
  }
  if (parent !== undefined && parent.kind !== 'committed') {
    throw invalidArgument(`parent snapshot "${parentKey}" is ${parent.kind}, not committed`, {
      object: parentKey,
      remedy: 'commit the parent first',
    });
  }
  if (store.find(key) !== undefined) {
    throw alreadyExists(`snapshot "${key}" already exists`, { object: key });
  }
  return parent;
}

/**
 * The preconditions for committing `key` as `name`, except those on the parent; returns the active snapshot.
 */
export function checkCommit(store: Metastore, name: string, key: string): StoredSnapshot {
  keyBytes(name);
  if (store.find(name) !== undefined) {
    throw alreadyExists(`snapshot "${name}" already exists`, { object: name });
  }
  const active = store.get(key);
  if (active.kind !== 'active') {
    throw failedPrecondition(`snapshot "${key}" is ${active.kind}, not active`, { object: key });
  }
  return active;
}
