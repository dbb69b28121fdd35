/**
 * Removing the records of one slice. Called by collect.ts inside a synchronous transaction, so what is read here
 * is the newest state. Gathers what follows from the removals: backend items that may be unnamed now, events,
 * counts. Nothing of it counts unless the transaction commits.
 */
import { type Engine, type Key, NodeFlag, type Transaction, type Value } from '../../engine/contract.js';
import {
  backendNameKey,
  components,
  leaf,
  namespaceOf,
  Relation,
  snapshotKey,
} from '../../engine/schema/keys.js';
import type { Event } from '../../stores/events.js';
import { dropFirstLinks } from '../../stores/lease-links.js';
import type { RemovedNames } from '../report/collection-record.js';
import { type Counts, count } from '../stats.js';
import {
  kindName,
  ResourceContent,
  ResourceImage,
  ResourceIngest,
  ResourceLease,
  ResourceMount,
  ResourceSnapshot,
} from '../types.js';
import type { BackendItem } from './orphan-candidates.js';
import { parseBackendName } from './sweep.js';

const fieldOf = (value: Value | undefined, field: string): string => {
  const text = typeof value === 'object' ? value[field] : undefined;
  return typeof text === 'string' ? text : '';
};

export class Removal {
  readonly items: BackendItem[] = [];
  readonly events: Event[] = [];
  readonly counts: Counts = {};
  /** Of those removed, the ones whose names are wanted. */
  readonly records: Key[] = [];
  /** Whether the transaction changes anything. */
  wrote = false;
  /** Snapshots that stay because they have a child. */
  readonly withChild: number[] = [];
  /** Snapshots that may have lost their last child. */
  readonly parents: Key[] = [];
  readonly #engine: Engine;
  readonly #tx: Transaction;

  readonly #wantsEvents: boolean;
  readonly #names: Pick<RemovedNames, 'wants'>;

  /** @param wantsEvents whether there is a subscriber */
  constructor(
    engine: Engine,
    tx: Transaction,
    { wantsEvents, names }: { wantsEvents: boolean; names: Pick<RemovedNames, 'wants'> },
  ) {
    this.#engine = engine;
    this.#tx = tx;
    this.#wantsEvents = wantsEvents;
    this.#names = names;
  }

  /** Removes the record of a node; false when there is more of it to remove in the next slice. */
  remove(id: number): boolean {
    const { graph } = this.#engine;
    const flags = graph.flagsOf(id);
    const record = this.#engine.keyOf(id);
    if (record === undefined || (flags & NodeFlag.present) === 0) return true;
    const type = flags >> 8;
    switch (type) {
      case ResourceSnapshot:
        if (!this.#snapshot(id, record)) {
          this.withChild.push(id);
          return true;
        }
        break;
      case ResourceLease:
        if (!dropFirstLinks(this.#tx, record)) {
          this.wrote = true;
          return false;
        }
        break;
      case ResourceContent: {
        const digest = leaf(record);
        this.items.push({ kind: 'blob', digest });
        this.#event(namespaceOf(record), '/content/delete', { digest });
        break;
      }
      case ResourceIngest: {
        const value = this.#tx.get(record);
        this.items.push({ kind: 'ingest', ref: fieldOf(value, 'ref') });
        const expected = fieldOf(value, 'expected');
        if (expected !== '') this.items.push({ kind: 'blob', digest: expected });
        break;
      }
      case ResourceImage:
        this.#event(namespaceOf(record), '/images/delete', { name: leaf(record) });
        break;
      case ResourceMount:
        // It stays mounted until the run's sweep.
        break;
      default:
        // Containers and sandboxes are never collectible; a node of another type has no record.
        return true;
    }
    this.#tx.delete(record);
    this.wrote = true;
    const kind = kindName(type);
    count(this.counts, kind);
    if (this.#names.wants(kind)) this.records.push(record);
    return true;
  }

  /**
   * Prepares a snapshot's removal. False when it has to stay for a child: one that comes later (among back
   * references in a circle), or one that came during the run.
   */
  #snapshot(id: number, record: Key): boolean {
    const tx = this.#tx;
    // A child refers to its parent, so most lookups can be spared.
    if (this.#engine.graph.inDegreeOf(id) > 0) {
      for (const child of tx.links(record, Relation.children)) if (tx.has(child)) return false;
    }
    const [, namespace = '', snapshotter = '', name = ''] = components(record);
    const value = tx.get(record);
    const backendName = fieldOf(value, 'name');
    const parentName = fieldOf(value, 'parent');
    const parentKey = parentName === '' ? undefined : snapshotKey(namespace, snapshotter, parentName);
    // The parent may survive: without this it could never be removed, because it would seem to have a child.
    if (parentKey !== undefined) {
      tx.dropLink(parentKey, Relation.children, record);
      this.parents.push(parentKey);
    }
    const owner = parseBackendName(backendName);
    const isOwn = owner?.namespace === namespace && owner.key === name;
    if (backendName !== '' && !isOwn) {
      tx.unlink(backendNameKey(snapshotter, backendName), Relation.named, record);
    }
    const item: BackendItem = { kind: 'snapshot', snapshotter, name: backendName };
    this.items.push(isOwn ? { ...item, goneSince: tx.revision } : item);
    this.#event(namespace, '/snapshot/remove', { key: name, snapshotter });
    return true;
  }

  #event(namespace: string, topic: string, payload: Event['payload']): void {
    if (this.#wantsEvents) this.events.push({ namespace, topic, payload });
  }
}
