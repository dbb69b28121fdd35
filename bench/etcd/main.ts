/**
 * Figures of the etcd engine: `npm run bench -- etcd [--million] [--only writes,load,…]`. One member of Debian's etcd on
 * loopback with its data on disk, hosts in this process. Prints one line a figure, and JSON with `--json`.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DB, openDB } from '../../src/db.js';
import { EtcdEngine } from '../../src/engine/etcd/engine.js';
import type { EtcdConfig } from '../../src/engine/etcd/options.js';
import { imageKey, key } from '../../src/engine/schema/keys.js';
import { Cluster } from '../../test/etcd/servers.js';
import { fillEmbedded, fillEtcd, recordsOf } from './fill.js';

const { values: flags } = parseArgs({
  options: {
    million: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    only: { type: 'string' },
  },
});

interface Figure {
  name: string;
  value: number;
  unit: string;
}
const figures: Figure[] = [];

function tell(name: string, value: number, unit: string): void {
  const rounded = value >= 100 ? Math.round(value) : Math.round(value * 100) / 100;
  figures.push({ name, value: rounded, unit });
  if (!flags.json) process.stdout.write(`${name.padEnd(64)} ${String(rounded).padStart(10)} ${unit}\n`);
}

const sorted = (numbers: readonly number[]): number[] => [...numbers].sort((a, b) => a - b);
const quantile = (numbers: readonly number[], q: number): number => {
  const all = sorted(numbers);
  return all[Math.min(all.length - 1, Math.floor(q * all.length))] ?? 0;
};
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const ctx = { namespace: 'bench' };
const target = { digest: `sha256:${'a'.repeat(64)}`, mediaType: 'm', size: 1 };

class Bench {
  readonly #cluster: Cluster;
  readonly #dir: string;
  #hosts = 0;

  constructor(cluster: Cluster, dir: string) {
    this.#cluster = cluster;
    this.#dir = dir;
  }

  host(etcd: EtcdConfig, root = join(this.#dir, `host${++this.#hosts}`)): Promise<DB> {
    const hostId = `h${root.replace(/[^A-Za-z0-9]+/g, '.')}`;
    return openDB({
      root,
      snapshotters: [],
      enableEtcdGC: true,
      etcd: { ...etcd, hostId, requestTimeoutMs: 20_000, operationTimeoutMs: 120_000 },
      log: () => {},
    });
  }

  async writes(): Promise<void> {
    await using db = await this.host(this.#cluster.config());
    for (const callers of [1, 64]) {
      let n = 0;
      const until = performance.now() + 3000;
      const times: number[] = [];
      const caller = async (c: number): Promise<void> => {
        while (performance.now() < until) {
          const start = performance.now();
          await db.images.create(ctx, { name: `w${callers}-${c}-${n++}`, target });
          times.push(performance.now() - start);
        }
      };
      await Promise.all(Array.from({ length: callers }, (_, c) => caller(c)));
      tell(`image create, ${callers} at once`, times.length / 3, '/s');
      tell(`image create, ${callers} at once, p99`, quantile(times, 0.99), 'ms');
    }
    const start = performance.now();
    let reads = 0;
    while (performance.now() - start < 1000) {
      await db.images.get(ctx, 'w1-0-0');
      reads++;
    }
    tell('image get, linearizable, one caller', reads, '/s');
    const plain = performance.now();
    const record = imageKey('bench', 'w1-0-0');
    for (let i = 0; i < 100_000; i++) db.engine.get(record);
    tell('record get from the mirror', 100_000 / ((performance.now() - plain) / 1000), '/s');
  }

  async conflicts(): Promise<void> {
    const etcd = this.#cluster.config();
    await using a = await this.host(etcd);
    await using b = await this.host(etcd);
    let done = 0;
    let runs = 0;
    const until = performance.now() + 3000;
    const caller = async (db: DB, c: number): Promise<void> => {
      while (performance.now() < until) {
        await db.update((tx) => {
          runs++;
          const counter = key('containers', 'bench', `n${(c + done) % 10}`);
          const value = tx.get(counter);
          tx.put(counter, { n: (typeof value === 'object' ? Number(value.n) : 0) + 1 });
        });
        done++;
      }
    };
    await Promise.all([a, b].flatMap((db) => Array.from({ length: 8 }, (_, c) => caller(db, c))));
    tell('read-modify-write, 2 hosts x 8 callers on 10 keys', done / 3, '/s');
    tell('runs a transaction', runs / done, '');
  }

  async lag(): Promise<void> {
    const etcd = this.#cluster.config();
    await using a = await this.host(etcd);
    await using b = await this.host(etcd);
    const times: number[] = [];
    for (let i = 0; i < 300; i++) {
      const record = imageKey('bench', `lag${i}`);
      await a.images.create(ctx, { name: `lag${i}`, target });
      const start = performance.now();
      while (!b.engine.has(record)) await new Promise((resolve) => setImmediate(resolve));
      times.push(performance.now() - start);
    }
    tell('second host sees an acknowledged write, p50', quantile(times, 0.5), 'ms');
    tell('second host sees an acknowledged write, p99', quantile(times, 0.99), 'ms');
  }

  async mirror(records: number): Promise<void> {
    const name = records >= 1e6 ? `${records / 1e6} M` : `${records / 1000} k`;
    const etcd = this.#cluster.config();
    await fillEtcd(this.#cluster.client(etcd.prefix), records, 0);
    const root = join(this.#dir, `mirror-${records}`);
    let start = performance.now();
    const first = await this.host(etcd, root);
    tell(`mirror load, ${name} records`, (performance.now() - start) / 1000, 's');
    await first.close();
    start = performance.now();
    const again = await this.host(etcd, root);
    await engineOf(again).confirm();
    tell(`mirror resume, ${name} records`, (performance.now() - start) / 1000, 's');
    await again.close();
  }

  async collection(records: number): Promise<void> {
    const name = records >= 1e6 ? `${records / 1e6} M` : `${records / 1000} k`;
    const etcd = this.#cluster.config();
    await fillEtcd(this.#cluster.client(etcd.prefix), records, 0.1);
    await using a = await this.host(etcd);
    await using b = await this.host(etcd);
    await using embedded = await openDB({
      root: join(this.#dir, `lmdb-${records}`),
      snapshotters: [],
      log: () => {},
    });
    await fillEmbedded(embedded, records, 0.1);

    const quiet = await delays(b, async () => sleep(2500));
    const stats = { removed: 0, ms: 0, slices: 0 };
    const during = await delays(b, async () => {
      const start = performance.now();
      const { removed, slices } = await a.garbageCollect();
      stats.ms = performance.now() - start;
      stats.removed = removed.content ?? 0;
      stats.slices = slices;
    });
    tell(`collection, ${name} records, 10 % garbage: removed`, stats.removed, '');
    tell(`collection, ${name} records, 10 % garbage: slices`, stats.slices, '');
    tell(`collection, ${name} records, 10 % garbage, a writer on the other host`, stats.ms / 1000, 's');
    tell(`writer on the other host, no collection, p99 (${name})`, quantile(quiet, 0.99), 'ms');
    tell(`writer on the other host, during it, p99 (${name})`, quantile(during, 0.99), 'ms');
    tell(`extra writer delay, p99 (${name})`, quantile(during, 0.99) - quantile(quiet, 0.99), 'ms');

    await embedded.garbageCollect();
    const idle: { etcd: number[]; lmdb: number[] } = { etcd: [], lmdb: [] };
    for (let i = 0; i < 7; i++) {
      let start = performance.now();
      await a.garbageCollect();
      idle.etcd.push(performance.now() - start);
      start = performance.now();
      await embedded.garbageCollect();
      idle.lmdb.push(performance.now() - start);
    }
    tell(`collection with nothing to remove, warm, ${name}`, quantile(idle.etcd, 0.5), 'ms');
    tell(`the same, embedded`, quantile(idle.lmdb, 0.5), 'ms');
    if (recordsOf(records, 0.1).garbage !== stats.removed) {
      throw new Error(`${stats.removed} removed of ${recordsOf(records, 0.1).garbage}`);
    }
  }
}

function engineOf(db: DB): EtcdEngine {
  if (!(db.engine instanceof EtcdEngine)) throw new Error('no etcd engine');
  return db.engine;
}

/** Milliseconds of each of a lone writer's updates while `work` goes on, at a pace of a write every few ms. */
async function delays(db: DB, work: () => Promise<void>): Promise<number[]> {
  let stop = false;
  const times: number[] = [];
  const writing = (async () => {
    while (!stop) {
      const start = performance.now();
      await db.images.create(ctx, { name: `d${Math.random()}`, target });
      times.push(performance.now() - start);
      await sleep(3);
    }
  })();
  await work();
  stop = true;
  await writing;
  return times;
}

const dir = await mkdtemp(join(tmpdir(), 'ebbtide-bench-etcd-'));
const cluster = await Cluster.start(1, {
  onDisk: true,
  extra: ['--quota-backend-bytes', String(8 * 2 ** 30), '--auto-compaction-retention', '0'],
});
const bench = new Bench(cluster, dir);
const parts: Record<string, () => Promise<void>> = {
  writes: () => bench.writes(),
  conflicts: () => bench.conflicts(),
  lag: () => bench.lag(),
  load: () => bench.mirror(100_000),
  collection: () => bench.collection(100_000),
  ...(flags.million && {
    'load 1 M': () => bench.mirror(1_000_000),
    'collection 1 M': () => bench.collection(1_000_000),
  }),
};
try {
  const only = flags.only?.split(',');
  for (const [name, part] of Object.entries(parts)) {
    if (only === undefined || only.includes(name)) await part();
  }
  if (flags.json) process.stdout.write(`${JSON.stringify(figures, undefined, 2)}\n`);
} finally {
  await cluster.stop();
  await rm(dir, { recursive: true, force: true });
}
