/**
 * Raw keys as etcd has them, with every option of its client: reads outside a transaction. Called by engine.ts.
 *
 * They may look at the whole tree (`v1/…`, one JSON text a record). A read shows all
 * of a unit or nothing of it: where one is decided and not applied, its staged changes are put over what etcd has.
 */
import type { IRangeRequest } from 'etcd3';
import { invalidArgument, present } from '../../errors.js';
import { compareUtf8 } from '../../model/utf8.js';
import type { GetOptions, SortField } from '../contract.js';
import { successor } from '../core/bytes.js';
import type { EtcdClient, KeyValue } from './client/client.js';
import { fetchUnit, type Gate, parseGate } from './format/gate.js';
import { type Layout, Sys } from './format/layout.js';
import type { StagedChange } from './format/unit.js';

const sortTargets: Readonly<Record<SortField, number>> = { key: 0, version: 1, create: 2, mod: 3, value: 4 };
/** Not the business of users. */
const hidden = /^(?:sys|lock)\//;

export class EtcdRawKeys {
  readonly #client: EtcdClient;
  readonly #layout: Layout;

  constructor(client: EtcdClient, layout: Layout) {
    this.#client = client;
    this.#layout = layout;
  }

  async read(key: string, options: GetOptions): Promise<Map<string, string>> {
    const { limit = 0 } = options;
    const request = this.#request(key, options);
    const found = new Map<string, string>();
    for (const kv of await this.#read(key, request, options)) {
      if (hidden.test(kv.key)) continue;
      found.set(kv.key, options.keysOnly ? '' : kv.value.toString('utf8'));
      if (found.size === limit) break;
    }
    return found;
  }

  async #read(key: string, request: IRangeRequest, options: GetOptions): Promise<readonly KeyValue[]> {
    const client = this.#client;
    const { revision = 0, serializable = false } = request;
    const gateRequest = { key: client.absolute(Sys.gate), revision, serializable };
    const [response, gates] = await client.rawRanges([request, gateRequest]);
    const { kvs, revision: current } = present(response, 'the response for the keys');
    const gate = gates?.kvs[0] && parseGate(gates.kvs[0]);
    if (gate?.state !== 'flipped') return kvs;
    // The unit may be gone by now; at this revision it is there.
    const changes = await fetchUnit(client, gate, revision === 0 ? current : Number(revision));
    return this.#withUnit(kvs, changes, gate, inRange(key, options), options);
  }

  /** What a range holds with the changes of a decided unit over it, in the order asked for. */
  #withUnit(
    kvs: readonly KeyValue[],
    changes: readonly StagedChange[],
    gate: Gate,
    isIn: (key: string) => boolean,
    { sort }: GetOptions,
  ): readonly KeyValue[] {
    const shown = new Map(kvs.map((kv) => [kv.key, kv]));
    for (const change of changes) {
      if ('w' in change) {
        const dir = this.#layout.linksOf(change.w);
        for (const key of [...shown.keys()]) if (key.startsWith(dir)) shown.delete(key);
      } else if ('d' in change) shown.delete(change.d);
      else if (isIn(change.p)) {
        const before = shown.get(change.p);
        // Applied already: etcd has it as it will be.
        if (before !== undefined && before.mod > gate.mod) continue;
        const { create = gate.mod, version = 0 } = before ?? {};
        const value = Buffer.from(change.v);
        shown.set(change.p, { key: change.p, value, create, mod: gate.mod, version: version + 1 });
      }
    }
    const by = comparisons[sort?.by ?? 'key'];
    const sign = sort?.order === 'desc' ? -1 : 1;
    return [...shown.values()].sort((a, b) => sign * by(a, b));
  }

  #request(key: string, options: GetOptions): IRangeRequest {
    const { prefix, fromKey, rangeEnd, limit = 0, sort, rev, keysOnly, countOnly, serializable } = options;
    if (!Number.isSafeInteger(limit) || limit < 0)
      throw invalidArgument(`limit ${limit} is not a valid count`);
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
    const client = this.#client;
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
    const client = this.#client;
    if (fromKey || (prefix && key === '')) return { range_end: client.endOfTree };
    if (prefix) return { range_end: endOf(client.absolute(key)) };
    return rangeEnd === undefined ? {} : { range_end: client.absolute(rangeEnd) };
  }
}

/** Whether a key is among those that were asked for. */
function inRange(key: string, { prefix, fromKey, rangeEnd }: GetOptions): (name: string) => boolean {
  if (prefix) return (name) => name.startsWith(key);
  if (fromKey) return (name) => compareUtf8(name, key) >= 0;
  if (rangeEnd === undefined) return (name) => name === key;
  return (name) => compareUtf8(name, key) >= 0 && compareUtf8(name, rangeEnd) < 0;
}

const comparisons: Readonly<Record<SortField, (a: KeyValue, b: KeyValue) => number>> = {
  key: (a, b) => compareUtf8(a.key, b.key),
  value: (a, b) => Buffer.compare(a.value, b.value),
  version: (a, b) => a.version - b.version,
  create: (a, b) => a.create - b.create,
  mod: (a, b) => a.mod - b.mod,
};

/** The first key after all that begin with `key`. */
const endOf = (key: Buffer): Buffer => successor(key) ?? Buffer.from([0]);
