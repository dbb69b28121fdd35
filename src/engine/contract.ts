/**
 * What a store engine is: an ordered key/value store with consistent snapshots, serialisable optimistic
 * transactions, a change feed, named locks, and a graph of references kept beside the records.
 *
 * Implemented by memory/, lmdb/ (and etcd/); used by stores/ and gc/. The engine knows nothing of images:
 * the `Indexer` that it is opened with says what a record refers to.
 *
 * Threading: one JavaScript thread owns an engine. Reads are synchronous. Commit is one synchronous step
 * (validate, number, hand over) followed by an asynchronous wait for the durability that was asked for.
 */
import type { EbbtideError } from '../errors.js';
import type { Instant } from '../model/time.js';
import type { GraphCore } from './graph.js';

// ------------------------------------------------------------------------------------------------ keys, values

/**
 * A record's path: components joined by NUL (`key()` in schema/keys.ts builds and checks them). The first
 * component names the collection. Order everywhere is ascending by the UTF-8 bytes of the components.
 */
export type Key = string;

/** A field of a record. bigint is an Instant. Arrays are not allowed; nested records and maps are. */
export type FieldValue =
  | string
  | number
  | bigint
  | boolean
  | Uint8Array
  | { readonly [field: string]: FieldValue };

/** What is stored under a key: a plain text, or a record of fields. Values handed out are never aliased. */
export type Value = string | { readonly [field: string]: FieldValue };

/**
 * Makes something of a stored value, which is `bytes` from `start` to `end`: a view that is good until it returns
 * (schema/stored-record.ts reads it, `decodeSlice` in schema/codec.ts makes a value of it). It must not read from the
 * engine meanwhile.
 */
export type ReadValue<T> = (key: Key, bytes: Buffer, start: number, end: number) => T;

/** The record of a graph node as it is stored: a view that is good until its reader returns. */
export interface StoredNode {
  /** Made of what is stored when it is asked for, as the next two. */
  readonly key: Key;
  /** The last component of the key. */
  readonly leaf: string;
  /** What comes before that, with its separator: the same text for many. */
  readonly parent: string;
  /** The value is these from `start` to `end`. */
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
  /** Copies the 32 bytes of the `sha256:` digest that the key ends in, as its last component; false when that is none. */
  copyDigest(target: Uint8Array, at: number): boolean;
}

/** Which part of a range is scanned. */
export interface ScanOptions {
  /** Start strictly after this key. */
  after?: Key | undefined;
  /** At most this many. */
  limit?: number;
}

// ------------------------------------------------------------------------------------------------- graph notions

/** How an edge is followed while marking. */
export const EdgeKind = {
  /** Followed when the source is reached plain; the target is reached plain. Labels, container → snapshot. */
  label: 0,
  /** Followed from either variant; the target is reached in the same one. Snapshot → parent, image → target. */
  structural: 1,
  /** Followed when the source is reached plain; the target is reached flat. Flat leases. */
  flat: 2,
} as const;
export type EdgeKind = (typeof EdgeKind)[keyof typeof EdgeKind];

/** Bits of a node's flags as the indexer gives them; the engine adds `present`. The high byte is the type. */
export const NodeFlag = {
  /** The record exists. Set and cleared by the engine, never by the indexer. */
  present: 1,
  /** Kept unconditionally, or until `expireAt` when one is given. */
  root: 2,
  /** Only the engine: an expiry is stored for the node. */
  expires: 4,
  /** May be removed by a collection (leases, snapshots, ingests, blobs, images). */
  collectible: 8,
  /** Carries conditional references, which a collection evaluates. */
  conditional: 16,
  /** Supplies values to conditional references. */
  conditionValue: 32,
  /** Stands for an object outside the store: target of a collector's reference label. */
  foreign: 64,
} as const;

/** A reference. */
export interface Edge {
  /** The key referred to; it need not exist. */
  to: Key;
  /** How a collection follows it. */
  kind: EdgeKind;
  /** The edge runs from `to` to this node (a back reference declared here). */
  back?: boolean;
}

/** What a record is in the graph. */
export interface Adjacency {
  /** `NodeFlag` bits | resource type << 8. */
  flags: number;
  /** Root only until then (a run strictly later than it does not count it). */
  expireAt?: Instant | undefined;
  /** What it refers to. */
  edges: Edge[];
}

/** Derives the graph from records; pure, and called inside commit. */
export interface Indexer {
  /** Undefined: the record is not in the graph. */
  node(key: Key, value: Value): Adjacency | undefined;
  /** Flags of the node that stands for a key which has no record (yet): its type at least. */
  absent(key: Key): number;
  /** The edge that a link of this relation is, if it is one. */
  link(from: Key, relation: string, to: Key): EdgeKind | undefined;
  /**
   * False when no record of that key, its node entered by so many edges (saturated), owns links: its removal then
   * need not look for them. Without this method any record may.
   */
  mayOwnLinks?(key: Key, inDegree: number): boolean;
}

// ------------------------------------------------------------------------------------------------- transactions

/** Reads records at one revision. */
export interface Reader {
  /** The host whose own leases a lease's id means, in a shared tree with leases of its hosts. */
  readonly leaseScope?: string | undefined;
  /** Revision this reader sees; grows by one with every commit. */
  readonly revision: number;
  /** The record; undefined without one. */
  get(key: Key): Value | undefined;
  /** Whether there is a record. */
  has(key: Key): boolean;
  /** Records strictly below `prefix` (its components plus at least one more), in key order. */
  scan(prefix: Key, options?: ScanOptions): Iterable<[Key, Value]>;
  /**
   * Targets of `from`'s links of one relation, in key order. Links are unbounded sets that belong to a record
   * (children of a snapshot, resources of a lease) and go with it. `first`: how many of them the caller wants, if it knows.
   */
  links(from: Key, relation: string, first?: number): Iterable<Key>;
  /** Whether there is any link of this relation. */
  hasLinks(from: Key, relation: string): boolean;
  /** Whether there is this link. */
  hasLink(from: Key, relation: string, to: Key): boolean;
}

/** Reads and writes records; all of it is committed, or nothing. */
export interface Transaction extends Reader {
  /** False in a read transaction, in which a write is FailedPrecondition. */
  readonly writable: boolean;
  /** 1 on the first run of the body, 2 after the first conflict, … */
  readonly attempt: number;
  /**
   * Changes that still fit in without making others wait for this commit; undefined: any number. Work that can be cut
   * into several transactions goes on in the next one.
   */
  readonly room?: number;
  /** Stores a record. */
  put(key: Key, value: Value): void;
  /** Removes a record with its own links; false when there was none. */
  delete(key: Key): boolean;
  /** False when the link was there already. */
  link(from: Key, relation: string, to: Key): boolean;
  /** False when there was no such link. */
  unlink(from: Key, relation: string, to: Key): boolean;
  /** As `unlink`, for a caller that need not know whether there was one: without a read, the transaction cannot conflict over it. */
  dropLink(from: Key, relation: string, to: Key): void;
  /**
   * The next number of a counter (first 1). A number handed out is never handed out again, even if the
   * transaction fails, and never causes a conflict. `dropCounters` forgets all counters at or below a prefix.
   */
  next(counter: Key): number;
  /** Removes the counters below a key. */
  dropCounters(prefix: Key): void;
  /**
   * Runs an outside effect (a backend call) once over all attempts of this transaction and returns its kept
   * result; a failed effect is kept too. `undo` runs if the transaction finally fails, or if the attempt that
   * commits did not ask for the effect.
   */
  once<T>(name: string, effect: () => Promise<T>, undo?: (result: T) => Promise<void>): Promise<T>;
  /** Called after a successful commit (the last attempt's hooks only), before the caller is resumed. */
  onCommit(hook: () => void): void;

  // What a shared tree has besides; absent in an embedded store.

  /** Makes the commit fail when a lock of the engine was lost before it; returns the unlock to use instead. */
  guardBy?(unlock: Unlock): Unlock;
  /** Makes the commit fail with `alive` when the host has a session. */
  requireHostGone?(host: string, alive: () => EbbtideError): void;
  /** Counts one deletion, of which the commit informs the other hosts. */
  countDeletion?(): void;
  /** Raw keys are numbered by the shared store. */
  readonly numbersRawKeys?: true;
}

/** When a write is acknowledged: on disk, or visible to others. */
export type Durability = 'flushed' | 'visible';

/** How an update is made. */
export interface UpdateOptions {
  /** `flushed` (default): resolves when the commit is on disk; `visible`: when readers can see it. */
  durability?: Durability;
  /** Work that can wait: resolves only when so little is on its way to the disk that others need not wait long. */
  background?: boolean;
  /** Ends it before it is committed. */
  signal?: AbortSignal | undefined;
}

// ------------------------------------------------------------------------------------------------- feed and locks

/** A key that was changed. */
export interface Change {
  /** The key. */
  key: Key;
  /** undefined: deleted. Link and counter changes are not in the feed. */
  value: Value | undefined;
}
/** What one commit changed. */
export interface ChangeSet {
  /** The revision after it. */
  revision: number;
  /** The keys. */
  changes: Change[];
}

/** Releases a lock; a second call is FailedPrecondition. */
export type Unlock = () => Promise<void>;

/** Named locks. */
export interface Locks {
  /** Waits for the lock, exclusive; resolves to what releases it. */
  lock(name: string, signal?: AbortSignal): Promise<Unlock>;
  /** As `lock`, shared with other readers. */
  rLock(name: string, signal?: AbortSignal): Promise<Unlock>;
  /** Unavailable at once when the name is held or queued for. */
  tryLock(name: string): Promise<Unlock>;
}

// ------------------------------------------------------------------------------------------------------ raw keys

/** What raw keys are sorted by. */
export type SortField = 'key' | 'version' | 'create' | 'mod' | 'value';

/** Which raw keys are read, and in what order. */
export interface GetOptions {
  /** All keys that begin with the key, byte by byte; `''` for all. */
  prefix?: boolean;
  /** Keys from the key up to this one, which is left out. */
  rangeEnd?: string;
  /** The key and all later ones. */
  fromKey?: boolean;
  /** 0: no limit. Applied after sorting. */
  limit?: number;
  /** Default: by key, ascending. */
  sort?: { by: SortField; order?: 'asc' | 'desc' };
  /** Only the current revision is kept. */
  rev?: number;
  /** Values come back as `''`. */
  keysOnly?: boolean;
  /** Returns an empty map. */
  countOnly?: boolean;
  /** Stale data would do; here reads are always current. */
  serializable?: boolean;
}

/** How a raw key is stored. */
export interface PutOptions {
  /** An etcd lease; there are none in an embedded store. */
  lease?: string | number | bigint;
}

/** What a raw key space can do, by itself or inside one transaction. */
export interface Transactor {
  /** Key → value in the order asked for; an absent key gives an empty map. */
  get(key: string, options?: GetOptions): Promise<Map<string, string>>;
  /** Stores a raw key. */
  put(key: string, value: string, options?: PutOptions): Promise<void>;
  /** Removes a key, or all that begin with it; returns how many. */
  del(key: string, options?: { prefix?: boolean }): Promise<number>;
  /** Waits for the lock, exclusive; resolves to what releases it. */
  lock(prefix: string, signal?: AbortSignal): Promise<Unlock>;
  /** As `lock`, shared with other readers. */
  rLock(prefix: string, signal?: AbortSignal): Promise<Unlock>;
  /** As `lock`, without waiting. Unavailable: somebody has it. */
  tryLock(prefix: string): Promise<Unlock>;
}

// ------------------------------------------------------------------------------------------------- a shared tree

/** The host that removed records; `unknown`: no commit of any host, or one that this host missed. */
export type Remover = 'this host' | 'another host' | 'unknown';

/** Called when other hosts do something. */
export interface SharedTreeListener {
  /** Records that a commit removes, before they go. */
  removing(keys: readonly Key[], by: Remover): void;
  /** Users of another host deleted something. */
  remoteDeletions(count: number): void;
  /** A host has finished a collection. */
  collected(): void;
  /** The tree was set back to an earlier state, or is another one: before the records that it lacks go. */
  setBack(): void;
}

/** A host that uses a shared tree, or did, by what it has left there. */
export interface TreeHost {
  /** The host's id in the tree. */
  readonly id: string;
  /** Name of its directories, as far as it is known. */
  readonly backend: string;
  /** Whether its session lasts. */
  readonly alive: boolean;
  /** When its first session began, RFC 3339; '' when unknown. */
  readonly since: string;
  /** When its last session began, or ended cleanly, RFC 3339; '' when unknown. */
  readonly seen: string;
}

/** What the engine of a tree has that several hosts share. */
export interface SharedTree {
  /** This host's id in the tree. */
  readonly hostId: string;
  /** Name of this host's directories; hosts that have the same name share them. */
  readonly backendId: string;
  /** Whether the engine was closed. */
  readonly isClosed: boolean;
  /** Whether the tree was found to be set back, or another one, since `setBackNoted` was called last, in this process or an earlier one. */
  readonly wasSetBack: boolean;
  /** The tree has a note of it, or need not have one. */
  setBackNoted(): Promise<void>;
  /** Leases are this host's own from now on: see `Reader.leaseScope`. */
  leaseScope: string | undefined;
  /** One listener, called from now on. */
  listen(listener: SharedTreeListener): void;
  /** As `Engine.fresh`, also in an engine whose plain reads may be old. */
  confirm(): Promise<void>;
  /** Removals of garbage need this lock from now on; undefined: none. */
  fenceGarbage(lock: Unlock | undefined): void;
  /** Informs all hosts that a collection has ended. */
  announceCollection(): Promise<void>;
  /** Every host that ever used the tree and was not forgotten, by name. */
  hosts(): Promise<ReadonlyMap<string, TreeHost>>;
  /** Removes what a host has left beside records. Fails with `alive` when its session lasts. */
  forgetHost(id: string, alive: () => EbbtideError): Promise<void>;
  /** Reads raw keys in the shared store itself, with every option of its client. */
  readRaw(key: string, options: GetOptions): Promise<Map<string, string>>;
  /** NotFound: no such lease of the shared store. */
  putRawWithLease(key: string, value: string, lease: string): Promise<void>;
}

// ------------------------------------------------------------------------------------------------------- engine

/** Sizes of an engine. */
export interface EngineStats {
  /** Records in the store. */
  records: number;
  /** Bytes of the store's file(s) in use; 0 in memory. */
  fileBytes: number;
  /** Of the newest commit. */
  revision: number;
  /** Bytes of graph changes that an opening would have to go through, after the newest checkpoint; 0 without any. */
  journalBytes: number;
  /** Bytes of commits that are in the log only, and not in the tree; 0 where there is no such log. */
  logBytes: number;
}

/** A copy of all records and of the graph, as they were at one revision: a file, read until it is closed. */
export interface TreeCopy {
  /** The revision that it is of. */
  readonly revision: number;
  /** Records in it. */
  readonly records: number;
  /** As a reader's. */
  scan(prefix: Key, options?: ScanOptions): Iterable<[Key, Value]>;
  /** Puts the file on disk. Again: no error. */
  close(): Promise<void>;
}

/** What every engine is opened with. */
export interface EngineOptions {
  /** Says what a record is in the graph. */
  indexer: Indexer;
  /** The graph to fill; the engine closes it. */
  graph: GraphCore;
  /** Of updates that do not choose; default `flushed`. */
  durability?: Durability;
  /** Called once per noteworthy event (rebuilt graph, unclean shutdown). */
  warn?: (message: string) => void;
}

/** As a Reader, an engine reads the newest visible state. */
export interface Engine extends Reader, AsyncDisposable {
  /** Which engine it is. */
  readonly kind: 'memory' | 'lmdb' | 'etcd';
  /** The graph of references. */
  readonly graph: GraphCore;
  /** Named locks. */
  readonly locks: Locks;
  /** Grows when commits were lost: the state then goes back, though the revision does not. */
  readonly epoch: number;
  /** Whether the store was found as its last owner's clean `close` left it (true for a new one). */
  readonly cleanStart: boolean;
  /** Every update is FailedPrecondition. */
  readonly isReadOnly: boolean;
  /** Undefined in an embedded store. */
  readonly shared?: SharedTree;

  /**
   * Resolves when plain reads show everything that was committed, by any host, before this was called; undefined when they
   * do at once. Unavailable when that cannot be said.
   */
  fresh(): Promise<void> | undefined;

  /**
   * As `scan`, for a caller that makes something else than values of the records: a chunk of them, each given to `read` as it is
   * stored. Returns the key to go on after; undefined at the end.
   */
  visit(prefix: Key, after: Key | undefined, read: ReadValue<void>): Key | undefined;

  /**
   * The first key below `prefix`, after `after`, that has a record, or had one until a while ago: for a caller that goes from one
   * beginning of keys to the next, and must not go over all that a collection has just removed, as `scan` does.
   */
  firstKey(prefix: Key, after: Key | undefined): Key | undefined;

  /** Runs `fn` over one consistent revision; the transaction's writing methods are FailedPrecondition. */
  view<T>(fn: (tx: Transaction) => T | Promise<T>): Promise<T>;

  /**
   * Runs `fn` as one serialisable transaction: reads at one revision (its own writes visible), writes applied
   * at once or not at all. `fn` runs again after a conflict; after a few it runs alone. If `fn` is synchronous
   * and the engine has a single owner, it sees the newest commit and cannot conflict. Errors of `fn` pass
   * through unchanged, and nothing is stored.
   */
  update<T>(fn: (tx: Transaction) => T | Promise<T>, options?: UpdateOptions): Promise<T>;

  /** Change sets with a revision greater than `since`, oldest first, then live ones until `signal` ends.
   *  FailedPrecondition when the feed no longer reaches back that far. */
  feed(since: number, signal?: AbortSignal): AsyncIterable<ChangeSet>;

  /** Key of a graph node, and id of a key's node (records, and dangling targets). */
  keyOf(id: number): Key | undefined;
  /**
   * The record of a graph node, for a caller that reads very many: given to `read` as it is stored (`decodeFields` in
   * schema/codec.ts makes a part of it), which must not read from the engine meanwhile. Undefined without a record.
   */
  readNode<T>(id: number, read: (node: StoredNode) => T): T | undefined;
  /** The id of a key in the graph; undefined without one. */
  idOf(key: Key): number | undefined;
  /** Whether a record exists under the key or anything in the graph points at it. */
  isReferenced(key: Key): boolean;
  /**
   * Whether there is no record under a key whose record was removed by a commit after revision `since`; false also where the
   * engine would have to look.
   */
  isGone(key: Key, since: number): boolean;
  /**
   * The same as `isReferenced` for many keys, each one of `prefixes` followed by one of `leaves`, off the calling thread where the engine
   * can. Returns one byte a key, prefix by prefix: 0 when the key was not referenced at some moment since the call, 1 when
   * it may be (an engine that would have to look is free to return 1).
   */
  mightBeReferenced(prefixes: readonly Key[], leaves: readonly string[]): Promise<Uint8Array>;

  /** Differences between the graph and one derived again from the records and links; empty when all is well. */
  verifyGraph(): string[];

  /** Waits until everything committed so far is on disk. */
  flush(): Promise<void>;
  /** Resolves when the foreground commits under way are on disk, or lost. Background work waits for it between its steps. */
  foregroundDone(): Promise<void>;
  /**
   * Optional: copies the store to a new file, beside its writers: everything that was committed before the call, and more.
   * `taken` is called in the moment that the copy shows, before anything else happens. Unavailable: no room.
   */
  copyTo?(path: string, taken: () => void): Promise<TreeCopy>;
  /** Sizes, for metrics. */
  stats(): EngineStats;
  /** Flushes and closes; later calls fail. Idempotent. */
  close(): Promise<void>;
}
