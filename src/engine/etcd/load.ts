/**
 * Reads the whole tree at one revision, in shards and pages side by side. Called by mirror.ts at the first start of
 * a host, and when a watch was overtaken by a compaction.
 *
 * Each page of a range makes etcd walk its index over the whole range, so a tree of a million keys read in one range
 * costs minutes: ranges are first split, by the bytes that follow what their keys have in common, until each holds
 * no more than SHARD_MAX keys.
 */
import type { EtcdClient, KeyValue } from './client.js';
import { prefixEnd } from './client.js';

const SHARD_MAX = 100_000;
const PAGE = 10_000;
const AT_ONCE = 6;
/** A page of large records is large; the call may take longer than others. */
const PAGE_TIMEOUT_MS = 60_000;

interface Shard {
  start: string;
  end: string;
}

export interface LoadOptions {
  pageSize?: number;
  shardMax?: number;
}

/**
 * Tells every key at `revision`, page by page in no particular order. Rejects with a compacted failure when that
 * revision goes away meanwhile; the caller starts over.
 */
export async function loadTree(
  client: EtcdClient,
  revision: number,
  page: (kvs: readonly KeyValue[]) => Promise<void> | void,
  options: LoadOptions = {},
): Promise<void> {
  const { pageSize = PAGE, shardMax = SHARD_MAX } = options;
  const splitter = new Splitter(client, revision, shardMax);
  const shards = await splitter.split({ start: '', end: '' });
  const queue = [...shards];
  const worker = async (): Promise<void> => {
    for (let shard = queue.shift(); shard !== undefined; shard = queue.shift()) {
      await readShard(client, revision, shard, pageSize, page);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, shards.length) }, worker));
}

async function readShard(
  client: EtcdClient,
  revision: number,
  { start, end }: Shard,
  pageSize: number,
  page: (kvs: readonly KeyValue[]) => Promise<void> | void,
): Promise<void> {
  for (let from = start; ; ) {
    const { kvs, more } = await client.range(from, {
      end,
      revision,
      limit: pageSize,
      serializable: true,
      timeoutMs: PAGE_TIMEOUT_MS,
    });
    if (kvs.length > 0) await page(kvs);
    const last = kvs[kvs.length - 1];
    if (!more || last === undefined) return;
    from = `${last.key}\0`;
  }
}

class Splitter {
  readonly #client: EtcdClient;
  readonly #revision: number;
  readonly #max: number;

  constructor(client: EtcdClient, revision: number, max: number) {
    this.#client = client;
    this.#revision = revision;
    this.#max = max;
  }

  async split(shard: Shard): Promise<Shard[]> {
    const count = await this.#count(shard.start, shard.end);
    if (count === 0) return [];
    if (count <= this.#max) return [shard];
    const common = await this.#common(shard, count);
    const parts = await Promise.all(this.#children(shard, common).map((part) => this.#splitCounted(part)));
    return parts.flat();
  }

  async #splitCounted(part: Shard & { whole: boolean }): Promise<Shard[]> {
    // What cannot be cut finer by one byte is read in pages as it is.
    if (!part.whole) return (await this.#count(part.start, part.end)) > 0 ? [part] : [];
    return this.split(part);
  }

  async #count(key: string, end: string): Promise<number> {
    const options = {
      end,
      revision: this.#revision,
      countOnly: true,
      serializable: true,
      timeoutMs: PAGE_TIMEOUT_MS,
    };
    return (await this.#client.range(key, options)).count;
  }

  /** The longest beginning that all keys of the range share. */
  async #common({ start, end }: Shard, count: number): Promise<string> {
    const first = await this.#client.range(start, {
      end,
      revision: this.#revision,
      limit: 1,
      keysOnly: true,
      serializable: true,
      timeoutMs: PAGE_TIMEOUT_MS,
    });
    const key = first.kvs[0]?.key ?? '';
    let low = 0;
    let high = key.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      const prefix = key.slice(0, middle);
      if (isAsciiEnd(prefix) && (await this.#count(prefix, prefixEnd(prefix))) >= count) low = middle;
      else high = middle - 1;
    }
    return key.slice(0, low);
  }

  /** The range cut at every printable byte behind `common`; what lies before and behind those stays whole. */
  #children({ start, end }: Shard, common: string): (Shard & { whole: boolean })[] {
    const parts: (Shard & { whole: boolean })[] = [{ start, end: `${common}!`, whole: false }];
    for (let code = 0x21; code < 0x7f; code++) {
      const at = common + String.fromCharCode(code);
      parts.push({ start: at, end: common + String.fromCharCode(code + 1), whole: true });
    }
    parts.push({ start: `${common}\x7f`, end, whole: false });
    return parts;
  }
}

const isAsciiEnd = (text: string): boolean => text.charCodeAt(text.length - 1) < 0x7f;
