/**
 * Random small stores for the comparison with the peer, within what both sides mean the same by.
 *
 * The peer is containerd 1.6. Left out, because it does not have them: expiring images, images kept by leases, back
 * references, conditional references, sandboxes, root labels matched by prefix. Left out, because its version of Go
 * reads them and the rules here do not: times with a one-digit hour, zones beyond 24 hours. What it has and ignores
 * is in: references to images (live images are roots on both sides) and to unknown words.
 */
import { digestOf } from '../../src/model/digest.js';
import { formatTimestamp, now } from '../../src/model/time.js';
import { Random } from '../support/random.js';

export interface PeerRecord {
  kind: 'image' | 'container' | 'lease' | 'blob' | 'snapshot' | 'ingest';
  namespace: string;
  name: string;
  labels: Record<string, string>;
  /** Image: digest. */
  target?: string;
  /** Snapshot, and container when it has one. */
  snapshotter?: string;
  parent?: string;
  /** Container. */
  snapshotKey?: string;
  /** Ingest: digest. */
  expected?: string;
  /** Ingest: nanoseconds from now. */
  expiresIn?: number;
  /** Lease. */
  resources?: { id: string; type: string }[];
}

const HOUR_NS = 3_600_000_000_000;
const namespaces = ['default', 'k8s.io', 'a-b'];
const digests = [
  ...['a', 'b', 'c', 'd', 'e', 'f'].map((text) => digestOf(Buffer.from(text))),
  digestOf(Buffer.from('g'), 'sha512'),
];
const snapshotters = ['native', 'native.0', 'other'];
const snapshotNames = ['s1', 's2', 's3', 's4', 'a/b', 'native/s1', 'sha256:0', 'ß'];
const ingestRefs = ['r1', 'r2', 'layer-sha256:x/y'];
const GC = 'containerd.io/gc.';

type Label = readonly [string, string];

function contentLabel(random: Random): Label {
  const suffix = random.pick(['', '.', '/', '.0', '/x', '.l.1', '.config', './', '.referrer.sha256.0', '.ß']);
  return [`${GC}ref.content${suffix}`, random.pick(digests)];
}

function snapshotLabel(random: Random): Label {
  const suffix = random.pick(['', '', '/', '/1', '/a/b', '/.']);
  return [`${GC}ref.snapshot.${random.pick(snapshotters)}${suffix}`, random.pick(snapshotNames)];
}

/** Looks like a reference and is none, or refers to nothing. */
function oddLabel(random: Random): Label {
  const digest = random.pick(digests);
  const name = random.pick(snapshotNames);
  return random.pick<Label>([
    [`${GC}ref.contents`, digest],
    [`${GC}ref.content-x`, digest],
    [`${GC}ref.content0`, digest],
    [`${GC}ref.Content`, digest],
    [`${GC}ref`, digest],
    [`${GC}ref.`, digest],
    [`${GC}reference.content`, digest],
    [`x${GC}ref.content`, digest],
    [` ${GC}ref.content`, digest],
    [`${GC}ref.content `, digest],
    [`${GC}ref.content`, ''],
    [`${GC}ref.content.dead`, 'no digest'],
    [`${GC}ref.content.dead`, ` ${digest}`],
    [`${GC}ref.content.dead`, digest.toUpperCase()],
    [`${GC}ref.content.dead`, `${digest}\0`],
    [`${GC}ref.content.dead`, digestOf(Buffer.from('nothing'))],
    [`${GC}ref.snapshot`, name],
    [`${GC}ref.snapshot.`, name],
    [`${GC}ref.snapshot./x`, name],
    [`${GC}ref.snapshot/native`, name],
    [`${GC}ref.snapshotnative`, name],
    [`${GC}ref.snapshots.native`, name],
    [`${GC}ref.snapshot.native.1`, name],
    [`${GC}ref.snapshot.nativ`, name],
    [`${GC}ref.snapshot.native x`, name],
    [`${GC}ref.snapshot.native`, `native/${name}`],
    [`${GC}ref.snapshot.native`, `${name}\0x`],
    [`${GC}ref.snapshot.native`, 'missing'],
    [`${GC}ref.image`, 'i1'],
    [`${GC}ref.image.0`, digest],
    [`${GC}ref.stream`, 'x'],
    [`${GC}ref.lease`, 'l1'],
    [`${GC}flat`, 'x'],
    [`${GC}roo`, 'x'],
    [`${GC.toUpperCase()}ROOT`, 'x'],
    ['plain', `${GC}root`],
    ['containerd.io/uncompressed', digest],
  ]);
}

function labelsOf(random: Random, most: number): Record<string, string> {
  const labels: [string, string][] = [];
  for (let n = random.int(most + 1); n > 0; n--) {
    const [key, value] = random.pick([contentLabel, contentLabel, snapshotLabel, snapshotLabel, oddLabel])(
      random,
    );
    labels.push([key, value]);
  }
  return Object.fromEntries(labels);
}

/** For blobs and snapshots; an expiry means nothing on them. */
function collectibleLabels(random: Random): Record<string, string> {
  const labels = labelsOf(random, 3);
  if (random.chance(0.07)) labels[`${GC}root`] = random.pick(['x', 'false', '0', '2001-01-01T00:00:00Z', '']);
  if (random.chance(0.1)) labels[`${GC}expire`] = timeText(random);
  return labels;
}

/** A time that has passed, is to come, or is none by the grammar. */
function timeText(random: Random): string {
  const at = formatTimestamp(now() + BigInt(random.pick([-1, 1]) * HOUR_NS)).replace(/(\.\d+)?Z$/, '');
  return random.pick([
    `${at}Z`,
    `${at}Z`,
    `${at}.5Z`,
    `${at},5Z`,
    `${at}.123456789Z`,
    `${at}.1234567890123Z`,
    `${at}+00:00`,
    `${at}-00:00`,
    '2001-02-28T23:59:59+05:30',
    '2001-02-28T23:59:59-23:59',
    '0001-01-01T00:00:00Z',
    '9999-12-31T23:59:59Z',
    '2000-02-29T00:00:00Z',
    // None of these parses, so they never expire.
    '',
    'never',
    '0',
    '2001-01-01',
    '2001-01-01T00:00:00',
    '2001-01-01 00:00:00Z',
    '2001-01-01t00:00:00Z',
    '2001-01-01T00:00:00z',
    '2001-01-01T00:00:00Z ',
    ' 2001-01-01T00:00:00Z',
    '2001-01-01T00:00:00.Z',
    '2001-01-01T00:00:00+0100',
    '2001-01-01T00:00Z',
    '2001-02-29T00:00:00Z',
    '2001-02-30T00:00:00Z',
    '2001-13-01T00:00:00Z',
    '2001-00-01T00:00:00Z',
    '2001-01-00T00:00:00Z',
    '2001-01-01T24:00:00Z',
    '2001-01-01T00:60:00Z',
    '2001-01-01T00:00:60Z',
    '12001-01-01T00:00:00Z',
    '-001-01-01T00:00:00Z',
    '978307200',
  ]);
}

function leaseLabels(random: Random): Record<string, string> {
  // References and roots on a lease mean nothing.
  const labels = random.chance(0.2) ? collectibleLabels(random) : {};
  delete labels[`${GC}flat`];
  delete labels[`${GC}expire`];
  if (random.chance(0.4)) labels[`${GC}flat`] = random.pick(['x', 'false', '1', '']);
  if (random.chance(0.7)) labels[`${GC}expire`] = timeText(random);
  if (random.chance(0.1)) labels[`${GC}flat.x`] = 'x';
  return labels;
}

function resources(random: Random): { id: string; type: string }[] {
  return Array.from({ length: random.int(4) }, () => {
    const kind = random.int(5);
    if (kind < 2) return { type: 'content', id: random.pick(digests) };
    if (kind < 4)
      return {
        type: `snapshots/${random.pick(snapshotters)}`,
        id: random.pick([...snapshotNames, 'missing']),
      };
    return { type: 'ingests', id: random.pick([...ingestRefs, 'missing']) };
  });
}

type Make = (random: Random, namespace: string, made: readonly PeerRecord[]) => PeerRecord;

const blob: Make = (random, namespace) => ({
  kind: 'blob',
  namespace,
  name: random.pick(digests),
  labels: collectibleLabels(random),
});

const snapshot: Make = (random, namespace, made) => {
  const snapshotter = random.pick(snapshotters);
  // A parent is made first, so there are no circles; a missing one is an edge to nothing.
  const parents = made.filter(
    (r) => r.kind === 'snapshot' && r.namespace === namespace && r.snapshotter === snapshotter,
  );
  const parent = random.chance(0.05) ? 'missing' : (parents[random.int(parents.length + 1)]?.name ?? '');
  const labels = collectibleLabels(random);
  return { kind: 'snapshot', namespace, name: random.pick(snapshotNames), snapshotter, parent, labels };
};

const image: Make = (random, namespace) => ({
  kind: 'image',
  namespace,
  name: random.pick(['i1', 'i2', 'docker.io/library/i:3']),
  target: random.pick(digests),
  labels: labelsOf(random, 2),
});

const container: Make = (random, namespace) => {
  const snapshotter = random.pick(['', ...snapshotters]);
  const snapshotKey = snapshotter === '' ? '' : random.pick(['', 'missing', ...snapshotNames]);
  const name = random.pick(['c1', 'c2']);
  return { kind: 'container', namespace, name, snapshotter, snapshotKey, labels: labelsOf(random, 2) };
};

const lease: Make = (random, namespace) => ({
  kind: 'lease',
  namespace,
  name: random.pick(['l1', 'l2', 'l3', 'l4']),
  labels: leaseLabels(random),
  resources: resources(random),
});

const ingest: Make = (random, namespace) => ({
  kind: 'ingest',
  namespace,
  name: random.pick(ingestRefs),
  labels: {},
  ...(random.chance(0.7) && { expiresIn: random.pick([-1, 1]) * HOUR_NS }),
  ...(random.chance(0.6) && { expected: random.pick(digests) }),
});

const makers: readonly Make[] = [
  ...[blob, blob, blob, blob, blob, blob],
  ...[snapshot, snapshot, snapshot, snapshot, snapshot, snapshot, snapshot],
  ...[image, container, lease, lease, ingest],
];

const identity = (r: PeerRecord): string =>
  r.kind === 'snapshot'
    ? `snapshot|${r.namespace}|${r.snapshotter}/${r.name}`
    : `${r.kind}|${r.namespace}|${r.name}`;

/** A store made from its seed alone. */
export function randomStore(seed: number): PeerRecord[] {
  const random = new Random(seed);
  const used = namespaces.slice(0, 1 + random.int(namespaces.length));
  const records = new Map<string, PeerRecord>();
  const size = 5 + random.int(60);
  for (let n = 0; n < size; n++) {
    const record = random.pick(makers)(random, random.pick(used), [...records.values()]);
    const id = identity(record);
    if (!records.has(id)) records.set(id, record);
  }
  return [...records.values()];
}
