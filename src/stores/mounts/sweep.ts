/**
 * Puts mounts and their records right: after a crash, a restart of the machine, a collection that removed records, an unmount by
 * somebody else. Called by the mount manager. Activations under way are left alone: their directories' guards are held.
 */
import type { MountPoints } from '../../backends/mount-points.js';
import type { Key } from '../../engine/contract.js';
import { key, leaf, namespaceOf } from '../../engine/schema/keys.js';
import type { MountRecord } from '../../model/records.js';
import { messageOf } from '../../system/system-errors.js';
import { readRecord, scanRecords } from '../common.js';
import { mountGuard } from '../guards.js';
import type { StoreHost } from '../host.js';
import { dropMount, isGone, isOwn } from './records.js';

export interface MountHost extends StoreHost {
  /** The metadata may be lost, or not that of the backends: what no record names stays, and stays mounted. */
  readonly isDoubtful: boolean;
}

/** Returns what went wrong, as one line each: it is tried again by the next sweep. */
export async function sweepMounts(host: MountHost): Promise<string[]> {
  const points = host.mountPoints;
  if (points === undefined || host.engine.isReadOnly) return [];
  const errors: string[] = [];
  const attempt = async (what: string, fn: () => Promise<void>): Promise<void> => {
    try {
      await fn();
    } catch (error) {
      errors.push(`${what}: ${messageOf(error)}`);
    }
  };
  await attempt('mounts', async () => {
    for (const [k, record] of gone(host, points))
      await attempt(leaf(k), () => forget(host, points, k, record));
    for (const directory of unnamed(host, points)) {
      await attempt(directory, () => removeUnnamed(host, points, directory));
    }
  });
  return errors;
}

/** What a sweep would put right now. */
export function leftovers(host: StoreHost): { gone: Key[]; unnamed: string[] } {
  const points = host.mountPoints;
  if (points === undefined) return { gone: [], unnamed: [] };
  const isIdle = (directory: string): boolean => {
    const free = host.guards.tryAcquire(mountGuard(directory));
    free?.();
    return free !== undefined;
  };
  const records = gone(host, points).filter(([, { directory }]) => isIdle(directory));
  return { gone: records.map(([k]) => k), unnamed: unnamed(host, points).filter(isIdle) };
}

const recordsOf = (host: StoreHost): [Key, MountRecord][] =>
  [...scanRecords<MountRecord>(host.engine, key('mounts'))].filter(([, record]) => isOwn(host, record));

/** Records whose mounts are not there. */
const gone = (host: StoreHost, points: MountPoints): [Key, MountRecord][] =>
  recordsOf(host).filter(([, record]) => isGone(points, record));

/** Directories without a record. Listed first: what is listed has its record by now, is being made, or never will have one. */
function unnamed(host: StoreHost, points: MountPoints): string[] {
  const directories = new Set(points.list());
  if (directories.size > 0) for (const [, { directory }] of recordsOf(host)) directories.delete(directory);
  return [...directories];
}

async function forget(host: StoreHost, points: MountPoints, k: Key, record: MountRecord): Promise<void> {
  const free = host.guards.tryAcquire(mountGuard(record.directory));
  if (free === undefined) return;
  try {
    const isForgotten = await host.update({}, (tx) => {
      const known = readRecord<MountRecord>(tx, k);
      if (known?.directory !== record.directory || !isGone(points, known)) return false;
      dropMount(tx, k, known);
      return true;
    });
    if (!isForgotten) return;
    host.log('warn', 'a mount is not there any more: its record was removed', {
      namespace: namespaceOf(k),
      name: leaf(k),
    });
    points.remove(record.directory);
  } finally {
    free();
  }
}

async function removeUnnamed(host: MountHost, points: MountPoints, directory: string): Promise<void> {
  const free = host.guards.tryAcquire(mountGuard(directory));
  if (free === undefined) return;
  try {
    if (recordsOf(host).some(([, record]) => record.directory === directory)) return;
    if (host.isDoubtful) return;
    points.remove(directory);
    host.log('info', 'unmounted what no record names', { directory });
  } finally {
    free();
  }
}
