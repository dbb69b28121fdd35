import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SweepWork } from '../../src/gc/sweep/dirty.js';
import { type BackendItem, OrphanCandidates } from '../../src/gc/sweep/orphan-candidates.js';
import { sweepContent } from '../../src/gc/sweep/sweep-content.js';
import { sweepSnapshotter } from '../../src/gc/sweep/sweep-snapshots.js';
import { digest, world } from '../support/gc-world.js';

const nothing: ReadonlySet<string> = new Set();

for (const surveyed of [false, true]) {
  const how = surveyed ? 'takes orphans of a survey' : 'takes a list';
  const workOf = (item: BackendItem): SweepWork =>
    surveyed
      ? { items: new OrphanCandidates(), orphans: OrphanCandidates.of([item]) }
      : { items: OrphanCandidates.of([item]) };

  test(`given records whose removal is not on disk yet, when a sweep ${how}, then bytes go after it`, async (t) => {
    const w = await world(t);
    const log: string[] = [];
    w.engine.flush = async () => void log.push('flush');
    w.content.blobs.set(digest('a'), 1);
    w.content.beforeDelete = async () => void log.push('blob');
    const blob = { kind: 'blob', digest: digest('a') } as const;
    const content = await sweepContent(w, workOf(blob), () => nothing);
    assert.equal(content.removed, 1);
    assert.deepEqual(log, ['flush', 'blob']);

    log.length = 0;
    w.content.ingests.add('ns1/1/r');
    w.content.abort = async () => void log.push('ingest');
    const ingest = { kind: 'ingest', ref: 'ns1/1/r' } as const;
    await sweepContent(w, workOf(ingest), () => nothing);
    assert.deepEqual(log, ['flush', 'ingest']);

    log.length = 0;
    w.native.add('ns1/1/s');
    w.native.beforeRemove = async () => void log.push('snapshot');
    const snapshot = { kind: 'snapshot', snapshotter: 'native', name: 'ns1/1/s' } as const;
    const order = workOf(snapshot);
    const snapshots = await sweepSnapshotter(w, 'native', w.native, order, () => nothing);
    assert.equal(snapshots.removed, 1);
    assert.deepEqual(log, ['flush', 'snapshot']);
  });
}

test('given a removal that cannot be put on disk, when a sweep comes to it, then the bytes stay', async (t) => {
  const w = await world(t);
  w.engine.flush = () => Promise.reject(new Error('no space'));
  w.content.blobs.set(digest('a'), 1);
  const blob = { kind: 'blob', digest: digest('a') } as const;
  const { errors } = await sweepContent(w, { items: OrphanCandidates.of([blob]) }, () => nothing);
  assert.match(errors.join(), /no space/);
  assert.deepEqual([...w.content.blobs.keys()], [digest('a')]);
});
