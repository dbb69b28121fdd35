/**
 * Adds resources to the call context's lease and removes them. Called by every store inside its transaction;
 * without a lease in the context nothing happens. Links are part of the transaction.
 */
import type { CallContext } from '../context.js';
import type { Key, Reader, Transaction } from '../engine/contract.js';
import { collectionOf, leaseKey, Relation } from '../engine/schema/keys.js';
import { type EbbtideError, notFound } from '../errors.js';
import { Label } from '../model/labels.js';
import type { LeaseRecord } from '../model/records.js';
import { readRecord } from './common.js';

/**
 * Key of a lease by the id on the reader's host; `scope`, if given, replaces the reader's. A host's own lease
 * is stored as `<id>@<host>`, so that every host's collections honour it.
 */
export function leaseKeyIn(reader: Reader, ns: string, id: string, scope = reader.leaseScope): Key {
  return leaseKey(ns, scope === undefined || scope === '' ? id : `${id}@${scope}`);
}

/** Whether the namespace has the lease; includes an expired one that is not collected yet. */
export const leaseExists = (reader: Reader, ns: string, id: string, scope?: string): boolean =>
  id !== '' && reader.has(leaseKeyIn(reader, ns, id, scope));

export const leaseNotFound = (id: string): EbbtideError =>
  notFound(`lease "${id}" not found`, { object: id });

/** @throws NotFound if the context has a lease that the namespace does not have */
export function requireContextLease(reader: Reader, ctx: CallContext, ns: string): void {
  if (hasLease(ctx) && !leaseExists(reader, ns, ctx.lease)) throw leaseNotFound(ctx.lease);
}

/** Adds a record's key to the context's lease. NotFound when the lease is missing. */
export function addToLease(tx: Transaction, ctx: CallContext, ns: string, target: Key): void {
  if (hasLease(ctx)) linkToLease(tx, ns, ctx.lease, target);
}

/** Removes a record's key from the context's lease; does nothing if either is missing. */
export function removeFromLease(tx: Transaction, ctx: CallContext, ns: string, target: Key): void {
  if (hasLease(ctx)) unlinkFromLease(tx, ns, ctx.lease, target);
}

/** As `addToLease`, for a given lease. Idempotent. */
export function linkToLease(tx: Transaction, ns: string, id: string, target: Key, scope?: string): void {
  const lease = id === '' ? undefined : readRecord<LeaseRecord>(tx, leaseKeyIn(tx, ns, id, scope));
  if (lease === undefined) throw leaseNotFound(id);
  tx.link(leaseKeyIn(tx, ns, id, scope), leaseRelation(lease, target), target);
}

export function unlinkFromLease(tx: Transaction, ns: string, id: string, target: Key, scope?: string): void {
  const from = leaseKeyIn(tx, ns, id, scope);
  tx.unlink(from, Relation.holds, target);
  tx.unlink(from, Relation.holdsFlat, target);
}

/** A flat lease keeps its resources but not what they refer to; ingests are linked plain by every lease. */
function leaseRelation(lease: LeaseRecord, target: Key): string {
  const flat = lease.labels?.[Label.gcFlat] !== undefined && collectionOf(target) !== 'ingests';
  return flat ? Relation.holdsFlat : Relation.holds;
}

function hasLease(ctx: CallContext): ctx is CallContext & { readonly lease: string } {
  return ctx.lease !== undefined && ctx.lease !== '';
}
