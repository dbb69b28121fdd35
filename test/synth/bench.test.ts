/** The benchmark runs from end to end on a small store, without the peer. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Row } from '../../bench/report.js';
import { figureText, rowsOf, tableText } from '../../bench/report.js';
import type { Measured } from '../../bench/results.js';
import { median, quantile } from '../../bench/statistics.js';
import { tempDir } from '../support/db.js';

const program = fileURLToPath(new URL('../../bench/main.js', import.meta.url));

test('given a small store, when the benchmark runs without the peer, then it prints every figure', async (t) => {
  const dir = await tempDir(t, 'ebbtide-bench-test-');
  const json = join(dir, 'figures.json');
  const doc = join(dir, 'figures.md');
  const args = ['--records', '3k', '--runs', '1', '--count', '64', '--no-peer', '--no-wait', '--dir', dir];
  const run = (): Promise<{ stdout: string }> =>
    promisify(execFile)(process.execPath, [program, ...args, '--json', json, '--markdown', doc]);
  const { stdout } = await run();
  assert.match(stdout, /The peer is left out, as asked\./);
  const { rows, ebbtide } = JSON.parse(await readFile(json, 'utf8')) as { rows: Row[]; ebbtide: Measured };
  assert.ok(rows.length > 25);
  for (const row of rows) assert.ok(Number.isFinite(row.ebbtide), `${row.group}: ${row.name} is a number`);
  assert.ok(ebbtide.collected[0]!.first.removed.blobs > 0);
  const text = await readFile(doc, 'utf8');
  assert.equal(text.split('<!-- bench 3000 -->').length, 2);
  assert.match(text, /\| content info, any of all, 1 caller \| \/s \|/);
});

test('given both sides, when rows are made, then a ratio above 1 means that ebbtide is better', () => {
  const side = (openMs: number, imageGet: number): Measured => {
    const counts = { images: 1, blobs: 1, snapshots: 0, containers: 0, ingests: 0, leases: 0 };
    const memory = { anonBytes: 1, fileBytes: 1 };
    const collection = { totalMs: 2, lockedMs: 1, markMs: 1, memory, removed: counts };
    const collected = { openMs, first: collection, next: [collection], backendBytes: 0 };
    const one = { without: [1, 2], with: [3] };
    const delays = { imageCreate: one, leaseCreate: one, labelUpdate: one };
    const rates = new Proxy({} as Measured['rates'], { get: () => imageGet });
    const files = new Proxy({} as Measured['files'], { get: () => imageGet });
    return {
      loaded: { seconds: 1, counts, fileBytes: 100 },
      collected: [collected],
      reopened: collected,
      delays: [{ collectionMs: 1, lockedMs: 1, delays }],
      rates,
      files,
      pressure: 0,
    };
  };
  const rows = rowsOf(side(10, 300), side(20, 100));
  const ratioOf = (name: string): number | undefined => rows.find((row) => row.name === name)?.ratio;
  assert.equal(ratioOf('open'), 2);
  assert.equal(ratioOf('image get, any of all, 1 caller'), 3);
  assert.equal(ratioOf('file bytes a record'), 1);
  assert.match(tableText(rows), /image get, any of all, 1 caller +\/s +300 +100 +3\.00 ×/);
  assert.equal(rowsOf(side(10, 300), undefined)[0]?.ratio, undefined);
});

test('given samples, when they are summed up, then quantile and median pick the right ones', () => {
  const samples = [5, 1, 4, 2, 3];
  assert.equal(median(samples), 3);
  assert.equal(median([4, 1]), 2.5);
  assert.equal(quantile(samples, 0), 1);
  assert.equal(quantile(samples, 0.99), 5);
  assert.ok(Number.isNaN(quantile([], 0.5)));
  assert.deepEqual([12345, 12.34, 1.234, 0.1234].map(figureText), ['12,345', '12.3', '1.23', '0.123']);
});
