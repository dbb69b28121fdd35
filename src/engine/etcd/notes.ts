/**
 * What a mirror notes of itself inside its embedded engine, in the same transactions as the records: how far it has
 * come, of which tree, and what it needs to know to compare itself with etcd. Called by mirror.ts.
 */
import type { Engine, Key, Transaction } from '../contract.js';
import { components, key, leaf, metaKey } from '../schema/keys.js';
import type { EtcdClient } from './client.js';

/** The mirror's own notes are links of a record that does not exist, so no listing shows them. */
const NOTES = metaKey('mirror');
const Note = {
  /** Revision up to which the tree is here. */
  position: 'at',
  /** Cluster and prefix. */
  origin: 'of',
  /** Owners of links that are no records. */
  owners: 'owners',
  /** Collections and relations in which links are. */
  relations: 'relations',
  /** Records whose text in etcd makes no sense. */
  damaged: 'damaged',
} as const;

/** Changes as far as the notes are concerned. */
export interface NotedChanges {
  readonly puts: ReadonlyMap<Key, unknown>;
  readonly deletes: readonly Key[];
  readonly damaged: readonly Key[];
  readonly links: readonly { readonly from: Key; readonly relation: string; readonly present: boolean }[];
}

export class Notes {
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
    for (const to of engine.links(NOTES, Note.damaged)) this.damaged.add(to);
    for (const to of engine.links(NOTES, Note.owners)) this.owners.add(to);
    for (const to of engine.links(NOTES, Note.relations)) this.#relations.add(to);
  }

  /** Whether an embedded engine holds a copy of this tree; a copy of another one must not be used. */
  static matches(engine: Engine, clusterId: string, prefix: string): boolean {
    const [origin] = engine.links(NOTES, Note.origin);
    if (origin !== undefined) return origin === originKey(clusterId, prefix);
    return engine.revision === 0 && engine.stats().records === 0;
  }

  /** Where the mirror was left; undefined: nowhere yet. */
  readPosition(): number | undefined {
    const [at] = this.#engine.links(NOTES, Note.position);
    if (at === undefined) return undefined;
    this.stored = Number(leaf(at));
    return this.stored;
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

  write(tx: Transaction, { puts, deletes, damaged, links }: NotedChanges): void {
    for (const record of damaged) {
      this.damaged.add(record);
      tx.link(NOTES, Note.damaged, record);
    }
    if (this.damaged.size > 0) {
      for (const record of [...puts.keys(), ...deletes]) {
        if (this.damaged.delete(record)) tx.unlink(NOTES, Note.damaged, record);
      }
    }
    for (const { from, relation, present } of links) {
      if (!present) continue;
      const [collection = ''] = components(from);
      const used = key('meta', 'relation', collection, relation);
      if (!this.#relations.has(used)) {
        this.#relations.add(used);
        tx.link(NOTES, Note.relations, used);
      }
      if (collection === 'backendnames' || (!puts.has(from) && !tx.has(from))) {
        if (!this.owners.has(from)) {
          this.owners.add(from);
          tx.link(NOTES, Note.owners, from);
        }
      }
    }
  }

  writePosition(tx: Transaction, revision: number): void {
    if (revision === this.stored) return;
    if (!tx.hasLinks(NOTES, Note.origin)) {
      tx.link(NOTES, Note.origin, originKey(this.#client.clusterId, this.#client.settings.prefix));
    }
    if (this.stored > 0) tx.unlink(NOTES, Note.position, positionKey(this.stored));
    else
      for (const old of [...this.#engine.links(NOTES, Note.position)]) tx.unlink(NOTES, Note.position, old);
    tx.link(NOTES, Note.position, positionKey(revision));
    this.stored = revision;
  }
}

const positionKey = (revision: number): Key => metaKey('mirror', String(revision));
const originKey = (clusterId: string, prefix: string): Key =>
  metaKey('mirror', clusterId, ...(prefix === '' ? [] : [prefix]));
