/**
 * The state of a mirror, which is in its embedded engine and changes in the same transactions as the records: how far it has
 * come, of which tree, and what it needs to know to compare itself with etcd. Called by mirror.ts.
 */
import type { Engine, Key, Transaction } from '../../contract.js';
import { components, key, leaf, metaKey } from '../../schema/keys.js';
import type { EtcdClient } from '../client/client.js';
import type { Witness } from './witness.js';

/** It is links of a record that does not exist, so no listing shows them. */
const STATE = metaKey('mirror');
const Relation = {
  /** Revision up to which the tree is here. */
  position: 'at',
  /** The last commit up to there. */
  witness: 'witness',
  /** Cluster and prefix. */
  origin: 'of',
  /** The tree was set back, or is another than the backends were used with, which the tree does not know yet. */
  doubt: 'doubt',
  /** Owners of links that are not records. */
  owners: 'owners',
  /** Collections and relations in which links are. */
  relations: 'relations',
  /** Records whose text in etcd makes no sense. */
  damaged: 'damaged',
} as const;

/** What of changes the state depends on. */
export interface StateChanges {
  readonly puts: ReadonlyMap<Key, unknown>;
  readonly deletes: readonly Key[];
  readonly damaged: readonly Key[];
  readonly links: readonly { readonly from: Key; readonly relation: string; readonly present: boolean }[];
}

export class MirrorState {
  readonly #engine: Engine;
  readonly #client: EtcdClient;
  /** Revision whose position is stored. */
  stored = 0;
  readonly damaged = new Set<Key>();
  readonly #relations = new Set<string>();
  readonly owners = new Set<Key>();

  constructor(engine: Engine, client: EtcdClient) {
    this.#engine = engine;
    this.#client = client;
    for (const to of engine.links(STATE, Relation.damaged)) this.damaged.add(to);
    for (const to of engine.links(STATE, Relation.owners)) this.owners.add(to);
    for (const to of engine.links(STATE, Relation.relations)) this.#relations.add(to);
  }

  /** Whether an embedded engine holds a copy of this tree; a copy of another one must not be used. */
  static matches(engine: Engine, clusterId: string, prefix: string): boolean {
    const [origin] = engine.links(STATE, Relation.origin);
    if (origin !== undefined) return origin === originKey(clusterId, prefix);
    return engine.revision === 0 && engine.stats().records === 0;
  }

  /** Where the mirror was left; undefined: nowhere yet. */
  readPosition(): number | undefined {
    const [at] = this.#engine.links(STATE, Relation.position);
    if (at === undefined) return undefined;
    this.stored = Number(leaf(at));
    return this.stored;
  }

  /** The last commit up to the position; undefined in a mirror of a tree without one. */
  readWitness(): Witness | undefined {
    const [at] = this.#engine.links(STATE, Relation.witness);
    if (at === undefined) return undefined;
    const [, , key = '', mod, id = ''] = components(at);
    return { key, mod: Number(mod), id };
  }

  get isDoubtful(): boolean {
    return this.#engine.hasLinks(STATE, Relation.doubt);
  }

  /** Visible at once, and on disk before what is written to the mirror later, which fails if this does. */
  doubt(): void {
    this.#engine
      .update((tx) => tx.link(STATE, Relation.doubt, STATE), { durability: 'visible' })
      .catch(() => undefined);
  }

  async trust(): Promise<void> {
    if (this.isDoubtful) await this.#engine.update((tx) => tx.unlink(STATE, Relation.doubt, STATE));
  }

  /** Links of one owner in every relation that is in use for its collection. */
  *linksOf(from: Key): Generator<{ relation: string; to: Key }> {
    const [collection] = components(from);
    for (const used of this.#relations) {
      const [, , of, relation = ''] = components(used);
      if (of !== collection) continue;
      for (const to of this.#engine.links(from, relation)) yield { relation, to };
    }
  }

  write(tx: Transaction, { puts, deletes, damaged, links }: StateChanges): void {
    for (const record of damaged) {
      this.damaged.add(record);
      tx.link(STATE, Relation.damaged, record);
    }
    if (this.damaged.size > 0) {
      for (const record of [...puts.keys(), ...deletes]) {
        if (this.damaged.delete(record)) tx.unlink(STATE, Relation.damaged, record);
      }
    }
    for (const { from, relation, present } of links) {
      if (!present) continue;
      const [collection = ''] = components(from);
      const used = key('meta', 'relation', collection, relation);
      if (!this.#relations.has(used)) {
        this.#relations.add(used);
        tx.link(STATE, Relation.relations, used);
      }
      if (collection === 'backendnames' || (!puts.has(from) && !tx.has(from))) {
        if (!this.owners.has(from)) {
          this.owners.add(from);
          tx.link(STATE, Relation.owners, from);
        }
      }
    }
  }

  writePosition(tx: Transaction, revision: number, witness: Witness | undefined): void {
    if (revision === this.stored) return;
    const old = [...this.#engine.links(STATE, Relation.witness)];
    const next = witness && witnessKey(witness);
    for (const one of old) if (one !== next) tx.unlink(STATE, Relation.witness, one);
    if (next !== undefined && !old.includes(next)) tx.link(STATE, Relation.witness, next);
    if (!tx.hasLinks(STATE, Relation.origin)) {
      tx.link(STATE, Relation.origin, originKey(this.#client.clusterId, this.#client.settings.prefix));
    }
    if (this.stored > 0) tx.unlink(STATE, Relation.position, positionKey(this.stored));
    else
      for (const old of [...this.#engine.links(STATE, Relation.position)])
        tx.unlink(STATE, Relation.position, old);
    tx.link(STATE, Relation.position, positionKey(revision));
    this.stored = revision;
  }
}

const positionKey = (revision: number): Key => metaKey('mirror', String(revision));
const witnessKey = ({ key, mod, id }: Witness): Key => metaKey('mirror', key, String(mod), id);
const originKey = (clusterId: string, prefix: string): Key =>
  metaKey('mirror', clusterId, ...(prefix === '' ? [] : [prefix]));
