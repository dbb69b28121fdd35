/**
 * Rounds of partitions, run by partitions.test.ts in a network of its own: three members and two hosts in a network
 * namespace each. What is cut off gets no signal: connections stay open and packets vanish.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventually } from './hosts.js';
import { Network } from './network.js';
import { Cluster, type Member } from './servers.js';
import { type Faults, inRounds, ROUNDS, sleep, TTL, World } from './world.js';

/** Longer than an election takes. */
const CUT_MS = 2_000;

const network = Network.start();
let cluster: Cluster;
let world: World;
before(async () => {
  const places = [];
  for (let i = 0; i < 5; i++) places.push(await network.place());
  cluster = await Cluster.start(3, { places: places.slice(0, 3) });
  world = new World(cluster, places.slice(3));
});
after(async () => {
  await cluster.stop();
  network.end();
});

const placesBut = (member: Member) =>
  cluster.members.filter((other) => other !== member).map(({ place }) => place);

async function cutFromPeers(member: Member): Promise<void> {
  network.cut(member.place, placesBut(member));
  await sleep(CUT_MS);
  network.heal(member.place, placesBut(member));
}

/** Cuts the leader off in some way, until the others have another one. */
async function withoutLeader(cut: (leader: Member) => void, heal: (leader: Member) => void): Promise<void> {
  const leader = await cluster.leader();
  const other = cluster.members.find((member) => member !== leader)!;
  const before = cluster.leaderAs(other);
  cut(leader);
  await sleep(CUT_MS);
  await eventually('the others have another leader', () => !['0', before].includes(cluster.leaderAs(other)));
  heal(leader);
}

async function follower(): Promise<Member> {
  const leader = await cluster.leader();
  return cluster.members.find((member) => member !== leader)!;
}

const faults: Faults = {
  'the leader is cut off its peers, hosts still reach it': () =>
    withoutLeader(
      (leader) => network.cut(leader.place, placesBut(leader)),
      (leader) => network.heal(leader.place, placesBut(leader)),
    ),
  'a follower is cut off its peers, hosts still reach it': async () => cutFromPeers(await follower()),
  'the leader speaks to its peers and does not hear them': () =>
    withoutLeader(
      (leader) => network.deafen(leader.place, placesBut(leader)),
      (leader) => network.undeafen(leader.place, placesBut(leader)),
    ),
  'the leader is off the network': () =>
    withoutLeader(
      (leader) => network.unplug(leader.place),
      (leader) => network.plug(leader.place),
    ),
  'the collecting host is off the network beyond its session': async () => {
    const { place } = await world.collector();
    network.unplug(place!);
    await sleep(TTL * 1000 + 800);
    network.plug(place!);
  },
};

test('given a member that is behind, when it is asked for a revision that it lacks, then another one answers', async (t) => {
  const behind = await follower();
  const leader = await cluster.leader();
  const writer = cluster.client('', [leader.url]);
  const reader = cluster.client('', [behind.url, leader.url]);
  network.cut(behind.place, placesBut(behind));
  t.after(() => {
    network.heal(behind.place, placesBut(behind));
    writer.close();
    reader.close();
  });
  const { revision } = await writer.txn([], [{ put: 'ahead', value: 'x' }]);
  const { kvs } = await reader.range('ahead', { revision, serializable: true });
  assert.equal(kvs.length, 1);
});

test(`given a network of their own, when each partition comes ${ROUNDS} times, then nothing is lost`, (t) =>
  inRounds(t, world, faults));
