/**
 * The content and snapshot stores over real backends in a temporary directory, with chosen backend calls replaced
 * (failing, slow, remote) where a test needs that.
 */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { openContent } from '../../src/backends/content/store.js';
import type { BackendWriter, ContentBackend, SnapshotterBackend } from '../../src/backends/contract.js';
import { openNative } from '../../src/backends/snapshotters/native.js';
import type { CallContext } from '../../src/context.js';
import { DBHost } from '../../src/db-host.js';
import type { Engine, EngineOptions, Transaction } from '../../src/engine/contract.js';
import { openEtcdEngine } from '../../src/engine/etcd/open.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import { ingestKey, Relation, snapshotKey } from '../../src/engine/schema/keys.js';
import { type CollectOptions, collect } from '../../src/gc/collect.js';
import { metadataIndexer } from '../../src/gc/references.js';
import type { GCStats } from '../../src/gc/stats.js';
import { createGraph } from '../../src/graph/carriers.js';
import { digestOf } from '../../src/model/digest.js';
import type { IngestRecord, SnapshotRecord, StringMap } from '../../src/model/records.js';
import { readRecord } from '../../src/stores/common.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import type { ContentPolicy } from '../../src/stores/host.js';
import { LeaseManager, withId } from '../../src/stores/leases.js';
import { NamespaceStore } from '../../src/stores/namespaces.js';
import type { Snapshotter } from '../../src/stores/snapshots.js';
import { sharedTree } from '../support/shared-tree.js';
import { tempDir } from '../support/temp.js';

export interface WorldOptions {
  /** Default memory. */
  engine?: 'memory' | 'lmdb';
  policy?: ContentPolicy;
  /** Replaces calls of the content backend. */
  content?: (real: ContentBackend) => Partial<ContentBackend>;
  /** Replaces calls of the snapshotter `native`. */
  native?: (real: SnapshotterBackend) => Partial<SnapshotterBackend>;
  /** Used instead of the real snapshotter. */
  snapshotter?: SnapshotterBackend;
}

/** Labels of what a collection shall keep. */
export const rooted = { 'containerd.io/gc.root': 'yes' };
/** Key of a snapshot's record in ns1. */
export const keyOf = (key: string): string => snapshotKey('ns1', 'native', key);

export interface Published {
  namespace: string;
  topic: string;
  payload: Readonly<Record<string, unknown>>;
}

/** An object whose calls are those of `changes`, and of `real` otherwise. */
export function altered<T extends object>(real: T, changes: Partial<T>): T {
  return new Proxy(real, {
    get(target, name) {
      const value: unknown = Reflect.get(name in changes ? changes : target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** A content backend whose writers have some calls replaced. */
export const alteredWriters =
  (change: (real: BackendWriter) => Partial<BackendWriter>) =>
  (real: ContentBackend): Partial<ContentBackend> => ({
    writer: async (ref, desc) => {
      const writer = await real.writer(ref, desc);
      return altered(writer, change(writer));
    },
  });

export class StoreWorld {
  readonly events: Published[] = [];
  readonly logged: string[] = [];
  readonly host: DBHost;
  readonly leases: LeaseManager;
  readonly namespaces: NamespaceStore;
  /** The real backends, whatever was replaced for the stores. */
  readonly blobs: ContentBackend;
  readonly native: SnapshotterBackend;

  constructor(host: (world: StoreWorld) => DBHost, blobs: ContentBackend, native: SnapshotterBackend) {
    this.blobs = blobs;
    this.native = native;
    this.host = host(this);
    this.leases = new LeaseManager(this.host);
    this.namespaces = new NamespaceStore(this.host);
  }

  get content() {
    return this.host.contentStore;
  }
  get snapshots(): Snapshotter {
    return this.host.snapshotterStores.get('native')!;
  }

  collect(options: CollectOptions = {}): Promise<GCStats> {
    return collect(this.host, options);
  }

  /** Creates a lease and returns the context that carries it. */
  async lease(ctx: CallContext, id: string): Promise<CallContext> {
    await this.leases.create(ctx, withId(id));
    return { ...ctx, lease: id };
  }

  /** What a lease keeps, as `type id`. */
  async held(ctx: CallContext, id: string): Promise<string[]> {
    return (await this.leases.listResources(ctx, id)).map((r) => `${r.type} ${r.id}`);
  }

  /** Writes a blob and returns its digest. */
  async blob(ctx: CallContext, data: string | Uint8Array, labels?: StringMap): Promise<string> {
    const bytes = Buffer.from(data);
    const digest = digestOf(bytes);
    await writeBlob(
      this.content,
      ctx,
      `ref-${digest}`,
      bytes,
      { digest, size: bytes.length },
      labels && { labels },
    );
    return digest;
  }

  async read(ctx: CallContext, digest: string): Promise<Buffer> {
    await using reader = await this.content.readerAt(ctx, digest);
    const chunks: Uint8Array[] = [];
    for await (const chunk of reader.stream()) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async hasBlob(digest: string): Promise<boolean> {
    return this.blobs.info(digest).then(
      () => true,
      () => false,
    );
  }

  ingest(ns: string, ref: string): IngestRecord | undefined {
    return readRecord<IngestRecord>(this.host.engine, ingestKey(ns, ref));
  }
  snapshot(ns: string, key: string): SnapshotRecord | undefined {
    return readRecord<SnapshotRecord>(this.host.engine, snapshotKey(ns, 'native', key));
  }

  /** Record keys of a snapshot's children in ns1. */
  childrenOf(key: string): string[] {
    return [...this.host.engine.links(snapshotKey('ns1', 'native', key), Relation.children)];
  }

  /** Keys of ns1's snapshots, as a walk finds them. */
  async walked(...filters: string[]): Promise<string[]> {
    const names: string[] = [];
    const note = (info: { name: string }): void => void names.push(info.name);
    await this.snapshots.walk({ namespace: 'ns1' }, note, ...filters);
    return names;
  }

  /** Backend names of all snapshots, sorted. */
  async backendNames(): Promise<string[]> {
    const names: string[] = [];
    await this.native.walk((info) => void names.push(info.name));
    return names.sort();
  }

  /** A committed snapshot. */
  async committed(ctx: CallContext, name: string, parent = '', labels?: StringMap): Promise<void> {
    await this.snapshots.prepare(ctx, `${name}-active`, parent);
    await this.snapshots.commit(ctx, name, `${name}-active`, labels && { labels });
  }

  /** Runs `fn` in a transaction whose context it is given. */
  transaction<T>(ctx: CallContext, fn: (ctx: CallContext, tx: Transaction) => Promise<T>): Promise<T> {
    return this.host.update({}, (tx) => fn({ ...ctx, tx }, tx));
  }
}

function openEngine(root: string, kind: 'memory' | 'lmdb', parts: EngineOptions): Promise<Engine> {
  const etcd = sharedTree(root);
  const dir = join(root, 'meta');
  if (etcd) return openEtcdEngine({ ...parts, etcd, ...(kind === 'lmdb' && { mirrorDir: dir }) });
  return kind === 'lmdb' ? openLmdbEngine(dir, parts) : openMemoryEngine(parts);
}

export async function storeWorld(t: TestContext, options: WorldOptions = {}): Promise<StoreWorld> {
  const root = await tempDir(t);
  const parts = { indexer: metadataIndexer, graph: createGraph() };
  const engine = await openEngine(root, options.engine ?? 'memory', parts);
  const log = () => {};
  const blobs = await openContent(join(root, 'content'), { log });
  const native = options.snapshotter ?? (await openNative(join(root, 'native'), { log }));
  t.after(async () => {
    await native.close();
    await blobs.close();
    await engine.close();
  });
  const host = (world: StoreWorld) =>
    new DBHost({
      engine,
      content: altered<ContentBackend>(blobs, options.content?.(blobs) ?? {}),
      backends: new Map([['native', altered(native, options.native?.(native) ?? {})]]),
      policy: options.policy ?? 'shared',
      durability: 'visible',
      jobs: { removeTrees: async () => ({ removed: 0, bytes: 0, errors: [] }) },
      publisher: {
        publish: async (namespace, topic, payload) => {
          world.events.push({ namespace, topic, payload });
        },
      },
      log: (_level, message) => {
        world.logged.push(message);
      },
    });
  return new StoreWorld(host, blobs, native);
}
