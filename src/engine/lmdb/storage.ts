/**
 * The LMDB storage: what core/ asks of a storage, over a write-ahead log, memtables and one LMDB environment (the tree).
 * A commit is put into a memtable, where every read sees it at once (memtables.ts), and into the commit queue, which writes it
 * to the log: then it is durable. Later the flusher brings it into the tree, all of it in one LMDB transaction with the
 * graph journal, so that records and graph never come apart.
 */

import { type EbbtideError, unknownError } from '../../errors.js';
import { compareUtf8 } from '../../model/utf8.js';
import { closeAll } from '../../system/close-all.js';
import type { Key, ReadValue, StoredNode, Value } from '../contract.js';
import { asBuffer, copyOf, successor } from '../core/bytes.js';
import { below, CHUNK_MAX } from '../core/reads.js';
import {
  type Commit,
  copied,
  type Entry,
  type LinkKey,
  NO_ID,
  type RecordRange,
  type Storage,
  type StorageListener,
  type Written,
} from '../core/storage.js';
import { NodeInMemory } from '../core/stored-node.js';
import { decodeSlice, printable } from '../schema/codec.js';
import { decodeKey, encodeBelow, encodeKey } from './codec/key-codec.js';
import { NodeOfTree, nodeParts, readEntry } from './codec/node-codec.js';
import type { DataFile } from './disk/files.js';
import type { Flushed } from './flush/flush.js';
import { Flusher, type FlusherHost } from './flush/flusher.js';
import { GoneStretches } from './gone-stretches.js';
import { Links } from './links.js';
import type { TableCommit } from './memtable.js';
import { Memtables } from './memtables.js';
import { CACHED_BYTES_MAX, RecordCache } from './record-cache.js';
import type { Room } from './room.js';
import { boundsOf, merged } from './tree/bounded-range.js';
import type { Databases } from './tree/databases.js';
import { type Found, find, INLINE_ID, NO_NODE, rowsWithin } from './tree/key-index.js';
import { lastSizeOf } from './tree/table.js';
import { CommitQueue, type CommitQueueHost } from './wal/commit-queue.js';
import type { BatchBuilder } from './wal/format.js';
import type { Wal } from './wal/wal.js';

/**
 * A caller that asks whether keys may exist holds guards that writers of the same keys wait for: a thread in the middle of a long
 * transaction, or a disk that hangs, must not make them wait for it.
 */
const LOOK_UP_MS = 50;
/** Rows read ahead at a time; and at first, where a number of bytes is wanted. */
const CHUNK_ROWS = 512;
const FIRST_ROWS = 64;

export interface StorageState {
  revision: number;
  records: number;
}

export class LmdbStorage implements Storage, CommitQueueHost, FlusherHost {
  readonly flusher: Flusher;
  readonly #queue: CommitQueue;
  readonly #log: Wal | undefined;
  readonly #dbs: Databases;
  readonly #file: DataFile;
  readonly #tables = new Memtables();
  readonly #links: Links;
  readonly #gone = new GoneStretches((id) => this.#tables.keyOf(id) === null);
  readonly #cache: RecordCache;
  #listener: StorageListener | undefined;
  #records: number;
  /** Newest revision in the log, and the records then. */
  #stored: StorageState;
  /** The node read last by its id: a caller that asks for its key mostly reads its record next. Good until the next commit. */
  #lastNode: { readonly id: number; readonly key: Key; readonly entry: Entry } | undefined;
  /** Called after each group that the tree has, with the bytes it added to the journal. */
  onFlushed: (journalBytes: number) => void = () => {};
  /** Asked for statistics. */
  journalBytes: () => number = () => 0;
  /** Called with what a caller of `update` does not learn: commits that are lost or delayed. */
  onTrouble: (message: string) => void = () => {};
  /**
   * Runs when the tree has all commits, or cannot get them (`isWhole`), before the environment is closed. Returns whether the log
   * may be emptied.
   */
  onClose: (isWhole: boolean) => Promise<boolean> = async () => false;
  afterClose: () => void = () => {};
  /** Of a store that is written. */
  room: Room | undefined;
  /** Throws when the store's directory is not where it was: nothing is acknowledged then. */
  verifyPlace: () => void = () => {};
  /** Grows when commits are lost. */
  lostCount = 0;
  /** Of a store that is open for writing (tree-copy.ts). */
  copyTo?: NonNullable<Storage['copyTo']>;
  /** Runs when all is closed but the directory is still this store's. */
  beforeRelease: () => Promise<void> = async () => {};
  readonly #node = new NodeOfTree();
  readonly #taps = new Set<(batch: Buffer, changes: number) => void>();

  /** @param log undefined: nothing will be written */
  constructor(dbs: Databases, file: DataFile, log: Wal | undefined, path: string, state: StorageState) {
    this.#dbs = dbs;
    this.#file = file;
    this.#log = log;
    this.#cache = new RecordCache();
    this.#links = new Links(dbs, this.#tables);
    this.#records = state.records;
    this.#stored = { ...state };
    this.#queue = new CommitQueue(path, this, state.revision);
    this.flusher = new Flusher(dbs, file, path, this);
  }

  // -------------------------------------------------------------------------------------------------------- reads

  value(key: Key): Value | undefined {
    const known = this.#tables.entry(key);
    if (known !== undefined) {
      const bytes = known?.bytes;
      return bytes === undefined ? undefined : decodeSlice(key, asBuffer(bytes), 0, bytes.length);
    }
    if (this.#lastNode?.key === key) {
      const { bytes } = this.#lastNode.entry;
      return bytes === undefined ? undefined : decodeSlice(key, asBuffer(bytes), 0, bytes.length);
    }
    const cached = this.#cache.get(key);
    if (cached !== undefined) return cached;
    const found = this.#find(key);
    if (found === undefined) return undefined;
    const start = valueStart(found);
    if (start < 0) return undefined;
    const value = decodeSlice(key, found.bytes, start, found.end);
    if (found.end - start > CACHED_BYTES_MAX) return value;
    return found.id === undefined || this.#cache.wasAsked(found.id) ? this.#cache.keep(key, value) : value;
  }

  /** What the tree has, unless commits that it does not have yet took it away. */
  #find(key: Key): Found | undefined {
    const found = find(this.#dbs, key, this.#isSuperseded);
    if (found?.id !== undefined && found.end === 0) throw this.#missingNode(found.id, key);
    return found;
  }

  #missingNode(id: number, key: Key): EbbtideError {
    // It may be another tree that something has put in the place of this one.
    this.verifyPlace();
    return unknownError(`the store is damaged: ${printable(key)} has no node ${id}`, {
      object: key,
      remedy: 'run a check and restore the store from a copy',
    });
  }

  /** Whether a node of the tree has gone since, or stands for another key. */
  readonly #isSuperseded = (id: number, key: Key): boolean => {
    const known = this.#tables.keyOf(id);
    return known !== undefined && known !== key;
  };

  has(key: Key): boolean {
    const known = this.#tables.entry(key);
    if (known !== undefined) return known?.bytes !== undefined;
    const found = this.#find(key);
    return found !== undefined && valueStart(found) >= 0;
  }

  entry(key: Key): Entry | undefined {
    const known = this.#tables.entry(key);
    if (known !== undefined) return known ?? undefined;
    if (this.#lastNode?.key === key) return this.#lastNode.entry;
    const found = this.#find(key);
    if (found === undefined) return undefined;
    if (found.id !== undefined) return readEntry(found.id, found.bytes, found.end);
    return { id: NO_ID, adjacency: undefined, bytes: copyOf(found.bytes, found.start, found.end) };
  }

  range<T>(
    prefix: Key,
    after: Key | undefined,
    limit: number,
    read: ReadValue<T>,
    bytesMax = Number.POSITIVE_INFINITY,
  ): RecordRange<T> {
    const entries: [Key, T][] = [];
    if (limit <= 0) return { entries, more: true };
    const layers = this.#tables.recordLayers();
    if (layers.length === 0) return this.#storedRange(prefix, after, limit, read, bytesMax);
    const stored = (from: Key | undefined, count: number) =>
      this.#storedRange(prefix, from, count, copied, Number.POSITIVE_INFINITY).entries;
    const first = Math.min(limit, bytesMax === Number.POSITIVE_INFINITY ? CHUNK_MAX : FIRST_ROWS);
    let left = bytesMax;
    for (const [key, bytes] of merged(below(prefix), after, first, stored, layers)) {
      entries.push([key, read(key, asBuffer(bytes), 0, bytes.length)]);
      left -= bytes.length;
      if (entries.length >= limit || left <= 0) return { entries, more: true };
    }
    return { entries, more: false };
  }

  #storedRange<T>(
    prefix: Key,
    after: Key | undefined,
    limit: number,
    read: ReadValue<T>,
    bytesMax: number,
  ): RecordRange<T> {
    const bounds = boundsOf(Buffer.from(encodeBelow(prefix)), after, below(prefix), encodeKey);
    const entries: [Key, T][] = [];
    let left = bytesMax;
    // Nodes without a record are passed over.
    const walk = this.#gone.walk(bounds);
    for (const row of rowsWithin(this.#dbs, walk.bounds, Math.min(limit, CHUNK_ROWS), walk.isGone)) {
      walk.reached(row.key);
      if (row.id !== undefined && this.#isSuperseded(row.id, row.key)) continue;
      if (row.id !== undefined && row.end === 0) throw this.#missingNode(row.id, row.key);
      const from = valueStart(row);
      if (from < 0) continue;
      left -= row.end - from;
      entries.push([row.key, read(row.key, row.bytes, from, row.end)]);
      if (entries.length >= limit || left <= 0) return { entries, more: true };
    }
    walk.reached(undefined);
    return { entries, more: false };
  }

  firstKey(prefix: Key, after: Key | undefined): Key | undefined {
    const start = below(prefix);
    const bounds = boundsOf(Buffer.from(encodeBelow(prefix)), after, start, encodeKey);
    const [row] = rowsWithin(this.#dbs, bounds, 1);
    let first = row?.key;
    const exclusive = after !== undefined && compareUtf8(after, start) >= 0;
    for (const layer of this.#tables.recordLayers()) {
      const [entry] = layer.from(exclusive ? after : start, exclusive, start);
      const key = entry?.[0];
      if (key?.startsWith(start) && (first === undefined || compareUtf8(key, first) < 0)) first = key;
    }
    return first;
  }

  linkRange(prefix: string, after: LinkKey | undefined, limit: number): LinkKey[] {
    return this.#links.range(prefix, after, limit);
  }

  allLinks(): Iterable<LinkKey> {
    return this.#links.all();
  }

  hasLink(link: LinkKey): boolean {
    return this.#links.has(link);
  }

  keyOf(id: number): Key | undefined {
    const known = this.#tables.keyOf(id);
    if (known !== undefined) return known ?? undefined;
    if (this.#lastNode?.id === id) return this.#lastNode.key;
    const node = this.#dbs.nodes.getBinaryFast(id);
    if (node === undefined) return undefined;
    const size = lastSizeOf(this.#dbs.nodes);
    const { keyStart, keyEnd } = nodeParts(id, node, size);
    const key = decodeKey(node, keyStart, keyEnd);
    this.#lastNode = { id, key, entry: readEntry(id, asBuffer(node), size) };
    return key;
  }

  readNode<T>(id: number, read: (node: StoredNode) => T): T | undefined {
    const known = this.#tables.keyOf(id);
    if (known !== undefined) {
      const bytes = known === null ? undefined : this.#tables.entry(known)?.bytes;
      return known === null || bytes === undefined ? undefined : read(new NodeInMemory(known, bytes));
    }
    const node = this.#dbs.nodes.getBinaryFast(id);
    if (node === undefined || !this.#node.show(id, node, lastSizeOf(this.#dbs.nodes))) return undefined;
    return read(this.#node);
  }

  /** Of a node that the tree does not have as it is now. */
  pendingKeyOf(id: number): Key | undefined {
    return this.#tables.keyOf(id) ?? undefined;
  }

  idOf(key: Key): number | undefined {
    const known = this.#tables.entry(key);
    if (known !== undefined) return known === null || known.id === NO_ID ? undefined : known.id;
    return this.#find(key)?.id;
  }

  isGone(key: Key, since: number): boolean {
    return this.#tables.isGone(key, since);
  }

  async mayExist(prefixes: readonly Key[], leaves: readonly string[]): Promise<Uint8Array> {
    const exist = new Uint8Array(prefixes.length * leaves.length);
    // First what the tree does not have yet: what it gets meanwhile is seen by the thread.
    for (const [p, l] of this.#tables.among(prefixes, leaves)) exist[p * leaves.length + l] = 1;
    // The thread would open the file to write.
    const lookUp =
      this.#log === undefined ? Promise.resolve(undefined) : this.flusher.lookUp(prefixes, leaves);
    const ids = await within(LOOK_UP_MS, lookUp);
    // The caller then looks each up, and gets the error if there is one.
    if (ids === undefined) return exist.fill(1);
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      if (id === NO_NODE || exist[i] === 1) continue;
      const since = id === INLINE_ID ? undefined : this.#tables.keyOf(id);
      if (since !== undefined) {
        // Its node has changed since, or is gone; the key may have a value without one.
        const leaf = i % leaves.length;
        const key = prefixes[(i - leaf) / leaves.length]! + leaves[leaf]!;
        if (since !== key && (this.#tables.entry(key) ?? undefined) === undefined) continue;
      }
      exist[i] = 1;
    }
    return exist;
  }

  counter(name: Key): number {
    const known = this.#tables.counter(name);
    if (known !== undefined) return known ?? 0;
    return this.#dbs.counters.get(encodeKey(name))?.readDoubleLE(0) ?? 0;
  }

  countersUnder(prefix: Key): Key[] {
    const lower = Buffer.from(encodeBelow(prefix));
    const rows = this.#dbs.counters.range(lower, false, successor(lower), Number.MAX_SAFE_INTEGER);
    const names = new Set(rows.map(([name]) => decodeKey(name)));
    names.add(prefix);
    for (const name of this.#tables.counterNames()) if (name.startsWith(below(prefix))) names.add(name);
    return [...names].filter((name) => this.counter(name) > 0);
  }

  // ------------------------------------------------------------------------------------------------------- writes

  listen(listener: StorageListener): void {
    this.#listener = listener;
  }

  admit(takesAway: boolean): void {
    if (!takesAway && this.room?.isFull) throw this.room.error();
  }

  accept(commit: Commit, background = false): Written {
    this.#lastNode = undefined;
    this.#cache.delete(commit.entries.keys());
    if (this.#queue.beginsGroup()) this.#tables.beginGroup();
    const split = { ...commit, ...this.#links.split(commit) };
    this.#tables.add(split);
    this.#links.added(commit);
    this.#records += commit.recordDelta;
    return this.#queue.push(split, background);
  }

  /** Commits of the log that the tree does not have, in a store that must not be changed. */
  overlay(commit: TableCommit, recordDelta: number): void {
    this.#tables.beginGroup();
    this.#tables.add(commit);
    this.#links.added(commit);
    this.#tables.logged();
    this.#records += recordDelta;
    this.#stored = { revision: commit.revision, records: this.#records };
    this.#queue.follow(commit.revision);
  }

  /** Newest revision that can be lost no more. */
  revision(): number {
    return this.#stored.revision;
  }

  /** What can be lost no more. */
  get newest(): StorageState {
    return { ...this.#stored };
  }

  /** Each batch that the log takes from now on, with the changes in it, goes to `take` too; returns what ends that. */
  tap(take: (batch: Buffer, changes: number) => void): () => void {
    this.#taps.add(take);
    return () => void this.#taps.delete(take);
  }

  async append(batch: Buffer): Promise<void> {
    await this.flusher.room();
    // The tree has a reserve of its own: what it takes makes a file of the log free.
    if (this.#log?.isExhausted(batch.length)) await this.flusher.drain().catch(() => undefined);
    this.verifyPlace();
    await this.#log?.append(batch);
  }

  stored(commits: BatchBuilder, batch: Buffer, isSealed: boolean, foreground: number): void {
    const { revision, recordDelta, changes } = commits;
    this.#stored.records += recordDelta;
    this.#stored.revision = revision;
    this.#tables.logged();
    for (const take of this.#taps) take(batch, changes);
    this.flusher.push(batch, changes, { background: foreground < commits.commits, others: foreground > 0 });
    if (isSealed) this.flusher.seal();
    this.#listener?.visible(revision);
  }

  flushed({ revision, journalBytes }: Flushed): void {
    // Reads in this turn of the event loop must not go on with the read transaction that they began before.
    this.#dbs.env.resetReadTxn();
    this.#tables.flushed(revision);
    this.#links.flushed();
    this.#gone.forget();
    this.#log?.flushed(revision);
    this.onFlushed(journalBytes);
  }

  lost(commits: number, error: Error): void {
    this.lostCount++;
    this.#lastNode = undefined;
    this.#links.reverted();
    this.#gone.forget();
    this.#tables.lost();
    this.#records = this.#stored.records;
    this.#listener?.lost();
    this.onTrouble(`${commits} commits could not be stored: ${error.message}`);
  }

  warn(message: string): void {
    this.onTrouble(message);
  }

  /** No transaction of the tree will have commits from both sides of this moment. */
  seal(): void {
    this.#queue.seal();
    this.flusher.seal();
  }

  /** Records of the newest commit handed over. */
  records(): number {
    return this.#records;
  }

  fileBytes(): number {
    return this.#file.usedBytes() + this.logBytes();
  }

  logBytes(): number {
    return this.#log?.bytes ?? 0;
  }

  flush(): Promise<void> {
    return this.#queue.flush();
  }

  /** Waits until the tree has everything. */
  async drain(): Promise<void> {
    await this.#queue.flush();
    await this.flusher.drain();
  }

  async paced(): Promise<void> {
    await this.#queue.paced();
    await this.flusher.backgroundRoom();
  }

  foregroundDone(): Promise<void> {
    return this.#queue.foregroundDone();
  }

  async close(): Promise<void> {
    await this.#queue.drain();
    let isWhole = true;
    try {
      await this.flusher.finish();
    } catch {
      // The log keeps them for the next opening; there was a warning.
      isWhole = false;
    }
    let isReleased = false;
    await closeAll([
      () => this.flusher.stop(),
      async () => {
        isReleased = await this.onClose(isWhole);
      },
      async () => {
        this.#dbs.readers?.release();
        await this.#dbs.env.close();
      },
      () => this.#file.close(this.room?.wasFull),
      () => this.#log?.close(isReleased),
      () => this.beforeRelease(),
      () => this.afterClose(),
    ]);
  }
}

/** What a promise resolves to, or undefined when it takes longer. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Where the value begins; -1 when there is none. */
function valueStart({ id, bytes, start, end }: Found): number {
  return id === undefined ? start : nodeParts(id, bytes, end).valueStart;
}
