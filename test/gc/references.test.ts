import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Adjacency, EdgeKind, NodeFlag, type Value } from '../../src/engine/contract.js';
import {
  blobKey,
  components,
  containerKey,
  foreignKey,
  imageKey,
  ingestKey,
  key,
  leaseKey,
  namespaceKey,
  sandboxKey,
  snapshotKey,
} from '../../src/engine/schema/keys.js';
import { metadataIndexer } from '../../src/gc/references.js';
import {
  ResourceContainer,
  ResourceContent,
  ResourceImage,
  ResourceIngest,
  ResourceLease,
  ResourceSnapshot,
} from '../../src/gc/types.js';

const ns = 'ns1';
const digest = `sha256:${'1'.repeat(64)}`;
const child = `sha256:${'2'.repeat(64)}`;
const G = 'containerd.io/gc.';

function index(k: string, value: Value): Adjacency {
  const adjacency = metadataIndexer.node(k, value);
  assert.ok(adjacency, 'the record is a node');
  return adjacency;
}

const has = ({ flags }: Adjacency, flag: number): boolean => (flags & flag) !== 0;

/** Edges as `kind target` texts, with `<` before what is declared from the other end. */
function edges({ edges: list }: Adjacency): string[] {
  const kinds = { [EdgeKind.label]: 'label', [EdgeKind.structural]: 'structural', [EdgeKind.flat]: 'flat' };
  return list.map(({ to, kind, back }) => `${back ? '<' : ''}${kinds[kind]} ${components(to).join(' ')}`);
}

const blob = (labels: Record<string, string>): Adjacency =>
  index(blobKey(ns, digest), { createdat: 1n, updatedat: 1n, size: 1, labels });

describe('forward reference labels', () => {
  const cases: [label: string, value: string, expected: string[]][] = [
    ['ref.content', child, [`label blobs ns1 ${child}`]],
    ['ref.content.a', child, [`label blobs ns1 ${child}`]],
    ['ref.content/b', child, [`label blobs ns1 ${child}`]],
    ['ref.content.', child, [`label blobs ns1 ${child}`]],
    ['ref.contentbad', child, [`label foreign ns1 contentbad ${child}`]],
    ['ref.content', 'no digest at all', ['label blobs ns1 no digest at all']],
    ['ref.image', 'alpine', ['label images ns1 alpine']],
    ['ref.image/x', 'alpine', ['label images ns1 alpine']],
    ['ref.images', 'alpine', ['label foreign ns1 images alpine']],
    ['ref.snapshot.native', 's1', ['label snapshots ns1 native s1']],
    ['ref.snapshot.native/anything-1', 's1', ['label snapshots ns1 native s1']],
    ['ref.snapshot.overlayfs.0', 's1', ['label snapshots ns1 overlayfs.0 s1']],
    ['ref.snapshot.', 's1', []],
    ['ref.snapshot./x', 's1', []],
    ['ref.snapshot', 's1', ['label foreign ns1 snapshot s1']],
    ['ref.stream', 'tty', ['label foreign ns1 stream tty']],
    ['ref.stream.in/1', 'tty', ['label foreign ns1 stream.in/1 tty']],
    ['ref.', 'tty', []],
    ['refcontent', child, []],
    ['ref.content', 'nul\0inside', []],
    ['ref.content', 'x'.repeat(32769), []],
  ];
  for (const [label, value, expected] of cases) {
    test(`[#185] [#186] [#187] [#205] given ${label} = ${value.slice(0, 16)}, when indexed, then its edges are right`, () => {
      assert.deepEqual(edges(blob({ [G + label]: value })), expected);
    });
  }

  test('given several labels with different suffixes, when indexed, then there are several edges', () => {
    const labels = { [`${G}ref.content.l.0`]: digest, [`${G}ref.content.l.1`]: child, other: child };
    assert.deepEqual(edges(blob(labels)), [`label blobs ns1 ${digest}`, `label blobs ns1 ${child}`]);
  });

  test('[#202] given a sandbox with reference labels, when indexed, then it is a root that refers to them', () => {
    const node = index(sandboxKey(ns, 'pod'), {
      labels: {
        [`${G}ref.snapshot.native`]: 's1',
        [`${G}bref.image`]: 'i',
        [`${G}cond.snapshot.x`]: 'usedat<1h|s',
      },
    });
    assert.equal(node.flags, NodeFlag.root);
    assert.deepEqual(edges(node), ['label snapshots ns1 native s1']);
  });
});

describe('roots', () => {
  test('[#190] given labels that begin with gc.root, when indexed, then content and snapshots are roots', () => {
    for (const label of [`${G}root`, `${G}root.x`, `${G}rooted`]) {
      assert.ok(has(blob({ [label]: '1999-01-01T00:00:00Z' }), NodeFlag.root), label);
      assert.ok(
        has(index(snapshotKey(ns, 'native', 's'), { name: 'x', labels: { [label]: '1' } }), NodeFlag.root),
      );
    }
    assert.ok(!has(blob({ [`${G}expire`]: '2999-01-01T00:00:00Z' }), NodeFlag.root));
    assert.ok(!has(blob({ 'example.com/gc.root': '1' }), NodeFlag.root));
  });

  test('[#191] given an active snapshot without labels, when indexed, then it is collectible and no root', () => {
    const node = index(snapshotKey(ns, 'native', 's'), { name: 'ns1/1/s', createdat: 1n, updatedat: 1n });
    assert.equal(node.flags, (ResourceSnapshot << 8) | NodeFlag.collectible);
  });

  test('[#193] given leases, when indexed, then they are roots, until their expiry if it parses', () => {
    const lease = (labels: Record<string, string>): Adjacency =>
      index(leaseKey(ns, 'l'), { createdat: 1n, labels });
    assert.equal(lease({}).flags, (ResourceLease << 8) | NodeFlag.root | NodeFlag.collectible);
    assert.equal(lease({}).expireAt, undefined);
    assert.equal(lease({ [`${G}expire`]: '1970-01-01T00:00:01Z' }).expireAt, 1_000_000_000n);
    assert.equal(lease({ [`${G}expire`]: 'tomorrow' }).expireAt, undefined);
    assert.deepEqual(
      edges(lease({ [`${G}ref.content`]: digest })),
      [],
      'labels of leases are not references',
    );
  });

  test('[#197] given images, when indexed, then they are roots until a parsable expiry', () => {
    const image = (labels: Record<string, string>): Adjacency =>
      index(imageKey(ns, 'i'), { target: { digest, mediatype: 'm', size: 1 }, labels });
    assert.equal(image({}).flags, (ResourceImage << 8) | NodeFlag.root | NodeFlag.collectible);
    assert.equal(image({ [`${G}expire`]: '1970-01-01T00:00:02.5Z' }).expireAt, 2_500_000_000n);
    assert.equal(image({ [`${G}expire`]: '1970-01-01' }).expireAt, undefined);
  });

  test('[#201] given ingests, when indexed, then only an expiry makes a root', () => {
    const fresh = index(ingestKey(ns, 'r'), { ref: 'ns1/1/r', expireat: 5n });
    assert.equal(fresh.flags, (ResourceIngest << 8) | NodeFlag.root | NodeFlag.collectible);
    assert.equal(fresh.expireAt, 5n);
    const leased = index(ingestKey(ns, 'r'), { ref: 'ns1/1/r', expected: digest });
    assert.equal(leased.flags, (ResourceIngest << 8) | NodeFlag.collectible);
    assert.deepEqual(edges(leased), [`label blobs ns1 ${digest}`]);
  });
});

describe('structural edges', () => {
  test('[#183] given an image, when indexed, then the target comes structurally and labels as labels', () => {
    const node = index(imageKey(ns, 'i'), {
      target: { digest, mediatype: 'm', size: 1 },
      labels: { [`${G}ref.content.x`]: child, [`${G}bref.content`]: child },
    });
    assert.deepEqual(edges(node), [`structural blobs ns1 ${digest}`, `label blobs ns1 ${child}`]);
  });

  test('[#188] given a snapshot with a parent, when indexed, then the edge is structural, same snapshotter', () => {
    const node = index(snapshotKey(ns, 'over/lay', 'kid'), { name: 'n', parent: 'par/ent' });
    assert.deepEqual(edges(node), ['structural snapshots ns1 over/lay par/ent']);
  });

  test('[#188] [#189] given containers, when indexed, then they are roots that refer to their snapshot', () => {
    const container = (snapshotter: string, snapshotKey: string): Adjacency =>
      index(containerKey(ns, 'c'), {
        snapshotter,
        snapshotKey,
        image: 'i',
        labels: { [`${G}ref.content.0`]: digest },
      });
    assert.equal(container('native', 's').flags, (ResourceContainer << 8) | NodeFlag.root);
    assert.deepEqual(edges(container('native', 's')), [
      'label snapshots ns1 native s',
      `label blobs ns1 ${digest}`,
    ]);
    assert.deepEqual(edges(container('', '')), [`label blobs ns1 ${digest}`]);
    assert.deepEqual(
      edges(container('native', '')),
      [`label blobs ns1 ${digest}`],
      'a dead edge is left out',
    );
  });

  test('[#192] [#194] given lease links, when asked, then they are plain or flat, and children no edges', () => {
    const from = leaseKey(ns, 'l');
    assert.equal(metadataIndexer.link(from, 'holds', blobKey(ns, digest)), EdgeKind.label);
    assert.equal(metadataIndexer.link(from, 'holds.flat', blobKey(ns, digest)), EdgeKind.flat);
    assert.equal(metadataIndexer.link(from, 'children', from), undefined);
  });
});

describe('back references', () => {
  test('[#199] given back reference labels, when indexed, then edges run from what they name', () => {
    const labels = {
      [`${G}bref.image`]: 'i',
      [`${G}bref.container.x`]: 'c',
      [`${G}bref.content/1`]: child,
      [`${G}bref.snapshot.native/2`]: 's',
      [`${G}bref.unknown`]: 'u',
      [`${G}bref.contentx`]: child,
    };
    assert.deepEqual(edges(blob(labels)), [
      '<label images ns1 i',
      '<label containers ns1 c',
      `<label blobs ns1 ${child}`,
      '<label snapshots ns1 native s',
    ]);
  });

  test('[#195] given images, when indexed, then only one that can expire has back references', () => {
    const labels = { [`${G}bref.content`]: child };
    const target = { digest, mediatype: 'm', size: 1 };
    assert.deepEqual(edges(index(imageKey(ns, 'i'), { target, labels })), [`structural blobs ns1 ${digest}`]);
    const expiring = { ...labels, [`${G}expire`]: '1970-01-01T00:00:01Z' };
    assert.deepEqual(edges(index(imageKey(ns, 'i'), { target, labels: expiring })), [
      `structural blobs ns1 ${digest}`,
      `<label blobs ns1 ${child}`,
    ]);
  });
});

describe('flags and other keys', () => {
  test('given conditions and their values, when indexed, then each kind of object carries its flag only', () => {
    const labels = { [`${G}cond.snapshot.native`]: 'usedat<1h|s', [`${G}cond.value-usedat.x`]: 'now' };
    assert.equal(blob(labels).flags, (ResourceContent << 8) | NodeFlag.collectible | NodeFlag.conditional);
    const snapshot = index(snapshotKey(ns, 'native', 's'), { name: 'n', labels });
    assert.equal(snapshot.flags, (ResourceSnapshot << 8) | NodeFlag.collectible | NodeFlag.conditionValue);
  });

  test('given keys of other collections, when indexed, then they are not nodes', () => {
    assert.equal(metadataIndexer.node(namespaceKey(ns), {}), undefined);
    assert.equal(metadataIndexer.node(key('raw', 'x'), 'text'), undefined);
  });

  test('given keys without records, when asked, then their type is known', () => {
    assert.equal(metadataIndexer.absent(blobKey(ns, digest)), ResourceContent << 8);
    assert.equal(metadataIndexer.absent(snapshotKey(ns, 'a', 'b')), ResourceSnapshot << 8);
    assert.equal(metadataIndexer.absent(foreignKey(ns, 'stream', 'x')), NodeFlag.foreign);
  });

  test('given damaged records, when indexed, then nothing is thrown', () => {
    for (const value of [
      'text',
      {},
      { labels: 'x' },
      { target: 'x', parent: 7, snapshotter: 1n },
    ] as Value[]) {
      for (const k of [
        blobKey(ns, digest),
        imageKey(ns, 'i'),
        snapshotKey(ns, 'a', 'b'),
        containerKey(ns, 'c'),
      ]) {
        assert.deepEqual(index(k, value).edges, []);
      }
    }
  });
});
