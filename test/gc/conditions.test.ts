import assert from 'node:assert/strict';
import { test } from 'node:test';
import { conditionalReferences, conditionHolds } from '../../src/gc/mark/conditions.js';
import { usedAtTimes } from '../../src/stores/last-use.js';

const COND = 'containerd.io/gc.cond.snapshot';
const VALUE = 'containerd.io/gc.cond.value-usedat';
const SECOND = 1_000_000_000n;
const MINUTE = 60n * SECOND;
const HOUR = 60n * MINUTE;

/** `snapshotter|key|tests` of each reference, tests as `<limit` and `>limit` in nanoseconds. */
function parsed(label: string, value: string): string[] {
  return conditionalReferences({ [label]: value }).map(({ snapshotter, snapshotKey, tests }) =>
    [snapshotter, snapshotKey, ...tests.map(({ below, limit }) => `${below ? '<' : '>'}${limit}`)].join('|'),
  );
}

const grammar: [label: string, value: string, expected: string[]][] = [
  ['.native', 'usedat<1h30m|k', [`native|k|<${HOUR + 30n * MINUTE}`]],
  ['./..native/more', 'usedat>10s|a|b', [`native|a|b|>${10n * SECOND}`]],
  ['.native', 'usedat<-1m|k', [`native|k|<${-MINUTE}`]],
  ['.native', 'usedat>1h,usedat<1s|k', [`native|k|>${HOUR}|<${SECOND}`]],
  ['.native', 'size>3,usedat>=1h,usedat=1h,usedat==1h,usedat!=1h,usedat,usedat<soon,|k', ['native|k']],
  ['.native', 'size<1h,usedat<1h|k', [`native|k|<${HOUR}`]],
  ['.native', 'usedat<1h', []],
  ['', 'usedat<1h|k', []],
  ['native', 'usedat<1h|k', [`native|k|<${HOUR}`]],
];
for (const [label, value, expected] of grammar) {
  test(`given the condition ${label} = ${value}, when parsed, then what does not parse is skipped`, () => {
    assert.deepEqual(parsed(COND + label, value), expected);
  });
}

test('given other labels, when parsed, then there is no condition', () => {
  assert.deepEqual(conditionalReferences({ 'containerd.io/gc.ref.snapshot.native': 'x', [VALUE]: 'y' }), []);
});

test('given times of a snapshot, when tested, then any condition over any time counts, limits excluded', () => {
  const times = usedAtTimes({
    [VALUE]: '1970-01-01T00:10:00Z',
    [`${VALUE}.other`]: '1970-01-01T01:00:00+00:00',
    [`${VALUE}.bad`]: 'yesterday',
    unrelated: '1970-01-01T00:00:00Z',
  });
  assert.deepEqual(times, [10n * MINUTE, HOUR]);
  const tests = (value: string) => conditionalReferences({ [`${COND}.s`]: `${value}|k` })[0]?.tests ?? [];
  const now = HOUR + 10n * MINUTE;
  assert.equal(conditionHolds(tests('usedat<11m'), times, now), true);
  assert.equal(conditionHolds(tests('usedat<10m'), times, now), false, 'exactly the limit is not below it');
  assert.equal(conditionHolds(tests('usedat>59m'), times, now), true);
  assert.equal(conditionHolds(tests('usedat>1h'), times, now), false);
  assert.equal(conditionHolds(tests('usedat<1s,usedat>59m'), times, now), true);
  assert.equal(conditionHolds(tests('usedat<100h'), [], now), false, 'no time, no reference');
});
