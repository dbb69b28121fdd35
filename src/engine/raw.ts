/**
 * Raw keys: a small ordered text store beside the tree, with the reads, writes and locks of an etcd client. Called by
 * db.ts. `RawStore` works on its own, each write a transaction; inside `eUpdate` the same interface joins one.
 *
 * Each raw key is a record with its value and three numbers: when it was created and last modified (both of one
 * growing sequence) and how often it was written since.
 */

import { failedPrecondition, invalidArgument, notFound } from '../errors.js';
import { compareUtf8 } from '../model/utf8.js';
import type {
  Engine,
  GetOptions,
  PutOptions,
  Reader,
  Transaction,
  Transactor,
  Unlock,
  Value,
} from './contract.js';
import { leaf, metaKey, rawKey } from './schema/keys.js';

/** Key and value together, as etcd limits a request. */
const REQUEST_BYTES_MAX = 1.5 * 1024 * 1024;
const COLLECTION = 'raw';
const SEQUENCE = metaKey('raw-sequence');

interface RawRecord {
  key: string;
  value: string;
  create: number;
  mod: number;
  version: number;
}

export class RawStore implements Transactor {
  readonly #engine: Engine;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Of a shared tree, what the shared store itself has. */
  async get(key: string, options: GetOptions = {}): Promise<Map<string, string>> {
    return this.#engine.shared?.readRaw(key, options) ?? read(this.#engine, key, options);
  }

  async put(key: string, value: string, options: PutOptions = {}): Promise<void> {
    const { shared } = this.#engine;
    if (shared !== undefined && options.lease !== undefined) {
      return shared.putRawWithLease(key, value, String(options.lease));
    }
    return this.#engine.update((tx) => write(tx, key, value, options));
  }

  del(key: string, options: { prefix?: boolean } = {}): Promise<number> {
    return this.#engine.update((tx) => remove(tx, key, options));
  }

  lock(prefix: string, signal?: AbortSignal): Promise<Unlock> {
    return this.#engine.locks.lock(prefix, signal);
  }

  rLock(prefix: string, signal?: AbortSignal): Promise<Unlock> {
    return this.#engine.locks.rLock(prefix, signal);
  }

  tryLock(prefix: string): Promise<Unlock> {
    return this.#engine.locks.tryLock(prefix);
  }

  /**
   * Runs `fn` in one transaction, which `run` provides (default: the engine's). Locks taken through the transactor
   * are released when it has ended, or before `fn` runs again after a conflict.
   */
  async eUpdate<T>(
    fn: (transactor: Transactor) => Promise<T>,
    run: (body: (tx: Transaction) => Promise<T>) => Promise<T> = (body) => this.#engine.update(body),
  ): Promise<T> {
    let held = new HeldLocks();
    try {
      return await run(async (tx) => {
        await held.releaseAll();
        held = new HeldLocks();
        return fn(new RawTransaction(this.#engine, tx, held));
      });
    } finally {
      await held.releaseAll();
    }
  }
}

class RawTransaction implements Transactor {
  readonly #engine: Engine;
  readonly #tx: Transaction;
  readonly #held: HeldLocks;

  constructor(engine: Engine, tx: Transaction, held: HeldLocks) {
    this.#engine = engine;
    this.#tx = tx;
    this.#held = held;
  }

  async get(key: string, options: GetOptions = {}): Promise<Map<string, string>> {
    return read(this.#tx, key, options);
  }

  async put(key: string, value: string, options: PutOptions = {}): Promise<void> {
    write(this.#tx, key, value, options);
  }

  async del(key: string, options: { prefix?: boolean } = {}): Promise<number> {
    return remove(this.#tx, key, options);
  }

  lock(prefix: string, signal?: AbortSignal): Promise<Unlock> {
    return this.#take(this.#engine.locks.lock(prefix, signal));
  }

  rLock(prefix: string, signal?: AbortSignal): Promise<Unlock> {
    return this.#take(this.#engine.locks.rLock(prefix, signal));
  }

  tryLock(prefix: string): Promise<Unlock> {
    return this.#take(this.#engine.locks.tryLock(prefix));
  }

  #take(lock: Promise<Unlock>): Promise<Unlock> {
    return this.#held.take(async () => {
      const unlock = await lock;
      return this.#tx.guardBy?.(unlock) ?? unlock;
    });
  }
}

/** Locks of one attempt of a transaction. */
class HeldLocks {
  readonly #held = new Set<Unlock>();
  #ended = false;

  async take(acquire: () => Promise<Unlock>): Promise<Unlock> {
    this.#check();
    const unlock = await acquire();
    if (this.#ended) {
      await unlock();
      this.#check();
    }
    this.#held.add(unlock);
    return () => {
      this.#held.delete(unlock);
      return unlock();
    };
  }

  async releaseAll(): Promise<void> {
    this.#ended = true;
    const held = [...this.#held];
    this.#held.clear();
    // One that was lost meanwhile has ended already; the commit has seen to that.
    for (const unlock of held) await unlock().catch(() => undefined);
  }

  #check(): void {
    if (this.#ended) throw failedPrecondition('the transaction has ended', { remedy: 'begin a new one' });
  }
}

// ------------------------------------------------------------------------------------------- over any reader or tx

function read(reader: Reader, key: string, options: GetOptions): Map<string, string> {
  const { rev, limit = 0 } = options;
  if (!Number.isSafeInteger(limit) || limit < 0) throw invalidArgument(`limit ${limit} is not a valid count`);
  if (rev !== undefined && rev !== 0 && rev !== reader.revision) {
    throw failedPrecondition(`revision ${rev} is not kept`, {
      remedy: `read the current revision, ${reader.revision}`,
    });
  }
  const order = comparison(options.sort);
  const found: RawRecord[] = [];
  for (const record of range(reader, key, options)) {
    found.push(record);
    if (order === undefined && found.length === limit) break;
  }
  if (options.countOnly) return new Map();
  if (order !== undefined) found.sort(order);
  const wanted = limit > 0 ? found.slice(0, limit) : found;
  return new Map(wanted.map((record) => [record.key, options.keysOnly ? '' : record.value]));
}

function* range(reader: Reader, key: string, options: GetOptions): Generator<RawRecord> {
  const { prefix, fromKey, rangeEnd } = options;
  if (key === '' && !prefix && !fromKey) {
    throw invalidArgument('key must not be empty', { remedy: 'ask for a prefix, or from a key on' });
  }
  const single = key === '' ? undefined : rawKey(key);
  if (single !== undefined) {
    const value = reader.get(single);
    if (value !== undefined && (rangeEnd === undefined || prefix || compareUtf8(key, rangeEnd) < 0)) {
      yield toRecord(key, value);
    }
    if (!prefix && !fromKey && rangeEnd === undefined) return;
  }
  const start = single === undefined ? {} : { after: single };
  for (const [stored, value] of reader.scan(COLLECTION, start)) {
    const name = leaf(stored);
    if (prefix && !name.startsWith(key)) return;
    if (!prefix && !fromKey && rangeEnd !== undefined && compareUtf8(name, rangeEnd) >= 0) return;
    yield toRecord(name, value);
  }
}

function write(tx: Transaction, key: string, value: string, options: PutOptions): void {
  const stored = rawKey(key);
  if (Buffer.byteLength(key) + Buffer.byteLength(value) > REQUEST_BYTES_MAX) {
    throw invalidArgument(`key and value are larger than ${REQUEST_BYTES_MAX} bytes`, {
      object: key.slice(0, 256),
    });
  }
  if (options.lease !== undefined) {
    throw notFound(`lease ${options.lease} not found`, {
      object: String(options.lease),
      remedy: 'an embedded store has no etcd leases',
    });
  }
  const before = tx.get(stored);
  const mod = tx.numbersRawKeys ? 0 : tx.next(SEQUENCE);
  const old = before === undefined ? undefined : toRecord(key, before);
  tx.put(stored, { value, create: old?.create ?? mod, mod, version: (old?.version ?? 0) + 1 });
}

function remove(tx: Transaction, key: string, options: { prefix?: boolean }): number {
  const names = [...range(tx, key, { prefix: options.prefix ?? false })].map((record) => record.key);
  for (const name of names) tx.delete(rawKey(name));
  return names.length;
}

function toRecord(key: string, stored: Value): RawRecord {
  const fields = typeof stored === 'string' ? { value: stored } : stored;
  const number = (field: string): number => (typeof fields[field] === 'number' ? fields[field] : 0);
  return {
    key,
    value: typeof fields.value === 'string' ? fields.value : '',
    create: number('create'),
    mod: number('mod'),
    version: number('version'),
  };
}

/** undefined: by key, ascending, as the store reads them. */
function comparison(sort: GetOptions['sort']): ((a: RawRecord, b: RawRecord) => number) | undefined {
  const by = sort?.by ?? 'key';
  const order = sort?.order ?? 'asc';
  if (order !== 'asc' && order !== 'desc') throw invalidArgument(`cannot sort in order "${order}"`);
  if (by === 'key' && order === 'asc') return undefined;
  const sign = order === 'asc' ? 1 : -1;
  switch (by) {
    case 'key':
    case 'value':
      return (a, b) => sign * compareUtf8(a[by], b[by]);
    case 'version':
    case 'create':
    case 'mod':
      return (a, b) => sign * (a[by] - b[by]);
    default:
      throw invalidArgument(`cannot sort by "${String(by)}"`);
  }
}
