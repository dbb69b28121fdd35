/**
 * A daemon as the store of a verb: by containerd's calls where there are any, by our own service for the
 * rest.
 */
import { resolve } from 'node:path';
import type { BackupOptions, BackupReport } from '../../backup/backup.js';
import type { TransferPhase } from '../../backup/transfer.js';
import type { CheckOptions } from '../../check/check.js';
import { type CheckReport, type Finding, MAX_KEPT } from '../../check/findings.js';
import type { CheckPhase } from '../../check/under-way.js';
import type { HostInfo, HostRemoval } from '../../cluster-hosts.js';
import type { CallContext } from '../../context.js';
import type { RunOptions } from '../../db.js';
import { invalidArgument, unknownError } from '../../errors.js';
import type { PlanOutcome } from '../../gc/report/apply-plan.js';
import type { CollectionRecord } from '../../gc/report/collection-record.js';
import type { ObjectDescription, ObjectName } from '../../gc/report/objects.js';
import type { CollectionPlan, Plan, PolicyPlan } from '../../gc/report/plan.js';
import type { UsageOptions, UsageReport } from '../../gc/report/retained.js';
import type { Why, WhyOptions } from '../../gc/report/why.js';
import type { GCStats } from '../../gc/stats.js';
import type { HistoryOptions } from '../../history/history.js';
import type { PictureOptions } from '../../pictures/draw.js';
import type { Policy } from '../../policy/policy.js';
import { mapped } from '../../server/messages/convert.js';
import { type DocumentMessage, fromDocument, toDocument } from '../../server/messages/documents.js';
import type { PolicyState } from '../../server/policies.js';
import { ROOT_IDENTITY } from '../../server/run-file.js';
import type { BackupResponse, CheckResponse, CollectResponse } from '../../server/services/ebbtide.js';
import type { HostRecords, SnapshotStore, Store } from '../store.js';
import { Connection, EBBTIDE } from './connection.js';
import { RemoteContent } from './content.js';
import { RemoteContainers, RemoteImages, RemoteLeases, RemoteNamespaces } from './records.js';
import { RemoteSnapshotter } from './snapshots.js';

/** A part of a daemon, as Introspection lists it. */
interface Plugin {
  type: string;
  id: string;
  exports: Readonly<Record<string, string>>;
}
const SNAPSHOTTER = 'io.containerd.snapshotter.v1';
const METADATA = 'io.containerd.metadata.v1';

export class RemoteStore implements Store {
  readonly images: RemoteImages;
  readonly content: RemoteContent;
  readonly containers: RemoteContainers;
  readonly leases: RemoteLeases;
  readonly namespaces: RemoteNamespaces;
  readonly #connection: Connection;
  readonly #snapshotters: ReadonlyMap<string, SnapshotStore>;

  /** Device and inode of the daemon's root; undefined from one that does not say. */
  readonly rootIdentity: string | undefined;

  private constructor(connection: Connection, plugins: readonly Plugin[]) {
    this.#connection = connection;
    const snapshotters = plugins.filter(({ type }) => type === SNAPSHOTTER).map(({ id }) => id);
    this.rootIdentity = plugins.find(({ type }) => type === METADATA)?.exports[ROOT_IDENTITY];
    this.images = new RemoteImages(connection);
    this.content = new RemoteContent(connection);
    this.containers = new RemoteContainers(connection);
    this.leases = new RemoteLeases(connection);
    this.namespaces = new RemoteNamespaces(connection);
    this.#snapshotters = new Map(snapshotters.map((name) => [name, new RemoteSnapshotter(connection, name)]));
  }

  /** Unavailable when nothing listens there. */
  static async connect(address: string): Promise<RemoteStore> {
    const connection = await Connection.open(address);
    try {
      const { plugins } = await connection.unary<{ plugins: Plugin[] }>(
        'containerd.services.introspection.v1.Introspection',
        'Plugins',
        { filters: [`type==${SNAPSHOTTER}`, `type==${METADATA}`] },
      );
      return new RemoteStore(connection, plugins);
    } catch (error) {
      await connection[Symbol.asyncDispose]();
      throw error;
    }
  }

  get address(): string {
    return this.#connection.address;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#connection[Symbol.asyncDispose]();
  }

  snapshotter(name: string): SnapshotStore | undefined {
    return this.#snapshotters.get(name);
  }
  snapshotters(): ReadonlyMap<string, SnapshotStore> {
    return this.#snapshotters;
  }

  async garbageCollect(ctx: CallContext = {}, options: RunOptions = {}): Promise<GCStats> {
    const { dryRun, fullSweep, massGuard, orphanGuard } = options;
    const request = {
      ...limitsOf(options),
      dryRun: dryRun === true,
      fullSweep: fullSweep === true,
      massGuard: massGuard !== undefined && massGuard !== false,
      allowOrphans: orphanGuard === false,
    };
    const responses = this.#connection.stream<CollectResponse>(EBBTIDE, 'Collect', request, ctx);
    return statsOf(await outcomeOf<GCStats>(responses));
  }

  planCollection(ctx: CallContext = {}, options: RunOptions = {}): Promise<CollectionPlan> {
    const { maxObjects, maxBytes } = limitsOf(options);
    const request = { maxObjects, maxBytes, fullSweep: options.fullSweep === true };
    return this.#document<CollectionPlan>(ctx, 'Plan', request);
  }

  planPolicy(policy: Policy, ctx: CallContext = {}): Promise<PolicyPlan> {
    return this.#document<PolicyPlan>(ctx, 'PlanPolicy', { policy: { json: JSON.stringify(policy) } });
  }

  readonly planOwnPolicy = (ctx: CallContext): Promise<PolicyPlan> =>
    this.#document<PolicyPlan>(ctx, 'PlanPolicy', {});

  readonly policy = (): Promise<PolicyState> => this.#document<PolicyState>({}, 'Policy', {});

  async applyPlan(plan: Plan, ctx: CallContext = {}, options: RunOptions = {}): Promise<PlanOutcome> {
    const massGuard = options.massGuard !== undefined && options.massGuard !== false;
    const fields = { ...limitsOf(options), massGuard };
    // What stays is for readers.
    const sent = 'kept' in plan ? { ...plan, kept: [] } : plan;
    const requests = mapped(toDocument(sent), (piece) => ({ plan: piece, ...fields }));
    const responses = this.#connection.exchange<CollectResponse>(EBBTIDE, 'Apply', requests, ctx);
    const outcome = await outcomeOf<PlanOutcome>(responses);
    return { ...outcome, stats: statsOf(outcome.stats) };
  }

  find(ctx: CallContext, object: string | ObjectName): Promise<ObjectDescription> {
    const { name, kind = '' } = typeof object === 'string' ? { name: object } : object;
    return this.#document<ObjectDescription>(ctx, 'Find', { object: name, kind });
  }

  why(ctx: CallContext, object: string | ObjectName, { all }: WhyOptions = {}): Promise<Why> {
    const { name, kind = '' } = typeof object === 'string' ? { name: object } : object;
    return this.#document<Why>(ctx, 'Why', { object: name, kind, all: all === true });
  }

  du(
    ctx: CallContext = {},
    { by = 'image', without = [], disk = false }: UsageOptions = {},
  ): Promise<UsageReport> {
    return this.#document<UsageReport>(ctx, 'DiskUsage', {
      by,
      allNamespaces: ctx.namespace === undefined,
      without,
      disk,
    });
  }

  async *picture(
    ctx: CallContext = {},
    { format = 'json', disk = false }: PictureOptions = {},
  ): AsyncGenerator<string, void, void> {
    const pieces = this.#connection.stream<DocumentMessage>(EBBTIDE, 'Picture', { format, disk }, ctx);
    for await (const { json } of pieces) yield json;
  }

  history({ limit = 0 }: HistoryOptions = {}): Promise<CollectionRecord[]> {
    return this.#document<CollectionRecord[]>({}, 'History', { limit });
  }

  /** FailedPrecondition when the daemon's tree is not shared. */
  readonly hosts: HostRecords = {
    list: () => this.#document<HostInfo[]>({}, 'Hosts', {}),
    remove: (id, signal) => this.#document<HostRemoval>({ ...(signal && { signal }) }, 'RemoveHost', { id }),
  };

  /** The graph is compared only on request, because the daemon's other clients wait during that. */
  async check(ctx: CallContext = {}, options: CheckOptions = {}): Promise<CheckReport> {
    const { hash = false, repair = false, graph = false, layers = false, onFinding, onProgress } = options;
    if (options.sound !== undefined)
      throw invalidArgument('a daemon does not go on with a verification of another process', {
        remedy: 'leave out --resume, or stop the daemon',
      });
    const findings: Finding[] = [];
    const request = { hash, repair, graph, layers };
    const messages = this.#connection.stream<CheckResponse>(EBBTIDE, 'Check', request, ctx);
    for await (const { progress, finding, outcome } of messages) {
      if (progress) onProgress?.(progress.phase as CheckPhase, progress.done);
      if (finding !== undefined && finding.length > 0) {
        const found = fromDocument<Finding>(finding);
        if (findings.length < MAX_KEPT) findings.push(found);
        await onFinding?.(found);
      }
      if (outcome !== undefined && outcome.length > 0)
        return { ...fromDocument<CheckReport>(outcome), findings };
    }
    throw unknownError('the daemon ended the check without its outcome');
  }

  /** Relative paths are those of this process; the daemon writes with its own rights. */
  async backup(
    directory: string,
    { base, activeSnapshots, signal, onProgress }: BackupOptions = {},
  ): Promise<BackupReport> {
    const request = {
      directory: resolve(directory),
      base: base === undefined ? '' : resolve(base),
      freshSnapshots: activeSnapshots === 'fresh',
    };
    const ctx = signal === undefined ? {} : { signal };
    for await (const { progress, outcome } of this.#connection.stream<BackupResponse>(
      EBBTIDE,
      'Backup',
      request,
      ctx,
    )) {
      if (progress) onProgress?.(progress.phase as TransferPhase, progress.done, progress.total);
      if (outcome !== undefined && outcome.length > 0) return fromDocument<BackupReport>(outcome);
    }
    throw unknownError('the daemon ended the backup without its outcome');
  }

  /** Statistics of the store and the daemon. */
  stats(): Promise<Record<string, unknown>> {
    return this.#document({}, 'Stats', {});
  }

  async #document<T>(ctx: CallContext, method: string, request: object): Promise<T> {
    const pieces: DocumentMessage[] = [];
    const responses = this.#connection.stream<DocumentMessage>(EBBTIDE, method, request, ctx);
    for await (const piece of responses) pieces.push(piece);
    return fromDocument<T>(pieces);
  }
}

async function outcomeOf<T>(responses: AsyncIterable<CollectResponse>): Promise<T> {
  const pieces: DocumentMessage[] = [];
  for await (const { outcome } of responses) if (outcome) pieces.push(outcome);
  if (pieces.length === 0) throw unknownError('the daemon ended the collection without its outcome');
  return fromDocument<T>(pieces);
}

const limitsOf = ({ maxObjects = 0, maxBytes = 0, sliceBudgetMs = 0 }: RunOptions) => ({
  maxObjects,
  maxBytes,
  sliceMs: sliceBudgetMs,
});

/** Functions cannot be sent. */
const statsOf = (stats: GCStats): GCStats => ({
  ...stats,
  elapsed() {
    return this.metaD;
  },
});
