/**
 * The LMDB storage: what core/ asks of a storage, over a commit log and one LMDB environment (the tree). Reads are
 * synchronous and see commits that the tree does not have yet. A commit goes through the writer into the log, which
 * makes it durable, and later through the applier into the tree, all parts of it in one LMDB transaction with the graph
 * journal, so that records and graph never come apart.
 */
import { unknownError } from '../../errors.js';
import { compareUtf8 } from '../../model/utf8.js';
import type { Key, Value } from '../contract.js';
import { below, layered, type ReadLayer } from '../core/reads.js';
import {
  type Commit,
  type Entry,
  type LinkKey,
  NO_ID,
  type Storage,
  type StorageListener,
  type Written,
} from '../core/storage.js';
import { decodeSlice } from '../schema/codec.js';
import { collectionOf } from '../schema/keys.js';
import { Applier, type ApplierHost } from './applier.js';
import { type Applied, INLINE } from './apply.js';
import type { CommitLog } from './commit-log.js';
import type { Databases } from './databases.js';
import type { DataFile } from './files.js';
import { decodeKey, decodeLink, encodeBelow, encodeKey, encodeLink, encodeLinkPrefix } from './key-codec.js';
import { BatchEncoder } from './log-format.js';
import { copyOf, nodeParts, readEntry } from './node-codec.js';
import { Pending } from './pending.js';
import { asBuffer, lastSizeOf, successor } from './table.js';
import { Writer, type WriterHost } from './writer.js';

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
  readonly #encoder = new BatchEncoder();
  #listener: StorageListener | undefined;
  #records: number;
  /** Newest revision in the log, and the records then. */
  #stored: StorageState;
  /** Newest revision that is encoded for the log. */
  #encoded: number;
  /** The node asked for last by its id: who wants its key mostly goes on to its record. Good until the next commit. */
  #lastNode: { readonly id: number; readonly key: Key; readonly entry: Entry } | undefined;
  /** Collections known to own no links, or known to. */
  readonly #linkless = new Map<string, boolean>();
  /** Told after each group that the tree has, with the bytes it added to the journal. */
  onApplied: (journalBytes: number) => void = () => {};
  /** Told what a caller of `update` does not learn: commits that are lost or held up. */
  onTrouble: (message: string) => void = () => {};
  /** Runs when the tree has all commits, or cannot get them (`isWhole`), before the environment is closed. */
  onClose: (isWhole: boolean) => Promise<void> = async () => {};
  afterClose: () => void = () => {};
  /** Grows when commits are lost. */
  lostCount = 0;

  /** @param log undefined: nothing will be written */
  constructor(dbs: Databases, file: DataFile, log: CommitLog | undefined, path: string, state: StorageState) {
    this.#dbs = dbs;
    this.#file = file;
    this.#log = log;
    this.#records = state.records;
    this.#stored = { ...state };
    this.#encoded = state.revision;
    this.#writer = new Writer(path, this);
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
    const found = this.#dbs.keys.get(encodeKey(key));
    if (found === undefined) return undefined;
    if (found[0]! >= INLINE) return decodeSlice(key, found, 1, this.#dbs.keys.lastSize);
    const id = found.readUInt32BE(0);
    if (this.#isTaken(id, key)) return undefined;
    const node = this.#node(id, key);
    const size = lastSizeOf(this.#dbs.nodes);
    const { valueStart } = nodeParts(id, node, size);
    return valueStart < 0 ? undefined : decodeSlice(key, node, valueStart, size);
  }

  /** Whether a node of the tree has gone since, or stands for another key. */
  #isTaken(id: number, key: Key): boolean {
    const pending = this.#pending.ids.get(id);
    return pending !== undefined && pending.value !== key;
  }

  has(key: Key): boolean {
    const pending = this.#pending.entries.get(key);
    if (pending !== undefined) return pending.value?.bytes !== undefined;
    const found = this.#dbs.keys.get(encodeKey(key));
    if (found === undefined) return false;
    if (found[0]! >= INLINE) return true;
    const id = found.readUInt32BE(0);
    if (this.#isTaken(id, key)) return false;
    return nodeParts(id, this.#node(id, key), lastSizeOf(this.#dbs.nodes)).valueStart >= 0;
  }

  entry(key: Key): Entry | undefined {
    const pending = this.#pending.entries.get(key);
    if (pending !== undefined) return pending.value;
    if (this.#lastNode?.key === key) return this.#lastNode.entry;
    const found = this.#dbs.keys.get(encodeKey(key));
    if (found === undefined) return undefined;
    if (found[0]! >= INLINE) {
      return { id: NO_ID, adjacency: undefined, bytes: copyOf(found, 1, this.#dbs.keys.lastSize) };
    }
    const id = found.readUInt32BE(0);
    if (this.#isTaken(id, key)) return undefined;
    const node = this.#node(id, key);
    return readEntry(id, node, lastSizeOf(this.#dbs.nodes));
  }

  /** Bytes of a node that `keys` names; valid until the next read. */
  #node(id: number, key: Key): Buffer {
    const node = this.#dbs.nodes.getBinaryFast(id);
    if (node !== undefined) return asBuffer(node);
    throw unknownError(`the store is damaged: "${key.replaceAll('\0', '/')}" has no node ${id}`, {
      object: key,
      remedy: 'run a check and restore the store from a copy',
    });
  }

  range(prefix: Key, after: Key | undefined, limit: number): [Key, Uint8Array][] {
    const read = (from: Key | undefined, count: number) => this.#storedRange(prefix, from, count);
    if (!this.#pending.hasEntries) return read(after, limit);
    return merged(below(prefix), after, limit, read, this.#pending.orderedValues);
  }

  #storedRange(prefix: Key, after: Key | undefined, limit: number): [Key, Uint8Array][] {
    const start = below(prefix);
    const bounds = boundsOf(Buffer.from(encodeBelow(prefix)), after, start, encodeKey);
    const found: [Key, Uint8Array][] = [];
    // Nodes without a record are passed over, so one read may not be enough.
    for (;;) {
      const count = limit - found.length;
      const rows = this.#dbs.keys.range(bounds.lower, bounds.exclusive, bounds.upper, count);
      for (const [encoded, value] of rows) {
        const key = decodeKey(encoded);
        const bytes = this.#valueOf(value, key);
        if (bytes !== undefined) found.push([key, bytes]);
      }
      const last = rows[rows.length - 1];
      if (rows.length < count || last === undefined || found.length >= limit) return found;
      bounds.lower = last[0];
      bounds.exclusive = true;
    }
  }

  #valueOf(value: Buffer, key: Key): Uint8Array | undefined {
    if (value[0]! >= INLINE) return value.subarray(1);
    const id = value.readUInt32BE(0);
    if (this.#isTaken(id, key)) return undefined;
    const bytes = this.#node(id, key);
    const size = lastSizeOf(this.#dbs.nodes);
    const { valueStart } = nodeParts(id, bytes, size);
    return valueStart < 0 ? undefined : copyOf(bytes, valueStart, size);
  }

  linkRange(prefix: string, after: LinkKey | undefined, limit: number): LinkKey[] {
    if (prefix !== '' && this.#ownsNone(collectionOf(prefix))) return [];
    const read = (from: LinkKey | undefined, count: number): [LinkKey, true][] => {
      const { lower, exclusive, upper } = boundsOf(
        Buffer.from(encodeLinkPrefix(prefix)),
        from,
        prefix,
        encodeLink,
      );
      return this.#dbs.links.range(lower, exclusive, upper, count).map(([link]) => [decodeLink(link), true]);
    };
    const rows =
      this.#pending.orderedLinks.size === 0
        ? read(after, limit)
        : merged(prefix, after, limit, read, this.#pending.orderedLinks);
    return rows.map(([link]) => link);
  }

  /** Whether no record of a collection owns links: most are asked for in vain. */
  #ownsNone(collection: string): boolean {
    let none = this.#linkless.get(collection);
    if (none === undefined) {
      const lower = Buffer.from(encodeBelow(collection));
      const start = below(collection);
      none = this.#dbs.links.range(lower, false, successor(lower), 1).length === 0;
      for (const _ of this.#pending.orderedLinks.from(start, false, start)) none = false;
      this.#linkless.set(collection, none);
    }
    return none;
  }

  hasLink(link: LinkKey): boolean {
    const pending = this.#pending.links.get(link);
    if (pending !== undefined) return pending.value;
    return this.#dbs.links.get(encodeLink(link)) !== undefined;
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
    const found = this.#dbs.keys.get(encodeKey(key));
    if (found === undefined || found[0]! >= INLINE) return undefined;
    const id = found.readUInt32BE(0);
    return this.#isTaken(id, key) ? undefined : id;
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

  accept(commit: Commit): Written {
    this.#lastNode = undefined;
    this.#pending.add(commit, this.#stored.revision);
    this.#records += commit.recordDelta;
    for (const link of commit.links.keys()) this.#linkless.set(collectionOf(link), false);
    return this.#writer.push(commit);
  }

  /** Commits of the log that the tree does not have, in a store that must not be changed. */
  overlay(commit: Parameters<Pending['add']>[0], recordDelta: number): void {
    this.#linkless.clear();
    this.#pending.add(commit, commit.revision);
    this.#records += recordDelta;
    this.#stored = { revision: commit.revision, records: this.#records };
  }

  /** Newest revision that can be lost no more. */
  revision(): number {
    return this.#stored.revision;
  }

  *encode(commits: readonly Commit[]): Generator<void, Buffer> {
    const previous = this.#encoded;
    this.#encoded = commits[commits.length - 1]?.revision ?? previous;
    return yield* this.#encoder.encode(previous, commits);
  }

  async append(batch: Buffer): Promise<void> {
    await this.applier.room();
    await this.#log?.append(batch);
  }

  stored(commits: readonly Commit[], batch: Buffer, isSealed: boolean): void {
    const last = commits[commits.length - 1];
    if (last === undefined) return;
    let changes = 0;
    for (const { recordDelta, entries, links } of commits) {
      this.#stored.records += recordDelta;
      changes += entries.size + links.size;
    }
    this.#stored.revision = last.revision;
    this.applier.push(batch, changes);
    if (isSealed) this.applier.seal();
    this.#listener?.visible(last.revision);
  }

  applied({ revision, journalBytes }: Applied): void {
    // The reads of this turn must not go on with the transaction they began before.
    this.#dbs.env.resetReadTxn();
    this.#pending.drop(revision);
    this.#log?.applied(revision);
    this.onApplied(journalBytes);
  }

  lost(commits: number, error: Error): void {
    this.lostCount++;
    this.#lastNode = undefined;
    this.#encoded = this.#stored.revision;
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
    return this.#file.usedBytes() + (this.#log?.bytes ?? 0);
  }

  flush(): Promise<void> {
    return this.#writer.flush();
  }

  /** Waits until the tree has everything. */
  async settle(): Promise<void> {
    await this.#writer.flush();
    await this.applier.flush();
  }

  paced(): Promise<void> {
    return this.#writer.paced();
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
    try {
      await this.applier.stop();
      await this.onClose(isWhole);
    } finally {
      await this.#dbs.env.close();
      this.#file.close();
      await this.#log?.close();
      this.afterClose();
    }
  }
}

/** Encoded bounds of what begins with `start`, behind `after`. */
function boundsOf(
  lower: Buffer,
  after: string | undefined,
  start: string,
  encode: (text: string) => Buffer,
): { lower: Buffer; exclusive: boolean; upper: Buffer | undefined } {
  const upper = successor(lower);
  if (after === undefined || compareUtf8(after, start) <= 0) return { lower, exclusive: false, upper };
  return { lower: Buffer.from(encode(after)), exclusive: true, upper };
}

/** Stored entries under pending ones. */
function merged<V>(
  start: string,
  after: string | undefined,
  limit: number,
  read: (after: string | undefined, limit: number) => [string, V][],
  pending: ReadLayer<V>,
): [string, V][] {
  const found: [string, V][] = [];
  if (limit <= 0) return found;
  for (const entry of layered<V>(start, after, read, () => [pending])) {
    found.push(entry);
    if (found.length >= limit) break;
  }
  return found;
}
