/**
 * The same random stores collected here and by containerd's own Go package: the same records must be left.
 * Stores: EBBTIDE_PEER_GRAPHS (default 250); first seed: EBBTIDE_PEER_SEED (default: the clock, printed). One store
 * is made again by EBBTIDE_PEER_GRAPHS=1 EBBTIDE_PEER_SEED=<its seed>.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Engine } from '../../src/engine/contract.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { createGraph } from '../../src/graph/carriers.js';
import { collectHere } from './ours.js';
import { buildPeer, Peer } from './program.js';
import { randomStore } from './stores.js';

const graphs = Number(process.env.EBBTIDE_PEER_GRAPHS ?? 250);
const firstSeed = Number(process.env.EBBTIDE_PEER_SEED ?? Date.now() % 1_000_000);

const peer = buildPeer();
const skip = 'missing' in peer ? peer.missing : false;
if (skip) console.log(`the peer is not compared with: ${skip}`);

/** Mostly in memory, with the graph core by either carrier; a few on LMDB, which is slower to open. */
async function openEngine(n: number, dir: string): Promise<Engine> {
  const options = { indexer: metadataIndexer, durability: 'visible' as const };
  const graph = createGraph(n % 2 === 0 ? undefined : 'wasm');
  if (n % 25 !== 0) return openMemoryEngine({ ...options, graph });
  return openLmdbEngine(join(dir, `${n}`), { ...options, graph });
}

test(`${graphs} random stores: what is left after a collection is what the peer leaves`, {
  skip,
}, async (t) => {
  assert.ok('program' in peer);
  const dir = await mkdtemp(join(tmpdir(), 'ebbtide-peer-test-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  await using other = new Peer(peer.program);
  const counts = { records: 0, left: 0, removed: 0, peerRanAgain: 0 };
  for (let n = 0; n < graphs; n++) {
    const seed = firstSeed + n;
    const records = randomStore(seed);
    const theirs = other.collect(records);
    const ours = await collectHere(await openEngine(n, dir), records);
    const { left, runs } = await theirs;
    assert.deepEqual(ours.sort(), left.sort(), `EBBTIDE_PEER_GRAPHS=1 EBBTIDE_PEER_SEED=${seed} replays it`);
    counts.records += records.length;
    counts.left += left.length;
    counts.removed += records.length - left.length;
    if (runs > 2) counts.peerRanAgain++;
  }
  t.diagnostic(`first seed ${firstSeed}: ${JSON.stringify(counts)}`);
  if (graphs >= 20) assert.ok(counts.left > counts.records / 10 && counts.removed > counts.records / 10);
});

test('given stores that lost their labels here, then the comparison notices', { skip }, async (t) => {
  assert.ok('program' in peer);
  await using other = new Peer(peer.program);
  let different = 0;
  for (let seed = 0; seed < 20; seed++) {
    const records = randomStore(seed);
    const bare = records.map((record) => ({ ...record, labels: {} }));
    const engine = await openMemoryEngine({ indexer: metadataIndexer, graph: createGraph() });
    const ours = (await collectHere(engine, bare)).sort().join('\n');
    const { left } = await other.collect(records);
    if (ours !== left.sort().join('\n')) different++;
  }
  t.diagnostic(`${different} of 20 stores differ`);
  assert.ok(different > 5);
});
