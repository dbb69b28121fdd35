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
import { EbbtideError, failedPrecondition, notFound, unknownError } from '../../errors.js';
import type { LockFile } from '../../system/lmdb/readers.js';
import { fsError } from '../../system/system-errors.js';
import {
  added,
  MetaTransaction,
  SEQUENCE_KEY,
  type Snapshots,
  sequenceRow,
  type Tables,
} from './metastore-change.js';
import { MetastoreFile, type TableWrite } from './metastore-file.js';
import { decodeSnapshot, idBytes, keyBytes, type StoredSnapshot } from './metastore-records.js';

export type { StoredSnapshot } from './metastore-records.js';

const FORMAT = 1;
const TABLES = 8;
const FORMAT_KEY = Buffer.from('format');
/** Number of recent commits that are kept: far more than are ever under way at once. */
const MAX_LAST_ACTIVE = 1024;
/** Parents that are cached, some 50 bytes each. */
const MAX_KNOWN_PARENTS = 100_000;

export class Metastore implements Snapshots {
  /** False when this open created the file. */
  readonly existed: boolean;
  readonly #file: MetastoreFile;
  readonly #tables: Tables;
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
    this.#tables = {
      snapshots: file.table('snapshots'),
      keys: file.table('keys'),
      parents: file.table('parents'),
      meta: file.table('meta'),
    };
    file.take();
    const stored = this.#tables.meta.getBinary(SEQUENCE_KEY);
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
    const stored = this.#tables.meta.getBinary(FORMAT_KEY);
    if (stored === undefined) {
      await this.#file.write([{ table: this.#tables.meta, key: FORMAT_KEY, value: Buffer.from([FORMAT]) }]);
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
    const id = this.#tables.keys.getBinary(keyBytes(key));
    return id === undefined ? undefined : this.byId(id.readUIntBE(0, id.length));
  }

  get(key: string): StoredSnapshot {
    const found = this.find(key);
    if (found === undefined) throw notFound(`snapshot "${key}" does not exist`, { object: key });
    return found;
  }

  byId(id: number): StoredSnapshot | undefined {
    this.#assertOpen();
    const bytes = this.#tables.snapshots.getBinary(idBytes(id));
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
    for (const _ of this.#tables.parents.getKeys({ start, end, limit: 1 })) return true;
    return false;
  }

  has(id: number): boolean {
    this.#assertOpen();
    return this.#tables.snapshots.doesExist(idBytes(id));
  }

  /** The next snapshots in the order of their ids, for walks in steps. */
  after(id: number, limit: number): StoredSnapshot[] {
    this.#assertOpen();
    const found: StoredSnapshot[] = [];
    for (const { key, value } of this.#tables.snapshots.getRange({ start: idBytes(id + 1), limit })) {
      found.push(decodeSnapshot(key.readUIntBE(0, key.length), value));
    }
    return found;
  }

  /** Ids of all snapshots, ascending. Cost is linear in their number. */
  ids(): number[] {
    this.#assertOpen();
    return [...this.#tables.snapshots.getKeys().map((key) => key.readUIntBE(0, key.length))];
  }

  /**
   * Runs `body` exclusively and commits the changes of its transaction when it resolves; a body that throws
   * changes nothing. Unavailable when the commit fails; nothing is changed then either.
   */
  write<T>(body: (tx: MetaTransaction) => Promise<T> | T): Promise<T> {
    const run = this.#tail.then(async () => {
      this.#assertOpen();
      const tx = new MetaTransaction(this, this.#tables);
      const result = await body(tx);
      const writes = tx.end();
      if (writes.length > 0) await this.#file.write(writes);
      return result;
    });
    this.#tail = run.catch(() => undefined);
    return run;
  }

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
      const bytes = read(this.#tables.snapshots, idBytes(id));
      return bytes === undefined ? undefined : decodeSnapshot(id, bytes);
    };
    const find = (key: string): StoredSnapshot | undefined => {
      const id = key === '' ? undefined : read(this.#tables.keys, keyBytes(key));
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
    for (const snapshot of snapshots) {
      writes.push(...added(this.#tables, snapshot));
      if (writes.length >= WRITES_AT_ONCE) await write();
    }
    writes.push(sequenceRow(this.#tables, sequence));
    await write();
  }

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
