/**
 * Emptying a lease that goes: what it holds is dropped in many small commits, because one that drops a hundred thousand
 * links would keep everybody else waiting. Called inside transactions by the leases' store and by
 * policies, and by collections for expired leases.
 */
import { yieldToEventLoop } from '../backends/files.js';
import type { CallContext } from '../context.js';
import type { Key, Transaction } from '../engine/contract.js';
import { Relation } from '../engine/schema/keys.js';
import { Label } from '../model/labels.js';
import type { LeaseRecord } from '../model/records.js';
import { formatSeconds } from '../model/time.js';
import { putRecord } from './common.js';
import type { StoreHost, UpdateHow } from './host.js';

/** Links that are dropped in one commit, about three milliseconds. */
export const LEASE_LINKS_AT_ONCE = 128;

/** Drops the first links of a lease; true when so few are left that they can go with the record. */
export function dropFirstLinks(tx: Transaction, lease: Key): boolean {
  const most = Math.min(LEASE_LINKS_AT_ONCE, tx.room ?? LEASE_LINKS_AT_ONCE);
  const drop: [string, Key][] = [];
  for (const relation of [Relation.holds, Relation.holdsFlat]) {
    for (const target of tx.links(lease, relation, most + 1)) {
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

/**
 * Runs `remove` in one commit after the other until it is true. The first is as durable as all others are: the lease keeps
 * nothing from then on, and a collection does the rest if the process ends. The next ones do not wait for the disk, but let other
 * work go first; at the end all of it is on disk.
 */
export async function inPieces(
  host: Pick<StoreHost, 'engine' | 'update' | 'durability'>,
  ctx: CallContext,
  remove: (tx: Transaction, isFirst: boolean) => boolean,
): Promise<void> {
  if (await host.update(ctx, (tx) => remove(tx, true))) return;
  const { engine } = host;
  for (let epoch = engine.epoch; ; epoch = engine.epoch) {
    for (let isGone = false; !isGone; ) {
      await yieldToEventLoop();
      await engine.foregroundDone();
      isGone = await host.update(ctx, (tx) => remove(tx, false), PIECE);
    }
    if (host.durability === 'visible') return;
    await engine.flush();
    // Commits that were lost meanwhile are made again.
    if (engine.epoch === epoch) return;
  }
}

const PIECE: UpdateHow = { durability: 'visible', background: true };
