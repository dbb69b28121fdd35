/**
 * `npm run bench -- any-host-containerd [READS] [CLIENTS]`: the `meta.db` of a real containerd of Debian read again and again (default
 * 1,000 times) while clients (default 4; test/conformance/load) import, label, commit and remove, and collections run. Each reading is
 * checked to be of one transaction: parents and children of snapshots agree, readings of one transaction are the same, none is older
 * than the one before. At rest, ten times, its names are those that `ctr` lists.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash, type Hash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Bucket, rootBucket } from '../../src/bolt/bucket.js';
import { type BoltSnapshot, boltTransaction, readBolt } from '../../src/bolt/snapshot.js';
import { isKind } from '../../src/errors.js';
import { buildGo } from '../../test/conformance/go-programs.js';
import { Server } from '../../test/conformance/servers.js';
import { metadataIn } from './verbs.js';

const [reads = 1000, clients = 4] = process.argv.slice(2).map(Number);
const RESTS = 10;
const REST_MS = 300;
const ROUND_MS = 60_000;
const NAMESPACES = ['load-0', 'load-1'];

/** The tree as `{ bucket: { … }, key: value }`. */
interface Tree {
  [name: string]: Tree | string;
}

function treeOf(bucket: Bucket, hash: Hash): Tree {
  const tree: Tree = {};
  bucket.each((entry) => {
    hash.update(entry.bytes.subarray(entry.keyAt, entry.keyEnd)).update(entry.value);
    const below = entry.bucket;
    tree[entry.key] = below === undefined ? entry.text : treeOf(below, hash);
    hash.update(below === undefined ? ',' : ';');
  });
  return tree;
}

const below = (tree: Tree | undefined, ...names: readonly string[]): Tree => {
  let found: Tree | string | undefined = tree;
  for (const name of names) found = typeof found === 'object' ? found[name] : undefined;
  return typeof found === 'object' ? found : {};
};

/** Pairs of parent and child, as the children have them and as the parents do. */
function checkFamilies(schema: Tree): void {
  for (const namespace of Object.keys(schema))
    for (const snapshotter of Object.keys(below(schema, namespace, 'snapshots'))) {
      const snapshots = below(schema, namespace, 'snapshots', snapshotter);
      const ofChildren = Object.keys(snapshots).flatMap((name) => {
        const { parent = '' } = below(snapshots, name);
        return parent === '' ? [] : [`${String(parent)} ${name}`];
      });
      const ofParents = Object.keys(snapshots).flatMap((name) =>
        Object.keys(below(snapshots, name, 'children')).map((child) => `${name} ${child}`),
      );
      assert.deepEqual(ofChildren.sort(), ofParents.sort(), `torn: ${namespace} ${snapshotter}`);
    }
}

const lists: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ['images', ['images'], ['-q']],
  ['content', ['content', 'blob'], ['-q']],
  ['snapshots', ['snapshots', 'overlayfs'], []],
  ['containers', ['containers'], ['-q']],
  ['leases', ['leases'], ['-q']],
];

function checkBesideCtr(schema: Tree, address: string): void {
  for (const namespace of NAMESPACES)
    for (const [list, path, options] of lists) {
      const args = ['-a', address, '-n', namespace, list, 'ls', ...options];
      const { status, stdout, stderr } = spawnSync('ctr', args, { encoding: 'utf8' });
      assert.equal(status, 0, stderr);
      const lines = stdout.split('\n').slice(options.length === 0 ? 1 : 0);
      const theirs = lines.map((line) => line.split(/\s/)[0]!).filter((name) => name !== '');
      assert.deepEqual(
        Object.keys(below(schema, namespace, ...path)).sort(),
        theirs.sort(),
        `${namespace} ${list}`,
      );
    }
}

const directory = mkdtempSync(join(tmpdir(), 'ebbtide-any-host-bench-'));
const server = await Server.start('containerd', { dir: directory });
const load = spawn(
  buildGo('test/conformance/load', 'program'),
  ['-address', server.address, '-clients', `${clients}`, '-duration', '1000h'],
  { stdio: ['pipe', 'ignore', 'inherit'] },
);
load.on('exit', (code, signal) => console.log(`the clients ended: ${signal ?? code}`));

const path = metadataIn(server.root);
let last = { transaction: 0n, sum: '' };
const seen = { read: 0, transactions: 0, followed: 0, retried: 0, retriedMax: 0, refused: 0, rests: 0 };

/** Throws if it is torn. */
function check(snapshot: BoltSnapshot): Tree {
  const hash = createHash('sha256');
  const tree = treeOf(rootBucket(snapshot), hash);
  const { transaction } = snapshot.meta;
  const sum = hash.digest('hex');
  if (transaction === last.transaction) assert.equal(sum, last.sum, `torn: two trees of ${transaction}`);
  else {
    assert.ok(transaction > last.transaction, `older: ${transaction} after ${last.transaction}`);
    checkFamilies(below(tree, 'v1'));
    seen.transactions++;
  }
  last = { transaction, sum };
  seen.read++;
  seen.followed += snapshot.commits;
  seen.retried += snapshot.retries;
  seen.retriedMax = Math.max(seen.retriedMax, snapshot.retries);
  return tree;
}

async function rest(): Promise<void> {
  load.kill('SIGSTOP');
  try {
    for (let before = 0n; before !== (await boltTransaction(path)); await sleep(REST_MS))
      before = await boltTransaction(path);
    const before = await boltTransaction(path);
    const schema = below(check(await readBolt(path)), 'v1');
    checkBesideCtr(schema, server.address);
    assert.equal(await boltTransaction(path), before);
    seen.rests++;
  } finally {
    load.kill('SIGCONT');
  }
}

try {
  await sleep(1000);
  const start = performance.now();
  for (let said = start; seen.read < reads && load.exitCode === null; ) {
    if (seen.read >= (reads / RESTS) * (seen.rests + 1) - 1) await rest();
    try {
      check(await readBolt(path));
    } catch (error) {
      if (!isKind(error, 'Unavailable')) throw error;
      seen.refused++;
    }
    if (performance.now() - said < ROUND_MS && seen.read < reads) continue;
    said = performance.now();
    console.log(`${Math.round((said - start) / 1000)} s: ${JSON.stringify(seen)}`);
  }
} finally {
  load.kill('SIGKILL');
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
}
