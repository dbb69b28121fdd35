/**
 * The rows that a group of commits puts and removes, gathered and sorted before LMDB's batch begins, so that the batch
 * itself is short. Called by the storage; `put` only inside a batch of the writer.
 */
import type { Key } from '../contract.js';
import { type EntryChange, type LinkKey, NO_ID } from '../core/storage.js';
import type { Databases } from './databases.js';
import { encodeKey, encodeLink } from './key-codec.js';
import { encodeNode } from './node-codec.js';
import type { Table } from './table.js';

/** First byte of what `keys` holds: the top of a node id (ids are below 2^30), or the head of a value. */
export const INLINE = 0x40;
/** Changes worked out between two looks at the clock. */
export const CHANGES_PER_STEP = 64;

const EMPTY = Buffer.alloc(0);
const INLINE_HEAD = Buffer.from([INLINE]);

/** Without a value: removed. */
interface Row {
  readonly key: Buffer;
  readonly value: Uint8Array | undefined;
}

export class Rows {
  readonly #dbs: Databases;
  readonly #keys: Row[] = [];
  readonly #nodes = new Map<number, Uint8Array | undefined>();
  #ids: Uint32Array = new Uint32Array();
  readonly #links: Row[] = [];
  readonly #counters: Row[] = [];

  constructor(dbs: Databases) {
    this.#dbs = dbs;
  }

  change(key: Key, { before, after }: EntryChange): void {
    const encoded = encodeKey(key);
    // An id that one key gives up may be another's already.
    if (before !== undefined && before.id !== NO_ID && !this.#nodes.has(before.id)) {
      this.#nodes.set(before.id, undefined);
    }
    if (after === undefined) {
      if (before !== undefined) this.#keys.push({ key: Buffer.from(encoded), value: undefined });
    } else if (after.id === NO_ID) {
      const value = Buffer.concat([INLINE_HEAD, after.bytes ?? EMPTY]);
      this.#keys.push({ key: Buffer.from(encoded), value });
    } else {
      this.#nodes.set(after.id, encodeNode(encoded, after));
      if (before?.id === after.id) return;
      const value = Buffer.allocUnsafe(4);
      value.writeUInt32BE(after.id);
      this.#keys.push({ key: Buffer.from(encoded), value });
    }
  }

  link(link: LinkKey, present: boolean): void {
    this.#links.push({ key: Buffer.from(encodeLink(link)), value: present ? EMPTY : undefined });
  }

  counter(name: Key, value: number | undefined): void {
    const bytes = value === undefined ? undefined : Buffer.allocUnsafe(8);
    bytes?.writeDoubleLE(value ?? 0);
    this.#counters.push({ key: Buffer.from(encodeKey(name)), value: bytes });
  }

  /** In key order neighbours share the pages they touch; in id order new nodes are appended, which fills the pages. */
  sort(): void {
    this.#keys.sort(byKey);
    this.#links.sort(byKey);
    this.#ids = Uint32Array.from(this.#nodes.keys()).sort();
  }

  put(): void {
    const { keys, nodes, links, counters } = this.#dbs;
    putAll(keys, this.#keys);
    for (const id of this.#ids) {
      const bytes = this.#nodes.get(id);
      if (bytes === undefined) nodes.remove(id);
      else nodes.put(id, bytes);
    }
    putAll(links, this.#links);
    putAll(counters, this.#counters);
  }
}

const byKey = (a: Row, b: Row): number => Buffer.compare(a.key, b.key);

function putAll(table: Table, rows: readonly Row[]): void {
  for (const { key, value } of rows) {
    if (value === undefined) table.remove(key);
    else table.put(key, value);
  }
}
