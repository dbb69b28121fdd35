/**
 * Reads the whole tree at one revision, in shards and pages side by side. Called by mirror.ts at the first start of
 * a host, and when a watch was overtaken by a compaction.
 *
 * Each page of a range makes etcd walk its index over the whole range, and so does a count: a tree of a million keys
 * read in one range costs minutes, and looking for places to cut it costs seconds. So it is cut where the layout
 * says: by namespaces, those that are large by directories, and large directories of blobs by the digits of their
 * digests. Only what is still larger than SHARD_MAX is cut by looking, at the bytes that follow what its keys have in
 * common.
 */
import { compareUtf8 } from '../../../model/utf8.js';
import type { EtcdClient, KeyValue } from '../client/client.js';
import { prefixEnd } from '../client/client.js';
import { directoriesOf, NAMESPACES, namespaceOfIndex } from '../format/layout.js';

const SHARD_MAX = 100_000;
const PAGE = 10_000;
const AT_ONCE = 6;
const COUNTS_AT_ONCE = 8;
const BYTES_OF_DIGESTS = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
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
 * Passes on every key at `revision`, page by page in no particular order. Rejects with a compacted failure when that
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
  const shards = await splitter.tree();
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

  /** Shards that make up the whole tree. */
  async tree(): Promise<Shard[]> {
    const { kvs } = await this.#client.range(NAMESPACES, {
      end: prefixEnd(NAMESPACES),
      revision: this.#revision,
      keysOnly: true,
      serializable: true,
      timeoutMs: PAGE_TIMEOUT_MS,
    });
    const directories = kvs.map(({ key }) => directoriesOf(namespaceOfIndex(key)));
    const byNamespace = new Map(directories.map((one) => [one.all, one]));
    return this.#each(cutAt({ start: '', end: '' }, [...byNamespace.keys()]), async (part) => {
      const namespace = byNamespace.get(part.start);
      if (namespace === undefined) return this.split(part);
      if ((await this.#count(part.start, part.end)) <= this.#max) return [part];
      return this.#each(cutAt(part, namespace.each), async (dir) => {
        if (dir.start !== namespace.blobs) return this.split(dir);
        const count = await this.#count(dir.start, dir.end);
        if (count <= this.#max) return count === 0 ? [] : [dir];
        const digests = cutAt(
          dir,
          BYTES_OF_DIGESTS.map((byte) => `${namespace.blobs}sha256:${byte}`),
        );
        // Digests are spread evenly.
        if (count <= this.#max * BYTES_OF_DIGESTS.length) return digests;
        return this.#each(digests, (one) => this.split(one));
      });
    });
  }

  /** Parts of all parts, with a few questions to etcd at a time. */
  async #each(parts: readonly Shard[], split: (part: Shard) => Promise<Shard[]>): Promise<Shard[]> {
    const found: Shard[][] = [];
    const queue = [...parts.entries()];
    const worker = async (): Promise<void> => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        found[next[0]] = await split(next[1]);
      }
    };
    await Promise.all(Array.from({ length: COUNTS_AT_ONCE }, worker));
    return found.flat();
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
      const below = within({ start, end }, { start: prefix, end: prefixEnd(prefix) });
      if (isAsciiEnd(prefix) && (await this.#count(below.start, below.end)) >= count) low = middle;
      else high = middle - 1;
    }
    return key.slice(0, low);
  }

  /** The range cut at every printable byte after `common`; what lies before and after those stays whole. */
  #children(shard: Shard, common: string): (Shard & { whole: boolean })[] {
    const { start, end } = shard;
    const parts: (Shard & { whole: boolean })[] = [{ start, end: `${common}!`, whole: false }];
    for (let code = 0x21; code < 0x7f; code++) {
      const at = common + String.fromCharCode(code);
      parts.push({ start: at, end: common + String.fromCharCode(code + 1), whole: true });
    }
    parts.push({ start: `${common}\x7f`, end, whole: false });
    return parts.flatMap((part) => {
      const inside = within(shard, part);
      return isEmpty(inside) ? [] : [{ ...inside, whole: part.whole }];
    });
  }
}

/** What two ranges share; '' is the end of the tree. */
function within(shard: Shard, part: Shard): Shard {
  const start = compareUtf8(part.start, shard.start) < 0 ? shard.start : part.start;
  if (shard.end === '') return { start, end: part.end };
  const end = part.end === '' || compareUtf8(shard.end, part.end) < 0 ? shard.end : part.end;
  return { start, end };
}

const isEmpty = ({ start, end }: Shard): boolean => end !== '' && compareUtf8(start, end) >= 0;

/** A range cut where each of the prefixes begins and ends; '' is the end of the tree. */
function cutAt({ start, end }: Shard, prefixes: readonly string[]): Shard[] {
  const cuts = new Set(prefixes.flatMap((prefix) => [prefix, prefixEnd(prefix)]));
  cuts.delete(start);
  cuts.delete(end);
  const inner = [...cuts].sort(compareUtf8);
  return [start, ...inner].map((edge, i) => ({ start: edge, end: inner[i] ?? end }));
}

const isAsciiEnd = (text: string): boolean => text.charCodeAt(text.length - 1) < 0x7f;
