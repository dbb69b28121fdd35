/**
 * The hosts that a cluster knows, by what each has left in etcd: its registration, its session, its commits. Called by
 * session.ts, identity.ts, engine.ts and forget-host.ts.
 */
import type { TreeHost } from '../../contract.js';
import { type EtcdClient, type KeyValue, prefixEnd } from '../client/client.js';
import { plainPart, Sys } from '../format/layout.js';

/** A host's registration. Times are RFC 3339. */
export interface Member {
  readonly backend: string;
  /** What distinguishes it from others on its machine: its directory. */
  readonly place: string;
  /** Its first session. */
  readonly since: string;
  /** The begin or clean end of its last session. */
  readonly seen: string;
}

/** What etcd has of one host. */
export interface KnownHost extends TreeHost {
  /** undefined for a host of a version that did not register. */
  readonly member: Member | undefined;
}

export function parseMember({ value }: KeyValue): Member | undefined {
  try {
    const {
      backend = '',
      place = '',
      since = '',
      seen = '',
    } = JSON.parse(value.toString('utf8')) as Partial<Member>;
    return { backend, place, since, seen };
  } catch {
    return undefined;
  }
}

/** Every host that has a registration, a session or commits, by name. */
export async function knownHosts(client: EtcdClient): Promise<Map<string, KnownHost>> {
  const below = (prefix: string, keysOnly = false) =>
    client.range(prefix, { end: prefixEnd(prefix), keysOnly });
  const [members, sessions, commits] = await Promise.all([
    below(Sys.members),
    below(Sys.hosts),
    below(Sys.commits, true),
  ]);
  const found = new Map<string, KnownHost>();
  const add = (id: string, more: Partial<KnownHost>): void => {
    found.set(id, { ...(found.get(id) ?? { ...unknown, id, backend: id }), ...more });
  };
  for (const { key } of commits.kvs) {
    const [host = '', slot] = key.slice(Sys.commits.length).split('/');
    // Commit records of no host have one part.
    if (slot !== undefined) add(plainPart(host), {});
  }
  for (const kv of members.kvs) {
    const member = parseMember(kv);
    add(plainPart(kv.key.slice(Sys.members.length)), { member, ...member });
  }
  for (const kv of sessions.kvs) {
    const session = parseMember(kv);
    const backend = session !== undefined && session.backend !== '' ? { backend: session.backend } : {};
    add(plainPart(kv.key.slice(Sys.hosts.length)), { alive: true, ...backend });
  }
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

const unknown = { member: undefined, alive: false, since: '', seen: '' };

/** The host in the id of a transaction or a lock request: `<host>-<pid>-<time>-<number>`. */
export const hostOfId = (id: string): string => /^(.*)-[0-9a-z]+-[0-9a-z]+-\d+$/s.exec(id)?.[1] ?? id;
