/**
 * One change of a metastore: the checks of an operation on snapshots, and the entries that it writes. Pure but for the ids that
 * it takes. Made by metastore.ts, which commits the entries; called by the snapshotters.
 */
import { alreadyExists, failedPrecondition, invalidArgument, notFound, unknownError } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import { now, nowAfter } from '../../model/time.js';
import type { Usage } from '../contract.js';
import type { Table, TableWrite } from './metastore-file.js';
import { encodeSnapshot, idBytes, keyBytes, type StoredSnapshot } from './metastore-records.js';

export const SEQUENCE_KEY = Buffer.from('sequence');
const PRESENT = Buffer.from([1]);

export interface Created {
  id: number;
  /** Ids of the ancestors, nearest first. */
  parents: number[];
}

/** The committed state of a metastore. */
export interface Snapshots {
  find(key: string): StoredSnapshot | undefined;
  /** NotFound when there is none. */
  get(key: string): StoredSnapshot;
  /** Ids, nearest first. */
  ancestors(snapshot: StoredSnapshot): number[];
  hasChildren(id: number): boolean;
  /** The next id. A failing transaction does not return it, so that no directory ever has two owners. */
  nextId(): number;
  /** Called before the commit of a snapshot is written. */
  remember(active: StoredSnapshot): void;
}

export interface Tables {
  snapshots: Table;
  keys: Table;
  parents: Table;
  meta: Table;
}

/** One change to the metastore: the checks of an operation, and the entries it writes. */
export class MetaTransaction {
  readonly #store: Snapshots;
  readonly #tables: Tables;
  readonly #writes: TableWrite[] = [];
  #ended = false;

  constructor(store: Snapshots, tables: Tables) {
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
    const made = {
      id,
      key,
      kind,
      parent: parent?.id ?? 0,
      created: time,
      updated: time,
      labels,
      inodes: 0,
      size: 0,
    };
    this.#writes.push(...added(this.#tables, made), sequenceRow(this.#tables, id));
    if (parent === undefined) return { id, parents: [] };
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
    if (parent !== active.parent) this.#writes.push(link(this.#tables, parent, active.id));
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
    this.#writes.push(record(this.#tables, snapshot));
  }
}

/** The entries of a snapshot that was not there. */
export function added(tables: Tables, snapshot: StoredSnapshot): TableWrite[] {
  const { id, key, parent } = snapshot;
  const entries = [record(tables, snapshot), { table: tables.keys, key: keyBytes(key), value: idBytes(id) }];
  if (parent !== 0) entries.push(link(tables, parent, id));
  return entries;
}

export const sequenceRow = ({ meta }: Tables, last: number): TableWrite => ({
  table: meta,
  key: SEQUENCE_KEY,
  value: idBytes(last),
});

const record = ({ snapshots }: Tables, snapshot: StoredSnapshot): TableWrite => ({
  table: snapshots,
  key: idBytes(snapshot.id),
  value: encodeSnapshot(snapshot),
});

const link = ({ parents }: Tables, parent: number, child: number): TableWrite => ({
  table: parents,
  key: linkBytes(parent, child),
  value: PRESENT,
});

const linkBytes = (parent: number, child: number): Buffer => Buffer.concat([idBytes(parent), idBytes(child)]);

/**
 * The preconditions for creating a snapshot; returns its parent. Also checked before the work on directories.
 */
export function checkCreate(store: Snapshots, key: string, parentKey: string): StoredSnapshot | undefined {
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
export function checkCommit(store: Snapshots, name: string, key: string): StoredSnapshot {
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
