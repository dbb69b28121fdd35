/** Plans of synthetic stores: what a plan says is what its records are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { type SynthRecord, synthRecords } from '../../src/synth/records.js';
import { runtimeSpec } from '../../src/synth/runtime-spec.js';
import { type Counts, denseHost, noRecords, planFor, sum } from '../../src/synth/shape.js';

function tally(records: Iterable<SynthRecord>): Counts {
  const counts = { ...noRecords };
  for (const { kind } of records) if (kind !== 'namespace') counts[`${kind}s`]++;
  return counts;
}

test('given a plan, when its records are made, then there are as many of each kind as it says', () => {
  for (const records of [1, 100, 5000]) {
    const plan = planFor(records);
    assert.deepEqual(tally(synthRecords(plan)), plan.counts);
    assert.ok(sum(plan.counts) >= records && sum(plan.counts) < records + 30);
  }
});

test('given one seed, when records are made twice, then they are the same; another seed gives others', () => {
  const once = [...synthRecords(planFor(2000))];
  assert.deepEqual([...synthRecords(planFor(2000))], once);
  assert.notDeepEqual([...synthRecords(planFor(2000, { ...denseHost, seed: 'other' }))], once);
});

test('given two sizes, when records are made, then the smaller store names a part of the larger', () => {
  const names = (records: number): Set<string> => {
    const found = new Set<string>();
    for (const r of synthRecords(planFor(records))) if (r.kind === 'blob') found.add(r.namespace + r.digest);
    return found;
  };
  const large = names(6000);
  for (const name of names(2000)) assert.ok(large.has(name));
});

test('given any record, when it names another of its namespace, then that one is made too', () => {
  const records = [...synthRecords(planFor(5000))];
  const made = new Set<string>();
  for (const r of records) {
    if (r.kind === 'blob') made.add(`${r.namespace} ${r.digest}`);
    if (r.kind === 'snapshot') made.add(`${r.namespace} ${r.key}`);
  }
  for (const r of records) {
    const named: string[] = [];
    if (r.kind === 'image') named.push(r.digest);
    if (r.kind === 'container') named.push(r.id);
    if (r.kind === 'lease') named.push(r.content, r.snapshot);
    if (r.kind === 'snapshot' && r.parent !== '') named.push(r.parent);
    if (r.kind === 'blob') {
      for (const [label, value] of Object.entries(r.labels))
        if (label.includes('/gc.ref.')) named.push(value);
    }
    for (const name of named) assert.ok(made.has(`${r.namespace} ${name}`), `${r.kind} names ${name}`);
  }
});

test('given the share of garbage, when it is 0 or 1, then nothing or every image is gone', () => {
  const none = planFor(3000, { ...denseHost, garbage: 0, leasesExpired: 0, ingestsExpired: 0 });
  assert.equal(sum(none.garbage), 0);
  const all = planFor(3000, { ...denseHost, garbage: 1 });
  assert.equal(all.counts.images, 0);
  assert.equal(all.garbage.blobs, all.counts.blobs);
  assert.equal(all.garbage.snapshots, all.counts.snapshots);
});

test('given a shape that makes no sense, when it is planned, then the error names the field', () => {
  for (const [records, shape, field] of [
    [0, {}, 'records'],
    [10, { layers: 0 }, 'layers'],
    [10, { garbage: 1.5 }, 'garbage'],
    [10, { namespaces: 0.5 }, 'namespaces'],
    [10, { containers: Number.NaN }, 'containers'],
  ] as const) {
    assert.throws(
      () => planFor(records, { ...denseHost, ...shape }),
      (error: Error) => isKind(error, 'InvalidArgument') && error.message.includes(field),
    );
  }
});

test('given containers, when their specs are made, then each is JSON of a few KB with its own id', () => {
  const id = 'ab'.repeat(32);
  const spec = runtimeSpec(id);
  assert.ok(JSON.parse(spec).linux.cgroupsPath.endsWith(id));
  assert.ok(spec.length > 3000 && spec.length < 8000);
});
