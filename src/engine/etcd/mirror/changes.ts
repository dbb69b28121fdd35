/** What one etcd revision means for a mirror's embedded engine, gathered key by key. Called by mirror.ts. */
import { EbbtideError } from '../../../errors.js';
import type { Engine, Key, Value } from '../../contract.js';
import type { KeyValue } from '../client/client.js';
import type { Layout, Place } from '../format/layout.js';
import type { StagedChange } from '../format/unit.js';
import { textToValue } from '../format/values.js';

export class Changes {
  readonly deletes: Key[] = [];
  /** Deleted and made again in one transaction: new objects under old keys. */
  readonly recreated = new Set<Key>();
  readonly puts = new Map<Key, Value>();
  /** Records whose text makes no sense; what was here before stays. */
  readonly damaged: Key[] = [];
  readonly links: { from: Key; relation: string; to: Key; present: boolean }[] = [];
  /** Owners that lose all their links. */
  readonly wiped: Key[] = [];
  readonly #layout: Layout;
  readonly #engine: Engine;
  readonly #warn: (message: string) => void;

  constructor(layout: Layout, engine: Engine, warn: (message: string) => void) {
    this.#layout = layout;
    this.#engine = engine;
    this.#warn = warn;
  }

  get isEmpty(): boolean {
    const { deletes, puts, links, damaged, wiped } = this;
    return deletes.length + puts.size + links.length + damaged.length + wiped.length === 0;
  }

  /** A key that came (`kv`) or went. */
  add(place: Place, kv: KeyValue | undefined): void {
    if (place.is === 'link') {
      const { from, relation, to } = place;
      this.links.push({ from, relation, to, present: kv !== undefined });
    } else if (place.is === 'record') {
      if (kv === undefined) this.deletes.push(place.key);
      else this.#addValue(place.key, kv.value.toString('utf8'), kv);
    }
  }

  #addValue(record: Key, text: string, numbers: { create: number; mod: number; version: number }): void {
    const { create, mod, version } = numbers;
    try {
      this.puts.set(record, textToValue(record, text, { create, mod, version }));
    } catch (error) {
      if (!(error instanceof EbbtideError)) throw error;
      this.damaged.push(record);
      this.#warn(error.message);
    }
  }

  /** A change of a unit that `revision` decided. */
  addStaged(change: StagedChange, revision: number): void {
    if ('w' in change) {
      this.wiped.push(change.w);
      return;
    }
    const place = this.#layout.parse('p' in change ? change.p : change.d);
    if (place?.is === 'link') {
      const { from, relation, to } = place;
      this.links.push({ from, relation, to, present: 'p' in change });
    } else if (place?.is === 'record') {
      if ('d' in change) this.deletes.push(place.key);
      else {
        const old = this.#engine.get(place.key);
        const before = typeof old === 'object' ? old : {};
        const create = typeof before.create === 'number' ? before.create : revision;
        const version = (typeof before.version === 'number' ? before.version : 0) + 1;
        this.#addValue(place.key, change.v, { create, mod: revision, version });
      }
    }
  }
}
