/**
 * What BuildKit's cache lost: records whose snapshot is not there, or that no lease keeps, and leases that keep snapshots for a cache
 * record that is gone, which nothing of BuildKit's ever removes. Called by orphans.ts; reads only.
 */
import type { Engine } from '../engine/contract.js';
import { components, leaseKey } from '../engine/schema/keys.js';
import { Label } from '../model/labels.js';
import type { Instant } from '../model/time.js';
import type { BuildCache, CacheRecord } from './build-cache.js';
import { commandsFor } from './commands.js';
import { loadMetadata } from './load/load.js';
import type { ForeignRoot } from './open.js';
import type { Orphan } from './orphan.js';

export async function cacheOrphans(root: ForeignRoot, signal: AbortSignal | undefined): Promise<Orphan[]> {
  const { buildCache, loaded } = root;
  if (buildCache === undefined || buildCache.records.size === 0) return [];
  const leases = leasesIn(loaded.engine);
  const namespaces = new Set(
    leases.filter(({ id }) => buildCache.byLease.has(id)).map((one) => one.namespace),
  );
  return [
    ...lostRecords(root, buildCache, new Set(leases.map(({ id }) => id))),
    ...(await lostLeases(
      root,
      buildCache,
      leases.filter(({ namespace }) => namespaces.has(namespace)),
      signal,
    )),
  ];
}

interface StoredLease {
  readonly namespace: string;
  readonly id: string;
  readonly since: Instant | undefined;
  /** It keeps single things until it is removed, as those of cache records do. */
  readonly isFlat: boolean;
}

const leasesIn = (engine: Engine): StoredLease[] =>
  [...engine.scan('leases')].map(([key, value]) => {
    const [, namespace = '', id = ''] = components(key);
    const { createdat: since, labels = {} } = value as {
      createdat?: Instant;
      labels?: Record<string, string>;
    };
    const isFlat = labels[Label.gcFlat] !== undefined && labels[Label.gcExpire] === undefined;
    return { namespace, id, since, isFlat };
  });

function lostRecords(
  { loaded, snapshotters }: ForeignRoot,
  { records, byLease }: BuildCache,
  leases: ReadonlySet<string>,
): Orphan[] {
  const snapshots = new Set([...loaded.engine.scan('snapshots')].map(([key]) => components(key)[3]));
  const kept = new Set([...byLease].filter(([lease]) => leases.has(lease)).map(([, { id }]) => id));
  const isLost = ({ snapshot, blob }: CacheRecord): boolean =>
    snapshotters.size > 0 && blob === undefined && !snapshots.has(snapshot);
  return [...records.values()]
    .filter((record) => isLost(record) || !(kept.has(record.id) || leases.has(record.snapshot)))
    .map((record) => {
      const { id, description, createdAt, lastUsedAt } = record;
      const since = lastUsedAt ?? createdAt;
      return {
        reason: isLost(record) ? 'no bytes' : 'no lease',
        kind: 'cache record',
        namespace: '',
        name: description === '' ? id : `${id} (${description})`,
        bytes: 0,
        ...(since !== undefined && { since }),
      };
    });
}

async function lostLeases(
  root: ForeignRoot,
  { byLease }: BuildCache,
  leases: readonly StoredLease[],
  signal: AbortSignal | undefined,
): Promise<Orphan[]> {
  const lost = leases.filter(({ id, isFlat }) => isFlat && !byLease.has(id));
  if (lost.length === 0) return [];
  // BuildKit removes a cache record before its lease.
  const { engine } = await loadMetadata(root.places.metadata, { signal });
  const still = lost.filter(({ namespace, id }) => engine.has(leaseKey(namespace, id)));
  await engine.close();
  const { rows } = await root.db.du({ ...(signal && { signal }) }, { by: 'root' });
  const bytes = new Map(
    rows.map(({ kind, namespace, name, retained }) => [`${kind} ${namespace} ${name}`, retained]),
  );
  const commands = commandsFor(root);
  return still.map(({ namespace, id, since }) => {
    const command = commands.removeLease(namespace, id);
    return {
      reason: 'no cache record',
      kind: 'lease',
      namespace,
      name: id,
      bytes: bytes.get(`lease ${namespace} ${id}`) ?? 0,
      ...(since !== undefined && { since }),
      ...(command && { command }),
    };
  });
}
