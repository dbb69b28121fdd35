/**
 * One attempt of a transaction over etcd: as in an embedded engine, over the mirror; besides, what its commit has to
 * compare in etcd. engine.ts makes one per attempt; plan.ts and commit.ts turn it into an etcd transaction.
 */
import { EbbtideError } from '../../../errors.js';
import type { Key, Unlock } from '../../contract.js';
import { type Attempt, checkKey, EngineTransaction, type TransactionHost } from '../../core/transaction.js';
import { type Fence, fenceOf } from '../cluster/locks.js';
import { Sys } from '../format/layout.js';
import type { Counters, HandedOut } from './counters.js';

/** Thrown through the body when a counter has no number at hand: the body runs again when there is one. */
class NeedsNumbers extends EbbtideError {
  constructor() {
    super('Unavailable', 'numbers of a counter are being reserved; the transaction runs again', {});
  }
}

/** Operations and conditions that a commit should have at most: etcd takes 128 of each, some are added at the end. */
const FITTING = 104;

export interface TransactionParts {
  readonly counters: Counters;
  /** Revision of etcd that the mirror shows. */
  readonly etcdRevision: number;
  readonly mirrorEpoch: number;
  readonly leaseScope: string | undefined;
  /** FailedPrecondition when the store is closed. */
  readonly checkOpen: () => void;
}

export class EtcdTransaction extends EngineTransaction {
  readonly etcdRevision: number;
  readonly mirrorEpoch: number;
  readonly leaseScope: string | undefined;
  readonly handedOut = new Map<Key, HandedOut>();
  /** The body asked the graph what is garbage. */
  readsGraph = false;
  readonly numbersRawKeys = true;
  /** Deletions that users asked for. */
  deletions = 0;
  /** Locks that must be held still when it commits. */
  readonly guards: Fence[] = [];
  /** The counter whose numbers have to be reserved before the body can run. */
  needs: Key | undefined;
  readonly #mayOwnLinks: (key: Key) => boolean;
  readonly #counters: Counters;
  readonly #checkOpen: () => void;

  constructor(mirror: TransactionHost, attempt: Attempt, parts: TransactionParts) {
    super(mirror, attempt);
    const { indexer } = mirror;
    // Whatever the tree in etcd has: the mirror's graph may be older.
    this.#mayOwnLinks = (key) => indexer.mayOwnLinks?.(key, SATURATED) ?? true;
    this.#counters = parts.counters;
    this.#checkOpen = parts.checkOpen;
    this.etcdRevision = parts.etcdRevision;
    this.mirrorEpoch = parts.mirrorEpoch;
    this.leaseScope = parts.leaseScope;
  }

  countDeletion(): void {
    this.deletions++;
  }

  guardBy(unlock: Unlock): Unlock {
    const fence = fenceOf(unlock);
    if (fence === undefined) return unlock;
    this.guards.push(fence);
    return async () => {
      // One that was lost stays a guard: the transaction must not commit after it.
      await unlock();
      this.guards.splice(this.guards.indexOf(fence), 1);
    };
  }

  requireHostGone(host: string, alive: () => EbbtideError): void {
    this.guards.push({ key: Sys.host(host), create: 0, lost: alive });
  }

  get isEmpty(): boolean {
    return this.records.size + this.ownLinks.size + this.wiped.size + this.droppedCounters.size === 0;
  }

  /** Changes that fit into one etcd transaction still, each with two conditions; beyond, the commit is a unit. */
  get room(): number {
    const { records, ownLinks, reads, linked } = this;
    let ops = records.size + ownLinks.size + linked.size;
    // A range that is deleted, and a stamp unless the owner has one already.
    for (const key of this.wiped) if (this.mayOwnLinks(key)) ops += linked.has(key) ? 1 : 2;
    // What was found is compared twice, but for garbage that goes (plan.ts).
    const once = this.readsGraph ? records.size : 0;
    const conditions =
      2 * (reads.keys.size + reads.links.size) - once + reads.linkSets.size + reads.prefixes.size * 2;
    return Math.max(0, Math.floor((FITTING - Math.max(ops, conditions)) / 2));
  }

  /** As `unlink`: a commit says how many keys it deletes for certain, so it has to know whether this one is there. */
  override dropLink(from: Key, relation: string, to: Key): void {
    this.unlink(from, relation, to);
  }

  override next(counter: Key): number {
    this.checkWrite();
    checkKey(counter);
    const handed = this.#counters.next(counter);
    if (handed === undefined) {
      this.needs = counter;
      throw new NeedsNumbers();
    }
    this.handedOut.set(counter, handed);
    return handed.number;
  }

  mayOwnLinks(key: Key): boolean {
    return this.#mayOwnLinks(key);
  }

  protected override checkUse(): void {
    super.checkUse();
    this.#checkOpen();
  }
}

/** In-degree of a node that so many edges enter that they are not counted. */
const SATURATED = 255;
