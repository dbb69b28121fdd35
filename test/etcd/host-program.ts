/**
 * A host as a process of its own, for tests that kill and stop hosts: writers that make, adopt and release objects
 * through the stores, and a collector. Takes commands from stdin, a word a line; prints results to stdout, a JSON text a line.
 * What was acknowledged is appended to a file at once, so that a kill loses none of it.
 */
import { createHash } from 'node:crypto';
import { openSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { DB } from '../../src/db.js';
import type { Engine, Transaction } from '../../src/engine/contract.js';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import { EtcdEngine } from '../../src/engine/etcd/engine.js';
import { blobKey, Relation } from '../../src/engine/schema/keys.js';
import { kindOf } from '../../src/errors.js';
import type { BlobRecord } from '../../src/model/records.js';
import { now } from '../../src/model/time.js';
import { openDB } from '../../src/open.js';
import { ensureNamespace, putRecord } from '../../src/stores/common.js';
import { withId } from '../../src/stores/leases.js';

export interface ProgramOptions {
  name: string;
  root: string;
  etcd: EtcdConfig;
  acks: string;
  writers: number;
  collect: boolean;
  seed: number;
  /** Where the mirror is; `lmdb` by default. */
  engine?: 'memory' | 'lmdb';
  fencing?: boolean;
  /** Stops itself (SIGSTOP) once, when removal number so and so has been decided and not sent. */
  stopAtGarbage?: number;
}

/** A line of the file of acknowledgements. */
export interface Ack {
  did: 'image' | 'release' | 'lease' | 'drop';
  name: string;
  digest?: string;
  /** Before the call: what was tried may or may not be there later. */
  trying?: true;
}

const ns = 'ns1';
/** More than one etcd transaction takes. */
const BIG = 140;
const GC = 'containerd.io/gc.';

class Program {
  readonly #options: ProgramOptions;
  readonly #db: DB;
  readonly #log: number;
  #random: number;
  #stop = false;
  #loops: Promise<unknown>[] = [];
  #made = 0;
  ops = 0;
  failures = 0;
  conflicts = 0;
  runs = 0;
  removed = 0;
  readonly errors: string[] = [];
  /** The last failures a fault may cause, and when: for a test that waited for this host in vain. */
  readonly recent: string[] = [];
  /** What each loop does now, and since when: for the same. */
  readonly doing: Record<string, string> = {};

  constructor(db: DB, options: ProgramOptions) {
    this.#db = db;
    this.#options = options;
    this.#log = openSync(options.acks, 'a');
    this.#random = options.seed;
  }

  start(): void {
    this.#stop = false;
    const { writers, collect } = this.#options;
    this.#loops = Array.from({ length: writers }, (_, i) => this.#write(i));
    if (collect) this.#loops.push(this.#collect());
  }

  async stop(): Promise<void> {
    this.#stop = true;
    await Promise.all(this.#loops);
  }

  #failed(error: unknown): string {
    this.failures++;
    this.recent.push(`${new Date().toISOString()} ${String(error)}`);
    if (this.recent.length > 10) this.recent.shift();
    return kindOf(error);
  }

  #below(n: number): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#random / 2 ** 32) * n);
  }

  #ack(ack: Ack): void {
    writeSync(this.#log, `${JSON.stringify(ack)}\n`);
  }

  async #write(writer: number): Promise<void> {
    const ctx = { namespace: ns };
    const held: { image?: string; lease?: string }[] = [];
    while (!this.#stop) {
      try {
        const choice = this.#below(10);
        this.doing[writer] = `${new Date().toISOString()} ${choice}, holds ${held.length}`;
        if (choice < 3) await this.#makeGarbage(this.#below(25) === 0 ? BIG : 3);
        else if (choice < 6) {
          const image = `img-${this.#options.name}-${process.pid}-${writer}-${this.#made++}`;
          const digest = this.#anyDigest();
          if (digest !== undefined && (await this.#adopt(image, digest))) held.push({ image });
        } else if (choice < 7) {
          const lease = `lease-${this.#options.name}-${process.pid}-${writer}-${this.#made++}`;
          const digest = this.#anyDigest();
          if (digest !== undefined && (await this.#lease(lease, digest))) held.push({ lease });
        } else if (held.length > 6) {
          const [{ image, lease } = {}] = held.splice(this.#below(held.length), 1);
          if (image !== undefined) {
            this.#ack({ did: 'release', name: image, trying: true });
            await this.#db.images.delete(ctx, image);
            this.#ack({ did: 'release', name: image });
          } else if (lease !== undefined) {
            this.#ack({ did: 'drop', name: lease, trying: true });
            await this.#db.leases.delete(ctx, lease);
            this.#ack({ did: 'drop', name: lease });
          }
        } else await this.#refer();
        this.ops++;
      } catch (error) {
        const kind = this.#failed(error);
        if (kind !== 'Unavailable' && kind !== 'DeadlineExceeded') this.errors.push(String(error));
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      await new Promise((resolve) => setTimeout(resolve, this.#below(4)));
    }
  }

  /** A chain of blobs that nothing refers to. */
  #makeGarbage(length: number): Promise<void> {
    const digests = Array.from({ length }, () => this.#newDigest());
    return this.#db.update((tx) => {
      ensureNamespace(tx, ns);
      for (const [i, digest] of digests.entries()) this.#putBlob(tx, digest, digests[i + 1]);
    });
  }

  #putBlob(tx: Transaction, digest: string, refers: string | undefined): void {
    const at = now();
    putRecord<BlobRecord>(tx, blobKey(ns, digest), {
      createdat: at,
      updatedat: at,
      size: 1,
      ...(refers !== undefined && { labels: { [`${GC}ref.content`]: refers } }),
    });
  }

  #newDigest(): string {
    return `sha256:${createHash('sha256')
      .update(`${this.#options.name} ${process.pid} ${this.#made++}`)
      .digest('hex')}`;
  }

  /** One of the blobs there are, mostly garbage that a collection is about to take. */
  #anyDigest(): string | undefined {
    const found: string[] = [];
    const start = `blobs\0${ns}\0sha256:${'0123456789abcdef'[this.#below(16)]}`;
    for (const [key] of this.#db.engine.scan(`blobs\0${ns}`, { after: start, limit: 8 })) {
      found.push(key.slice(key.lastIndexOf('\0') + 1));
    }
    return found[this.#below(Math.max(1, found.length))];
  }

  /** An image of a blob, if the blob is there when the image comes to be: from then on it must not be removed. */
  async #adopt(image: string, digest: string): Promise<boolean> {
    this.#ack({ did: 'image', name: image, digest, trying: true });
    const made = await this.#db.update(async (tx) => {
      if (!tx.has(blobKey(ns, digest))) return false;
      const ctx = this.#db.withTransactionContext({ namespace: ns }, tx);
      await this.#db.images.create(ctx, { name: image, target: { digest, mediaType: 'm', size: 1 } });
      return true;
    });
    if (made) this.#ack({ did: 'image', name: image, digest });
    return made;
  }

  async #lease(lease: string, digest: string): Promise<boolean> {
    this.#ack({ did: 'lease', name: lease, digest, trying: true });
    const made = await this.#db.update(async (tx) => {
      if (!tx.has(blobKey(ns, digest))) return false;
      const ctx = this.#db.withTransactionContext({ namespace: ns }, tx);
      await this.#db.leases.create(ctx, withId(lease));
      await this.#db.leases.addResource(ctx, lease, { type: 'content', id: digest });
      return true;
    });
    if (made) this.#ack({ did: 'lease', name: lease, digest });
    return made;
  }

  /** A label from one blob to another, where both are there. */
  async #refer(): Promise<void> {
    const from = this.#anyDigest();
    const to = this.#anyDigest();
    if (from === undefined || to === undefined) return;
    await this.#db.update((tx) => {
      if (tx.has(blobKey(ns, from)) && tx.has(blobKey(ns, to))) this.#putBlob(tx, from, to);
    });
  }

  async #collect(): Promise<void> {
    while (!this.#stop) {
      try {
        this.doing.collector = new Date().toISOString();
        const { removed } = await this.#db.garbageCollect();
        const count = Object.values(removed).reduce((sum, n) => sum + n, 0);
        if (count > 0) this.runs++;
        this.removed += count;
      } catch (error) {
        const kind = this.#failed(error);
        // The right to collect was lost, as it must be after a pause.
        if (kind !== 'Unavailable' && kind !== 'FailedPrecondition') this.errors.push(String(error));
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Everything the mirror holds, as one text. */
  async dump(): Promise<string[]> {
    const engine = this.#db.engine as EtcdEngine;
    await engine.confirm();
    return dumpOf(engine);
  }

  /** How far the mirror has come. */
  get mirror(): string {
    const { etcdRevision, revision } = this.#db.engine as EtcdEngine;
    return `revision ${etcdRevision} of etcd, ${revision} here`;
  }

  verify(): string[] {
    return this.#db.engine.verifyGraph();
  }
}

/** Records (but the state of this host's own backends) and a lease's links, sorted. */
export function dumpOf(source: Pick<Engine, 'scan' | 'links'>): string[] {
  const lines: string[] = [];
  for (const [key, value] of source.scan('')) {
    if (/^meta\0(dirty|removed|foreign)/.test(key)) continue;
    const links = [Relation.holds, Relation.holdsFlat].flatMap((relation) => [
      ...source.links(key, relation),
    ]);
    lines.push(JSON.stringify([key, value, links], (_, v) => (typeof v === 'bigint' ? String(v) : v)));
  }
  return lines.sort();
}

async function main(): Promise<void> {
  const options = JSON.parse(process.argv[2] ?? '') as ProgramOptions;
  const say = (result: object): void => void process.stdout.write(`${JSON.stringify(result)}\n`);
  const db = await openDB({
    root: options.root,
    engine: options.engine ?? 'lmdb',
    snapshotters: ['native'],
    enableEtcdGC: true,
    etcd: options.etcd,
    log: () => {},
  });
  if (!(db.engine instanceof EtcdEngine)) throw new Error('no etcd engine');
  let removals = 0;
  db.engine.setTestHooks({
    fencing: options.fencing ?? true,
    beforeGarbage: () => {
      if (++removals === options.stopAtGarbage) process.kill(process.pid, 'SIGSTOP');
    },
  });
  const program = new Program(db, options);
  for await (const word of createInterface({ input: process.stdin })) {
    const { ops, runs, removed, failures, errors, recent, doing, mirror } = program;
    if (word === 'start') program.start();
    else if (word === 'stop') await program.stop();
    else if (word === 'collect') {
      const stats = await db
        .garbageCollect()
        .catch((error: unknown) => ({ error: String(error), kind: kindOf(error) }));
      say(stats);
      continue;
    } else if (word === 'dump') {
      say({ dump: await program.dump(), verify: program.verify() });
      continue;
    } else if (word === 'end') {
      await db.close();
      break;
    }
    say({ did: word, ops, runs, removed, failures, recent, doing, mirror, errors: errors.splice(0) });
  }
  process.exit(0);
}

if (process.argv[1] === import.meta.filename) await main();
