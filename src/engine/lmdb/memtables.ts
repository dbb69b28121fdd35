/**
 * What the tree does not have yet, in memory, over what LMDB returns:
 *
 *   active      what was committed since the last table became immutable
 *   immutable   the same, of earlier; the tree is getting what it has
 *
 * The newer table that has a key has its state; a tombstone (null) hides the tree's. Commits of one group, a batch of the
 * write-ahead log, have an undo list until the log has it. When the log cannot be written all groups are lost, and their changes
 * are taken back. When the tree has everything of the immutable table that one is dropped, and the active one becomes
 * immutable. A table may be kept longer than the tree needs it: both return the same. So there are twice as many changes in
 * memory as are outstanding at most. Called by the storage; one thread.
 */
import type { Key } from '../contract.js';
import type { PartitionedMap } from '../core/partitioned-map.js';
import type { ReadLayer } from '../core/reads.js';
import type { Entry, LinkKey } from '../core/storage.js';
import { collectionOf } from '../schema/keys.js';
import { Memtable, type TableCommit, Undo } from './memtable.js';

/** Commits that the log does not have. */
interface Group {
  /** Of the newest commit. */
  revision: number;
  readonly undo: Undo;
}

export class Memtables {
  /** Oldest first. */
  #groups: Group[] = [];
  /** Of the newest commit that the log has. */
  #revision = 0;
  #active = new Memtable();
  #immutable: Memtable | undefined;
  /** Some commits up to this one are in no table any more: the tree has them, or they are lost. */
  #dropped = 0;
  /** Those that are not empty, newest first. */
  #tables: readonly Memtable[] = [];

  // -------------------------------------------------------------------------------------------------------- reads

  /** null: no such entry; undefined: what the tree has counts. The same for the next three. */
  entry(key: Key): Entry | null | undefined {
    for (const { entries } of this.#tables) {
      const found = entries.size === 0 ? undefined : entries.get(key);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  link(link: LinkKey): true | null | undefined {
    for (const { links } of this.#tables) {
      const found = links.size === 0 ? undefined : links.get(link);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  counter(name: Key): number | null | undefined {
    for (const { counters } of this.#tables) {
      const found = counters.get(name);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Key of a node. */
  keyOf(id: number): Key | null | undefined {
    for (const { ids } of this.#tables) {
      const found = ids.get(id);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Whether there is no entry under a key that lost its entry after a revision; false also where only the tree says that. */
  isGone(key: Key, since: number): boolean {
    return since >= this.#dropped && (this.entry(key) ?? null) === null;
  }

  /** Whether links from parents to this node, as far as the tree has them, have been dropped. */
  isFormerChild(id: number): boolean {
    return this.#tables.some(({ formerChildren }) => formerChildren.has(id));
  }

  /** Records in order, the newest table last. */
  recordLayers(): ReadLayer<Uint8Array>[] {
    return this.#layers(({ entries }) => entries, bytesOf);
  }

  linkLayers(): ReadLayer<true>[] {
    return this.#layers(({ links }) => links, isPresent);
  }

  #layers<T, V>(
    mapOf: (table: Memtable) => PartitionedMap<T>,
    shown: (value: T) => V | undefined,
  ): Layer<T, V>[] {
    const maps = this.#tables.map(mapOf).filter(({ size }) => size > 0);
    return maps.reverse().map((map) => new Layer(map, shown));
  }

  /** Every link that is there, in no particular order. */
  *presentLinks(): Generator<LinkKey> {
    for (const [t, { links }] of this.#tables.entries()) {
      const newer = this.#tables.slice(0, t);
      for (const [link, present] of links.entries()) {
        if (present !== null && !newer.some((table) => table.links.has(link))) yield link;
      }
    }
  }

  counterNames(): Key[] {
    return this.#tables.flatMap(({ counters }) => [...counters.keys()]);
  }

  /** Those of the keys, each one of `prefixes` followed by one of `leaves`, that have an entry; some more than once. */
  *among(prefixes: readonly Key[], leaves: readonly string[]): Generator<[prefix: number, leaf: number]> {
    const indexOf = new Map(leaves.map((leaf, l) => [leaf, l]));
    for (const [p, prefix] of prefixes.entries()) {
      const collection = collectionOf(prefix);
      const parts = this.#tables.flatMap(({ entries }) => entries.part(collection) ?? []);
      const size = parts.reduce((sum, part) => sum + part.size, 0);
      if (size > leaves.length || indexOf.size < leaves.length) {
        for (const [l, leaf] of leaves.entries()) if (this.#hasEntry(prefix + leaf)) yield [p, l];
        continue;
      }
      // The tables have fewer keys than are asked about.
      for (const part of parts) {
        for (const [key] of part.entries()) {
          const leaf = key.startsWith(prefix) ? indexOf.get(key.slice(prefix.length)) : undefined;
          if (leaf !== undefined && this.#hasEntry(key)) yield [p, leaf];
        }
      }
    }
  }

  #hasEntry(key: Key): boolean {
    const entry = this.entry(key);
    return entry !== undefined && entry !== null;
  }

  // ------------------------------------------------------------------------------------------------------ changes

  /** The next commit begins a group. */
  beginGroup(): void {
    this.#groups.push({ revision: 0, undo: new Undo() });
  }

  /** A commit of the newest group. */
  add(commit: TableCommit): void {
    const group = this.#groups[this.#groups.length - 1];
    if (group === undefined) throw new Error('a commit without a group');
    const isKnown = (key: Key): boolean => this.entry(key) !== undefined;
    const isNew = this.#active.size === 0;
    this.#active.add(commit, group.undo, isKnown);
    group.revision = commit.revision;
    if (isNew) this.#list();
  }

  /** The log has the oldest group. */
  logged(): void {
    const group = this.#groups.shift();
    if (group !== undefined) this.#revision = group.revision;
  }

  /** All groups are lost. */
  lost(): void {
    for (const { undo, revision } of this.#groups.reverse()) {
      undo.run();
      this.#drop(revision);
    }
    this.#groups = [];
    for (const table of this.#tables) table.revision = Math.min(table.revision, this.#revision);
    this.#list();
  }

  /** The tree has everything up to a revision. */
  flushed(revision: number): void {
    if (this.#immutable !== undefined && this.#immutable.revision > revision) return;
    if (this.#immutable !== undefined) this.#drop(this.#immutable.revision);
    this.#immutable = this.#active.revision > revision ? this.#active : undefined;
    if (this.#immutable === undefined) this.#drop(this.#active.revision);
    this.#active = new Memtable();
    this.#list();
  }

  #drop(revision: number): void {
    this.#dropped = Math.max(this.#dropped, revision);
  }

  #list(): void {
    const tables = this.#immutable === undefined ? [this.#active] : [this.#active, this.#immutable];
    this.#tables = tables.filter(({ size }) => size > 0);
  }
}

/** One map of a table in order, as what its values stand for. */
class Layer<T, V> implements ReadLayer<V> {
  readonly #map: PartitionedMap<T>;
  readonly #shown: (value: T) => V | undefined;

  constructor(map: PartitionedMap<T>, shown: (value: T) => V | undefined) {
    this.#map = map;
    this.#shown = shown;
  }

  get size(): number {
    return this.#map.size;
  }

  *from(start: string, exclusive: boolean, within: string): Generator<[string, V | undefined]> {
    for (const [key, value] of this.#map.from(start, exclusive, within)) yield [key, this.#shown(value)];
  }
}

const bytesOf = (entry: Entry | null): Uint8Array | undefined => entry?.bytes;
const isPresent = (present: true | null): true | undefined => present ?? undefined;
