/**
 * Brings commits from the log into the tree: many batches become one LMDB transaction, whose rows are sorted, so that
 * neighbours share the pages they touch. Called by the apply worker, and at opening and closing by the thread that owns
 * the store; whoever calls is the only one that writes to the file.
 *
 * Durability: a transaction is on disk when the call returns. Records, links and the graph journal of a commit are in
 * one transaction, so they never come apart.
 */
import type { Databases } from './databases.js';
import type { DataFile } from './files.js';
import { encodeJournal, journalKey } from './journal.js';
import { openBatch, visitRows } from './log-format.js';
import { nodeParts } from './node-codec.js';
import { asBuffer, type Table } from './table.js';

/** First byte of what `keys` holds: the top of a node id (ids are below 2^30), or the head of a value. */
export const INLINE = 0x40;
const INLINE_HEAD = Buffer.from([INLINE]);
const EMPTY = Buffer.alloc(0);
/** Room for pages that a row may add to the file. */
const ROW_CUSHION_BYTES = 8 * 1024;

/** A write of another kind: parts of a checkpoint, the state of the store, journal entries that are covered. */
export type Job =
  | { into: 'checkpoints' | 'journal'; key: Uint8Array; value: Uint8Array | undefined }
  | { into: 'meta'; key: string; value: Uint8Array };

export interface Applied {
  revision: number;
  journalBytes: number;
}

/** One transaction with all of the batches, which follow one another. */
export function applyBatches(dbs: Databases, file: DataFile, buffers: readonly Buffer[]): Applied {
  const batches = buffers.map(openBatch);
  const last = batches[batches.length - 1];
  if (last === undefined) return { revision: 0, journalBytes: 0 };
  const rows = new Rows(dbs);
  for (const { rows: bytes } of batches) visitRows(bytes, rows);
  const entry = encodeJournal(batches[0]?.previous ?? 0, batches);
  file.keepCushion(rows.size * ROW_CUSHION_BYTES);
  dbs.env.transactionSync(() => {
    rows.put();
    void dbs.journal.put(journalKey(last.revision), entry);
  });
  file.keepCushion(0);
  return { revision: last.revision, journalBytes: entry.length };
}

export function runJobs(dbs: Databases, file: DataFile, jobs: readonly Job[]): void {
  const bytes = jobs.reduce((sum, { value }) => sum + (value?.length ?? 0), 0);
  file.keepCushion(bytes + jobs.length * ROW_CUSHION_BYTES);
  dbs.env.transactionSync(() => {
    for (const job of jobs) {
      if (job.into === 'meta') void dbs.meta.put(job.key, asBuffer(job.value));
      else if (job.value === undefined) void dbs[job.into].remove(asBuffer(job.key));
      else void dbs[job.into].put(asBuffer(job.key), asBuffer(job.value));
    }
  });
  file.keepCushion(0);
}

/** Without a value: removed. */
interface Row {
  readonly key: Buffer;
  readonly value: Buffer | undefined;
}

/** Gathers rows of one transaction: of several with the same key the last one counts. */
class Rows {
  readonly #dbs: Databases;
  readonly #keys = new Map<string, Row>();
  readonly #nodes = new Map<number, Buffer | undefined>();
  readonly #links = new Map<string, Row>();
  readonly #counters = new Map<string, Row>();

  constructor(dbs: Databases) {
    this.#dbs = dbs;
  }

  get size(): number {
    return this.#keys.size + this.#nodes.size + this.#links.size + this.#counters.size;
  }

  node(id: number, node: Buffer, isNew: boolean): void {
    this.#nodes.set(id, node);
    if (!isNew) return;
    const value = Buffer.allocUnsafe(4);
    value.writeUInt32BE(id);
    set(this.#keys, keyOf(id, node), value);
  }

  nodeGone(id: number): void {
    const node = this.#nodes.has(id) ? this.#nodes.get(id) : asBuffer(this.#dbs.nodes.getBinary(id));
    if (node === undefined) return;
    set(this.#keys, Buffer.from(keyOf(id, node)), undefined);
    this.#nodes.set(id, undefined);
  }

  inline(key: Buffer, value: Buffer | undefined): void {
    set(this.#keys, key, value && Buffer.concat([INLINE_HEAD, value]));
  }

  link(link: Buffer, present: boolean): void {
    set(this.#links, link, present ? EMPTY : undefined);
  }

  counter(name: Buffer, value: number | undefined): void {
    const bytes = value === undefined ? undefined : Buffer.allocUnsafe(8);
    bytes?.writeDoubleLE(value ?? 0);
    set(this.#counters, name, bytes);
  }

  /** In the transaction. New ids are appended, which fills their pages. */
  put(): void {
    putAll(this.#dbs.keys, this.#keys);
    for (const id of Uint32Array.from(this.#nodes.keys()).sort()) {
      const node = this.#nodes.get(id);
      if (node === undefined) void this.#dbs.nodes.remove(id);
      else void this.#dbs.nodes.put(id, node);
    }
    putAll(this.#dbs.links, this.#links);
    putAll(this.#dbs.counters, this.#counters);
  }
}

function keyOf(id: number, node: Buffer): Buffer {
  const { keyStart, keyEnd } = nodeParts(id, node, node.length);
  return node.subarray(keyStart, keyEnd);
}

function set(rows: Map<string, Row>, key: Buffer, value: Buffer | undefined): void {
  rows.set(key.toString('latin1'), { key, value });
}

const byKey = (a: Row, b: Row): number => Buffer.compare(a.key, b.key);

function putAll(table: Table, rows: ReadonlyMap<string, Row>): void {
  for (const { key, value } of [...rows.values()].sort(byKey)) {
    if (value === undefined) table.remove(key);
    else table.put(key, value);
  }
}

