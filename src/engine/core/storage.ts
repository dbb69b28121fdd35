/**
 * What the transactional core needs of a place that keeps records: the newest committed state, read synchronously,
 * and a way to hand over a commit. Implemented by memory/storage.ts and lmdb/storage.ts; called by core/ only.
 *
 * Every read shows the newest commit that was handed over, on disk or not. Bytes are encoded values
 * (schema/codec.ts); they are shared, so they are never written to.
 */
import type { Engine, Key, ReadValue, StoredNode, Value } from '../contract.js';
import { copyOf } from './bytes.js';

/** A record's own part of the graph, with ids in place of keys. */
export interface StoredAdjacency {
  readonly flags: number;
  readonly expireAt: bigint | undefined;
  /** target * 8 + kind * 2 + back; see `packEdge`. */
  readonly edges: readonly number[];
}

/** What is known under a key: a record, or a node that others refer to, or both. */
export interface Entry {
  /** Graph node, or NO_ID. */
  readonly id: number;
  readonly adjacency: StoredAdjacency | undefined;
  /** Encoded value; undefined for a dangling target. */
  readonly bytes: Uint8Array | undefined;
}

export const NO_ID = -1;

export interface EntryChange {
  readonly before: Entry | undefined;
  readonly after: Entry | undefined;
}

export const packEdge = (to: number, kind: number, back: boolean): number =>
  to * 8 + kind * 2 + (back ? 1 : 0);
export const edgeTarget = (edge: number): number => Math.floor(edge / 8);
export const edgeKind = (edge: number): number => (edge % 8) >> 1;
export const edgeIsBack = (edge: number): boolean => (edge & 1) === 1;

/** `from`, relation and `to` of a link as one text that sorts by them in this order. */
export type LinkKey = string;
export const LINK_SEPARATOR = '\0\0';
/** The beginning shared by all links of one relation of a record. */
export const linkPrefix = (from: Key, relation: string): string =>
  `${from}${LINK_SEPARATOR}${relation}${LINK_SEPARATOR}`;
/** The beginning shared by all links of a record. */
export const linksPrefix = (from: Key): string => `${from}${LINK_SEPARATOR}`;
export function splitLink(link: LinkKey): { from: Key; relation: string; to: Key } {
  const first = link.indexOf(LINK_SEPARATOR);
  const second = link.indexOf(LINK_SEPARATOR, first + 2);
  return { from: link.slice(0, first), relation: link.slice(first + 2, second), to: link.slice(second + 2) };
}

export interface Commit {
  readonly revision: number;
  /** Every key whose entry changed; undefined: there was or is nothing. */
  readonly entries: ReadonlyMap<Key, EntryChange>;
  readonly links: ReadonlyMap<LinkKey, boolean>;
  /** New counter values; undefined: forgotten. */
  readonly counters: ReadonlyMap<Key, number | undefined>;
  readonly ops: Uint32Array;
  /** Ids whose node is gone, with the keys they stood for. */
  readonly freed: ReadonlyMap<number, Key>;
  /** Change in the number of records. */
  readonly recordDelta: number;
}

/** Called in the very step in which it happens, so that nothing comes between the storage's change and the core's. */
export interface StorageListener {
  /** The commits up to this revision can be lost no more by a failing write. */
  visible(revision: number): void;
  /** All commits that are not visible yet are lost; reads have gone back to before them. */
  lost(): void;
}

/** How far a commit has come. A rejection is an EbbtideError; the storage has then dropped the commit. */
export interface Written {
  readonly visible: Promise<void>;
  readonly flushed: Promise<void>;
}

/** The encoded bytes, to keep. */
export const copied: ReadValue<Buffer> = (_key, bytes, start, end) => copyOf(bytes, start, end);

/** Some records in order; `more`: there may be others after them. */
export interface RecordRange<T> {
  readonly entries: [Key, T][];
  readonly more: boolean;
}

export interface Storage {
  entry(key: Key): Entry | undefined;
  value(key: Key): Value | undefined;
  has(key: Key): boolean;
  /**
   * Up to `limit` records strictly below `prefix` ('' for all), after `after`, in key order, as `read` makes them. The
   * record with which they have `bytesMax` bytes is the last.
   */
  range<T>(
    prefix: Key,
    after: Key | undefined,
    limit: number,
    read: ReadValue<T>,
    bytesMax?: number,
  ): RecordRange<T>;
  /** As `Engine.firstKey`; for storages that go over what is gone. */
  firstKey?(prefix: Key, after: Key | undefined): Key | undefined;
  /** Up to `limit` links that begin with `prefix` (a record's, of one relation or all), after `after`, in order. */
  linkRange(prefix: string, after: LinkKey | undefined, limit: number): LinkKey[];
  /** Every link once, in no particular order. */
  allLinks(): Iterable<LinkKey>;
  hasLink(link: LinkKey): boolean;
  keyOf(id: number): Key | undefined;
  /** As `Engine.readNode`. */
  readNode<T>(id: number, read: (node: StoredNode) => T): T | undefined;
  /**
   * 1 where an entry may exist under a prefix and a leaf (prefix by prefix), 0 where none did at some moment since the
   * call. Off the calling thread; 1 is allowed where none exists.
   */
  mayExist?(prefixes: readonly Key[], leaves: readonly string[]): Promise<Uint8Array>;
  /** As `Engine.isGone`; for storages that have to look. */
  isGone?(key: Key, since: number): boolean;
  idOf(key: Key): number | undefined;
  /** 0 when the counter is unknown. */
  counter(name: Key): number;
  /** Counters at or below a prefix. */
  countersUnder(prefix: Key): Key[];

  /** One listener, set before the first commit. */
  listen(listener: StorageListener): void;
  /**
   * Before a commit is made of what a transaction changed. Unavailable: there is no room for it; `takesAway`: it removes
   * something, which a full disk must be able to.
   */
  admit?(takesAway: boolean): void;
  /** Takes a commit over: all reads see it at once. Commits arrive in revision order; `background` ones can wait. */
  accept(commit: Commit, background?: boolean): Written;

  records(): number;
  fileBytes(): number;
  /** As in EngineStats; for storages that have them. */
  journalBytes?(): number;
  logBytes?(): number;
  flush(): Promise<void>;
  /** Resolves when work that can wait may go on without keeping others waiting for the disk; never rejects. */
  paced(): Promise<void>;
  /** As `Engine.foregroundDone`; never rejects. */
  foregroundDone(): Promise<void>;
  /** As `Engine.copyTo`; for storages that are files. */
  copyTo?: Engine['copyTo'];
  close(): Promise<void>;
}
