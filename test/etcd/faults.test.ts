/**
 * Faults, with writers on two hosts and a collector running, over three members: after each, no reachable object was
 * removed (judged over the whole history in etcd), no acknowledged write is lost, both mirrors equal etcd, and work
 * goes on. One round of each by default; `npm run test:etcd-faults` runs 20 (EBBTIDE_FAULT_ROUNDS).
 */
import { test } from 'node:test';
import { eventually } from './hosts.js';
import { Cluster } from './servers.js';
import { type Faults, inRounds, ROUNDS, sleep, TTL, World } from './world.js';

let cluster: Cluster;

const faults: Faults = {
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
    const member = await cluster.leader();
    await member.kill();
    await sleep(1200);
    cluster.restart(member);
    await cluster.ready();
  },
  'pause of the leader': async () => {
    const member = await cluster.leader();
    await member.pause();
    await sleep(1500);
    member.signal('SIGCONT');
  },
  'kill -9 of a follower': async () => {
    const leader = await cluster.leader();
    const member = cluster.members.find((one) => one !== leader)!;
    await member.kill();
    await sleep(700);
    cluster.restart(member);
    await cluster.ready();
  },
  'pause of a follower': async () => {
    const leader = await cluster.leader();
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
    const leader = cluster.members.indexOf(await cluster.leader());
    const proxies = world.hosts.map((host) => host.proxies[leader]!);
    for (const proxy of proxies) proxy.cut();
    await sleep(1000);
    for (const proxy of proxies) proxy.heal();
  },
  'a host whose packets are held, then delayed, then dropped': async (world) => {
    const host = await world.collector();
    for (const proxy of host.proxies) proxy.holdResponses(true);
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
  cluster = await Cluster.start(3);
  t.after(() => cluster.stop());
  await inRounds(t, new World(cluster), faults);
});
