/**
 * Links of the relation `children` between two nodes, which a store has one of for nearly every snapshot: kept by the
 * ids of both ends instead of by their keys. Called by the storage for reading and by flush.ts for writing.
 *
 *   id of `from`, id of `to` (4 bytes each, big-endian) → CRC-32 of the encoded key of `to`
 *
 * A node may go without its links having been taken away, and its id may be given to another: the checksum shows it.
 * REQUIRES: what removes a node removes the links that it owns.
 */
import { crc32 } from 'node:zlib';
import { compareUtf8 } from '../../../model/utf8.js';
import type { Database } from '../../../system/lmdb/lmdb.js';
import type { Key } from '../../contract.js';
import { encodeKey } from './key-codec.js';

export type ChildTable = Database<Uint8Array, Uint8Array>;

/** A link by its ids. */
export interface ChildLink {
  readonly from: number;
  readonly to: number;
}

/** Of a commit's links, those that go with the node they lead to, and that the tree has by ids only. They are not among `links`. */
export interface WithFormerChildren {
  readonly formerChildren: readonly ChildLink[];
}

export function childRow(from: number, to: number): Buffer {
  const row = Buffer.allocUnsafe(8);
  row.writeUInt32BE(from, 0);
  row.writeUInt32BE(to, 4);
  return row;
}

export function childCheck(encodedTo: Uint8Array): Buffer {
  const check = Buffer.allocUnsafe(4);
  check.writeUInt32BE(crc32(encodedTo), 0);
  return check;
}

/** Rows of one node's links. */
export function childRows(table: ChildTable, from: number): Iterable<{ key: Uint8Array; value: Uint8Array }> {
  const end = childRow(from, 0xffffffff);
  return table.getRange({ start: childRow(from, 0), end });
}

export function hasChild(table: ChildTable, from: number, to: number, key: Key): boolean {
  const check = table.getBinary(childRow(from, to));
  return check !== undefined && isCheckOf(check, key);
}

/** Targets of one node's links, in key order; `keyOf` returns a node's key. */
export function childrenOf(table: ChildTable, from: number, keyOf: (id: number) => Key | undefined): Key[] {
  // The reads of `keyOf` must not come between those of the range.
  const rows = Array.from(childRows(table, from), ({ key, value }) => ({
    id: Buffer.from(key).readUInt32BE(4),
    check: Buffer.from(value),
  }));
  const found: Key[] = [];
  for (const { id, check } of rows) {
    const key = keyOf(id);
    if (key !== undefined && isCheckOf(check, key)) found.push(key);
  }
  return found.sort(compareUtf8);
}

/** All links of a store, in no particular order. */
export function* childPairs(
  table: ChildTable,
  keyOf: (id: number) => Key | undefined,
): Generator<{ from: Key; to: Key; child: number }> {
  for (let start: Buffer | undefined = childRow(0, 0); start !== undefined; ) {
    const rows: [Buffer, Buffer][] = [];
    for (const { key, value } of table.getRange({ start, limit: ROWS_AT_ONCE })) {
      rows.push([Buffer.from(key), Buffer.from(value)]);
    }
    for (const [ids, check] of rows) {
      const from = keyOf(ids.readUInt32BE(0));
      const to = keyOf(ids.readUInt32BE(4));
      if (from !== undefined && to !== undefined && isCheckOf(check, to))
        yield { from, to, child: ids.readUInt32BE(4) };
    }
    const last = rows.length < ROWS_AT_ONCE ? undefined : rows[rows.length - 1];
    start = last && Buffer.concat([last[0], Buffer.from([0])]);
  }
}
const ROWS_AT_ONCE = 512;

const isCheckOf = (check: Uint8Array, key: Key): boolean =>
  Buffer.from(check).readUInt32BE(0) === crc32(encodeKey(key));
