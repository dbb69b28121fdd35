/**
 * Sequences of calls at random, chosen by a seed, made of a containerd and of ours: the same code for every call, and the same state
 * after each: images, blobs, snapshots, leases with what they keep, containers, labels of namespaces; also after collections. Few names, so that calls meet.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { ServiceError } from '@grpc/grpc-js';
import { type Message, type ServiceName, TestClient } from '../server/client.js';
import { Random } from '../support/random.js';
import type { Release } from './releases.js';
import { Server, type Side } from './servers.js';

/** A call with what it is given; the same on both sides. */
interface Call {
  service: ServiceName;
  method: string;
  request: object;
  /** A lease that it is made under. */
  lease?: string | undefined;
  /** Written in one stream. */
  blob?: Buffer;
}

export interface RandomDifference {
  sequence: number;
  call: string;
  theirs: string;
  ours: string;
  reason?: string;
}

export interface RandomComparison {
  sequences: number;
  calls: number;
  /** Of how many calls each code was the outcome. */
  codes: Record<string, number>;
  differences: RandomDifference[];
}

const names = ['a', 'b', 'c'] as const;
const snapshotter = 'overlayfs';
const blobs = names.map((name) => Buffer.from(`blob ${name}`));
const digestOf = (data: Buffer): string => `sha256:${createHash('sha256').update(data).digest('hex')}`;
const digests = blobs.map(digestOf);
const CALLS = 60;
/** Shown of each state; beyond it no text is of use. */
const TEXT_MAX = 2000;

/** Outcomes that are meant to differ; a sequence ends there. */
interface Meant {
  releases: readonly Release[];
  call: RegExp;
  theirs: string;
  ours: readonly string[];
  reason: string;
}
const meant: readonly Meant[] = [
  {
    ...{ releases: ['1'], call: /"method":"(Prepare|View|Commit)".*"lease":/, theirs: 'code 6' },
    ours: ['code 5', 'code 6'],
    reason: 'the lease of the call keeps the snapshot that exists, and has to exist, as since 1.7',
  },
  {
    ...{ releases: ['1', '2'], call: /"method":"(Prepare|View)".*"lease":/, theirs: 'code 3' },
    ours: ['code 5'],
    reason: 'of a parent that is not committed and a lease that does not exist, the lease is told',
  },
];

/** Of the calls below, those that make something. */
const MAKING: ReadonlySet<number> = new Set([0, 3, 5, 7, 11, 12, 16]);

/** One call, by chance. */
function chosen(random: Random): Call {
  const name = (): string => random.pick(names);
  const digest = (): string => random.pick(digests);
  const labels = (): Record<string, string> => {
    const all: Record<string, string>[] = [
      {},
      { [`l.${name()}`]: name() },
      { [`containerd.io/gc.ref.content.${name()}`]: digest() },
      { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: name() },
      { 'containerd.io/gc.root': name() },
      { 'containerd.io/gc.flat': name() },
    ];
    return random.pick(all);
  };
  const mask = (): { paths: string[] } | undefined =>
    random.pick([undefined, { paths: ['labels'] }, { paths: [`labels.l.${name()}`] }, { paths: ['target'] }]);
  const lease = random.chance(0.2) ? name() : undefined;
  const target = () => ({ mediaType: 'application/octet-stream', digest: digest(), size: 6 });
  const resource = () =>
    random.pick([
      { type: 'content', id: digest() },
      { type: `snapshots/${snapshotter}`, id: name() },
      { type: 'ingests', id: name() },
      { type: 'nothing', id: name() },
    ]);
  const container = () => ({
    ...{ id: name(), image: name(), snapshotter, snapshotKey: name(), labels: labels() },
    ...{ runtime: { name: 'r' }, spec: { typeUrl: 'x', value: Buffer.from(name()) } },
  });
  const calls: readonly (() => Omit<Call, 'lease'>)[] = [
    () => ({
      service: 'images',
      method: 'Create',
      request: { image: { name: name(), target: target(), labels: labels() } },
    }),
    () => ({
      ...{ service: 'images', method: 'Update' },
      request: { image: { name: name(), target: target(), labels: labels() }, updateMask: mask() },
    }),
    () => ({ service: 'images', method: 'Delete', request: { name: name(), sync: random.chance(0.3) } }),
    () => ({ service: 'leases', method: 'Create', request: { id: name(), labels: labels() } }),
    () => ({ service: 'leases', method: 'Delete', request: { id: name(), sync: random.chance(0.3) } }),
    () => ({ service: 'leases', method: 'AddResource', request: { id: name(), resource: resource() } }),
    () => ({ service: 'leases', method: 'DeleteResource', request: { id: name(), resource: resource() } }),
    () => ({ service: 'content', method: 'Write', request: { labels: labels() }, blob: random.pick(blobs) }),
    () => ({ service: 'content', method: 'Delete', request: { digest: digest() } }),
    () => ({ service: 'content', method: 'Info', request: { digest: digest() } }),
    () => ({
      ...{ service: 'content', method: 'Update' },
      request: { info: { digest: digest(), labels: labels() }, updateMask: mask() },
    }),
    () => ({
      ...{ service: 'snapshots', method: random.pick(['Prepare', 'View']) },
      request: { snapshotter, key: name(), parent: random.pick(['', ...names]), labels: labels() },
    }),
    () => ({
      ...{ service: 'snapshots', method: 'Commit' },
      request: { snapshotter, name: name(), key: name(), labels: labels() },
    }),
    () => ({ service: 'snapshots', method: 'Remove', request: { snapshotter, key: name() } }),
    () => ({ service: 'snapshots', method: 'Stat', request: { snapshotter, key: name() } }),
    () => ({
      ...{ service: 'snapshots', method: 'Update' },
      request: { snapshotter, info: { name: name(), labels: labels() }, updateMask: mask() },
    }),
    () => ({ service: 'containers', method: 'Create', request: { container: container() } }),
    () => ({
      ...{ service: 'containers', method: 'Update' },
      request: {
        container: container(),
        updateMask: random.pick([undefined, { paths: ['labels'] }, { paths: ['image'] }]),
      },
    }),
    () => ({ service: 'containers', method: 'Delete', request: { id: name() } }),
  ];
  // What is made first, so that there is something to change.
  const making = calls.filter((_, i) => MAKING.has(i));
  return { ...random.pick(random.chance(0.5) ? making : calls)(), lease };
}

async function outcomeOf(
  client: TestClient,
  { service, method, request, lease, blob }: Call,
): Promise<string> {
  const by = lease === undefined ? client : client.with({ 'containerd-lease': lease });
  try {
    if (blob === undefined) await by.call(service, method, request);
    else {
      const { labels } = request as { labels: object };
      const stream = by.write();
      await stream.ask({ ref: digestOf(blob), total: blob.length, expected: digestOf(blob) });
      await stream.ask({
        action: 2,
        total: blob.length,
        expected: digestOf(blob),
        data: blob,
        labels: { ...labels },
      });
      await stream.end();
    }
    return 'OK';
  } catch (error) {
    return `code ${(error as ServiceError).code}`;
  }
}

/** Everything in the namespace, without times and directories. */
async function stateOf(client: TestClient): Promise<string> {
  const sorted = (rows: Message[]): string[] => rows.map((row) => JSON.stringify(row)).sort();
  const labels = (of: Message): [string, string][] => Object.entries<string>({ ...of.labels }).sort();
  const { images } = await client.call('images', 'List');
  const { containers } = await client.call('containers', 'List');
  const { leases } = await client.call('leases', 'List');
  const content = (await client.all('content', 'List')).flatMap(({ info }) => info);
  const snapshots = await client.all('snapshots', 'List', { snapshotter }).catch(() => []);
  const kept = [];
  for (const { id } of leases) {
    const { resources } = await client.call('leases', 'ListResources', { id });
    kept.push([id, sorted(resources.map(({ type, id: of }: Message) => [type, of]))]);
  }
  return JSON.stringify({
    images: sorted(images.map((one: Message) => [one.name, one.target.digest, labels(one)])),
    containers: sorted(
      containers.map((one: Message) => [
        one.id,
        one.image,
        one.snapshotKey,
        String(one.spec?.value),
        labels(one),
      ]),
    ),
    leases: sorted(leases.map((one: Message) => [one.id, labels(one)])),
    kept: kept.sort(),
    content: sorted(content.map((one: Message) => [one.digest, labels(one)])),
    snapshots: sorted(
      snapshots
        .flatMap(({ info }) => info)
        .map((one: Message) => [one.name, one.parent, one.kind, labels(one)]),
    ),
  });
}

/** Until the two differ without a reason, or to the end. */
async function runSequence(
  clients: readonly [TestClient, TestClient],
  release: Release,
  random: Random,
  found: (code: string) => void,
): Promise<Omit<RandomDifference, 'sequence'> | undefined> {
  const [theirs, ours] = clients;
  const before: string[] = [];
  for (let n = 0; n < CALLS; n++) {
    const call = chosen(random);
    const { blob, ...given } = call;
    const text = JSON.stringify({ ...given, ...(blob && { blob: String(blob) }) });
    const codes = [await outcomeOf(theirs, call), await outcomeOf(ours, call)] as const;
    found(codes[0]);
    before.push(`${text} → ${codes[0]}`);
    const [a, b] = [
      `${codes[0]} ${await stateOf(theirs)}`.slice(0, TEXT_MAX),
      `${codes[1]} ${await stateOf(ours)}`.slice(0, TEXT_MAX),
    ];
    if (a === b) continue;
    const reason = meant.find(
      (one) =>
        one.releases.includes(release) &&
        one.theirs === codes[0] &&
        one.ours.includes(codes[1]) &&
        one.call.test(text),
    )?.reason;
    return { call: before.join('\n'), theirs: a, ours: b, ...(reason !== undefined && { reason }) };
  }
  return undefined;
}

export async function compareRandomCalls(
  side: Side,
  dir: string,
  release: Release,
  seed: number,
  sequences: number,
): Promise<RandomComparison> {
  await using theirs = await Server.start('containerd', { dir: join(dir, 'theirs'), release });
  await using ours = await Server.start(side, { dir: join(dir, 'ours'), release });
  const done: RandomComparison = { sequences, calls: 0, codes: {}, differences: [] };
  for (let sequence = 0; sequence < sequences; sequence++) {
    const clients: [TestClient, TestClient] = [
      new TestClient(theirs.address, `random-${sequence}`),
      new TestClient(ours.address, `random-${sequence}`),
    ];
    try {
      const difference = await runSequence(clients, release, new Random(seed + sequence), (code) => {
        done.calls++;
        done.codes[code] = (done.codes[code] ?? 0) + 1;
      });
      if (difference !== undefined) done.differences.push({ sequence: seed + sequence, ...difference });
    } finally {
      for (const client of clients) client.close();
    }
  }
  return done;
}
