/**
 * Links between records, as the tree and the memtables have them. Called by the storage, also
 * when either changes. The tree has links in two forms: whole ones, and those of children by their ids.
 */
import { compareUtf8 } from '../../model/utf8.js';
import type { Key } from '../contract.js';
import { successor } from '../core/bytes.js';
import { CHUNK_MAX } from '../core/reads.js';
import { type Commit, edgeIsBack, edgeTarget, type LinkKey, linkPrefix, splitLink } from '../core/storage.js';
import { collectionOf, Relation } from '../schema/keys.js';
import {
  type ChildLink,
  childPairs,
  childrenOf,
  hasChild,
  type WithFormerChildren,
} from './codec/child-links.js';
import { decodeKey, decodeLink, encodeBelow, encodeLink, encodeLinkPrefix } from './codec/key-codec.js';
import { nodeParts } from './codec/node-codec.js';
import { FirstLinks } from './first-links.js';
import type { Memtables } from './memtables.js';
import { boundsOf, merged } from './tree/bounded-range.js';
import type { Databases } from './tree/databases.js';
import { find } from './tree/key-index.js';
import { lastSizeOf } from './tree/table.js';

const NO_CHILDREN: readonly ChildLink[] = [];
/** Rows read ahead at a time. */
const CHUNK_ROWS = 512;

export class Links {
  readonly #dbs: Databases;
  readonly #tables: Memtables;
  /** Collections known to own no links, or known to. */
  readonly #linkless = new Map<string, boolean>();
  /** Collections for which the tree has no links but those of children by ids; good until it changes. */
  readonly #textless = new Map<string, boolean>();
  /** Those whose records got links since the store was opened. */
  readonly #owners = new Set<string>();
  /** Good until the tree changes: a long list is asked for in chunks. */
  #lastChildren: { readonly from: Key; readonly links: readonly LinkKey[] } | undefined;

  readonly #first = new FirstLinks((prefix) => this.#range(prefix, undefined, 1)[0]);

  constructor(dbs: Databases, tables: Memtables) {
    this.#dbs = dbs;
    this.#tables = tables;
  }

  range(prefix: string, after: LinkKey | undefined, limit: number): LinkKey[] {
    if (this.#ownsNone(prefix)) return [];
    const start = after ?? this.#first.startAfter(prefix);
    const links = this.#range(prefix, start, limit);
    this.#first.wereRead(prefix, start, links);
    return links;
  }

  #range(prefix: string, after: LinkKey | undefined, limit: number): LinkKey[] {
    const read = (from: LinkKey | undefined, count: number): [LinkKey, true][] => {
      const bounds = boundsOf(Buffer.from(encodeLinkPrefix(prefix)), from, prefix, encodeLink);
      const { lower, exclusive, upper } = bounds;
      const links = this.#dbs.links.range(lower, exclusive, upper, count).map(([link]) => decodeLink(link));
      const children = this.#storedChildren(prefix);
      if (children.length > 0) {
        for (const link of children) if (from === undefined || compareUtf8(link, from) > 0) links.push(link);
        links.sort(compareUtf8);
      }
      return links.slice(0, count).map((link) => [link, true]);
    };
    const layers = this.#tables.linkLayers();
    if (layers.length === 0) return read(after, limit).map(([link]) => link);
    const found: LinkKey[] = [];
    if (limit <= 0) return found;
    for (const [link] of merged(prefix, after, Math.min(limit, CHUNK_MAX), read, layers)) {
      found.push(link);
      if (found.length >= limit) break;
    }
    return found;
  }

  /** Links of children that the tree has and that begin with a prefix, in order. */
  #storedChildren(prefix: string): readonly LinkKey[] {
    const { from, relation } = splitLink(`${prefix}\0\0`);
    if (relation !== '' && relation !== Relation.children) return [];
    if (this.#lastChildren?.from === from) return this.#lastChildren.links;
    const id = find(this.#dbs, from)?.id;
    if (id === undefined) return [];
    const start = linkPrefix(from, Relation.children);
    const keys = childrenOf(this.#dbs.children, id, (child) =>
      this.#tables.isFormerChild(child) ? undefined : this.#storedKeyOf(child),
    );
    const links = keys.map((to) => start + to);
    this.#lastChildren = { from, links };
    return links;
  }

  #storedKeyOf(id: number): Key | undefined {
    const node = this.#dbs.nodes.getBinaryFast(id);
    if (node === undefined) return undefined;
    const { keyStart, keyEnd } = nodeParts(id, node, lastSizeOf(this.#dbs.nodes));
    return decodeKey(node, keyStart, keyEnd);
  }

  /** Whether no record of the prefix's collection owns such links: most are asked for in vain. */
  #ownsNone(prefix: string): boolean {
    const { from, relation } = splitLink(`${prefix}\0\0`);
    const collection = collectionOf(from);
    const about = relation === '' || relation === Relation.children ? `${collection}\0` : collection;
    let none = this.#linkless.get(about);
    if (none === undefined) {
      none = this.#hasNoRows(collection);
      if (about !== collection) for (const _ of this.#dbs.children.getKeys({ limit: 1 })) none = false;
      this.#linkless.set(about, none);
    }
    return none;
  }

  *all(): Generator<LinkKey> {
    const { links, children } = this.#dbs;
    const isStored = (link: LinkKey): boolean => this.#tables.link(link) === undefined;
    for (let lower: Buffer = Buffer.alloc(0), exclusive = false; ; exclusive = true) {
      const rows = links.range(lower, exclusive, undefined, CHUNK_ROWS);
      for (const [row] of rows) {
        const link = decodeLink(row);
        if (isStored(link)) yield link;
      }
      const last = rows[rows.length - 1];
      if (rows.length < CHUNK_ROWS || last === undefined) break;
      lower = last[0];
    }
    for (const { from, to, child } of childPairs(children, (id) => this.#storedKeyOf(id))) {
      if (this.#tables.isFormerChild(child)) continue;
      const link = linkPrefix(from, Relation.children) + to;
      if (isStored(link)) yield link;
    }
    yield* this.#tables.presentLinks();
  }

  has(link: LinkKey): boolean {
    const known = this.#tables.link(link);
    if (known !== undefined) return known !== null;
    const { from, relation, to } = splitLink(link);
    if (relation === Relation.children) {
      const fromId = find(this.#dbs, from)?.id;
      const toId = fromId === undefined ? undefined : find(this.#dbs, to)?.id;
      const isThere = fromId !== undefined && toId !== undefined && !this.#tables.isFormerChild(toId);
      if (isThere && hasChild(this.#dbs.children, fromId, toId, to)) return true;
    }
    return this.#dbs.links.get(encodeLink(link)) !== undefined;
  }

  /**
   * Splits the links of a commit that is about to be put into a memtable and the log: of a child that goes with its link two
   * ids are put down instead, which is much less.
   */
  split({ links, freed, entries }: Commit): WithFormerChildren & Pick<Commit, 'links'> {
    if (links.size === 0 || freed.size === 0) return { links, formerChildren: NO_CHILDREN };
    const gone = new Map<Key, number>();
    for (const [id, key] of freed) gone.set(key, id);
    const others = new Map<LinkKey, boolean>();
    const formerChildren: ChildLink[] = [];
    for (const [link, present] of links) {
      const child = present ? undefined : this.#formerChild(link, gone, entries);
      if (child === undefined) others.set(link, present);
      else formerChildren.push(child);
    }
    return { links: others, formerChildren };
  }

  /** A commit is in a memtable now. */
  added({ links }: Pick<Commit, 'links'>): void {
    this.#lastChildren = undefined;
    this.#first.added(links);
    for (const link of links.keys()) this.#owns(collectionOf(link));
  }

  /** The tree has changed. */
  flushed(): void {
    this.#lastChildren = undefined;
    this.#textless.clear();
  }

  /** Commits were lost. */
  reverted(): void {
    this.#lastChildren = undefined;
    this.#first.forget();
  }

  /**
   * The ids of a link, if the node that it led to is `gone` and the tree has such links by their ids only. `from` is found
   * among what that node referred to: a snapshot refers to its parent.
   */
  #formerChild(
    link: LinkKey,
    gone: ReadonlyMap<Key, number>,
    entries: Commit['entries'],
  ): ChildLink | undefined {
    const { from, relation, to } = splitLink(link);
    const child = gone.get(to);
    if (relation !== Relation.children || child === undefined) return undefined;
    if (this.#tables.link(link) !== undefined || !this.#isByIds(collectionOf(from))) return undefined;
    for (const edge of entries.get(to)?.before?.adjacency?.edges ?? []) {
      const target = edgeTarget(edge);
      if (!edgeIsBack(edge) && this.#keyOf(target) === from) return { from: target, to: child };
    }
    return undefined;
  }

  #keyOf(id: number): Key | null | undefined {
    const known = this.#tables.keyOf(id);
    return known === undefined ? this.#storedKeyOf(id) : known;
  }

  /** Whether the tree has no links of a collection's records but those of children by ids. */
  #isByIds(collection: string): boolean {
    let none = this.#textless.get(collection);
    if (none === undefined) {
      none = this.#hasNoRows(collection);
      this.#textless.set(collection, none);
    }
    return none;
  }

  #hasNoRows(collection: string): boolean {
    const lower = Buffer.from(encodeBelow(collection));
    return this.#dbs.links.range(lower, false, successor(lower), 1).length === 0;
  }

  #owns(collection: string): void {
    if (this.#owners.has(collection)) return;
    this.#owners.add(collection);
    this.#linkless.set(collection, false);
    this.#linkless.set(`${collection}\0`, false);
  }
}
