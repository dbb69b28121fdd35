/** Roots with what is not expected in them: each is an error with a remedy, or a notice, and never a shorter list. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { compactForeign } from '../../src/any-host/compact.js';
import { findOrphans } from '../../src/any-host/orphans.js';
import { salvage } from '../../src/any-host/salvage/salvage.js';
import { canMount } from '../../src/backends/mounts.js';
import { ForeignStore } from '../../src/cli/foreign-store.js';
import { EbbtideError, isKind } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { encodeTime, encodeVarint } from '../../src/model/wire.js';
import { MAIN } from '../cli/support.js';
import { tempDir } from '../support/temp.js';
import { blobs, Host, image, times } from './damaged.js';
import { type Fields, makeRoot, writeFields } from './root.js';

const metadataIn = (root: string): string => join(root, 'io.containerd.metadata.v1.bolt', 'meta.db');
const snapshotterIn = (root: string): string => join(root, 'io.containerd.snapshotter.v1.overlayfs');

/** A root whose metadata is that, or the one of an image. */
async function rootOf(t: TestContext, fields?: Fields): Promise<string> {
  const root = await tempDir(t);
  await makeRoot(root, 'example.com/one:1');
  if (fields === undefined) return root;
  rmSync(metadataIn(root));
  await writeFields(metadataIn(root), fields);
  return root;
}

const version = encodeVarint(3);
const at = { createdat: encodeTime(1n), updatedat: encodeTime(1n) };

/** With a snapshot that the snapshotter's file, which is that one, does not have. */
async function rootWithSnapshot(t: TestContext, stored: Fields): Promise<string> {
  const snapshots = { overlayfs: { a: { ...at, name: 'default/1/a' } } };
  const root = await rootOf(t, { v1: { version, default: { snapshots } } });
  mkdirSync(join(snapshotterIn(root), 'snapshots'), { recursive: true });
  await writeFields(join(snapshotterIn(root), 'metadata.db'), stored);
  return root;
}

async function lostIn(root: string): Promise<{ orphans: string[]; missing: string[]; notices: string }> {
  await using store = await ForeignStore.open(root);
  const { orphans } = await findOrphans(store.parts, { youngest: 0n });
  const { findings } = await store.check();
  return {
    orphans: orphans.filter(({ reason }) => reason === 'no bytes').map(({ name }) => name),
    missing: findings.filter(({ kind }) => kind === 'snapshot-missing').map(({ object }) => object),
    notices: store.parts.notices.join('\n'),
  };
}

/** By the directory that one names, and where in it the root is. */
const OWNERS: readonly (readonly [named: string, below: string, ctr: string])[] = [
  ['containerd', '', 'ctr'],
  ['docker', 'containerd/daemon', 'ctr --address /run/docker/containerd/containerd.sock'],
  ['docker/containerd', 'daemon', 'ctr --address /run/docker/containerd/containerd.sock'],
  [
    '.local/share/docker',
    'containerd/daemon',
    'ctr --address "$XDG_RUNTIME_DIR/docker/containerd/containerd.sock"',
  ],
  ['.local/share/containerd', '', 'containerd-rootless-setuptool.sh nsenter -- ctr'],
  ['k3s', 'agent/containerd', 'k3s ctr'],
  ['rke2', 'agent/containerd', 'ROOT/bin/ctr --address /run/k3s/containerd/containerd.sock'],
  ['k0s', 'containerd', 'k0s ctr'],
  ['snap/microk8s/common', 'var/lib/containerd', 'microk8s ctr'],
];

test('given a root of Docker or of a Kubernetes, when it is named as a whole, then what is below it is salvaged, and the commands are those of its owner', async (t) => {
  for (const [named, below, ctr] of OWNERS) {
    const root = join(await tempDir(t), named);
    const digest = await makeRoot(join(root, below), 'example.com/one:1');
    const { metadata, records } = await salvage(root, join(await tempDir(t), 'meta.db'));
    assert.equal(metadata, metadataIn(join(root, below)));
    assert.deepEqual(
      records.map(({ kind, current }) => [kind, current]),
      [
        ['content', 1],
        ['image', 1],
      ],
    );
    rmSync(join(root, below, 'io.containerd.content.v1.content', 'blobs', 'sha256', digest.slice(7)));
    await using store = await ForeignStore.open(root);
    const { orphans } = await findOrphans(store.parts);
    assert.deepEqual(
      orphans.map(({ command }) => command),
      [`${ctr.replace('ROOT', root)} -n default content rm ${digest}`],
    );
  }
});

test('given a root of BuildKit, whose records no command removes, then none is given', async (t) => {
  const root = await rootOf(t);
  renameSync(metadataIn(root), join(root, 'containerdmeta.db'));
  rmSync(join(root, 'io.containerd.content.v1.content'), { recursive: true });
  mkdirSync(join(root, 'content', 'blobs', 'sha256'), { recursive: true });
  await using store = await ForeignStore.open(root);
  const { orphans } = await findOrphans(store.parts);
  assert.deepEqual(
    orphans.map(({ reason, kind, command }) => [reason, kind, command]),
    [['no bytes', 'content', undefined]],
  );
});

test('given snapshots without bytes, then those that are on others come before these', async (t) => {
  const names = ['a', 'b', 'c', '-d'];
  const snapshot = (name: string, n: number): Fields => ({
    ...at,
    name: `default/${n}/${name}`,
    ...(n > 0 && { parent: names[n - 1]! }),
  });
  const overlayfs = Object.fromEntries(names.map((name, n) => [name, snapshot(name, n)]));
  const root = await rootOf(t, { v1: { version, default: { snapshots: { overlayfs } } } });
  mkdirSync(snapshotterIn(root));
  await writeFields(join(snapshotterIn(root), 'metadata.db'), {});
  await using store = await ForeignStore.open(root);
  const { orphans } = await findOrphans(store.parts);
  assert.deepEqual(
    orphans.filter(({ reason }) => reason === 'no bytes').map(({ command }) => command),
    ['-- -d', 'c', 'b', 'a'].map((name) => `ctr -n default snapshots --snapshotter overlayfs rm ${name}`),
  );
});

test('given a snapshot that is made while orphans are looked for, also with the times of the layer below, then it is none', async (t) => {
  const root = await rootOf(t);
  const native = join(root, 'io.containerd.snapshotter.v1.native');
  mkdirSync(join(native, 'snapshots', '7'), { recursive: true });
  await writeFields(join(native, 'metadata.db'), { v1: { snapshots: {} } });
  utimesSync(join(native, 'snapshots', '7'), 1, 1);
  await using store = await ForeignStore.open(root);
  const since = async (youngest?: bigint, readAt = store.parts.readAt): Promise<[number, number]> => {
    const { orphans, young } = await findOrphans(
      { ...store.parts, readAt },
      youngest === undefined ? {} : { youngest },
    );
    return [orphans.length, young];
  };
  assert.deepEqual(await since(), [0, 1]);
  assert.deepEqual(await since(0n), [1, 0]);
  // The records were read an hour ago.
  assert.deepEqual(await since(0n, store.parts.readAt - 3_600_000_000_000n), [0, 1]);
});

test('given a blob that is removed and made again while orphans are looked for, then it is not lost', async (t) => {
  const root = await rootOf(t);
  const digest = digestOf(Buffer.from('{"schemaVersion":2}'));
  const file = join(root, 'io.containerd.content.v1.content', 'blobs', 'sha256', digest.slice(7));
  rmSync(file);
  await using store = await ForeignStore.open(root);
  const lost = async (createdat: Uint8Array): Promise<string[]> => {
    rmSync(metadataIn(root));
    await writeFields(metadataIn(root), {
      v1: {
        version,
        default: { content: { blob: { [digest]: { ...at, createdat, size: encodeVarint(1) } } } },
      },
    });
    const loaded = { ...store.parts.loaded, transaction: -1n };
    const { orphans } = await findOrphans({ ...store.parts, loaded });
    return orphans.filter(({ reason }) => reason === 'no bytes').map(({ name }) => name);
  };
  assert.deepEqual(await lost(encodeTime(0n)), [digest]);
  assert.deepEqual(await lost(encodeTime(2n)), []);
});

test('given snapshots whose files a lazy snapshotter mounts, when layers are compared, then theirs are not', async (t) => {
  const host = new Host(await tempDir(t));
  const one = host.image('one');
  const name = `a/1/${one.chain}`;
  const a = {
    images: { 'one:1': image(one.target) },
    content: blobs(one.blobs),
    snapshots: { stargz: { [one.chain]: { ...times(), name } } },
  };
  await writeFields(host.metadata, { v1: { version, a } });
  const path = join(host.root, 'io.containerd.snapshotter.v1.stargz');
  mkdirSync(join(path, 'snapshots', '1', 'fs'), { recursive: true });
  const compared = async (labels: Fields): Promise<number> => {
    rmSync(join(path, 'metadata.db'), { force: true });
    const stored = { ...times(), id: Uint8Array.of(1), kind: Uint8Array.of(3), labels };
    await writeFields(join(path, 'metadata.db'), { v1: { snapshots: { [name]: stored } } });
    await using store = await ForeignStore.open(host.root);
    return (await store.check({}, { layers: true })).checked.layers;
  };
  assert.equal(await compared({ 'containerd.io/snapshot.ref': one.chain }), 1);
  for (const label of ['remote', 'nydus-blob', 'overlaybd/blob-digest'])
    assert.equal(await compared({ [`containerd.io/snapshot/${label}`]: 'x' }), 0, label);
});

test('given a snapshotter whose metadata has another layout, then none of its snapshots is taken for lost', async (t) => {
  const empty = await lostIn(await rootWithSnapshot(t, {}));
  assert.deepEqual([empty.orphans, empty.missing], [['overlayfs/a'], ['a']]);
  for (const stored of [{ v2: { x: 'y' } }, { v1: { volumes: { x: 'y' } } }]) {
    const { orphans, missing, notices } = await lostIn(await rootWithSnapshot(t, stored));
    assert.deepEqual([orphans, missing], [[], []]);
    assert.match(notices, /overlayfs: its metadata cannot be read, .* its layout is not known/);
  }
});

test('given blobs beside metadata without records, when they are read, then nothing is noted about that: the engine cannot be written to', async (t) => {
  const root = await rootOf(t, { v1: { version } });
  const directory = join(root, 'io.containerd.content.v1.content', 'blobs', 'sha256');
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'a'.repeat(64)), 'x');
  await using store = await ForeignStore.open(root);
  assert.equal((await store.check()).sound, true);
  const { engine } = store.parts.db;
  await assert.rejects(
    engine.update((tx) => tx.put('raw\0a', 'b')),
    /read-only/,
  );
  assert.equal(engine.graph.stats().nodes, 0);
});

test('given metadata of another schema, then it is refused; of a later revision, then a notice says so', async (t) => {
  const other = await rootOf(t, { v2: { default: { images: { a: at } } } });
  await assert.rejects(
    ForeignStore.open(other),
    (error) => error instanceof EbbtideError && /no "v1"/.test(error.message) && error.remedy !== undefined,
  );
  const later = await rootOf(t, { v1: { version: encodeVarint(9), default: { images: { a: at } } } });
  await using store = await ForeignStore.open(later);
  assert.match(store.parts.notices.join('\n'), /revision 9 .* the last one known here is 4/);
  await using none = await ForeignStore.open(await rootOf(t, {}));
  assert.deepEqual(none.parts.notices, []);
});

const strange: Readonly<Record<string, (path: string) => void>> = {
  'a pipe': (path) => void execFileSync('mkfifo', [path]),
  'a directory': (path) => void mkdirSync(path),
  'a link to itself': (path) => symlinkSync(path, path),
  'a device': (path) => symlinkSync('/dev/zero', path),
  'an empty file': (path) => writeFileSync(path, ''),
};

test('given something else in the place of meta.db, then each verb says so, with a remedy', async (t) => {
  const output = join(await tempDir(t), 'out.db');
  for (const [name, put] of Object.entries(strange)) {
    const root = await rootOf(t);
    rmSync(metadataIn(root));
    put(metadataIn(root));
    for (const verb of [
      () => ForeignStore.open(root),
      () => compactForeign(root, output),
      () => salvage(root, output),
    ])
      await assert.rejects(
        verb,
        (error) =>
          error instanceof EbbtideError && error.kind === 'FailedPrecondition' && error.remedy !== undefined,
        name,
      );
  }
});

test('given a file instead of a root, then the error says what to name; given an output that is there, or in the root, then it is said before anything is read', async (t) => {
  const root = await rootOf(t);
  await assert.rejects(ForeignStore.open(metadataIn(root)), /meta\.db is not a directory/);
  const output = join(await tempDir(t), 'out.db');
  writeFileSync(output, '');
  truncateSync(metadataIn(root), 8192);
  for (const verb of [compactForeign, salvage]) {
    await assert.rejects(verb(root, output), (error) => isKind(error, 'AlreadyExists'));
    await assert.rejects(verb(root, join(metadataIn(root), '..', 'out.db')), /writing .*out\.db is refused/);
    await assert.rejects(verb(root, join(root, 'none', 'out.db')), (error) => isKind(error, 'NotFound'));
  }
});

test('given a root that a mount gives a second name, when the output is in it by that name, then it is refused', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount: ${reason}`);
  const root = await rootOf(t);
  const alias = await tempDir(t);
  const verb = `'${process.execPath}' '${MAIN}' --containerd-root '${root}' compact -o '${alias}/new/out.db'`;
  mkdirSync(join(root, 'new'));
  const script = `mount --bind '${root}' '${alias}' && ${verb}`;
  const { stderr } = spawnSync('unshare', ['-m', 'sh', '-c', script], { encoding: 'utf8' });
  assert.match(stderr, /writing .*out\.db is refused/);
  assert.equal(existsSync(join(root, 'new', 'out.db')), false);
});

test('given a root with one snapshotter that is not overlayfs, when its snapshots are listed, then they are those of it; of two, or with a name that is given, the option decides', async (t) => {
  const snapshots = (name: string): Fields => ({ [`${name}-one`]: { ...at, name: `default/1/${name}-one` } });
  const list = async (
    names: readonly string[],
    ...args: string[]
  ): Promise<ReturnType<typeof spawnSync> & { stdout: string; stderr: string }> => {
    const snapshotters = Object.fromEntries(names.map((name) => [name, snapshots(name)]));
    const root = await rootOf(t, { v1: { version, default: { snapshots: snapshotters } } });
    for (const name of names) {
      const directory = join(root, `io.containerd.snapshotter.v1.${name}`);
      mkdirSync(directory, { recursive: true });
      if (name === 'lost') continue;
      const stored = { [`default/1/${name}-one`]: { ...at, id: encodeVarint(1), kind: Uint8Array.of(3) } };
      await writeFields(join(directory, 'metadata.db'), { v1: { snapshots: stored } });
    }
    const all = [MAIN, '--containerd-root', root, 'snapshots', 'ls', '-q', ...args];
    const { EBBTIDE_SNAPSHOTTER: _, ...env } = process.env;
    return spawnSync(process.execPath, all, { encoding: 'utf8', env });
  };
  assert.equal((await list(['native'])).stdout, 'native-one\n');
  assert.equal((await list(['zfs'])).stdout, 'zfs-one\n');
  assert.equal((await list(['native', 'overlayfs'])).stdout, 'overlayfs-one\n');
  assert.equal((await list(['native', 'zfs'], '-s', 'zfs')).stdout, 'zfs-one\n');
  for (const [names, args, found] of [
    [['native', 'zfs'], [], /no snapshotter "overlayfs".*\n.*there are: native, zfs \(-s chooses\)/],
    [['lost'], [], /the snapshots of lost are not known here .*\n.*du, why and orphans/],
    [['native'], ['-s', ''], /no snapshotter "".*\n.*there are: native \(-s chooses\)/],
    [['native'], ['-s', 'overlayfs'], /no snapshotter "overlayfs".*\n.*there are: native \(-s chooses\)/],
  ] as const) {
    const { status, stderr } = await list(names, ...args);
    assert.equal(status, 3);
    assert.match(stderr, found);
  }
});
