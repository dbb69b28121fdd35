/**
 * Transactions under a lock that ends with the host's session before they commit: FailedPrecondition, and never another
 * run as if the lock were there, whatever else has happened meanwhile.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Transactor, Unlock } from '../../src/engine/contract.js';
import { engineOf, openHost } from './hosts.js';
import { cluster } from './one-member.js';

interface Body {
  tx: Transactor;
  unlock: Unlock;
}

/** What became of a transaction whose lock is lost, and whose own key another host writes, before `body` goes on. */
async function underALostLock(
  t: TestContext,
  mode: 'lock' | 'rLock' | 'tryLock',
  body: (parts: Body) => Promise<unknown>,
): Promise<{ error: string; runs: number; value: string | undefined }> {
  const etcd = cluster.config();
  const a = await openHost(t, { etcd: { ...etcd, hostId: 'a' } });
  const b = await openHost(t, { etcd: { ...etcd, hostId: 'b' } });
  await a.put('own', 'before');
  let runs = 0;
  const error = await a
    .eUpdate(async (tx) => {
      runs++;
      const unlock = await tx[mode]('guard');
      await tx.get('own');
      if (runs === 1) {
        const session = cluster.etcdctl('get', `${etcd.prefix}sys/host/a`, '-w', 'json');
        // A number of 64 bits.
        await engineOf(b).client.revokeLease(/"lease":(\d+)/.exec(session)![1]!);
        await b.put('own', 'by b');
        await engineOf(a).confirm();
      }
      await body({ tx, unlock });
    })
    .then(
      () => 'none',
      ({ kind, message }: { kind: string; message: string }) => `${kind}: ${message}`,
    );
  return { error, runs, value: (await b.get('own')).get('own') };
}

const lost = { runs: 1, value: 'by b' };

for (const mode of ['lock', 'rLock', 'tryLock'] as const) {
  test(`given a ${mode} that is lost while another host writes the own key, when it commits, then FailedPrecondition`, async (t) => {
    const { error, ...rest } = await underALostLock(t, mode, ({ tx }) => tx.put('own', 'by a'));
    assert.match(error, /^FailedPrecondition: session expired/);
    assert.deepEqual(rest, lost);
  });
}

test('given a lost lock, when the body fails by what it has read, then FailedPrecondition', async (t) => {
  const { error, ...rest } = await underALostLock(t, 'lock', async () => {
    throw new Error('what was read is wrong');
  });
  assert.match(error, /^FailedPrecondition: session expired/);
  assert.deepEqual(rest, lost);
});

test('given a lost lock, when the body unlocks it, then FailedPrecondition', async (t) => {
  const { error, ...rest } = await underALostLock(t, 'lock', async ({ tx, unlock }) => {
    await tx.put('own', 'by a');
    await unlock();
  });
  assert.match(error, /^FailedPrecondition: session expired/);
  assert.deepEqual(rest, lost);
});

test('given a lost lock, when the transaction only reads, then FailedPrecondition', async (t) => {
  const { error, ...rest } = await underALostLock(t, 'lock', ({ tx }) => tx.get('own'));
  assert.match(error, /^FailedPrecondition: session expired/);
  assert.deepEqual(rest, lost);
});

test('given a lost lock, when the commit is too big for one etcd transaction, then FailedPrecondition', async (t) => {
  const { error, ...rest } = await underALostLock(t, 'lock', async ({ tx }) => {
    for (let i = 0; i < 200; i++) await tx.put(`many/${i}`, 'by a');
  });
  assert.match(error, /^FailedPrecondition: session expired/);
  assert.deepEqual(rest, lost);
});
