/**
 * What a transaction means for etcd: the conditions under which it may commit, and its changes. Called by commit.ts.
 *
 * A transaction may commit when nothing it read has changed since the revision it read at. A key that was there must
 * be there still and unmodified, one that was not must be absent; a range must hold nothing newer, and none of its
 * records may have been deleted, which shows in a stamp that deletions write; a set of links has a stamp as well.
 * What asked the graph for garbage needs that no root and no edge was added anywhere (`sys/head`).
 */
import { type Adjacency, type Indexer, type Key, NodeFlag } from '../../contract.js';
import { linkPrefix, splitLink } from '../../core/storage.js';
import { decodeValue } from '../../schema/codec.js';
import { components } from '../../schema/keys.js';
import type { Compare, EtcdClient, Op } from '../client/client.js';
import { prefixEnd } from '../client/client.js';
import { type Layout, Sys } from '../format/layout.js';
import type { StagedChange } from '../format/unit.js';
import { valueToText } from '../format/values.js';
import type { Counters } from './counters.js';
import type { EtcdTransaction } from './transaction.js';

export interface CommitPlan {
  readonly compares: readonly Compare[];
  /** Changes of records and links, and the stamps that show them. */
  readonly changes: readonly StagedChange[];
  readonly addsReferences: boolean;
  readonly again: readonly Key[];
  /** Ranges of forgotten counters. */
  readonly counters: readonly { del: string; end?: string | undefined }[];
  readonly bytes: number;
  /** Keys that are there to be deleted if the conditions hold. */
  readonly gone: number;
}

export interface PlanParts {
  client: EtcdClient;
  layout: Layout;
  indexer: Indexer;
  counters: Counters;
}

/** What a transaction changes, as far as it was looked at. */
interface Planned {
  readonly changes: StagedChange[];
  readonly stamps: Set<string>;
  readonly again: Key[];
  addsReferences: boolean;
  gone: number;
}

export async function planCommit(parts: PlanParts, tx: EtcdTransaction): Promise<CommitPlan> {
  const planned: Planned = { changes: [], stamps: new Set(), again: [], addsReferences: false, gone: 0 };
  planRecords(parts, tx, planned);
  await planWiped(parts, tx, planned);
  planLinks(parts, tx, planned);
  const { changes, stamps, again, addsReferences, gone } = planned;
  for (const stamp of stamps) changes.push({ p: stamp, v: '1' });
  let bytes = 0;
  for (const change of changes) bytes += sizeOf(change);
  const counters = droppedCounters(parts, tx);
  return { compares: compares(parts, tx), changes, addsReferences, again, counters, bytes, gone };
}

function planRecords({ layout, indexer }: PlanParts, tx: EtcdTransaction, planned: Planned): void {
  const { changes, stamps, again } = planned;
  for (const [key, { bytes, adjacency, recreated }] of tx.records.entries()) {
    if (bytes === undefined) {
      changes.push({ d: layout.record(key) });
      // `delete` has read it, unless this transaction made it.
      if (tx.reads.keys.get(key) === true && !mayBeGone(tx, key)) planned.gone++;
      const [collection = '', namespace = ''] = components(key);
      stamps.add(Sys.gone(collection, namespace));
      continue;
    }
    const value = decodeValue(key, bytes);
    changes.push({ p: layout.record(key), v: valueToText(key, value) });
    if (recreated) again.push(key);
    planned.addsReferences ||= addsReference(tx, indexer, key, adjacency, recreated);
  }
}

async function planWiped(parts: PlanParts, tx: EtcdTransaction, planned: Planned): Promise<void> {
  for (const owner of tx.wiped) {
    if (!tx.mayOwnLinks(owner)) continue;
    planned.stamps.add(Sys.stamp(owner));
    if (keepsLinks(tx, owner)) planned.changes.push(...(await wipeSome(parts, tx, owner)));
    else planned.changes.push({ w: owner });
  }
}

function planLinks({ layout, indexer }: PlanParts, tx: EtcdTransaction, planned: Planned): void {
  for (const [link, present] of tx.ownLinks.entries()) {
    const { from, relation, to } = splitLink(link);
    const key = layout.link(from, relation, to);
    planned.changes.push(present ? { p: key, v: '1' } : { d: key });
    if (!present && tx.reads.links.get(link) === true) planned.gone++;
    planned.stamps.add(Sys.stamp(from));
    if (present && indexer.link(from, relation, to) !== undefined) planned.addsReferences = true;
  }
}

function droppedCounters({ layout }: PlanParts, tx: EtcdTransaction): CommitPlan['counters'] {
  // A number that was handed out since must stay unique: then the counter goes on instead.
  const goesOn = (prefix: Key): boolean =>
    [...tx.handedOut.keys()].some((name) => name === prefix || name.startsWith(`${prefix}\0`));
  return [...tx.droppedCounters]
    .filter((prefix) => !goesOn(prefix))
    .flatMap((prefix) => layout.countersBelow(prefix))
    .map(([del, end]) => ({ del, end }));
}

/** Whether links of an owner are made in the same transaction that wiped its links, or the owner itself is. */
function keepsLinks(tx: EtcdTransaction, owner: Key): boolean {
  if (tx.records.get(owner)?.bytes !== undefined) return true;
  for (const [link, present] of tx.ownLinks.entries()) {
    if (present && splitLink(link).from === owner) return true;
  }
  return false;
}

/** etcd refuses a put inside a range that is deleted by the same transaction: those links go one by one. */
async function wipeSome(
  { client, layout }: PlanParts,
  tx: EtcdTransaction,
  owner: Key,
): Promise<StagedChange[]> {
  const dir = layout.linksOf(owner);
  const { kvs } = await client.range(dir, { end: prefixEnd(dir), keysOnly: true });
  const gone: StagedChange[] = [];
  for (const { key } of kvs) {
    const place = layout.parse(key);
    if (place?.is !== 'link') continue;
    if (tx.ownLinks.get(linkPrefix(place.from, place.relation) + place.to) === true) continue;
    gone.push({ d: key });
  }
  return gone;
}

function addsReference(
  tx: EtcdTransaction,
  indexer: Indexer,
  key: Key,
  wanted: Adjacency | undefined,
  recreated: boolean,
): boolean {
  if (wanted === undefined) return false;
  const isRoot = (wanted.flags & NodeFlag.root) !== 0;
  const conditions = NodeFlag.conditional | NodeFlag.conditionValue;
  if ((wanted.flags & conditions) !== 0) return true;
  // What is not known to be stored still may have been taken away by others meanwhile.
  const old = recreated || !tx.reads.keys.has(key) ? undefined : tx.stored(key);
  const before = old === undefined ? undefined : indexer.node(key, old);
  if (before === undefined) return isRoot || wanted.edges.length > 0;
  if ((before.flags & conditions) !== 0) return true;
  const wasRoot = (before.flags & NodeFlag.root) !== 0;
  if (isRoot && (!wasRoot || wanted.expireAt !== before.expireAt)) return true;
  const had = new Set(before.edges.map(edgeText));
  return wanted.edges.some((edge) => !had.has(edgeText(edge)));
}

const edgeText = ({ to, kind, back }: Adjacency['edges'][number]): string => `${kind} ${back === true} ${to}`;

function compares({ layout, counters }: PlanParts, tx: EtcdTransaction): Compare[] {
  const revision = tx.etcdRevision;
  const made: Compare[] = [];
  const unchanged = (key: string, end?: string): void => {
    made.push({ key, end, is: 'unchanged since', revision });
  };
  const same = (key: string, present: boolean, mayBeGone = false): void => {
    if (!present) made.push({ key, is: 'absent' });
    else {
      unchanged(key);
      if (!mayBeGone) made.push({ key, is: 'present' });
    }
  };
  for (const [key, present] of tx.reads.keys) same(layout.record(key), present, mayBeGone(tx, key));
  for (const [link, present] of tx.reads.links) {
    const { from, relation, to } = splitLink(link);
    same(layout.link(from, relation, to), present);
  }
  const stamps = new Set<string>();
  for (const prefix of tx.reads.prefixes) {
    const ranges = layout.rangesBelow(prefix);
    if (ranges === undefined) {
      // Spread over the tree: no commit at all may have come between.
      if (!stamps.has(Sys.commits)) unchanged(Sys.commits, prefixEnd(Sys.commits));
      stamps.add(Sys.commits);
      continue;
    }
    for (const [key, end] of ranges) unchanged(key, end);
    const [collection = '', namespace = ''] = components(prefix);
    stamps.add(Sys.gone(collection, namespace));
  }
  for (const set of tx.reads.linkSets) stamps.add(Sys.stamp(splitLink(set).from));
  if (tx.readsGraph) stamps.add(Sys.head);
  for (const stamp of stamps) if (stamp !== Sys.commits) unchanged(stamp);
  for (const [counter, handed] of tx.handedOut) made.push(counters.compare(counter, handed));
  return made;
}

/**
 * Garbage that another host removed meanwhile is as gone as if this transaction had removed it: one condition less,
 * so that twice as much fits into one etcd transaction.
 */
function mayBeGone(tx: EtcdTransaction, key: Key): boolean {
  return tx.readsGraph && tx.records.has(key) && tx.records.get(key)?.bytes === undefined;
}

function sizeOf(change: StagedChange): number {
  if ('w' in change) return change.w.length * 3 + 32;
  return 'p' in change
    ? Buffer.byteLength(change.p) + Buffer.byteLength(change.v) + 32
    : change.d.length * 2 + 32;
}

/** Changes as operations of etcd. */
export function opsOf({ layout }: Pick<PlanParts, 'layout'>, changes: readonly StagedChange[]): Op[] {
  return changes.map((change): Op => {
    if ('p' in change) return { put: change.p, value: change.v };
    if ('d' in change) return { del: change.d };
    const dir = layout.linksOf(change.w);
    return { del: dir, end: prefixEnd(dir) };
  });
}

const opBytes = (op: Op): number => ('put' in op ? op.put.length + op.value.length : 64);

/** Operations in their order, some at a time; one that is too large comes alone. */
export function* batchesOf(ops: readonly Op[], opsMax: number, bytesMax: number): Generator<Op[]> {
  let batch: Op[] = [];
  let bytes = 0;
  for (const op of ops) {
    if (batch.length > 0 && (batch.length === opsMax || bytes + opBytes(op) > bytesMax)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(op);
    bytes += opBytes(op);
  }
  if (batch.length > 0) yield batch;
}
