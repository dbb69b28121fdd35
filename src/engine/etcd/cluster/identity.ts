/**
 * Which host this is, where its user has not named it. Called by open.ts, once, before the session begins.
 *
 * A directory distinguishes the hosts of one machine. A host that was known by the machine's name alone, as stores made of
 * parts once were, stays what it was: its leases and flags are kept under that name. Without a directory hosts are
 * numbered in the order in which they open.
 */
import { failedPrecondition } from '../../../errors.js';
import { type EtcdClient, prefixEnd } from '../client/client.js';
import { defaultHostId } from '../client/options.js';
import { directoriesOf, escapePart, firstPart, NAMESPACES, namespaceOfIndex } from '../format/layout.js';
import { type KnownHost, knownHosts } from './members.js';

/** Hosts without a directory on one machine. */
const NUMBERED_MAX = 1000;

/** The name of the host that lives at `place`; '' when it has none. */
export async function hostIdOf(client: EtcdClient, place: string): Promise<string> {
  const hosts = await knownHosts(client);
  const machine = defaultHostId('');
  if (place === '') return numbered(machine, hosts);
  const own = defaultHostId(place);
  if (hosts.has(own)) return own;
  const former = hosts.get(machine);
  if (former?.member?.place === place) return machine;
  const isFree = former === undefined || (former.member === undefined && !former.alive);
  return isFree && (former !== undefined || (await hasLeft(client, machine))) ? machine : own;
}

/** The first name that no living host has. */
function numbered(machine: string, hosts: ReadonlyMap<string, KnownHost>): string {
  for (let n = 1; n <= NUMBERED_MAX; n++) {
    const id = n === 1 ? machine : `${machine}:${n}`;
    const known = hosts.get(id);
    // A host with a directory of its own keeps its name.
    if (known?.alive !== true && (known?.member?.place ?? '') === '') return id;
  }
  throw failedPrecondition(`${NUMBERED_MAX} hosts of this machine are in the cluster`, {
    object: machine,
    remedy: 'give this one a name: --etcd-host-id, option hostId',
  });
}

/** Whether a host that closed cleanly, and has registered nowhere, has left flags or leases of its own. */
async function hasLeft(client: EtcdClient, hostId: string): Promise<boolean> {
  const keysBelow = async (prefix: string): Promise<string[]> => {
    const { kvs } = await client.range(prefix, { end: prefixEnd(prefix), keysOnly: true });
    return kvs.map(({ key }) => key);
  };
  const flag = `/${escapePart(hostId)}`;
  for (const dir of ['scheduler.v1/dirtyCS/', 'scheduler.v1/dirtySS/']) {
    if ((await keysBelow(dir)).some((key) => key.endsWith(flag))) return true;
  }
  const lease = `@${escapePart(hostId)}`;
  for (const index of await keysBelow(NAMESPACES)) {
    const dir = `${directoriesOf(namespaceOfIndex(index)).all}leases/`;
    if ((await keysBelow(dir)).some((key) => firstPart(key.slice(dir.length)).endsWith(lease))) return true;
  }
  return false;
}
