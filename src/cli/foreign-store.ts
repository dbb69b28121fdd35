/**
 * Another program's root as the store of a verb: reads work, writes are refused. Called by runner.ts.
 *
 * Without a namespace, lists cover all namespaces, and objects are looked up in all.
 */
import type { CacheRecord } from '../any-host/build-cache.js';
import { type ForeignRoot, openForeignRoot } from '../any-host/open.js';
import { refusal } from '../any-host/refusals.js';
import type { SnapshotInfo } from '../backends/contract.js';
import type { BackupReport } from '../backup/backup.js';
import type { CheckOptions } from '../check/check.js';
import type { CheckReport } from '../check/findings.js';
import type { CallContext } from '../context.js';
import type { DB, RunOptions } from '../db.js';
import { EbbtideError, invalidArgument, isNotFound } from '../errors.js';
import type { PlanOutcome } from '../gc/report/apply-plan.js';
import type { CollectionRecord } from '../gc/report/collection-record.js';
import type { ObjectDescription, ObjectName } from '../gc/report/objects.js';
import type { CollectionPlan, PolicyPlan } from '../gc/report/plan.js';
import type { UsageOptions, UsageReport } from '../gc/report/retained.js';
import type { Why, WhyOptions } from '../gc/report/why.js';
import type { GCStats } from '../gc/stats.js';
import type { PictureOptions } from '../pictures/draw.js';
import type { Policy } from '../policy/policy.js';
import type {
  Blobs,
  ContainerRecords,
  ImageRecords,
  LeaseRecords,
  NamespaceRecords,
  SnapshotStore,
  Store,
} from './store.js';

/** What may have a record of BuildKit's cache. */
export interface Cached {
  cache?: CacheRecord;
}

export class ForeignStore implements Store {
  readonly hosts = undefined;
  /** So that no lease is made to hold what is read. */
  readonly isReadOnly = true;
  readonly images: ImageRecords;
  readonly containers: ContainerRecords;
  readonly leases: LeaseRecords;
  readonly namespaces: NamespaceRecords;
  readonly content: Blobs;
  readonly parts: ForeignRoot;
  readonly #db: DB;
  readonly #snapshotters: ReadonlyMap<string, SnapshotStore>;

  private constructor(parts: ForeignRoot) {
    const { db } = parts;
    this.#db = db;
    this.parts = parts;
    const { root } = parts.places;
    const all = new AllNamespaces(db);
    this.images = {
      get: (ctx, name) => all.one(ctx, `image "${name}"`, (one) => db.images.get(one, name)),
      list: (ctx, ...filters) => all.listed(ctx, (one) => db.images.list(one, ...filters)),
      create: refuse('making an image', root),
      update: refuse('changing an image', root),
      delete: refuse('removing an image', root),
    };
    this.containers = {
      list: (ctx, ...filters) => all.listed(ctx, (one) => db.containers.list(one, ...filters)),
      create: refuse('making a container', root),
      delete: refuse('removing a container', root),
    };
    this.leases = {
      list: (ctx, ...filters) => all.listed(ctx, (one) => db.leases.list(one, ...filters)),
      listResources: (ctx, lease) =>
        all.one(namespaceIn(ctx, lease), 'the lease', (one) => db.leases.listResources(one, lease)),
      create: refuse('making a lease', root),
      delete: refuse('removing a lease', root),
      addResource: refuse('changing a lease', root),
    };
    this.namespaces = {
      list: (ctx) => db.namespaces.list(ctx),
      labels: (ctx, name) => db.namespaces.labels(ctx, name),
      create: refuse('making a namespace', root),
      setLabel: refuse('changing a namespace', root),
      delete: refuse('removing a namespace', root),
    };
    this.content = {
      info: (ctx, digest) => all.one(ctx, digest, (one) => db.content.info(one, digest), 'any'),
      readerAt: (ctx, content) =>
        all.one(ctx, 'the content', (one) => db.content.readerAt(one, content), 'any'),
      walk: (ctx, fn, ...filters) =>
        all.walk(ctx, fn, (one, visit) => db.content.walk(one, visit, ...filters)),
      listStatuses: (ctx, ...filters) => all.listed(ctx, (one) => db.content.listStatuses(one, ...filters)),
      update: refuse('changing content', root),
      delete: refuse('removing content', root),
      abort: refuse('aborting an ingest', root),
      writer: refuse('writing content', root),
    };
    this.#snapshotters = new Map(
      [...db.snapshotters()].map(([name, store]) => [
        name,
        {
          stat: (ctx, key) => all.one(ctx, `snapshot "${key}"`, (one) => store.stat(one, key)),
          usage: (ctx, key) => all.one(ctx, `snapshot "${key}"`, (one) => store.usage(one, key)),
          walk: (ctx, fn, ...filters) => {
            parts.snapshotters.get(name)?.checkKnown();
            return all.walk<SnapshotInfo>(ctx, fn, (one, visit) => store.walk(one, visit, ...filters));
          },
          mounts: refuse('mounting a snapshot', root),
          prepare: refuse('making a snapshot', root),
          view: refuse('making a snapshot', root),
          commit: refuse('making a snapshot', root),
          remove: refuse('removing a snapshot', root),
        } satisfies SnapshotStore,
      ]),
    );
  }

  static async open(directory: string, signal?: AbortSignal): Promise<ForeignStore> {
    return new ForeignStore(await openForeignRoot(directory, signal));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#db.close();
  }

  snapshotter(name: string): SnapshotStore | undefined {
    return this.#snapshotters.get(name);
  }
  snapshotters(): ReadonlyMap<string, SnapshotStore> {
    return this.#snapshotters;
  }

  async garbageCollect(ctx: CallContext = {}, options: RunOptions = {}): Promise<GCStats> {
    if (options.dryRun !== true) throw refusal('a collection', this.parts.places.root);
    return this.#db.garbageCollect(ctx, options);
  }
  planCollection(ctx?: CallContext, options?: RunOptions): Promise<CollectionPlan> {
    return this.#db.planCollection(ctx, options);
  }
  planPolicy(policy: Policy, ctx?: CallContext): Promise<PolicyPlan> {
    return this.#db.planPolicy(policy, ctx);
  }
  async backup(): Promise<BackupReport> {
    throw refusal('a backup', this.parts.places.root);
  }

  async history(): Promise<CollectionRecord[]> {
    throw refusal('a history of collections', this.parts.places.root);
  }
  async applyPlan(): Promise<PlanOutcome> {
    throw refusal('applying a plan', this.parts.places.root);
  }
  find(ctx: CallContext, object: string | ObjectName): Promise<ObjectDescription> {
    const name = typeof object === 'string' ? object : object.name;
    return new AllNamespaces(this.#db).one(ctx, `"${name}"`, (one) => this.#db.find(one, object));
  }
  async why(ctx: CallContext, object: string | ObjectName, options?: WhyOptions): Promise<Why> {
    const named = this.#named(typeof object === 'string' ? { name: object } : object);
    const result = await new AllNamespaces(this.#db).one(ctx, `"${named.name}"`, (one) =>
      this.#db.why(one, named, options),
    );
    const paths = result.paths.map((steps) => steps.map((step) => this.#withCache(step, step.key)));
    return { ...result, paths };
  }
  async du(ctx?: CallContext, options?: UsageOptions): Promise<UsageReport> {
    const report = await this.#db.du(ctx, options);
    return { ...report, rows: report.rows.map((row) => this.#withCache(row, row.name)) };
  }

  picture(ctx?: CallContext, options?: PictureOptions): AsyncGenerator<string, void, void> {
    const describe = (kind: string, name: string): string | undefined => {
      const cache = kind === 'lease' ? this.parts.buildCache?.byLease.get(name) : undefined;
      return cache && `(build cache: ${cache.description})`;
    };
    return this.#db.picture(ctx, { ...options, describe });
  }

  /** What a cache record is stored as; its lease has the same name. */
  #named(object: ObjectName): ObjectName {
    const record = object.kind === undefined ? this.parts.buildCache?.records.get(object.name) : undefined;
    if (record === undefined) return object;
    // Where Docker keeps the layers, only leases are known.
    return { name: record.snapshot, kind: this.parts.snapshotters.size > 0 ? 'snapshot' : 'lease' };
  }

  /** With what BuildKit says of a lease. */
  #withCache<T extends { kind: string }>(one: T, name: string): T & Cached {
    const cache = one.kind === 'lease' ? this.parts.buildCache?.byLease.get(name) : undefined;
    return cache === undefined ? one : { ...one, cache };
  }
  async check(ctx?: CallContext, options: CheckOptions = {}): Promise<CheckReport> {
    if (options.repair) throw refusal('a repair', this.parts.places.root);
    return this.#db.check(ctx, options);
  }
}

const refuse = (what: string, root: string) => async (): Promise<never> => {
  throw refusal(what, root);
};

/** Objects that were listed across namespaces know theirs. */
const namespaceIn = (ctx: CallContext, object: unknown): CallContext =>
  typeof object === 'object' &&
  object !== null &&
  'namespace' in object &&
  typeof object.namespace === 'string'
    ? { ...ctx, namespace: object.namespace }
    : ctx;

/** Runs a call for one namespace, or for all if none is given. */
class AllNamespaces {
  readonly #db: DB;

  constructor(db: DB) {
    this.#db = db;
  }

  async #of(ctx: CallContext): Promise<CallContext[]> {
    if (ctx.namespace) return [ctx];
    const names = await this.#db.namespaces.list(ctx);
    return names.map((namespace) => ({ ...ctx, namespace }));
  }

  /** Adds the namespace to the objects if they come from several. */
  async listed<T extends object>(ctx: CallContext, list: (one: CallContext) => Promise<T[]>): Promise<T[]> {
    const all: T[] = [];
    for (const one of await this.#of(ctx)) {
      const found = await list(one);
      all.push(...(ctx.namespace ? found : found.map((each) => ({ namespace: one.namespace, ...each }))));
    }
    return all;
  }

  async walk<T extends object>(
    ctx: CallContext,
    fn: (one: T) => Promise<void> | void,
    walk: (one: CallContext, fn: (one: T) => Promise<void> | void) => Promise<void>,
  ): Promise<void> {
    for (const one of await this.#of(ctx))
      await walk(one, ctx.namespace ? fn : (each) => fn({ namespace: one.namespace, ...each }));
  }

  /**
   * The result of the namespace that has the object. InvalidArgument if several have it, unless any will do.
   */
  async one<T>(
    ctx: CallContext,
    what: string,
    ask: (one: CallContext) => Promise<T>,
    which: 'single' | 'any' = 'single',
  ): Promise<T> {
    const found: { namespace: string; result: T }[] = [];
    let missing: unknown;
    for (const one of await this.#of(ctx)) {
      try {
        found.push({ namespace: one.namespace ?? '', result: await ask(one) });
      } catch (error) {
        if (!isNotFound(error) || ctx.namespace) throw error;
        missing = error;
      }
      if (which === 'any' && found.length > 0) break;
    }
    const [first, ...others] = found;
    if (first === undefined) throw missing instanceof EbbtideError ? anywhere(what, missing) : anywhere(what);
    if (others.length === 0) return first.result;
    throw invalidArgument(
      `several namespaces have ${what}: ${found.map(({ namespace }) => namespace).join(', ')}`,
      {
        object: what,
        remedy: 'choose one with --namespace',
      },
    );
  }
}

const anywhere = (what: string, cause?: EbbtideError): EbbtideError =>
  new EbbtideError('NotFound', `no namespace has ${what}`, {
    object: cause?.object,
    remedy: cause?.remedy,
    cause,
  });
