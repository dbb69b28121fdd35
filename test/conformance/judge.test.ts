/**
 * The judge itself: what it takes out before it compares, what it must never take out, and when it condemns. The
 * runs it judges (main.ts) need root, Debian's containerd and Go, and are not part of `npm test`.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type LoadReport, loadVerdict, merged } from './load.js';
import { errorKind, lineDifferences, Normaliser } from './normalise.js';
import { parseOutcomes, suiteRows, worse } from './suites.js';
import { asMeant, compareTranscripts, type StepResult, staleDifferences } from './transcript.js';

describe('normalising', () => {
  const normaliser = (): Normaliser => new Normaliser({ roots: ['/srv/a/root'], work: '/srv/a/work' });

  test('times, ages, chance and private paths go; digests, sizes, kinds and old file times stay', () => {
    const text = [
      'sha256:ab12  3.1MB  About a minute   b=2,a=1',
      'sha256:ab12  457B   Less than a second  -',
      '"Created": "2026-11-25T09:00:01.123456789Z",',
      'extract-123456789-aB-_ sha256:ff',
      '98995-ngUL 2026-11-25T09:00:01Z -',
      '7-a_-Z 2026-11-25T09:00:01Z -',
      'import-2026-11-25 12-34-5678 2001-02-03',
      '-rw-r--r-- 12/34 4 2001-02-03 04:05:06 etc/one',
      'saved in /srv/a/work/exported.tar by /srv/a/root/meta.db',
    ].join('\n');
    assert.deepEqual(normaliser().lines(`${text}\n`), [
      'sha256:ab12 3.1MB <age> a=1,b=2',
      'sha256:ab12 457B <age> -',
      '"Created": "<time>",',
      'extract-<chance> sha256:ff',
      '<lease> <time> -',
      '<lease> <time> -',
      'import-<day> 12-34-5678 2001-02-03',
      '-rw-r--r-- 12/34 4 2001-02-03 04:05:06 etc/one',
      'saved in <work>/exported.tar by <root>/meta.db',
    ]);
  });

  test('snapshot directories are numbered as they appear, so the same one twice stays the same one', () => {
    const theirs = normaliser();
    const lower = '/srv/a/root/io.containerd.snapshotter.v1.overlayfs/snapshots';
    assert.equal(
      theirs.line(`lowerdir=${lower}/17/fs:${lower}/4/fs,upperdir=${lower}/17/fs`),
      'lowerdir=<overlayfs>/snapshots/<1>/fs:<overlayfs>/snapshots/<2>/fs,upperdir=<overlayfs>/snapshots/<1>/fs',
    );
    assert.equal(
      normaliser().line('/srv/a/root/snapshots/overlayfs/snapshots/9/fs'),
      '<overlayfs>/snapshots/<1>/fs',
    );
  });

  test('of an error its kind counts', () => {
    assert.deepEqual(
      [
        'ctr: image "x": not found',
        'ctr: nothing of that name: not found',
        'level=error msg="no" error="still used: failed precondition"',
        'ctr: manifest not here',
      ].map(errorKind),
      ['error: not found', 'error: not found', 'error: failed precondition', 'ctr: manifest not here'],
    );
  });
});

test('differences are reported by line and side, in place', () => {
  assert.deepEqual(lineDifferences(['a', 'b', 'c'], ['a', 'x', 'c', 'd']), [
    { side: 'containerd', line: 'b' },
    { side: 'ours', line: 'x' },
    { side: 'ours', line: 'd' },
  ]);
  assert.deepEqual(lineDifferences(['a'], ['a']), []);
});

const step = (over: Partial<StepResult>): StepResult => ({
  ...{ section: 'images', line: 'ctr images ls', status: '0', stdout: ['REF'], stderr: [] },
  ...over,
});

describe('a session', () => {
  test('another exit status, another kind of error and a missing line each differ; other words do not', () => {
    const theirs = step({ status: '1', stdout: [], stderr: ['ctr: image "x": not found'] });
    const ours = [
      step({ status: '0', stdout: [], stderr: ['ctr: image "x": not found'] }),
      step({ status: '1', stdout: [], stderr: ['ctr: image "x": already exists'] }),
      step({ status: '1', stdout: [], stderr: ['ctr: no image is called x: not found'] }),
    ];
    const compared = ours.map((o) => compareTranscripts([theirs], [o])[0]!);
    assert.deepEqual(
      compared.map((c) => c.differences.length),
      [2, 2, 0],
    );
    assert.deepEqual(compared[2]!.wording, {
      theirs: 'ctr: image "x": not found',
      ours: 'ctr: no image is called x: not found',
    });
    assert.equal(compareTranscripts([step({})], [step({ stdout: [] })])[0]!.differences.length, 1);
  });

  test('more events than containerd has are fine, fewer are not', () => {
    const events = (...stdout: string[]): StepResult[] => [step({ section: 'events', stdout })];
    assert.deepEqual(compareTranscripts(events('a', 'b'), events('a', 'x', 'b'))[0]!.differences, []);
    assert.deepEqual(compareTranscripts(events('a', 'b'), events('b'))[0]!.differences, [
      { side: 'containerd', line: 'a' },
    ]);
  });
});

describe('meant differences of a session', () => {
  const meant = [{ section: 'images', line: 'ctr images ls', differing: /^new /, reason: 'newer' }];

  test('they are excused line by line, and one that no longer shows is reported', () => {
    const compare = (...stdout: string[]) => compareTranscripts([step({})], [step({ stdout })], meant);
    assert.equal(asMeant(compare('REF', 'new one')), true);
    assert.equal(asMeant(compare('REF', 'new one', 'old')), false);
    assert.deepEqual(staleDifferences(compare('REF', 'new one'), meant), []);
    assert.deepEqual(staleDifferences(compare('REF'), meant), ['ctr images ls']);
  });

  test('what a collection removes has no order, everything else has', () => {
    const events = (...names: string[]): StepResult[] => [
      step({ section: 'events', stdout: names.map((name) => `<time> conform /snapshot/${name}`) }),
    ];
    const compare = (a: StepResult[], b: StepResult[]) => asMeant(compareTranscripts(a, b));
    assert.equal(compare(events('remove a', 'remove b'), events('remove b', 'remove a')), true);
    assert.equal(compare(events('remove a', 'remove b'), events('remove b', 'remove b')), false);
    assert.equal(compare(events('prepare a', 'remove b'), events('remove b', 'prepare a')), false);
  });
});

describe('suites', () => {
  const output = [
    '=== RUN   TestContent',
    '--- FAIL: TestContent (0.1s)',
    '    --- PASS: TestContent/Writer (0.03s)',
    '    --- FAIL: TestContent/Labels (0.03s)',
    '--- PASS: TestNative (0.00s)',
    '    --- SKIP: TestNative/Rename (0.00s)',
    '--- FAIL: TestOverlayfs (0.00s)',
  ].join('\n');

  test('leaves count, and functions that failed by themselves', () => {
    assert.deepEqual(
      [...parseOutcomes(output)],
      [
        ['TestContent/Writer', 'pass'],
        ['TestContent/Labels', 'fail'],
        ['TestNative/Rename', 'skip'],
        ['TestOverlayfs', 'fail'],
      ],
    );
  });

  test('failed, skipped or not run here while it passes on containerd is worse; the other way round is not', () => {
    const run = (outcomes: Record<string, 'pass' | 'fail' | 'skip'>) => ({
      outcomes: new Map(Object.entries(outcomes)),
      output: '',
    });
    const rows = suiteRows(
      run({ TestA: 'pass', TestB: 'pass', TestC: 'pass', TestD: 'fail', TestE: 'pass' }),
      run({ TestA: 'fail', TestB: 'skip', TestD: 'pass', TestE: 'pass' }),
    );
    assert.deepEqual(
      worse(rows).map((row) => [row.name, row.ours]),
      [
        ['A', 'fail'],
        ['B', 'skip'],
        ['C', 'not run'],
      ],
    );
  });
});

test('a load run is good only with kills, enough to judge by, no fault and nothing left', () => {
  const good: LoadReport = {
    ...{ kills: 3, verified: 50, faults: null, faultCount: 0, left: null, restartMs: [50] },
    kinds: { 'image get': { acknowledged: 200, unknown: 1, p50Ms: 1, p99Ms: 2, maxMs: 3 } },
  };
  assert.deepEqual(loadVerdict(good), []);
  for (const over of [
    { faults: ['image x: not found'], faultCount: 1 },
    { left: ['blob sha256:00'] },
    { kills: 0 },
    { verified: 0 },
    { kinds: {} },
  ]) {
    assert.equal(loadVerdict({ ...good, ...over }).length, 1, JSON.stringify(over));
  }
});

test('a load of clients of several releases is judged by all of them', () => {
  const kind = { acknowledged: 100, unknown: 1, p50Ms: 1, p99Ms: 2, maxMs: 3 };
  const one = { kills: 3, verified: 50, faults: null, faultCount: 0, left: null, kinds: { read: kind } };
  const slow = { ...kind, p99Ms: 9 };
  const other = {
    ...one,
    kills: 0,
    faults: ['lost'],
    faultCount: 1,
    left: ['blob'],
    kinds: { read: slow, rm: kind },
  };
  const all = merged([one, other]);
  assert.deepEqual(all, {
    ...{ kills: 3, verified: 100, faults: ['lost'], faultCount: 1, left: ['blob'] },
    kinds: { read: { acknowledged: 200, unknown: 2, p50Ms: 1, p99Ms: 9, maxMs: 3 }, rm: kind },
  });
  assert.equal(loadVerdict({ ...all, restartMs: [] }).length, 2);
});
