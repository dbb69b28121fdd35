/**
 * Faults, with writers on two hosts and a collector running, over three members: after each, no reachable object was
 * removed (judged over the whole history in etcd), no acknowledged write is lost, both mirrors equal etcd, and work
 * goes on. One round of each by default; `npm run test:etcd-faults` runs 20 (EBBTIDE_FAULT_ROUNDS).
 */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import type { EtcdConfig } from '../../src/engine/etcd/options.js';
import { tempDir } from '../support/db.js';
import { History } from './history.js';
import { dumpOf } from './host-program.js';
import { eventually } from './hosts.js';
import { brokenPromises, HostProcess } from './processes.js';
import { Cluster } from './servers.js';

const ROUNDS = Number(process.env.EBBTIDE_FAULT_ROUNDS ?? 1);
/** Seconds until another host may collect. */
const TTL = 2;
/** After the end of a fault every host must have written again within this time. */
const RESUME_MS = 20_000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start(3);
});
after(() => cluster.stop());

/** Two hosts at work on a tree of their own. */
class World {
  readonly hosts: HostProcess[] = [];
  readonly etcd: EtcdConfig;
  history!: History;
  readonly #client;

  constructor() {
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
      const host = await HostProcess.make(cluster, name, dir, this.etcd, { engine });
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
    );
    return performance.now() - since;
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
    const ops = reports.reduce((sum, { ops }) => sum + ops, 0);
    return `${ops} writes, ${acks.flat().length} lines of promises, ${this.history.removals} removals of ${this.history.removed} objects judged`;
  }
}

const faults: Record<string, (world: World) => Promise<void>> = {
  'kill -9 of the collecting host': async (world) => {
    const host = await world.collector();
    await host.kill();
    await sleep(500);
    await host.start();
    await host.ask('start');
  },
  'kill -9 of the host whose mirror is on disk': async (world) => {
    const host = world.hosts[0]!;
    await host.kill();
    await sleep(200);
    await host.start();
    await host.ask('start');
  },
  'pause of the collecting host beyond its session': async (world) => {
    const host = await world.collector();
    await host.pause();
    await sleep(TTL * 1000 + 1200);
    host.resume();
  },
  'kill -9 of the leader': async () => {
    const member = cluster.leader();
    await member.kill();
    await sleep(1200);
    cluster.restart(member);
    await cluster.ready();
  },
  'pause of the leader': async () => {
    const member = cluster.leader();
    await member.pause();
    await sleep(1500);
    member.signal('SIGCONT');
  },
  'kill -9 of a follower': async () => {
    const leader = cluster.leader();
    const member = cluster.members.find((one) => one !== leader)!;
    await member.kill();
    await sleep(700);
    cluster.restart(member);
    await cluster.ready();
  },
  'pause of a follower': async () => {
    const leader = cluster.leader();
    const member = cluster.members.find((one) => one !== leader)!;
    await member.pause();
    await sleep(1200);
    member.signal('SIGCONT');
  },
  'partition of the collecting host from all members': async (world) => {
    const host = await world.collector();
    for (const proxy of host.proxies) proxy.cut();
    await sleep(TTL * 1000 + 800);
    for (const proxy of host.proxies) proxy.heal();
  },
  'partition of the leader from all hosts': async (world) => {
    const leader = cluster.members.indexOf(cluster.leader());
    const proxies = world.hosts.map((host) => host.proxies[leader]!);
    for (const proxy of proxies) proxy.cut();
    await sleep(1000);
    for (const proxy of proxies) proxy.heal();
  },
  'a host whose packets are held, then delayed, then dropped': async (world) => {
    const host = await world.collector();
    for (const proxy of host.proxies) proxy.holdAnswers(true);
    await sleep(700);
    for (const proxy of host.proxies) {
      proxy.heal();
      proxy.delay(60);
    }
    await sleep(500);
    for (const proxy of host.proxies) proxy.holdRequests(true);
    await sleep(400);
    for (const proxy of host.proxies) {
      proxy.heal();
      proxy.reset();
    }
  },
  'restart of all members with a compaction': async (world) => {
    const client = cluster.client();
    const [host] = world.hosts;
    // A host that misses what is compacted.
    for (const proxy of host!.proxies) proxy.cut();
    await sleep(300);
    try {
      const { revision } = await client.range('any');
      await eventually('the judge has seen it', () => world.history.revision >= revision - 200);
      cluster.etcdctl('compaction', String(Math.min(revision, world.history.revision)));
    } finally {
      client.close();
    }
    await Promise.all(cluster.members.map((member) => member.kill()));
    for (const member of cluster.members) cluster.restart(member);
    await cluster.ready();
    for (const proxy of host!.proxies) proxy.heal();
  },
};

test(`given writers on two hosts and a collector, when each fault comes ${ROUNDS} times, then nothing is lost`, async (t) => {
  const world = new World();
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
});
