/**
 * Records of activations: what callers see of them, and what they say of the mounts. Called by the mount manager and its sweep.
 */
import type { Mount } from '../../backends/contract.js';
import { isPlaceAlive, type MountPoints, mountPlace } from '../../backends/mount-points.js';
import type { Key, Transaction } from '../../engine/contract.js';
import { namespaceOf } from '../../engine/schema/keys.js';
import { copyMap } from '../../model/labels.js';
import type { MountFields, MountRecord, StringMap } from '../../model/records.js';
import type { Instant } from '../../model/time.js';
import type { StoreHost } from '../host.js';
import { unlinkFromLease } from '../lease-context.js';

/** A mount that the manager has mounted. */
export interface ActiveMount extends Mount {
  /** Where. */
  mountPoint: string;
  /** When. */
  mountedAt: Instant;
}

/** Mounts that are active under a name. */
export interface Activation {
  /** Unique in the namespace. */
  name: string;
  /** What is mounted, in order. */
  active: ActiveMount[];
  /** What is left to the caller: these mounts, in order, give the file system. */
  system: Mount[];
  /** Labels by key; those of back references decide how long it lives. */
  labels: StringMap;
}

/** Whether it is one of this host, in a tree that hosts share. */
export const isOwn = ({ engine }: Pick<StoreHost, 'engine'>, { host }: MountRecord): boolean =>
  host === engine.shared?.hostId;

/** Removes a record, also from the lease that it was made under: another one of its name must not be kept for it. */
export function dropMount(tx: Transaction, k: Key, { lease }: Pick<MountRecord, 'lease'>): void {
  tx.delete(k);
  if (lease !== undefined) unlinkFromLease(tx, namespaceOf(k), lease, k);
}

/** Whether one of its mounts is known not to be there, or it was never whole. */
export function isGone(points: MountPoints, { directory, place, active = {} }: MountRecord): boolean {
  if (place === undefined) return true;
  // What is in another mount namespace cannot be seen from here.
  if (place !== mountPlace()) return !isPlaceAlive(place);
  return Object.entries(active).some(
    ([number, { mountid }]) => !points.isMounted(directory, Number(number), mountid),
  );
}

const SEPARATOR = '\0';

export const fieldsOf = ({ type, source, target = '', options }: Mount): MountFields => ({
  type,
  source,
  target,
  options: options.join(SEPARATOR),
});

const mountOf = ({ type, source, target, options }: MountFields): Mount => ({
  type,
  source,
  ...(target !== '' && { target }),
  options: options === '' ? [] : options.split(SEPARATOR),
});

export function activationOf(points: MountPoints, name: string, record: MountRecord): Activation {
  const { directory, active = {}, system = {}, labels } = record;
  const inOrder = <T>(fields: Readonly<Record<string, T>>): [string, T][] =>
    Object.entries(fields).sort(([a], [b]) => Number(a) - Number(b));
  return {
    name,
    active: inOrder(active).map(([number, fields]) => ({
      ...mountOf(fields),
      mountPoint: points.pathOf(directory, Number(number)),
      mountedAt: fields.mountedat,
    })),
    system: inOrder(system).map(([, fields]) => mountOf(fields)),
    labels: copyMap(labels),
  };
}
