/**
 * What the call context's lease gains and loses by an operation. Called by every store inside its transaction;
 * a context without a lease changes nothing. Links are part of the transaction: they come and go with it.
 */
import type { CallContext } from '../context.js';
import type { Key, Reader, Transaction } from '../engine/contract.js';
import { collectionOf, leaseKey, Relation } from '../engine/schema/keys.js';
import { type EbbtideError, notFound } from '../errors.js';
import { Label } from '../model/labels.js';
import type { LeaseRecord } from '../model/records.js';
import { readRecord } from './common.js';

/**
 * Key of a lease by the id that the reader's host knows it by; `scope` instead of the reader's, where given. A host's own
 * lease is stored as `<id>@<host>`, so that every host's collections honour it.
 */
export function leaseKeyIn(reader: Reader, ns: string, id: string, scope = reader.leaseScope): Key {
  return leaseKey(ns, scope === undefined || scope === '' ? id : `${id}@${scope}`);
}

/** Whether the namespace has the lease; an expired one that is not collected yet counts. */
export const leaseExists = (reader: Reader, ns: string, id: string, scope?: string): boolean =>
  id !== '' && reader.has(leaseKeyIn(reader, ns, id, scope));

export const leaseNotFound = (id: string): EbbtideError =>
  notFound(`lease "${id}" not found`, { object: id });

/** NotFound unless the context has no lease or the namespace has it. */
export function requireContextLease(reader: Reader, ctx: CallContext, ns: string): void {
  if (hasLease(ctx) && !leaseExists(reader, ns, ctx.lease)) throw leaseNotFound(ctx.lease);
}

/** Adds a record's key to the context's lease. NotFound when the lease is missing. */
export function addToLease(tx: Transaction, ctx: CallContext, ns: string, target: Key): void {
  if (hasLease(ctx)) holdByLease(tx, ns, ctx.lease, target);
}

/** Takes a record's key out of the context's lease; silent when either is missing. */
export function removeFromLease(tx: Transaction, ctx: CallContext, ns: string, target: Key): void {
  if (hasLease(ctx)) releaseByLease(tx, ns, ctx.lease, target);
}

/** As `addToLease`, for a lease named outright. Adding again changes nothing. */
export function holdByLease(tx: Transaction, ns: string, id: string, target: Key, scope?: string): void {
  const lease = id === '' ? undefined : readRecord<LeaseRecord>(tx, leaseKeyIn(tx, ns, id, scope));
  if (lease === undefined) throw leaseNotFound(id);
  tx.link(leaseKeyIn(tx, ns, id, scope), holdRelation(lease, target), target);
}

export function releaseByLease(tx: Transaction, ns: string, id: string, target: Key, scope?: string): void {
  const from = leaseKeyIn(tx, ns, id, scope);
  tx.unlink(from, Relation.holds, target);
  tx.unlink(from, Relation.holdsFlat, target);
}

/** A flat lease keeps what it holds but not what that refers to; ingests are held plain by every lease. */
function holdRelation(lease: LeaseRecord, target: Key): string {
  const flat = lease.labels?.[Label.gcFlat] !== undefined && collectionOf(target) !== 'ingests';
  return flat ? Relation.holdsFlat : Relation.holds;
}

function hasLease(ctx: CallContext): ctx is CallContext & { readonly lease: string } {
  return ctx.lease !== undefined && ctx.lease !== '';
}
