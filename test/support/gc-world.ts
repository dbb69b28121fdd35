/**
 * A store with fake backends for tests of collections, filled by small alterations (image, blob, snapshot, lease,
 * …) that write records and backend items directly, so that also states no store would make can be tested.
 */
import type { TestContext } from 'node:test';
import type { CallContext } from '../../src/context.js';
import type { Engine, Key, Reader, Transaction, Value } from '../../src/engine/contract.js';
import { openEtcdEngine } from '../../src/engine/etcd/open.js';
import type { GraphCore } from '../../src/engine/graph.js';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import {
  blobKey,
  components,
  containerKey,
  imageKey,
  ingestKey,
  key,
  leaseKey,
  namespaceKey,
  Relation,
  sandboxKey,
  snapshotKey,
} from '../../src/engine/schema/keys.js';
import { type CollectOptions, collect } from '../../src/gc/collect.js';
import { CollectorRegistry } from '../../src/gc/collectors.js';
import type { CollectHost } from '../../src/gc/host.js';
import { LiveMarks } from '../../src/gc/mark/live-marks.js';
import { metadataIndexer } from '../../src/gc/references.js';
import type { CollectionRecord } from '../../src/gc/report/collection-record.js';
import { ExpiryClock } from '../../src/gc/schedule/expiry-clock.js';
import type { GCStats } from '../../src/gc/stats.js';
import { DirtyFlags } from '../../src/gc/sweep/dirty.js';
import { OrphanGuard } from '../../src/gc/sweep/orphan-guard.js';
import { createGraph } from '../../src/graph/carriers.js';
import type { HostClock } from '../../src/model/clock.js';
import { digestOf } from '../../src/model/digest.js';
import { formatTimestamp, type Instant, now } from '../../src/model/time.js';
import { Guards } from '../../src/stores/guards.js';
import type { EventsPublisher } from '../../src/stores/host.js';
import { LastUse } from '../../src/stores/last-use.js';
import { FakeContent, FakeSnapshotter } from './fake-backends.js';
import { sharedTree } from './shared-tree.js';

export type Labels = Readonly<Record<string, string>>;

/** `containerd.io/gc.<rest>`. */
export const gc = (rest: string): string => `containerd.io/gc.${rest}`;
export const past = (): string => formatTimestamp(now() - 3_600_000_000_000n);
export const future = (): string => formatTimestamp(now() + 3_600_000_000_000n);
/** The digest a test calls by a short name. */
export const digest = (name: string): string => digestOf(Buffer.from(name));

const HOUR: Instant = 3_600_000_000_000n;

export interface WorldOptions {
  graph?: GraphCore;
  engine?: Engine;
  /** Namespace of the alterations. */
  namespace?: string;
  clock?: HostClock;
  snapshotters?: readonly string[];
}

export class World implements CollectHost {
  readonly engine: Engine;
  readonly content = new FakeContent();
  readonly backends: Map<string, FakeSnapshotter>;
  readonly policy = 'shared';
  readonly durability = 'visible';
  readonly guards = new Guards();
  readonly collectors = new CollectorRegistry();
  readonly jobs = { removeTrees: async () => ({ removed: 0, bytes: 0, errors: [] }) };
  readonly dirty: DirtyFlags;
  readonly orphans: OrphanGuard;
  readonly sweepsHeld = false;
  readonly mounts = { sweep: async (): Promise<string[]> => [] };
  readonly liveMarks = new LiveMarks((message) => this.log('error', message));
  readonly lastUse: LastUse;
  expiryClock: ExpiryClock;
  /** Of its collections, oldest first. */
  readonly records: CollectionRecord[] = [];
  readonly inFlight = new Set<string>();
  readonly contentStore = { inFlightIngests: (): ReadonlySet<string> => this.inFlight };
  readonly snapshotterStores: Map<string, { inFlight(): ReadonlySet<string> }>;
  readonly logged: string[] = [];
  publisher?: EventsPublisher;
  ns: string;
  readonly sequence = { last: 0 };

  constructor(engine: Engine, options: WorldOptions) {
    this.engine = engine;
    this.ns = options.namespace ?? 'ns1';
    const names = options.snapshotters ?? ['native', 'other'];
    this.backends = new Map(names.map((name) => [name, new FakeSnapshotter()]));
    this.snapshotterStores = new Map(names.map((name) => [name, { inFlight: () => this.inFlight }]));
    this.dirty = new DirtyFlags(engine);
    this.orphans = new OrphanGuard(this);
    this.dirty.load();
    const log = this.log.bind(this);
    this.lastUse = new LastUse(this.engine);
    this.expiryClock = new ExpiryClock({ clock: options.clock, log });
  }

  // ------------------------------------------------------------------------------------------------ StoreHost

  update<T>(ctx: CallContext, fn: (tx: Transaction) => T | Promise<T>): Promise<T> {
    return ctx.tx ? Promise.resolve(fn(ctx.tx)) : this.engine.update(fn);
  }
  read<T>(ctx: CallContext, fn: (reader: Reader) => T | Promise<T>): T | Promise<T> {
    return fn(ctx.tx ?? this.engine);
  }
  view<T>(ctx: CallContext, fn: (reader: Reader) => T | Promise<T>): Promise<T> {
    return ctx.tx ? Promise.resolve(fn(ctx.tx)) : this.engine.view(fn);
  }
  checkCall(): void {}
  countDeletion(tx: Transaction): void {
    this.dirty.countDeletion(tx);
  }
  markContentDirty(tx: Transaction): void {
    this.dirty.markContentDirty(tx);
  }
  markSnapshotterDirty(tx: Transaction, name: string): void {
    this.dirty.markSnapshotterDirty(tx, name);
  }
  async publish(): Promise<void> {}
  collected(record: CollectionRecord): void {
    this.records.push(record);
  }

  log(level: string, message: string, details: Readonly<Record<string, unknown>> = {}): void {
    if (level !== 'info') this.logged.push(`${message} ${JSON.stringify(details)}`);
  }

  // ---------------------------------------------------------------------------------------------- alterations

  get native(): FakeSnapshotter {
    return this.snapshotter('native');
  }
  snapshotter(name: string): FakeSnapshotter {
    const backend = this.backends.get(name);
    if (backend === undefined) throw new Error(`no snapshotter ${name}`);
    return backend;
  }

  /** The same world seen from another namespace. */
  in(namespace: string): World {
    const other: World = Object.create(this) as World;
    other.ns = namespace;
    return other;
  }

  async put(record: Key, value: Value): Promise<void> {
    await this.engine.update((tx) => {
      tx.put(namespaceKey(this.ns), {});
      tx.put(record, value);
    });
  }

  async blob(name: string, labels: Labels = {}): Promise<string> {
    const d = digest(name);
    this.content.blobs.set(d, 100);
    await this.put(blobKey(this.ns, d), { createdat: 1n, updatedat: 1n, size: 100, labels });
    return d;
  }

  async image(name: string, target: string, labels: Labels = {}): Promise<void> {
    const descriptor = { digest: digest(target), mediatype: 'application/x', size: 100 };
    await this.put(imageKey(this.ns, name), { createdat: 1n, updatedat: 1n, target: descriptor, labels });
  }

  async container(id: string, snapshotter = '', snapshotName = '', labels: Labels = {}): Promise<void> {
    const fields = { createdat: 1n, updatedat: 1n, image: '', sandboxid: '', runtime: { name: 'r' }, labels };
    await this.put(containerKey(this.ns, id), { ...fields, snapshotter, snapshotKey: snapshotName });
  }

  async sandbox(id: string, labels: Labels): Promise<void> {
    await this.put(sandboxKey(this.ns, id), { createdat: 1n, updatedat: 1n, sandboxer: '', labels });
  }

  /** A committed snapshot with its backend item. */
  async snapshot(
    name: string,
    options: { parent?: string; labels?: Labels; snapshotter?: string } = {},
  ): Promise<string> {
    const { parent = '', labels = {}, snapshotter = 'native' } = options;
    const backendName = `${this.ns}/${++this.sequence.last}/${name}`;
    await this.engine.update((tx) => {
      const record = snapshotKey(this.ns, snapshotter, name);
      const parentKey = parent === '' ? undefined : snapshotKey(this.ns, snapshotter, parent);
      const parentValue = parentKey === undefined ? undefined : tx.get(parentKey);
      const backendParent = typeof parentValue === 'object' ? String(parentValue.name) : '';
      tx.put(namespaceKey(this.ns), {});
      const fields = { createdat: 1n, updatedat: 1n, name: backendName, labels };
      tx.put(record, parent === '' ? fields : { ...fields, parent });
      if (parentKey !== undefined && parentValue !== undefined) {
        tx.link(parentKey, Relation.children, record);
      }
      this.backends.get(snapshotter)?.add(backendName, backendParent);
    });
    return backendName;
  }

  async ingest(
    ref: string,
    options: { expires?: 'past' | 'future'; expected?: string } = {},
  ): Promise<string> {
    const backendRef = `${this.ns}/1/${ref}`;
    this.content.ingests.add(backendRef);
    const { expires, expected } = options;
    await this.put(ingestKey(this.ns, ref), {
      ref: backendRef,
      ...(expires && { expireat: now() + (expires === 'past' ? -HOUR : HOUR) }),
      ...(expected && { expected: digest(expected) }),
    });
    return backendRef;
  }

  async lease(id: string, labels: Labels, ...resources: Key[]): Promise<void> {
    await this.engine.update((tx) => {
      const record = leaseKey(this.ns, id);
      tx.put(namespaceKey(this.ns), {});
      tx.put(record, { createdat: 1n, labels });
      for (const target of resources) {
        const flat = gc('flat') in labels && components(target)[0] !== 'ingests';
        tx.link(record, flat ? Relation.holdsFlat : Relation.holds, target);
      }
    });
  }

  blobKey(name: string): Key {
    return blobKey(this.ns, digest(name));
  }
  snapshotKey(name: string, snapshotter = 'native'): Key {
    return snapshotKey(this.ns, snapshotter, name);
  }
  imageKey(name: string): Key {
    return imageKey(this.ns, name);
  }
  ingestKey(ref: string): Key {
    return ingestKey(this.ns, ref);
  }

  /** Removes a record as a store does: with its deletion count and dirty flags, bytes left alone. */
  async remove(record: Key): Promise<void> {
    await this.engine.update((tx) => {
      const [collection, , snapshotter = ''] = components(record);
      const value = tx.get(record);
      const parent = typeof value === 'object' && typeof value.parent === 'string' ? value.parent : '';
      if (parent !== '') tx.unlink(this.snapshotKey(parent, snapshotter), Relation.children, record);
      tx.delete(record);
      this.dirty.countDeletion(tx);
      if (collection === 'blobs') this.dirty.markContentDirty(tx);
      if (collection === 'snapshots') this.dirty.markSnapshotterDirty(tx, snapshotter);
    });
  }

  // ------------------------------------------------------------------------------------------------- outcomes

  collect(options: CollectOptions = {}): Promise<GCStats> {
    return collect(this, options);
  }

  /**
   * What is left, as short texts: `image app`, `blob a` (by the short names of `known`), `snapshot native/s`,
   * with the namespace in front when it is not ns1.
   */
  left(...known: string[]): string[] {
    const names = new Map(known.map((name) => [digest(name), name]));
    const words = {
      images: 'image',
      blobs: 'blob',
      snapshots: 'snapshot',
      ingests: 'ingest',
      leases: 'lease',
    };
    const found: string[] = [];
    for (const [collection, word] of Object.entries(words)) {
      for (const [record] of this.engine.scan(key(collection))) {
        const [, ns, ...rest] = components(record);
        const name = rest.join('/');
        found.push(`${ns === 'ns1' ? '' : `${ns}:`}${word} ${names.get(name) ?? name}`);
      }
    }
    return found.sort();
  }
}

let worlds = 0;

/** A fresh world over the memory engine; closed when the test ends. */
export async function world(t: TestContext, options: WorldOptions = {}): Promise<World> {
  const graph = options.graph ?? createGraph();
  const etcd = sharedTree(`world-${process.pid}-${++worlds}`);
  const parts = { indexer: metadataIndexer, graph };
  const open = () => (etcd ? openEtcdEngine({ ...parts, etcd }) : openMemoryEngine(parts));
  const engine = options.engine ?? (await open());
  t.after(() => engine.close());
  return new World(engine, options);
}
