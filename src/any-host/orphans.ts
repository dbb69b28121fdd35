/**
 * Finds what uses space, or a name, in another program's root to no purpose: records without bytes, bytes
 * without a record, objects that nothing roots, expired leases. Each with its size, its age, the reason, and
 * the command that removes it. Called by the verb; reads only.
 *
 * The owner may be active. It creates bytes shortly before their record, so what was younger than `youngest` when the records were read
 * is only counted; and objects without bytes are looked up again in the newest records.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { diskUsage } from '../backends/disk-usage.js';
import { orAbsent } from '../backends/files.js';
import { isSnapshotNumber } from '../backends/snapshotters/numbered-directories.js';
import { SNAPSHOTS } from '../backends/snapshotters/snapshot-driver.js';
import { boltTransaction } from '../bolt/snapshot.js';
import type { Engine, Key } from '../engine/contract.js';
import { components, snapshotKey } from '../engine/schema/keys.js';
import { isNotFound, throwIfAborted } from '../errors.js';
import { garbageSince } from '../gc/report/oldest.js';
import type { Candidate } from '../gc/stats.js';
import { keyOfNode, kindName, ResourceMax } from '../gc/types.js';
import { isDigest } from '../model/digest.js';
import { type Instant, NANOS_PER_SECOND } from '../model/time.js';
import { Turn } from '../system/turns.js';
import { cacheOrphans } from './cache-orphans.js';
import { commandsFor } from './commands.js';
import { loadMetadata } from './load/load.js';
import type { ForeignRoot } from './open.js';
import type { Orphan } from './orphan.js';
import { quoted } from './quoted.js';
import type { ForeignSnapshotter } from './snapshots/snapshotters.js';

export interface OrphanReport {
  /** Largest first; of snapshots without bytes those that are on others before these. */
  orphans: Orphan[];
  bytes: number;
  /** Number left out because they may still be created. */
  young: number;
}

export interface OrphanOptions {
  readonly signal?: AbortSignal | undefined;
  readonly youngest?: Instant;
}

export const YOUNGEST: Instant = 60n * NANOS_PER_SECOND;

export async function findOrphans(
  root: ForeignRoot,
  { signal, youngest = YOUNGEST }: OrphanOptions = {},
): Promise<OrphanReport> {
  const found = [
    ...(await uncollected(root, signal)),
    ...(await withoutBytes(root, signal)),
    ...(await strayDirectories(root, signal)),
    ...(await cacheOrphans(root, signal)),
  ];
  const horizon = root.readAt - youngest;
  const orphans = found.filter(({ since }) => since === undefined || since <= horizon);
  const depths = await depthsIn(root, orphans, signal);
  const depthOf = (one: Orphan): number => depths.get(one) ?? 0;
  orphans.sort((a, b) => b.bytes - a.bytes || depthOf(b) - depthOf(a) || (a.name < b.name ? -1 : 1));
  const bytes = orphans.reduce((sum, one) => sum + one.bytes, 0);
  return { orphans, bytes, young: found.length - orphans.length };
}

/** How many snapshots a lost one is on: those on it have to be removed before. */
async function depthsIn(
  { loaded: { engine } }: ForeignRoot,
  orphans: readonly Orphan[],
  signal: AbortSignal | undefined,
): Promise<Map<Orphan, number>> {
  const turn = new Turn();
  const depths = new Map<Orphan, number>();
  for (const orphan of orphans) {
    if (orphan.kind !== 'snapshot' || orphan.reason !== 'no bytes') continue;
    await turn.next();
    throwIfAborted(signal);
    const [snapshotter, name] = splitName(orphan.name);
    let depth = 0;
    for (let at = name; at !== '' && depth < DEPTH_MAX; depth++) {
      const record = engine.get(snapshotKey(orphan.namespace, snapshotter, at)) as
        | { parent?: string }
        | undefined;
      at = record?.parent ?? '';
    }
    depths.set(orphan, depth);
  }
  return depths;
}

/** No snapshotter mounts more layers. */
const DEPTH_MAX = 1000;

// ------------------------------------------------------------------------------------ what a collection
// would remove

async function uncollected(parts: ForeignRoot, signal: AbortSignal | undefined): Promise<Orphan[]> {
  const stats = await parts.db.garbageCollect(
    { ...(signal && { signal }) },
    { dryRun: true, fullSweep: true },
  );
  const commands = commandsFor(parts);
  const orphans: Orphan[] = [];
  const turn = new Turn();
  for (const candidate of stats.wouldRemove ?? []) {
    await turn.next();
    throwIfAborted(signal);
    const { kind, namespace, key: name, size: bytes } = candidate;
    const since = await sinceOf(parts, candidate);
    const dated = since === undefined ? {} : { since };
    if (candidate.orphan) {
      const command =
        kind === 'snapshot' ? commands.sweepSnapshots(splitName(name)[0]) : commands.sweepContent();
      orphans.push({ reason: 'no record', kind, namespace, name, bytes, ...dated, command });
    } else {
      const reason = kind === 'lease' || kind === 'image' ? 'expired' : 'nothing roots it';
      orphans.push({ reason, kind, namespace, name, bytes, ...dated, command: commands.collect() });
    }
  }
  return orphans;
}

/** The last change of a record, or of the bytes if there is none. Undefined if it has disappeared. */
async function sinceOf(
  { loaded, content, snapshotters }: ForeignRoot,
  one: Candidate,
): Promise<Instant | undefined> {
  const { kind, namespace, key: name } = one;
  if (!one.orphan) {
    const record = keyOfNode({ type: typeOf(kind), namespace, key: name });
    const id = record === undefined ? undefined : loaded.engine.idOf(record);
    return id === undefined ? undefined : garbageSince(loaded.engine, id)?.at;
  }
  try {
    if (kind === 'content') return (await content.info(name)).createdAt;
    if (kind === 'ingest') return (await content.status(name)).updatedAt;
    const [snapshotter, key] = splitName(name);
    return (await snapshotters.get(snapshotter)?.stat(key))?.updated;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

const types = new Map(Array.from({ length: ResourceMax }, (_, type) => [kindName(type), type]));
const typeOf = (kind: string): number => types.get(kind) ?? 0;

/** `<snapshotter>/<name>` */
function splitName(name: string): [string, string] {
  const slash = name.indexOf('/');
  return [name.slice(0, slash), name.slice(slash + 1)];
}

// ------------------------------------------------------------------------------------------------ records without bytes

async function withoutBytes(parts: ForeignRoot, signal: AbortSignal | undefined): Promise<Orphan[]> {
  const missing = new Map<Key, Orphan>();
  const { engine } = parts.loaded;
  const commands = commandsFor(parts);
  const blobs = await parts.content.digests();
  const turn = new Turn();
  for (const [record, value] of engine.scan('blobs')) {
    await turn.next();
    throwIfAborted(signal);
    const [, namespace = '', digest = ''] = components(record);
    if (!isDigest(digest) || blobs.has(digest)) continue;
    const command = commands.removeContent(namespace, digest);
    missing.set(record, { ...lost('content', namespace, digest, value), ...(command && { command }) });
  }
  for (const [record, value] of engine.scan('snapshots')) {
    await turn.next();
    throwIfAborted(signal);
    const [, namespace = '', snapshotter = '', name = ''] = components(record);
    const backend = parts.snapshotters.get(snapshotter);
    const key = typeof value === 'object' && typeof value.name === 'string' ? value.name : '';
    if (backend === undefined || !backend.isKnown || (backend.has(key) && backend.hasDirectory(key)))
      continue;
    const command = commands.removeSnapshot(namespace, snapshotter, name);
    const snapshot = lost('snapshot', namespace, `${snapshotter}/${name}`, value);
    missing.set(record, { ...snapshot, ...(command && { command }) });
  }
  return missing.size === 0 ? [] : stillRecorded(parts, missing, signal);
}

function lost(kind: string, namespace: string, name: string, value: unknown): Omit<Orphan, 'command'> {
  const since =
    typeof value === 'object' && value !== null && 'updatedat' in value ? value.updatedat : undefined;
  const dated = typeof since === 'bigint' ? { since } : {};
  return { reason: 'no bytes', kind, namespace, name, bytes: 0, ...dated };
}

/** A collection may have removed record and bytes since the records were read. */
async function stillRecorded(
  { places, loaded }: ForeignRoot,
  missing: ReadonlyMap<Key, Orphan>,
  signal: AbortSignal | undefined,
): Promise<Orphan[]> {
  if ((await boltTransaction(places.metadata)) === loaded.transaction) return [...missing.values()];
  const { engine } = await loadMetadata(places.metadata, { signal });
  try {
    // Not one that was made again since, with its bytes.
    const isSame = (record: Key): boolean => createdAt(engine, record) === createdAt(loaded.engine, record);
    return [...missing].filter(([record]) => isSame(record)).map(([, orphan]) => orphan);
  } finally {
    await engine.close();
  }
}

/** Undefined if it is not there. No two records of a kind have one in common. */
function createdAt(engine: Engine, record: Key): unknown {
  const value = engine.get(record);
  return typeof value === 'object' ? value.createdat : undefined;
}

// --------------------------------------------------------------------------------------------- directories of snapshots

async function strayDirectories(parts: ForeignRoot, signal: AbortSignal | undefined): Promise<Orphan[]> {
  const orphans: Orphan[] = [];
  const commands = commandsFor(parts);
  for (const snapshotter of parts.snapshotters.values()) {
    const { name, root, isByNumber } = snapshotter;
    if (root === undefined || !isByNumber || !snapshotter.isKnown) continue;
    const place = join(root, SNAPSHOTS);
    for (const entry of (await orAbsent(readdir(place))) ?? []) {
      throwIfAborted(signal);
      if (!isStray(snapshotter, entry)) continue;
      const path = join(place, entry);
      const stats = await orAbsent(stat(path, { bigint: true }));
      if (stats === null) continue;
      const { size } = await diskUsage(path);
      // Overlayfs looks for stray directories whenever it sweeps; native never does.
      const command = name === 'native' ? `rm -r ${quoted(path)}` : commands.sweepSnapshots(name);
      const stray = { reason: 'no snapshot has it', kind: 'directory', namespace: '' } as const;
      // A copy of the layer below has the times of that one, but for the last change of the inode.
      orphans.push({ ...stray, name: `${name}/${entry}`, bytes: size, since: stats.ctimeNs, path, command });
    }
  }
  return orphans;
}

function isStray({ numbers }: ForeignSnapshotter, entry: string): boolean {
  if (isSnapshotNumber(entry)) return !numbers.has(entry);
  return entry.startsWith('new-') || entry.startsWith('rm-');
}
