/**
 * Emptying a lease that goes: what it holds is dropped in many small commits, because one that drops a hundred thousand
 * links would keep everybody else waiting. Called inside transactions by the leases' store and by
 * policies, and by collections for expired leases.
 */
import type { Key, Transaction } from '../engine/contract.js';
import { Relation } from '../engine/schema/keys.js';
import { Label } from '../model/labels.js';
import type { LeaseRecord } from '../model/records.js';
import { formatSeconds } from '../model/time.js';
import { putRecord } from './common.js';

/** Links that are dropped in one commit, about three milliseconds. */
export const LEASE_LINKS_AT_ONCE = 128;

/** Drops the first links of a lease; true when so few are left that they can go with the record. */
export function dropFirstLinks(tx: Transaction, lease: Key): boolean {
  const most = Math.min(LEASE_LINKS_AT_ONCE, tx.room ?? LEASE_LINKS_AT_ONCE);
  const drop: [string, Key][] = [];
  for (const relation of [Relation.holds, Relation.holdsFlat]) {
    for (const target of tx.links(lease, relation)) {
      drop.push([relation, target]);
      if (drop.length > most) break;
    }
    if (drop.length > most) break;
  }
  if (drop.length <= most) return true;
  for (const [relation, target] of drop) tx.unlink(lease, relation, target);
  return false;
}

/** Of a lease that is being removed: from the first commit on it keeps nothing. */
const EXPIRED = formatSeconds(0n);
export const isBeingRemoved = (lease: LeaseRecord): boolean => lease.labels?.[Label.gcExpire] === EXPIRED;

/** Removes a lease, or a part of what it holds: false when the next commit has to go on. */
export function dropLease(tx: Transaction, k: Key, lease: LeaseRecord): boolean {
  if (dropFirstLinks(tx, k)) {
    tx.delete(k);
    return true;
  }
  if (!isBeingRemoved(lease))
    putRecord(tx, k, { ...lease, labels: { ...lease.labels, [Label.gcExpire]: EXPIRED } });
  return false;
}
