/**
 * The LMDB storage: what core/ asks of a storage, over a commit log and one LMDB environment (the tree). Reads are
 * synchronous and see commits that the tree does not have yet. A commit goes through the writer into the log, which
 * makes it durable, and later through the applier into the tree, all parts of it in one LMDB transaction with the graph
 * journal, so that records and graph never come apart.
 */

import { unknownError } from '../../errors.js';
import { closeAll } from '../../system/close-all.js';
import type { Key, ReadValue, Value } from '../contract.js';
import { asBuffer, copyOf } from '../core/bytes.js';
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
import { decodeSlice, printable } from '../schema/codec.js';
import { Applier, type ApplierHost } from './applier.js';
import type { Applied } from './apply.js';
import { boundsOf, merged } from './bounded-range.js';
import type { CommitLog } from './commit-log.js';
import type { Databases } from './databases.js';
import type { DataFile } from './files.js';
import { HOT_BYTES_MAX, HotValues } from './hot-values.js';
import { decodeKey, encodeBelow, encodeKey } from './key-codec.js';
import { type Found, find, INLINE_ID, NO_NODE, rowsWithin } from './key-index.js';
import { Links } from './links.js';
import type { BatchBuilder } from './log-format.js';
import { nodeParts, readEntry } from './node-codec.js';
import { Pending } from './pending.js';
import type { Room } from './room.js';
import { lastSizeOf, successor } from './table.js';
import { Writer, type WriterHost } from './writer.js';

/**
 * Commits that the tree has are forgotten in passing: so many keys at a time (more, when there are many commits), with
 * pauses for other work.
 */
const DROPPED_AT_ONCE = 512;
const DROP_TURNS = 8;
const DROP_PAUSE_MS = 10;
/**
 * Who asks whether keys may exist holds guards that writers of the same keys wait for: a thread in the middle of a long
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

export class LmdbStorage implements Storage, WriterHost, ApplierHost {
  readonly applier: Applier;
  readonly #writer: Writer;
  readonly #log: CommitLog | undefined;
  readonly #dbs: Databases;
  readonly #file: DataFile;
  readonly #pending = new Pending();
  readonly #links: Links;
  readonly #hot: HotValues;
  #listener: StorageListener | undefined;
  #records: number;
  /** Newest revision in the log, and the records then. */
  #stored: StorageState;
  /** The node asked for last by its id: who wants its key mostly goes on to its record. Good until the next commit. */
  #lastNode: { readonly id: number; readonly key: Key; readonly entry: Entry } | undefined;
  /** Told after each group that the tree has, with the bytes it added to the journal. */
  onApplied: (journalBytes: number) => void = () => {};
  /** Asked for statistics. */
  journalBytes: () => number = () => 0;
  /** Told what a caller of `update` does not learn: commits that are lost or held up. */
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
  readonly #taps = new Set<(batch: Buffer, changes: number) => void>();

  /** @param log undefined: nothing will be written */
  constructor(dbs: Databases, file: DataFile, log: CommitLog | undefined, path: string, state: StorageState) {
    this.#dbs = dbs;
    this.#file = file;
    this.#log = log;
    this.#hot = new HotValues();
    this.#links = new Links(dbs, this.#pending);
    this.#records = state.records;
    this.#stored = { ...state };
    this.#writer = new Writer(path, this, state.revision);
    this.applier = new Applier(dbs, file, path, this);
  }

  // -------------------------------------------------------------------------------------------------------- reads

  value(key: Key): Value | undefined {
    const pending = this.#pending.entries.get(key);
    if (pending !== undefined) {
      const bytes = pending.value?.bytes;
      return bytes === undefined ? undefined : decodeSlice(key, asBuffer(bytes), 0, bytes.length);
    }
    if (this.#lastNode?.key === key) {
      const { bytes } = this.#lastNode.entry;
      return bytes === undefined ? undefined : decodeSlice(key, asBuffer(bytes), 0, bytes.length);
    }
    const hot = this.#hot.get(key);
    if (hot !== undefined) return hot;
    const found = this.#find(key);
    if (found === undefined) return undefined;
    const start = valueStart(found);
    if (start < 0) return undefined;
    const value = decodeSlice(key, found.bytes, start, found.end);
    if (found.end - start > HOT_BYTES_MAX) return value;
    return found.id === undefined || this.#hot.wasAsked(found.id) ? this.#hot.keep(key, value) : value;
  }

  /** What the tree has, unless commits that it does not have yet took it away. */
  #find(key: Key): Found | undefined {
    const found = find(this.#dbs, key, this.#isTaken);
    if (found?.id !== undefined && found.end === 0) throw missingNode(found.id, key);
    return found;
  }

  /** Whether a node of the tree has gone since, or stands for another key. */
  readonly #isTaken = (id: number, key: Key): boolean => {
    const pending = this.#pending.ids.get(id);
    return pending !== undefined && pending.value !== key;
  };

  has(key: Key): boolean {
    const pending = this.#pending.entries.get(key);
    if (pending !== undefined) return pending.value?.bytes !== undefined;
    const found = this.#find(key);
    return found !== undefined && valueStart(found) >= 0;
  }

  entry(key: Key): Entry | undefined {
    const pending = this.#pending.entries.get(key);
    if (pending !== undefined) return pending.value;
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
    if (!this.#pending.hasEntries) return this.#storedRange(prefix, after, limit, read, bytesMax);
    const stored = (from: Key | undefined, count: number) =>
      this.#storedRange(prefix, from, count, copied, Number.POSITIVE_INFINITY).entries;
    const first = Math.min(limit, bytesMax === Number.POSITIVE_INFINITY ? CHUNK_MAX : FIRST_ROWS);
    let left = bytesMax;
    for (const [key, bytes] of merged(below(prefix), after, first, stored, this.#pending.orderedValues)) {
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
    const start = below(prefix);
    const bounds = boundsOf(Buffer.from(encodeBelow(prefix)), after, start, encodeKey);
    const entries: [Key, T][] = [];
    let left = bytesMax;
    // Nodes without a record are passed over.
    for (const row of rowsWithin(this.#dbs, bounds, Math.min(limit, CHUNK_ROWS))) {
      if (row.id !== undefined && this.#isTaken(row.id, row.key)) continue;
      if (row.id !== undefined && row.end === 0) throw missingNode(row.id, row.key);
      const from = valueStart(row);
      if (from < 0) continue;
      left -= row.end - from;
      entries.push([row.key, read(row.key, row.bytes, from, row.end)]);
      if (entries.length >= limit || left <= 0) return { entries, more: true };
    }
    return { entries, more: false };
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
    const pending = this.#pending.ids.get(id);
    if (pending !== undefined) return pending.value;
    if (this.#lastNode?.id === id) return this.#lastNode.key;
    const node = this.#dbs.nodes.getBinaryFast(id);
    if (node === undefined) return undefined;
    const size = lastSizeOf(this.#dbs.nodes);
    const { keyStart, keyEnd } = nodeParts(id, node, size);
    const key = decodeKey(node, keyStart, keyEnd);
    this.#lastNode = { id, key, entry: readEntry(id, asBuffer(node), size) };
    return key;
  }

  idOf(key: Key): number | undefined {
    const pending = this.#pending.entries.get(key);
    if (pending !== undefined) {
      return pending.value === undefined || pending.value.id === NO_ID ? undefined : pending.value.id;
    }
    return this.#find(key)?.id;
  }

  async mayExist(prefixes: readonly Key[], leaves: readonly string[]): Promise<Uint8Array> {
    const exist = new Uint8Array(prefixes.length * leaves.length);
    // First what the tree does not have yet: what it gets meanwhile is seen by the thread.
    for (const [p, l] of this.#pending.among(prefixes, leaves)) exist[p * leaves.length + l] = 1;
    // The thread would open the file to write.
    const lookUp =
      this.#log === undefined ? Promise.resolve(undefined) : this.applier.lookUp(prefixes, leaves);
    const ids = await within(LOOK_UP_MS, lookUp);
    // Whoever is told that all may exist looks himself, and is told what is wrong.
    if (ids === undefined) return exist.fill(1);
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      if (id === NO_NODE || exist[i] === 1) continue;
      const since = id === INLINE_ID ? undefined : this.#pending.ids.get(id);
      if (since !== undefined) {
        // Its node has changed since, or is gone; the key may have a value without one.
        const leaf = i % leaves.length;
        const key = prefixes[(i - leaf) / leaves.length]! + leaves[leaf]!;
        if (since.value !== key && this.#pending.entries.get(key)?.value === undefined) continue;
      }
      exist[i] = 1;
    }
    return exist;
  }

  counter(name: Key): number {
    const pending = this.#pending.counters.get(name);
    if (pending !== undefined) return pending.value ?? 0;
    return this.#dbs.counters.get(encodeKey(name))?.readDoubleLE(0) ?? 0;
  }

  countersUnder(prefix: Key): Key[] {
    const lower = Buffer.from(encodeBelow(prefix));
    const rows = this.#dbs.counters.range(lower, false, successor(lower), Number.MAX_SAFE_INTEGER);
    const names = new Set(rows.map(([name]) => decodeKey(name)));
    names.add(prefix);
    for (const name of this.#pending.counterNames()) if (name.startsWith(below(prefix))) names.add(name);
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
    this.#hot.delete(commit.entries.keys());
    this.#addPending(commit, this.#stored.revision);
    this.#records += commit.recordDelta;
    return this.#writer.push(commit, background);
  }

  #addPending(commit: Parameters<Pending['add']>[0], stored: number): void {
    this.#pending.add(commit, stored, this.#links.formerChildren(commit));
    this.#links.added(commit);
  }

  /** Commits of the log that the tree does not have, in a store that must not be changed. */
  overlay(commit: Parameters<Pending['add']>[0], recordDelta: number): void {
    this.#addPending(commit, commit.revision);
    this.#records += recordDelta;
    this.#stored = { revision: commit.revision, records: this.#records };
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
    await this.applier.room();
    // The tree has a reserve of its own: what it takes makes a file of the log free.
    if (this.#log?.isExhausted(batch.length)) await this.applier.flush().catch(() => undefined);
    this.verifyPlace();
    await this.#log?.append(batch);
  }

  stored(commits: BatchBuilder, batch: Buffer, isSealed: boolean, pressing: number): void {
    const { revision, recordDelta, changes } = commits;
    this.#stored.records += recordDelta;
    this.#stored.revision = revision;
    for (const take of this.#taps) take(batch, changes);
    this.applier.push(batch, changes, { background: pressing < commits.commits, others: pressing > 0 });
    if (isSealed) this.applier.seal();
    this.#listener?.visible(revision);
  }

  applied({ revision, journalBytes }: Applied): void {
    // The reads of this turn must not go on with the transaction they began before.
    this.#dbs.env.resetReadTxn();
    const isDropping = this.#applied !== undefined;
    this.#applied = revision;
    if (!isDropping) this.#dropApplied();
    this.#links.applied();
    this.#log?.applied(revision);
    this.onApplied(journalBytes);
  }

  /** Newest revision that the tree has, while there is something to forget. */
  #applied: number | undefined;

  #dropApplied(): void {
    if (this.#applied === undefined) return;
    const most = Math.max(DROPPED_AT_ONCE, Math.ceil(this.#pending.commits / DROP_TURNS));
    if (this.#pending.drop(this.#applied, most)) setTimeout(() => this.#dropApplied(), DROP_PAUSE_MS).unref();
    else this.#applied = undefined;
  }

  lost(commits: number, error: Error): void {
    this.lostCount++;
    this.#lastNode = undefined;
    this.#links.reverted();
    this.#pending.revert(this.#stored.revision);
    this.#records = this.#stored.records;
    this.#listener?.lost();
    this.onTrouble(`${commits} commits could not be stored: ${error.message}`);
  }

  warn(message: string): void {
    this.onTrouble(message);
  }

  /** No transaction of the tree will hold commits from both sides of this moment. */
  seal(): void {
    this.#writer.seal();
    this.applier.seal();
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
    return this.#writer.flush();
  }

  /** Waits until the tree has everything. */
  async settle(): Promise<void> {
    await this.#writer.flush();
    await this.applier.flush();
  }

  async paced(): Promise<void> {
    await this.#writer.paced();
    await this.applier.backgroundRoom();
  }

  quiet(): Promise<void> {
    return this.#writer.quiet();
  }

  async close(): Promise<void> {
    await this.#writer.drain();
    let isWhole = true;
    try {
      await this.applier.flush();
    } catch {
      // The log keeps them for the next opening; `warn` has told.
      isWhole = false;
    }
    let isReleased = false;
    await closeAll([
      () => this.applier.stop(),
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

const missingNode = (id: number, key: Key) =>
  unknownError(`the store is damaged: ${printable(key)} has no node ${id}`, {
    object: key,
    remedy: 'run a check and restore the store from a copy',
  });
