/** A daemon with a policy: it applies it by itself, between its waters, and tells clients what it does. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { RemoteStore } from '../../src/cli/remote/store.js';
import { isKind } from '../../src/errors.js';
import { openDB } from '../../src/open.js';
import type { Policy } from '../../src/policy/policy.js';
import { daemonOptions } from '../../src/server/config.js';
import { Daemon } from '../../src/server/daemon.js';
import { tempDir } from '../support/db.js';
import { Host } from './host.js';

const namespace = 'one';
const names = async (store: RemoteStore): Promise<string[]> =>
  (await store.images.list({ namespace })).map(({ name }) => name);

/** Of a root with three images. */
async function daemonOn(t: TestContext, root: string, policy?: Policy): Promise<RemoteStore> {
  const file = join(root, '..', 'policy.json');
  if (policy !== undefined) await writeFile(file, JSON.stringify(policy));
  const given = { gc: 'on-request', logLevel: 'fatal', ...(policy && { policyFile: file }) };
  const daemon = await Daemon.start(daemonOptions(root, {}, given));
  const store = await RemoteStore.connect(daemon.address);
  t.after(async () => {
    await store[Symbol.asyncDispose]();
    await daemon.stop();
  });
  return store;
}

async function filled(t: TestContext): Promise<string> {
  const root = join(await tempDir(t), 'store');
  await using db = await openDB({ root, snapshotters: ['native'], log: () => undefined });
  const host = new Host(db, 1);
  for (const [n, name] of ['a:1', 'b:1', 'c:1'].entries()) {
    await host.image(namespace, name, await host.manifest(namespace, name, [n], false));
  }
  return root;
}

/** The last run, once there was one. */
async function firstRun(
  store: RemoteStore,
): Promise<{ outcome: string; retired: number; bytes: number; met: boolean }> {
  for (;;) {
    const { last } = await store.policy();
    if (last !== undefined) return last;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('given a daemon with a policy, when its time comes, then what the rules say is retired, and a client sees what was done', async (t) => {
  const policy: Policy = {
    every: '1s',
    highWater: 0,
    lowWater: 0,
    rules: [{ name: 'b', filters: ['name==b:1'] }],
  };
  const started = Date.now();
  const store = await daemonOn(t, await filled(t), policy);
  const { outcome, retired, bytes } = await firstRun(store);
  assert.deepEqual([outcome, retired, bytes], ['applied', 1, 3 * 4096]);
  assert.deepEqual(await names(store), ['a:1', 'c:1']);
  const state = await store.policy();
  assert.deepEqual(state.policy, policy);
  assert.ok(Date.parse(state.next ?? '') > started);
  assert.deepEqual((await store.planOwnPolicy({})).retired, []);
});

test('given a daemon below its high water, when its time comes, then nothing is retired', async (t) => {
  const policy: Policy = { every: '1s', highWater: '100%', lowWater: '0%', rules: [{}] };
  const store = await daemonOn(t, await filled(t), policy);
  assert.equal((await firstRun(store)).outcome, 'below high water');
  assert.equal((await names(store)).length, 3);
  // A plan on request is as of the high water.
  assert.equal((await store.planOwnPolicy({})).retired.length, 3);
});

test('given a daemon without a policy, when a client has one, then it is planned and applied there, guarded on request', async (t) => {
  const root = await filled(t);
  {
    await using db = await openDB({ root, snapshotters: ['native'], log: () => undefined });
    const host = new Host(db, 1);
    const digest = await host.blob(namespace, 'all', 100);
    for (let n = 0; n < 100; n++) await host.image(namespace, `tag:${n}`, digest);
  }
  const store = await daemonOn(t, root);
  await assert.rejects(store.policy(), (error) => isKind(error, 'NotFound'));
  await assert.rejects(store.planOwnPolicy({}), (error) => isKind(error, 'NotFound'));
  await assert.rejects(store.planPolicy({ rules: [] }), (error) => isKind(error, 'InvalidArgument'));
  const plan = await store.planPolicy({ rules: [{}] });
  assert.equal(plan.retired.length, 103);
  await assert.rejects(store.applyPlan(plan, {}, { massGuard: true }), (error) =>
    isKind(error, 'FailedPrecondition'),
  );
  assert.equal((await names(store)).length, 103);
  assert.deepEqual((await store.applyPlan(plan)).rest, []);
  assert.deepEqual(await names(store), []);
});

test('given a policy with a mistake, when a daemon starts with it, then it does not, and the file is named', async (t) => {
  const root = await filled(t);
  await assert.rejects(
    daemonOn(t, root, { rules: [{ keepLast: -1 }] }),
    /policy\.json is not a policy: rule 1: keepLast must be a whole number/,
  );
});
