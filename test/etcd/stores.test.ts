/**
 * Tests of the stores and of collections, unchanged, over the etcd engine: those files make their stores with testDB,
 * storeWorld and world, which take the cluster from the environment. Left out are tests that count calls after a clean
 * start (a mirror in memory never has one) or rely on commits in the same turn of the event loop (here a commit takes a round trip).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { cluster } from './one-member.js';

/** What runs in a process each: files, and which of their tests. */
const RUNS: readonly { what: string; files: readonly string[]; only?: string }[] = [
  {
    what: 'stores, callbacks and collections',
    files: [
      'stores/images',
      'stores/leases',
      'stores/namespaces',
      'stores/snapshots',
      'stores/snapshots-remote',
      'stores/snapshots-rerun',
      'stores/content-shared',
      'stores/nested-stores',
      'db/callbacks',
      'gc/real-backends',
      'gc/plan',
      'gc/why',
    ],
  },
  {
    what: 'writers beside a collection',
    files: ['gc/concurrent'],
    only: 'writers beside a collection|without the write barrier|neither waits for its end',
  },
];

for (const { what, files, only } of RUNS) {
  test(`given the tests of ${what}, when they run over etcd, then they pass`, async () => {
    const imports = files
      .map((name) => `import '${new URL(`../${name}.test.js`, import.meta.url)}';`)
      .join('\n');
    const pick = only === undefined ? [] : [`--test-name-pattern=${only}`];
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const args = ['--test-reporter=tap', ...pick, '--input-type=module', '--eval', imports];
    const child = spawn(process.execPath, args, {
      env: { ...env, EBBTIDE_TEST_ETCD: cluster.urls.join(',') },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    child.stdout.on('data', (text) => {
      output += text;
    });
    child.stderr.on('data', (text) => {
      output += text;
    });
    const code = await new Promise((resolve) => child.once('exit', resolve));
    const failed = output.split('\n').filter((line) => /^\s*not ok/.test(line));
    // The first one's block.
    const at = Math.max(0, output.search(/^\s*not ok/m));
    assert.deepEqual({ code, failed }, { code: 0, failed: [] }, output.slice(at, at + 4000));
    const passed = Number(/^# pass (\d+)/m.exec(output)?.[1] ?? 0);
    assert.ok(passed > 0, 'nothing ran');
  });
}
