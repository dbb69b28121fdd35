/**
 * kill -9 between any two steps of the mount manager, on real mounts; as root. A step is a system call that changes
 * something, or a commit: the child kills itself before or after the one that it is told. Afterwards another process finds what
 * there is: mounts and records agree, what was acknowledged is as it was, and nothing else is mounted.
 * EBBTIDE_CRASH_ROUNDS (default 12) spread over all steps; `all` tries each.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { layout, openDB } from '../../src/open.js';
import { mountedBelow } from '../support/mounted.js';
import { tempDir } from '../support/temp.js';

const asRoot = { skip: process.getuid?.() === 0 ? false : 'needs root' };
const program = fileURLToPath(new URL('./mounts-workload.js', import.meta.url));
const ROUNDS = process.env.EBBTIDE_CRASH_ROUNDS ?? '12';

interface Outcome {
  /** What was acknowledged before the kill. */
  acks: string[];
  /** Steps taken, when it was not killed. */
  steps?: number;
}

function run(root: string, source: string, killAt: number): Outcome {
  const { stdout, stderr, signal, status } = spawnSync(process.execPath, [
    program,
    root,
    source,
    String(killAt),
  ]);
  const lines = stdout
    .toString()
    .split('\n')
    .filter((line) => line !== '');
  const steps = lines.find((line) => line.startsWith('steps '));
  if (steps === undefined) assert.equal(signal, 'SIGKILL', `${status} ${stderr}`);
  const acks = lines.filter((line) => !line.startsWith('steps '));
  return { acks, ...(steps !== undefined && { steps: Number(steps.slice(6)) }) };
}

async function lookAfter(t: TestContext, killAt: number): Promise<Outcome> {
  const base = await tempDir(t);
  const root = join(base, 'root');
  const source = join(base, 'source');
  mkdirSync(source);
  writeFileSync(join(source, 'file'), '');
  const mounted = mountedBelow(t, root);
  const directories = (): string[] =>
    existsSync(layout.mounts(root)) ? readdirSync(layout.mounts(root)) : [];
  const outcome = run(root, source, killAt);
  const before = mounted();
  const db = await openDB({ root, snapshotters: ['native'], log: () => {} });
  try {
    const ctx = { namespace: 'ns' };
    const agreed = async (when: string): Promise<string[]> => {
      const active = await db.mounts.list(ctx);
      const where = active.flatMap((one) => one.active.map(({ mountPoint }) => mountPoint)).sort();
      assert.deepEqual(mounted().sort(), where, `${killAt}: mounts and records agree ${when}`);
      assert.deepEqual(directories().length, active.length, `${killAt}: no directory is left ${when}`);
      for (const point of where) assert.ok(before.includes(point), `${killAt}: it was never unmounted`);
      return active.map(({ name }) => name);
    };
    // What a daemon does at its start.
    assert.deepEqual(await db.mounts.sweep(), []);
    await agreed('at the start');
    await db.garbageCollect();
    const names = await agreed('after a collection');
    const told = (line: string): boolean => outcome.acks.includes(line);
    if (told('made kept') && !told('ends kept'))
      assert.ok(names.includes('kept'), `${killAt}: an acknowledged mount is there`);
    if (told('ended kept')) assert.ok(!names.includes('kept'), `${killAt}: one that was deactivated is not`);
    if (told('collected')) assert.ok(!names.includes('garbage'));
    for (const name of names) await db.mounts.deactivate(ctx, name);
    assert.deepEqual([mounted(), directories()], [[], []]);
  } finally {
    await db.close();
  }
  return outcome;
}

test(
  'given a process that is killed between any two steps of activating, deactivating and collecting, then mounts and records agree',
  asRoot,
  async (t) => {
    const { steps = 0 } = await lookAfter(t, -1);
    assert.ok(steps > 30, `${steps} steps`);
    const rounds = ROUNDS === 'all' ? steps : Math.min(Number(ROUNDS), steps);
    for (let round = 0; round < rounds; round++) {
      const killAt = 1 + Math.floor((round * steps) / rounds);
      const outcome = await lookAfter(t, killAt);
      assert.equal(outcome.steps, undefined, `step ${killAt} of ${steps} is not the end`);
    }
  },
);
