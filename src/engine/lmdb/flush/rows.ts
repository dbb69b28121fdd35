/**
 * The rows of the tree that many commits put and remove, gathered and sorted before the transaction begins, so that
 * neighbours share the pages they touch. Called by flush.ts; `put` only inside a transaction.
 *
 * Rows arrive in the order of their commits; of several for the same key the last one counts.
 */
import { asBuffer } from '../../core/bytes.js';
import { splitLink } from '../../core/storage.js';
import { Relation } from '../../schema/keys.js';
import { childCheck, childRow, childRows } from '../codec/child-links.js';
import { decodeLink, digestCut, encodeKey } from '../codec/key-codec.js';
import { hasAdjacency, nodeParts } from '../codec/node-codec.js';
import type { PackedOps } from '../codec/packed-ops.js';
import type { Databases } from '../tree/databases.js';
import { find, INLINE, INLINE_ID, idBytes, idsIn, SHARING_MAX } from '../tree/key-index.js';
import type { Table } from '../tree/table.js';
import type { RowVisitor } from '../wal/format.js';

const INLINE_HEAD = Buffer.from([INLINE]);
const EMPTY = Buffer.alloc(0);

/** Without a value: removed. */
interface Row {
  readonly key: Buffer;
  readonly value: Buffer | undefined;
}

/** What comes and goes under a cut key. */
interface CutRow {
  readonly key: Buffer;
  /** Whole keys of the nodes that come; undefined: the id goes. */
  readonly ids: Map<number, Buffer | undefined>;
  /** Whole keys, by their text, of nodes that went. */
  readonly gone: Map<string, Buffer>;
  /** Something else than a node comes. */
  hasInline: boolean;
}

export class Rows implements RowVisitor {
  readonly #dbs: Databases;
  readonly #keys = new Map<string, Row>();
  readonly #digests = new Map<string, CutRow>();
  readonly #nodes = new Map<number, Buffer | undefined>();
  readonly #links = new Map<string, Row>();
  /** Links of children: from → to → checksum, undefined when the link goes. */
  readonly #children = new Map<number, Map<number, Buffer | undefined>>();
  readonly #counters = new Map<string, Row>();
  /** In their order. */
  readonly ops: PackedOps[] = [];
  /** Ids of nodes by encoded key: those that come, and those that went. */
  readonly #ids = new Map<string, { id: number; present: boolean }>();

  constructor(dbs: Databases) {
    this.#dbs = dbs;
  }

  get size(): number {
    let children = 0;
    for (const { size } of this.#children.values()) children += size;
    const { size } = this.#keys;
    return size + this.#digests.size + this.#nodes.size + this.#links.size + children + this.#counters.size;
  }

  node(id: number, node: Buffer, isNew: boolean): void {
    this.#nodes.set(id, node);
    if (isNew) this.#setKey(keyOf(id, node), id, true);
  }

  nodeTombstone(id: number): void {
    const node = this.#nodes.has(id) ? this.#nodes.get(id) : asBuffer(this.#dbs.nodes.getBinary(id));
    if (node === undefined) return;
    this.#setKey(keyOf(id, node), id, false);
    this.#nodes.set(id, undefined);
    // The id may be another's soon.
    for (const to of this.#children.get(id)?.keys() ?? []) this.#setChild(id, to, undefined);
    for (const { key } of childRows(this.#dbs.children, id)) {
      this.#setChild(id, Buffer.from(key).readUInt32BE(4), undefined);
    }
  }

  #setKey(key: Buffer, id: number, present: boolean): void {
    const name = key.toString('latin1');
    this.#ids.set(name, { id, present });
    const cut = digestCut(key);
    if (cut === 0) {
      this.#keys.set(name, { key, value: present ? idBytes([id]) : undefined });
      return;
    }
    const row = this.#cutRow(key, cut);
    row.ids.set(id, present ? key : undefined);
    if (!present) row.gone.set(name, key);
  }

  #cutRow(key: Buffer, cut: number): CutRow {
    const name = key.toString('latin1', 0, cut);
    let row = this.#digests.get(name);
    if (row === undefined) {
      row = { key: key.subarray(0, cut), ids: new Map(), gone: new Map(), hasInline: false };
      this.#digests.set(name, row);
    }
    return row;
  }

  childTombstone(from: number, to: number): void {
    this.#setChild(from, to, undefined);
  }

  inline(key: Buffer, value: Buffer | undefined): void {
    const cut = digestCut(key);
    // Others may share the beginning, so the sign stays when this one goes.
    if (cut > 0 && value !== undefined) this.#cutRow(key, cut).hasInline = true;
    set(this.#keys, key, value && Buffer.concat([INLINE_HEAD, value]));
  }

  link(link: Buffer, present: boolean): void {
    const { from, relation, to } = splitLink(decodeLink(link));
    if (relation === Relation.children) {
      const fromId = this.#idOf(from, present);
      const toId = this.#idOf(to, present);
      if (
        fromId !== undefined &&
        toId !== undefined &&
        (!present || (this.#isRecord(fromId) && this.#isRecord(toId)))
      ) {
        this.#setChild(fromId, toId, present ? childCheck(encodeKey(to)) : undefined);
        if (present) return;
      }
    }
    set(this.#links, link, present ? EMPTY : undefined);
  }

  /** Whether a node stands for a record of the graph, and so stays as long as the record does. */
  #isRecord(id: number): boolean {
    const node = this.#nodes.has(id) ? this.#nodes.get(id) : asBuffer(this.#dbs.nodes.getBinary(id));
    return node !== undefined && hasAdjacency(node);
  }

  /** The id of a key's node; of one that went, unless it `must` be there. */
  #idOf(key: string, must: boolean): number | undefined {
    const own = this.#ids.get(encodeKey(key).toString('latin1'));
    if (own === undefined) return find(this.#dbs, key)?.id;
    // The id of one that went may be another's by now.
    return must && !own.present ? undefined : own.id;
  }

  #setChild(from: number, to: number, check: Buffer | undefined): void {
    let links = this.#children.get(from);
    if (links === undefined) {
      links = new Map();
      this.#children.set(from, links);
    }
    links.set(to, check);
  }

  graphOps(ops: PackedOps): void {
    this.ops.push(ops);
  }

  counter(name: Buffer, value: number | undefined): void {
    const bytes = value === undefined ? undefined : Buffer.allocUnsafe(8);
    bytes?.writeDoubleLE(value ?? 0);
    set(this.#counters, name, bytes);
  }

  put(): void {
    // Before the keys, among which are those that find no room.
    this.#putDigests();
    putAll(this.#dbs.keys, this.#keys);
    // New ids are appended, which fills their pages.
    for (const id of sorted(this.#nodes.keys())) {
      const node = this.#nodes.get(id);
      if (node === undefined) void this.#dbs.nodes.remove(id);
      else void this.#dbs.nodes.put(id, node);
    }
    putAll(this.#dbs.links, this.#links);
    for (const from of sorted(this.#children.keys())) {
      const links = this.#children.get(from)!;
      for (const to of sorted(links.keys())) {
        const check = links.get(to);
        if (check === undefined) void this.#dbs.children.remove(childRow(from, to));
        else void this.#dbs.children.put(childRow(from, to), check);
      }
    }
    putAll(this.#dbs.counters, this.#counters);
  }

  #putDigests(): void {
    const { digests } = this.#dbs;
    for (const { key, ids, gone, hasInline } of [...this.#digests.values()].sort(byKey)) {
      const row = digests.get(key);
      const stored = row === undefined ? [] : idsIn(row, digests.lastSize);
      const kept = stored.filter((id) => id !== INLINE_ID && !ids.has(id));
      let sharesWithKeys = hasInline || stored.includes(INLINE_ID);
      // Unless something else than a node came under the key, which is known by now; a node that did comes below.
      if (sharesWithKeys) {
        for (const [name, whole] of gone) if (!this.#keys.has(name)) set(this.#keys, whole, undefined);
      }
      for (const [id, whole] of ids) {
        if (whole === undefined) continue;
        if (kept.length < SHARING_MAX) kept.push(id);
        else {
          set(this.#keys, whole, idBytes([id]));
          sharesWithKeys = true;
        }
      }
      if (sharesWithKeys) kept.push(INLINE_ID);
      if (kept.length > 0) digests.put(key, idBytes(kept));
      else if (row !== undefined) digests.remove(key);
    }
  }
}

function keyOf(id: number, node: Buffer): Buffer {
  const { keyStart, keyEnd } = nodeParts(id, node, node.length);
  return node.subarray(keyStart, keyEnd);
}

const sorted = (ids: Iterable<number>): Uint32Array => Uint32Array.from(ids).sort();

function set(rows: Map<string, Row>, key: Buffer, value: Buffer | undefined): void {
  rows.set(key.toString('latin1'), { key, value });
}

const byKey = (a: { readonly key: Buffer }, b: { readonly key: Buffer }): number =>
  Buffer.compare(a.key, b.key);

function putAll(table: Table, rows: ReadonlyMap<string, Row>): void {
  for (const { key, value } of [...rows.values()].sort(byKey)) {
    if (value === undefined) table.remove(key);
    else table.put(key, value);
  }
}
