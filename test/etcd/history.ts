/**
 * Watches everything that happens in a tree and judges it afterwards: at every removal of garbage, what was removed
 * must have been unreachable at that very revision, by the plain oracle that knows nothing of the code under test.
 */
import type { Value } from '../../src/engine/contract.js';
import type { EtcdClient } from '../../src/engine/etcd/client/client.js';
import { Layout } from '../../src/engine/etcd/format/layout.js';
import { textToValue } from '../../src/engine/etcd/format/values.js';
import { Watch, type WatchEvent } from '../../src/engine/etcd/mirror/watch.js';
import { compareUtf8 } from '../../src/model/utf8.js';
import { type RecordSource, reached, readModel } from '../support/oracle.js';

const kinds: Readonly<Record<string, string>> = {
  images: 'image',
  blobs: 'content',
  leases: 'lease',
  ingests: 'ingest',
  snapshots: 'snapshot',
};

/** The tree at one revision. */
class State implements RecordSource {
  readonly records = new Map<string, Value>();
  readonly #links = new Map<string, Set<string>>();

  *scan(prefix: string): Generator<[string, Value]> {
    const start = prefix === '' ? '' : `${prefix}\0`;
    const keys = [...this.records.keys()].filter((key) => key.startsWith(start)).sort(compareUtf8);
    for (const key of keys) yield [key, this.records.get(key)!];
  }

  links(from: string, relation: string): Iterable<string> {
    return [...(this.#links.get(`${from}\0\0${relation}`) ?? [])].sort(compareUtf8);
  }

  link(from: string, relation: string, to: string, present: boolean): void {
    const name = `${from}\0\0${relation}`;
    const set = this.#links.get(name) ?? new Set();
    this.#links.set(name, set);
    if (present) set.add(to);
    else set.delete(to);
  }
}

export class History {
  readonly #layout = new Layout('nobody');
  readonly #revisions: { revision: number; events: readonly WatchEvent[] }[] = [];
  readonly state = new State();
  readonly #watch: Watch;
  /** Revision that was seen last. */
  revision: number;
  compacted = false;
  /** Removals of garbage that were judged, and what they removed. */
  removals = 0;
  removed = 0;

  constructor(client: EtcdClient, after: number) {
    this.revision = after;
    this.#watch = new Watch(client, after, {
      revision: (revision, events) => {
        this.revision = revision;
        this.#revisions.push({ revision, events });
      },
      progress: (revision) => {
        this.revision = Math.max(this.revision, revision);
      },
      compacted: () => {
        this.compacted = true;
      },
      history: async () => 'same',
      replaced() {},
      warn: () => {},
    });
  }

  /** Looks at everything since the last call; one line for each object that was lost. */
  judge(): string[] {
    const lost: string[] = [];
    for (const { revision, events } of this.#revisions.splice(0)) lost.push(...this.#step(revision, events));
    return lost;
  }

  #step(revision: number, events: readonly WatchEvent[]): string[] {
    const lost: string[] = [];
    if (isRemoval(events)) {
      this.removals++;
      const kept = reached(readModel(this.state), 0n);
      for (const { deleted, kv } of events) {
        const place = deleted ? this.#layout.parse(kv.key) : undefined;
        if (place?.is !== 'record') continue;
        const [collection = '', ns, ...name] = place.key.split('\0');
        const kind = kinds[collection];
        if (kind === undefined) continue;
        this.removed++;
        const object = `${kind}|${ns}|${name.join('/')}`;
        if (kept.has(object))
          lost.push(`${object} was removed at revision ${revision} though it was reachable`);
      }
    }
    for (const { deleted, kv } of events) {
      const place = this.#layout.parse(kv.key);
      if (place?.is === 'link') this.state.link(place.from, place.relation, place.to, !deleted);
      else if (place?.is === 'record') {
        if (deleted) this.state.records.delete(place.key);
        else this.state.records.set(place.key, textToValue(place.key, kv.value.toString('utf8'), kv));
      }
    }
    return lost;
  }

  end(): void {
    this.#watch.end();
  }
}

function isRemoval(events: readonly WatchEvent[]): boolean {
  return events.some(
    ({ deleted, kv }) =>
      !deleted &&
      kv.key.startsWith('sys/commit/') &&
      (JSON.parse(kv.value.toString('utf8')) as { garbage?: boolean }).garbage === true,
  );
}
