/**
 * The hosts that share a tree over etcd: which are present, which are not, and what an absent one still
 * keeps; and the removal of one that will not return. Provided by db.ts.
 *
 * Nothing is removed automatically: a host may be off for a month and return to what its leases protect.
 */
import { yieldToEventLoop } from './backends/files.js';
import type { DBHost } from './db-host.js';
import type { Key, SharedTree, Transaction, TreeHost } from './engine/contract.js';
import { key, leaf, namespaceOf } from './engine/schema/keys.js';
import { type EbbtideError, failedPrecondition, notFound, throwIfAborted } from './errors.js';
import type { UsageReport } from './gc/report/retained.js';
import type { LeaseOwner, Why } from './gc/report/why.js';
import type { MountRecord } from './model/records.js';
import { type Instant, parseTimestamp } from './model/time.js';
import { scanRecords } from './stores/common.js';
import { dropMount } from './stores/mounts/records.js';

/** A host that shares the tree. */
export interface HostInfo {
  /** Its id in the tree. */
  id: string;
  /** Name of its directories. */
  backend: string;
  /** `here`: this host; `alive`: its session lasts; `gone`: it has none. */
  state: 'here' | 'alive' | 'gone';
  /** When it first joined; unknown for hosts of older versions, like the next. */
  since?: Instant;
  /** The start of its last session, or its clean end. */
  seen?: Instant;
  /** Number of leases of this host only (`leaseBackend: 'bolt'`). */
  leases: number;
}

/** A host that was removed. */
export interface HostRemoval {
  /** Its id in the tree. */
  id: string;
  /** Leases removed with it, as `<id>@<host>`. The next collection removes what only they kept. */
  leases: { namespace: string; id: string }[];
}

/** Leases examined before yielding. */
const LEASES_A_TURN = 1024;
/** Limit on the leases deleted by one transaction. */
const LEASES_MAX = 16;

/** The hosts that share a tree over etcd. */
export class ClusterHosts {
  readonly #tree: SharedTree;
  readonly #host: DBHost;

  constructor(tree: SharedTree, host: DBHost) {
    this.#tree = tree;
    this.#host = host;
  }

  /** Every host that ever joined and was not removed, by name. */
  async list(): Promise<HostInfo[]> {
    await this.#host.engine.fresh();
    const hosts = await this.#tree.hosts();
    const leases = await this.#leasesByHost(hosts);
    return [...hosts.values()].map((host) => {
      const [since, seen] = [host.since, host.seen].map((text) => parseTimestamp(text));
      return {
        id: host.id,
        backend: host.backend,
        state: this.#stateOf(host),
        ...(since !== undefined && { since }),
        ...(seen !== undefined && { seen }),
        leases: leases.get(host.id)?.length ?? 0,
      };
    });
  }

  /**
   * Removes a host that will not return: its own leases, the records of its mounts, the flags of its directories, what its commits and
   * unfinished transactions left, its registration. NotFound. FailedPrecondition: this host, or one whose
   * session lasts.
   */
  async remove(id: string, signal?: AbortSignal): Promise<HostRemoval> {
    await this.#tree.confirm();
    const hosts = await this.#tree.hosts();
    const host = hosts.get(id);
    if (host === undefined) {
      throw notFound(`no host "${id}" in the cluster`, { object: id, remedy: 'list them: ebbtide hosts ls' });
    }
    if (this.#stateOf(host) === 'here') {
      throw failedPrecondition(`"${id}" is this host`, { object: id, remedy: 'remove it from another one' });
    }
    if (host.alive) throw isAlive(id);
    const removed: Key[] = [];
    // Leases created in the meantime are found by the next pass; the host must have returned to create one.
    for (;;) {
      const leases = (await this.#leasesByHost(hosts)).get(id) ?? [];
      if (leases.length === 0) break;
      for (let at = 0; at < leases.length; at += LEASES_MAX) {
        throwIfAborted(signal);
        const some = leases.slice(at, at + LEASES_MAX);
        removed.push(...(await this.#host.update({}, (tx) => this.#deleteLeases(tx, id, some))));
      }
    }
    await this.#host.update({}, (tx) => {
      tx.requireHostGone?.(id, () => isAlive(id));
      for (const [k, record] of [...scanRecords<MountRecord>(tx, key('mounts'))]) {
        if (record.host === id) dropMount(tx, k, record);
      }
    });
    await this.#tree.forgetHost(id, () => isAlive(id));
    return { id, leases: removed.map((k) => ({ namespace: namespaceOf(k), id: leaf(k) })) };
  }

  #deleteLeases(tx: Transaction, host: string, leases: readonly Key[]): Key[] {
    tx.requireHostGone?.(host, () => isAlive(host));
    return leases.filter((lease) => {
      if (!tx.delete(lease)) return false;
      this.#host.countDeletion(tx);
      return true;
    });
  }

  #stateOf({ id, alive }: TreeHost): HostInfo['state'] {
    if (id === this.#tree.hostId) return 'here';
    return alive ? 'alive' : 'gone';
  }

  /** Keys of the leases that belong to a single host. */
  async #leasesByHost(hosts: ReadonlyMap<string, unknown>): Promise<Map<string, Key[]>> {
    const { engine } = this.#host;
    const found = new Map<string, Key[]>();
    let seen = 0;
    for (const [namespace] of engine.scan('namespaces')) {
      for (const [lease] of engine.scan(key('leases', leaf(namespace)))) {
        if (++seen % LEASES_A_TURN === 0) await yieldToEventLoop();
        const owner = ownerOf(leaf(lease), hosts);
        if (owner === undefined) continue;
        const leases = found.get(owner);
        if (leases === undefined) found.set(owner, [lease]);
        else leases.push(lease);
      }
    }
    return found;
  }

  // ---------------------------------------------------------------------------------------------- in reports

  /** The result with the hosts of its leases. */
  async inWhy(asked: Promise<Why>): Promise<Why> {
    const result = await asked;
    const steps = result.paths.flat().filter(({ kind, key: id }) => kind === 'lease' && id.includes('@'));
    if (steps.length === 0) return result;
    const owners = await this.#owners();
    for (const step of steps) {
      const owner = owners(step.key);
      if (owner !== undefined) step.host = owner;
    }
    return result;
  }

  /** Adds to a report which host a lease is of. */
  async inUsage(asked: Promise<UsageReport>): Promise<UsageReport> {
    const report = await asked;
    const leases = report.rows.filter(({ kind, name }) => kind === 'lease' && name.includes('@'));
    if (leases.length === 0) return report;
    const owners = await this.#owners();
    for (const row of leases) {
      const owner = owners(row.name);
      if (owner !== undefined) row.host = owner;
    }
    return report;
  }

  /** Maps the id of a lease to the host that owns it. */
  async #owners(): Promise<(lease: string) => LeaseOwner | undefined> {
    const hosts = await this.#tree.hosts();
    return (lease) => {
      const id = ownerOf(lease, hosts);
      const host = id === undefined ? undefined : hosts.get(id);
      if (host === undefined) return undefined;
      const seen = parseTimestamp(host.seen);
      return { id: host.id, state: this.#stateOf(host), ...(seen !== undefined && { seen }) };
    };
  }
}

/** The known host in `<id>@<host>`; a host's name may contain an `@`, and the shortest known one counts. */
function ownerOf(lease: string, hosts: ReadonlyMap<string, unknown>): string | undefined {
  for (let at = lease.lastIndexOf('@'); at > 0; at = lease.lastIndexOf('@', at - 1)) {
    const host = lease.slice(at + 1);
    if (hosts.has(host)) return host;
  }
  return undefined;
}

const isAlive = (id: string): EbbtideError =>
  failedPrecondition(`host "${id}" is alive: its session with etcd lasts`, {
    object: id,
    remedy: 'stop it first; a session ends some time after its host (--etcd-session-ttl, sessionTtlSeconds)',
  });

/** For a caller that asks an embedded store for its hosts. */
export const noSharedTree = (): EbbtideError =>
  failedPrecondition('the store shares its tree with no other host', {
    remedy: 'hosts are those of a tree in etcd: open it with --etcd',
  });
