/**
 * Two hosts at work on a tree of their own while faults happen: writers on both, both ready to collect. After each
 * fault everything is compared with everything. Used by the tests of faults and of partitions.
 */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { EtcdClient } from '../../src/engine/etcd/client/client.js';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import { tempDir } from '../support/db.js';
import { History } from './history.js';
import { dumpOf } from './host-program.js';
import { eventually } from './hosts.js';
import type { Place } from './network.js';
import { brokenPromises, HostProcess } from './processes.js';
import type { Cluster } from './servers.js';

/** How often each fault comes. */
export const ROUNDS = Number(process.env.EBBTIDE_FAULT_ROUNDS ?? 1);
/** Seconds until another host may collect. */
export const TTL = 2;
/** After the end of a fault every host must have written again within this time. */
const RESUME_MS = 20_000;

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class World {
  readonly hosts: HostProcess[] = [];
  readonly etcd: EtcdConfig;
  history!: History;
  readonly #client: EtcdClient;
  readonly #cluster: Cluster;
  readonly #places: readonly Place[];
  /** Of all rounds: milliseconds until all hosts had written again. */
  readonly times: number[] = [];
  #acknowledged = 0;

  /** `places`: where the hosts run; else here, with proxies between them and the members. */
  constructor(cluster: Cluster, places: readonly Place[] = []) {
    this.#cluster = cluster;
    this.#places = places;
    this.etcd = {
      ...cluster.config(),
      requestTimeoutMs: 800,
      operationTimeoutMs: 15_000,
      sessionTtlSeconds: TTL,
    };
    this.#client = cluster.client(this.etcd.prefix);
  }

  async start(t: TestContext): Promise<void> {
    const { revision } = await this.#client.range('any');
    this.history = new History(this.#client, revision);
    t.after(async () => {
      await Promise.all(this.hosts.map((host) => host.end()));
      this.history.end();
      this.#client.close();
    });
    const dir = await tempDir(t);
    for (const [name, engine] of [
      ['a', 'lmdb'],
      ['b', 'memory'],
    ] as const) {
      const place = this.#places[this.hosts.length];
      const host =
        place === undefined
          ? await HostProcess.make(this.#cluster, name, dir, this.etcd, { engine })
          : HostProcess.at(place, name, dir, this.etcd, { engine });
      this.hosts.push(host);
      await host.start();
    }
    for (const host of this.hosts) await host.ask('start');
  }

  /** The host that collects now, or did last. */
  async collector(): Promise<HostProcess> {
    let owner: string | undefined;
    await eventually('a host collects', async () => {
      const { kvs } = await this.#client.range('lock/scheduler.v1/', { end: 'lock/scheduler.v10' });
      owner = kvs[0]?.value.toString('utf8');
      return owner !== undefined;
    });
    return this.hosts.find(({ name }) => name === owner) ?? this.hosts[0]!;
  }

  /** Milliseconds until every host has had further writes acknowledged. */
  async resumed(): Promise<number> {
    const since = performance.now();
    const counts = this.hosts.map((host) => host.acks().length);
    await eventually(
      'all hosts write again',
      () => this.hosts.every((host, i) => host.acks().length > counts[i]! + 3),
      RESUME_MS,
    ).catch(async (error: Error) => {
      const reports = await Promise.all(this.hosts.map((host) => host.ask('hello')));
      const { kvs, revision } = await this.#client.range('sys/', { end: 'sys0' });
      const keys = kvs.map(({ key, mod, value }) => `${mod} ${key} ${value.subarray(0, 200)}`);
      const story = JSON.stringify({ reports, revision, keys }, null, 1);
      throw new Error(`${error.message}; ${new Date().toISOString()}: ${story}`);
    });
    const ms = performance.now() - since;
    this.times.push(ms);
    return ms;
  }

  /** What all rounds together have shown. */
  summary(): string {
    const sorted = [...this.times].sort((a, b) => a - b);
    const at = (share: number): number => Math.round(sorted[Math.floor(share * (sorted.length - 1))] ?? 0);
    const { removals, removed } = this.history;
    return (
      `${sorted.length} rounds, ${this.#acknowledged} acknowledged writes kept, ${removals} removals of ${removed} ` +
      `objects judged, none lost; all hosts wrote again after ${at(0.5)} ms (median), ${at(1)} ms (longest)`
    );
  }

  /** Stops all work, compares everything with everything, goes on. */
  async check(): Promise<string> {
    const reports = await Promise.all(this.hosts.map((host) => host.ask('stop')));
    for (const { errors } of reports) assert.deepEqual(errors, []);
    const { revision } = await this.#client.range('any');
    // Other keys of the cluster move the revision as well; a mark of our own ends the history for certain.
    await this.#client.txn([], [{ put: 'sys/mark', value: String(revision) }]);
    await eventually('the history is whole', () => this.history.revision > revision);
    assert.equal(this.history.compacted, false);
    assert.deepEqual(this.history.judge(), []);
    const has = (key: string): boolean => this.history.state.records.has(key);
    const acks = this.hosts.map((host) => host.acks());
    for (const list of acks) assert.deepEqual(brokenPromises(list, has), []);
    for (const [key, value] of this.history.state.records) {
      if (!key.startsWith('images\0')) continue;
      const { target } = value as unknown as { target: { digest: string } };
      assert.ok(has(`blobs\0ns1\0${target.digest}`), `${key} without its blob`);
    }
    const expected = dumpOf(this.history.state);
    for (const host of this.hosts) {
      const { dump, verify } = await host.ask<{ dump: string[]; verify: string[] }>('dump');
      assert.deepEqual(dump, expected, `the mirror of ${host.name}`);
      assert.deepEqual(verify, []);
    }
    for (const host of this.hosts) await host.ask('start');
    this.#acknowledged = acks.flat().filter(({ trying }) => !trying).length;
    return `${this.#acknowledged} acknowledged writes kept, ${this.history.removals} removals of ${this.history.removed} objects judged`;
  }
}

export type Faults = Readonly<Record<string, (world: World) => Promise<void>>>;

/** Rounds of all faults, one after another, on one world; stops at the first one after which something is wrong. */
export async function inRounds(t: TestContext, world: World, faults: Faults): Promise<void> {
  await world.start(t);
  await sleep(500);
  let sound = true;
  for (let round = 1; round <= ROUNDS; round++) {
    for (const [name, fault] of Object.entries(faults)) {
      if (!sound) return;
      await t.test(`${name}, round ${round}`, async (s) => {
        sound = false;
        await fault(world);
        const ms = await world.resumed();
        s.diagnostic(`${await world.check()}; all hosts wrote again after ${Math.round(ms)} ms`);
        sound = true;
      });
    }
  }
  t.diagnostic(world.summary());
}
