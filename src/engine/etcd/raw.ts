/**
 * Raw keys over etcd: reads and writes outside a transaction go to etcd itself, with every option of its client;
 * inside `eUpdate` they join the transaction like any record. Called by db.ts.
 *
 * Reads may look at the whole tree (`v1/…`, one JSON text a record); writes keep to keys of their own.
 */
import type { IRangeRequest } from 'etcd3';
import { invalidArgument } from '../../errors.js';
import { type GetOptions, type PutOptions, RawStore, type SortField } from '../raw.js';
import type { EtcdEngine } from './engine.js';
import { rawName } from './layout.js';

const sortTargets: Readonly<Record<SortField, number>> = { key: 0, version: 1, create: 2, mod: 3, value: 4 };
/** Not the business of users. */
const hidden = /^(?:sys|lock)\//;

export class EtcdRawStore extends RawStore {
  readonly #engine: EtcdEngine;

  constructor(engine: EtcdEngine) {
    super(engine);
    this.#engine = engine;
  }

  override async get(key: string, options: GetOptions = {}): Promise<Map<string, string>> {
    const { client } = this.#engine;
    const { limit = 0 } = options;
    const answer = await client.rawRange(this.#request(key, options));
    const found = new Map<string, string>();
    for (const kv of answer.kvs) {
      const { key: name, value } = client.keyValue(kv);
      if (hidden.test(name)) continue;
      found.set(name, options.keysOnly ? '' : value.toString('utf8'));
      if (found.size === limit) break;
    }
    return found;
  }

  #request(key: string, options: GetOptions): IRangeRequest {
    const { prefix, fromKey, rangeEnd, limit = 0, sort, rev, keysOnly, countOnly, serializable } = options;
    if (!Number.isSafeInteger(limit) || limit < 0) throw invalidArgument(`limit ${limit} is no count`);
    if (rev !== undefined && (!Number.isSafeInteger(rev) || rev < 0)) {
      throw invalidArgument(`revision ${rev} is none`);
    }
    if (key === '' && !prefix && !fromKey) {
      throw invalidArgument('key must not be empty', { remedy: 'ask for a prefix, or from a key on' });
    }
    const by = sortTargets[sort?.by ?? 'key'];
    if (by === undefined) throw invalidArgument(`cannot sort by "${String(sort?.by)}"`);
    const order = sort?.order ?? 'asc';
    if (order !== 'asc' && order !== 'desc') throw invalidArgument(`cannot sort in order "${order}"`);
    const { client } = this.#engine;
    return {
      key: key === '' && client.absolute('').length === 0 ? Buffer.from([0]) : client.absolute(key),
      ...this.#end(key, prefix === true, fromKey === true, rangeEnd),
      // What is hidden must not be counted.
      limit: prefix || fromKey || rangeEnd !== undefined ? 0 : limit,
      revision: rev ?? 0,
      keys_only: keysOnly ?? false,
      count_only: countOnly ?? false,
      serializable: serializable ?? false,
      ...(sort && { sort_target: by, sort_order: order === 'asc' ? 1 : 2 }),
    };
  }

  #end(key: string, prefix: boolean, fromKey: boolean, rangeEnd: string | undefined): { range_end?: Buffer } {
    const { client } = this.#engine;
    if (fromKey || (prefix && key === '')) return { range_end: client.endOfTree };
    if (prefix) return { range_end: successor(client.absolute(key)) };
    return rangeEnd === undefined ? {} : { range_end: client.absolute(rangeEnd) };
  }

  override async put(key: string, value: string, options: PutOptions = {}): Promise<void> {
    if (options.lease === undefined) return super.put(key, value);
    if (key === '') throw invalidArgument('key must not be empty');
    // A key that goes with a lease is no part of a transaction: its end comes from outside.
    await this.#engine.client.txn([], [{ put: rawName(key), value, lease: String(options.lease) }]);
  }
}

/** The first key behind all that begin with `key`. */
function successor(key: Buffer): Buffer {
  const end = Buffer.from(key);
  for (let at = end.length - 1; at >= 0; at--) {
    if (end[at]! < 0xff) {
      end[at]!++;
      return end.subarray(0, at + 1);
    }
  }
  return Buffer.from([0]);
}
