/**
 * Partitions of members from their peers and of hosts, with writers on two hosts and a collector running: the rounds
 * of partition-rounds.ts in a network of their own. One round of each by default; EBBTIDE_FAULT_ROUNDS sets more. Where
 * network namespaces are not permitted, faults.test.ts still cuts hosts off members with proxies.
 */
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { spawnMortal } from './mortal.js';
import { inOwnNetwork } from './network.js';
import { requireEtcd } from './servers.js';

const ROUNDS_FILE = fileURLToPath(new URL('./partition-rounds.js', import.meta.url));

test('given members and hosts in network namespaces, when they are cut off each other, then nothing is lost', async (t) => {
  // Nothing can be installed from within.
  requireEtcd();
  const own = inOwnNetwork();
  if ('refused' in own) {
    t.skip(own.refused);
    return;
  }
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const args = ['--test-reporter=spec', ROUNDS_FILE];
  const stdio = ['ignore', 'pipe', 'inherit'] as const;
  const child = spawnMortal(process.execPath, args, { stdio: [...stdio], env }, own.command);
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout! })) {
    lines.push(line);
    if (/✔|✖|ℹ .* judged/.test(line)) t.diagnostic(line.trim());
  }
  assert.equal(await ended, 0, lines.join('\n'));
});
