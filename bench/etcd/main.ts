/**
 * Figures of the etcd engine: `npm run bench -- etcd [--million] [--records N,…] [--only writes,tree,…]`. One member of
 * Debian's etcd on loopback with its data on disk; the host that writes is this process, the one that collects another.
 * Prints one line a figure, and JSON with `--json`.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { DB } from '../../src/db.js';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import { EtcdEngine } from '../../src/engine/etcd/engine.js';
import { imageKey, key } from '../../src/engine/schema/keys.js';
import { Cluster } from '../../test/etcd/servers.js';
import type { Collected, CollectorOptions, Idle } from './collector.js';
import { fillEtcd, recordsOf } from './fill.js';
import { ctx, openBenchHost, quantile, sleep } from './host.js';

const { values: flags } = parseArgs({
  options: {
    million: { type: 'boolean', default: false },
    records: { type: 'string' },
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

function report(name: string, value: number, unit: string): void {
  const rounded = value >= 100 ? Math.round(value) : Math.round(value * 100) / 100;
  figures.push({ name, value: rounded, unit });
  if (!flags.json) process.stdout.write(`${name.padEnd(64)} ${String(rounded).padStart(10)} ${unit}\n`);
}

/** Share of the tree that is garbage. */
const GARBAGE = 0.1;
const QUANTILES = [
  [0.5, 'p50'],
  [0.99, 'p99'],
  [1, 'longest'],
] as const;
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
    return openBenchHost(etcd, root);
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
      report(`image create, ${callers} at once`, times.length / 3, '/s');
      report(`image create, ${callers} at once, p99`, quantile(times, 0.99), 'ms');
    }
    const start = performance.now();
    let reads = 0;
    while (performance.now() - start < 1000) {
      await db.images.get(ctx, 'w1-0-0');
      reads++;
    }
    report('image get, linearizable, one caller', reads, '/s');
    const plain = performance.now();
    const record = imageKey('bench', 'w1-0-0');
    for (let i = 0; i < 100_000; i++) db.engine.get(record);
    report('record get from the mirror', 100_000 / ((performance.now() - plain) / 1000), '/s');
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
    report('read-modify-write, 2 hosts x 8 callers on 10 keys', done / 3, '/s');
    report('runs a transaction', runs / done, '');
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
    report('second host sees an acknowledged write, p50', quantile(times, 0.5), 'ms');
    report('second host sees an acknowledged write, p99', quantile(times, 0.99), 'ms');
  }

  /** A tree of so many records: its size in etcd, its mirror, its collection. */
  async tree(records: number): Promise<void> {
    const name = records >= 1e6 ? `${records / 1e6} M` : `${records / 1000} k`;
    const etcd = this.#cluster.config();
    const before = this.#dbBytes();
    let start = performance.now();
    await fillEtcd(this.#cluster.client(etcd.prefix), records, GARBAGE);
    report(`tree of ${name} records written to etcd`, seconds(start), 's');
    report(`etcd's file, a record, as written (${name})`, (this.#dbBytes() - before) / records, 'B');
    this.#cluster.etcdctl('--command-timeout', '120s', 'defrag');
    report(`etcd's file, a record, defragmented (${name})`, (this.#dbBytes() - before) / records, 'B');

    const root = join(this.#dir, `mirror-${records}`);
    start = performance.now();
    const cpu = process.cpuUsage();
    const first = await this.host(etcd, root);
    report(`mirror load, ${name} records`, seconds(start), 's');
    const { user, system } = process.cpuUsage(cpu);
    report(`mirror load, ${name} records, CPU of the host`, (user + system) / 1e6, 's');
    await first.close();
    start = performance.now();
    await using writer = await this.host(etcd, root);
    await engineOf(writer).confirm();
    report(`mirror resume, ${name} records`, seconds(start), 's');
    await this.#collection(writer, etcd, records, name);
  }

  async #collection(writer: DB, etcd: EtcdConfig, records: number, name: string): Promise<void> {
    await using collector = await Collector.start({
      etcd,
      root: join(this.#dir, `collector-${records}`),
      embeddedRoot: join(this.#dir, `lmdb-${records}`),
      records,
      garbage: GARBAGE,
    });
    const quiet = await delays(writer, () => sleep(4000));
    let stats: Collected = { ms: 0, removed: 0, slices: 0 };
    const during = await delays(writer, async () => {
      stats = await collector.ask<Collected>('collect');
    });
    report(`collection, ${name}, 10 % garbage: removed`, stats.removed, '');
    report(`collection, ${name}, 10 % garbage: slices`, stats.slices, '');
    report(`collection, ${name}, 10 % garbage, a writer on the other host`, stats.ms / 1000, 's');
    for (const [q, label] of QUANTILES) {
      report(`writer on the other host, no collection, ${label} (${name})`, quantile(quiet, q), 'ms');
      report(`writer on the other host, during it, ${label} (${name})`, quantile(during, q), 'ms');
    }
    report(`extra writer delay, p99 (${name})`, quantile(during, 0.99) - quantile(quiet, 0.99), 'ms');
    const idle = await collector.ask<Idle>('idle');
    report(`collection with nothing to remove, warm, ${name}`, quantile(idle.etcd, 0.5), 'ms');
    report(`the same, embedded`, quantile(idle.embedded, 0.5), 'ms');
    if (recordsOf(records, GARBAGE).garbage !== stats.removed) {
      throw new Error(`${stats.removed} removed of ${recordsOf(records, GARBAGE).garbage}`);
    }
  }

  /** Bytes of etcd's file. */
  #dbBytes(): number {
    return Number(/"dbSize":(\d+)/.exec(this.#cluster.etcdctl('endpoint', 'status', '-w', 'json'))?.[1]);
  }
}

/** The collecting host (collector.ts). */
class Collector implements AsyncDisposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(options: CollectorOptions): Promise<Collector> {
    const program = fileURLToPath(new URL('./collector.js', import.meta.url));
    const collector = new Collector(fork(program, [JSON.stringify(options)]));
    await collector.#result();
    return collector;
  }

  ask<T>(word: string): Promise<T> {
    const result = this.#result<T>();
    this.#child.send(word);
    return result;
  }

  #result<T>(): Promise<T> {
    return new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error('the collecting host has ended'));
      this.#child.once('exit', ended);
      this.#child.once('message', (message) => {
        this.#child.off('exit', ended);
        resolve(message as T);
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.send('end');
    await gone;
  }
}

const seconds = (since: number): number => (performance.now() - since) / 1000;

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
const sizes = flags.records?.split(',').map(Number) ?? [100_000, ...(flags.million ? [1_000_000] : [])];
if (!sizes.every((size) => Number.isSafeInteger(size) && size >= 1000)) {
  throw new Error('--records takes numbers from 1000 on, separated by commas');
}
const parts: Record<string, () => Promise<void>> = {
  writes: () => bench.writes(),
  conflicts: () => bench.conflicts(),
  lag: () => bench.lag(),
  tree: async () => {
    for (const size of sizes) await bench.tree(size);
  },
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
