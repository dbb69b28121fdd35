/**
 * Retiring the roots of a policy's plan: removes each that is still what the plan says, in small transactions. Called by
 * apply-plan.ts before the collection that removes what only they kept. A root that is pinned, or in use by now, or was used
 * since the plan was made, stays.
 */
import type { Key, Transaction } from '../../engine/contract.js';
import { throwIfAborted } from '../../errors.js';
import type { LeaseRecord } from '../../model/records.js';
import { parseTimestamp } from '../../model/time.js';
import { readRecord } from '../../stores/common.js';
import { dropLease, inPieces, isBeingRemoved } from '../../stores/lease-links.js';
import { Pace } from '../../stores/listing.js';
import type { CollectHost } from '../host.js';
import type { Candidate } from '../stats.js';
import { keyOfPlanned, type RestReason, type RetiredRoot } from './plan.js';
import {
  holdsUpload,
  ImagesInUse,
  isPinned,
  isReferredTo,
  lastUseOf,
  liveGraph,
  type Noted,
  type RootRecord,
  rootIdentity,
  targetOf,
} from './root-use.js';

export interface Retirement {
  removed: Candidate[];
  rest: (Candidate & { reason: RestReason })[];
}

/** Roots in one transaction. */
const ROOTS_AT_ONCE = 32;

export async function retire(
  host: CollectHost,
  roots: readonly RetiredRoot[],
  signal: AbortSignal | undefined,
): Promise<Retirement> {
  const going = new Set(roots.filter(({ kind }) => kind === 'container').map((root) => keyOfPlanned(root)));
  // A container that is created from now on notes its image's use.
  const pace = new Pace(signal === undefined ? {} : { signal });
  const retirement = new Retiring(host, await ImagesInUse.read(host.engine, pace, (k) => going.has(k)));
  for (let at = 0; at < roots.length; at += ROOTS_AT_ONCE) {
    throwIfAborted(signal);
    await retirement.remove(roots.slice(at, at + ROOTS_AT_ONCE));
  }
  return retirement.outcome;
}

class Retiring {
  readonly outcome: Retirement = { removed: [], rest: [] };
  readonly #host: CollectHost;
  readonly #inUse: ImagesInUse;
  readonly #noted: Noted;

  constructor(host: CollectHost, inUse: ImagesInUse) {
    const { engine, lastUse } = host;
    this.#host = host;
    this.#inUse = inUse;
    this.#noted = (id) => {
      const k = lastUse.noted.size === 0 ? undefined : engine.keyOf(id);
      return k === undefined ? undefined : lastUse.noted.get(k);
    };
  }

  async remove(roots: readonly RetiredRoot[]): Promise<void> {
    const reasons = await this.#host.update({}, (tx) => roots.map((root) => this.#remove(tx, root)));
    for (const [n, root] of roots.entries()) {
      const reason = reasons[n];
      const { kind, namespace, key, identity } = root;
      const object = { kind, namespace, key, size: 0, identity };
      if (reason === 'in pieces') await this.#finishLease(root);
      if (reason === undefined || reason === 'in pieces') this.outcome.removed.push(object);
      else this.outcome.rest.push({ ...object, reason });
    }
  }

  /** Undefined: it is removed. */
  #remove(tx: Transaction, root: RetiredRoot): RestReason | 'in pieces' | undefined {
    const k = keyOfPlanned(root) ?? '';
    const record = readRecord<RootRecord & LeaseRecord>(tx, k);
    if (record === undefined) return 'gone';
    if (rootIdentity(record.createdat, targetOf(record)) !== root.identity) return 'replaced';
    const obstacle = this.#obstacle(root, k, record);
    if (obstacle !== undefined) return obstacle;
    if (root.kind === 'lease') {
      if (!dropLease(tx, k, record)) return 'in pieces';
    } else tx.delete(k);
    this.#host.countDeletion(tx);
    const { namespace, key } = root;
    if (root.kind === 'image') void this.#host.publish({ tx }, namespace, '/images/delete', { name: key });
    if (root.kind === 'container')
      void this.#host.publish({ tx }, namespace, '/containers/delete', { id: key });
    return undefined;
  }

  #obstacle(root: RetiredRoot, k: Key, record: RootRecord): RestReason | undefined {
    const { engine } = this.#host;
    const id = engine.idOf(k);
    if (id === undefined) return 'gone';
    if (isPinned(record)) return 'in use';
    const graph = liveGraph(engine);
    if (holdsUpload(graph, id) || isReferredTo(graph, id)) return 'in use';
    if ('target' in record && this.#inUse.by(root.namespace, root.key, record.target.digest) !== undefined)
      return 'in use';
    const planned = parseTimestamp(root.lastUsed) ?? 0n;
    return lastUseOf(engine, graph, this.#noted, id, record) > planned ? 'used since' : undefined;
  }

  /** What a large lease holds is dropped in many commits; it keeps nothing since the first. */
  async #finishLease(root: RetiredRoot): Promise<void> {
    const k = keyOfPlanned(root) ?? '';
    await inPieces(this.#host, {}, (tx) => {
      const record = readRecord<LeaseRecord>(tx, k);
      if (record === undefined || !isBeingRemoved(record)) return true;
      if (!dropLease(tx, k, record)) return false;
      this.#host.countDeletion(tx);
      return true;
    });
  }
}
