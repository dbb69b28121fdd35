/** Removes from etcd what a host that never comes back has left beside records. Called by engine.ts. */
import type { EbbtideError } from '../../errors.js';
import { type EtcdClient, type Op, prefixEnd } from './client/client.js';
import { hostOfId, knownHosts } from './cluster/members.js';
import type { Committer } from './commit/commit.js';
import { escapePart, Sys, unitOf } from './format/layout.js';

/** Fails with `alive` when the host has a session. Its registration goes last, so that this can be done again. */
export async function forgetHost(
  client: EtcdClient,
  committer: Committer,
  id: string,
  alive: () => EbbtideError,
): Promise<void> {
  const absent = { key: Sys.host(id), is: 'absent' } as const;
  const drop = async (...ops: Op[]): Promise<void> => {
    const { succeeded } = await client.txn([absent], ops);
    if (!succeeded) throw alive();
  };
  const below = async (prefix: string): Promise<string[]> => {
    const { kvs } = await client.range(prefix, { end: prefixEnd(prefix), keysOnly: true });
    return kvs.map(({ key: name }) => name);
  };
  const hosts = await knownHosts(client);
  const backend = hosts.get(id)?.backend ?? id;
  const isShared = [...hosts.values()].some((other) => other.id !== id && other.backend === backend);
  if (!isShared) {
    const flag = `/${escapePart(backend)}`;
    for (const dir of ['scheduler.v1/dirtyCS/', 'scheduler.v1/dirtySS/']) {
      for (const name of await below(dir)) if (name.endsWith(flag)) await drop({ del: name });
    }
  }
  // A unit that was decided is applied first; what is left was not.
  await committer.passGate();
  for (const unit of new Set((await below(Sys.units)).map(unitOf))) {
    const dir = Sys.unit(unit);
    if (hostOfId(unit) === id) await drop({ del: dir, end: prefixEnd(dir) });
  }
  const commits = Sys.commitsOf(id);
  await drop(
    // A host that looks for the newest commit must not find an older one than before.
    { put: `${Sys.commits}%closed`, value: JSON.stringify({ id }) },
    { del: commits, end: prefixEnd(commits) },
    { del: Sys.member(id) },
  );
}
