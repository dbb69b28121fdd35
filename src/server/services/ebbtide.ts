/**
 * ebbtide.v1.Ebbtide: what containerd's API has no call for. Called by our own command line; errors are
 * detailed.
 */
import { isAbsolute } from 'node:path';
import { type ClusterHosts, noSharedTree } from '../../cluster-hosts.js';
import type { RunOptions } from '../../db.js';
import { failedPrecondition, invalidArgument } from '../../errors.js';
import type { PlanOutcome } from '../../gc/report/apply-plan.js';
import { type ObjectKind, type ObjectName, objectKinds } from '../../gc/report/objects.js';
import { type Plan, parsePlan } from '../../gc/report/plan.js';
import { type UsageGroup, usageGroups } from '../../gc/report/retained.js';
import type { GCStats } from '../../gc/stats.js';
import { type PictureFormat, pictureFormats } from '../../pictures/draw.js';
import type { Policy } from '../../policy/policy.js';
import type { Call, Send } from '../call.js';
import { isOwner } from '../connections/peer.js';
import { type DocumentMessage, fromDocument, toDocument } from '../messages/documents.js';
import { duplex, type MethodImpl, type Service, type ServiceHost, stream } from '../service.js';
import { resourceExhausted } from '../status.js';
import { listMethods } from './lists.js';

interface RunRequest {
  maxObjects: number;
  maxBytes: number;
  sliceMs?: number;
}
interface CollectRequest extends RunRequest {
  dryRun: boolean;
  fullSweep: boolean;
  massGuard: boolean;
  allowOrphans: boolean;
}
interface DiskUsageRequest {
  by: string;
  allNamespaces: boolean;
  without: string[];
  disk: boolean;
}
interface PictureRequest {
  format: string;
  disk: boolean;
}
interface ObjectRequest {
  object: string;
  kind: string;
}
interface PlanRequest extends RunRequest {
  fullSweep: boolean;
}
interface ApplyRequest extends RunRequest {
  plan: DocumentMessage | null;
  massGuard: boolean;
}
interface PolicyRequest {
  /** Null: the daemon's own. */
  policy: DocumentMessage | null;
}
export interface CollectResponse {
  progress?: { elapsedMs: number } | null;
  outcome?: DocumentMessage | null;
}

export interface CheckRequest {
  hash: boolean;
  repair: boolean;
  layers: boolean;
  graph: boolean;
}
export interface CheckResponse {
  progress?: { phase: string; done: number } | null;
  /** The chunks of one document. */
  finding?: DocumentMessage[];
  outcome?: DocumentMessage[];
}

export interface BackupRequest {
  directory: string;
  base: string;
  freshSnapshots: boolean;
}
export interface BackupResponse {
  progress?: { phase: string; done: number; total: number } | null;
  outcome?: DocumentMessage[];
}

const notPermitted = () =>
  failedPrecondition('only root and the user of the daemon may make a backup through it', {
    remedy: 'run the command as root, or as the user of the daemon',
  });

const PROGRESS_MS = 500;
/** Limit on the size of a plan, in messages of the largest size. */
const PLAN_MESSAGES_MAX = 16;

export function ebbtideService(host: ServiceHost, stats: () => unknown): Service {
  const { db, limits } = host;
  return {
    name: 'ebbtide.v1.Ebbtide',
    detailedErrors: true,
    methods: {
      Collect: stream<CollectRequest, CollectResponse>(async (request, call, send) => {
        const { dryRun, fullSweep, massGuard, allowOrphans } = request;
        const options = { ...runOptions(request), dryRun, fullSweep, massGuard, orphanGuard: !allowOrphans };
        const run = (): Promise<GCStats> => db.garbageCollect({ signal: call.signal }, options);
        await withProgress(send, () => (dryRun ? run() : host.observe(run, (stats) => stats)));
      }),

      Plan: document((request: PlanRequest, call) => {
        const options = { ...runOptions(request), fullSweep: request.fullSweep };
        return db.planCollection({ signal: call.signal }, options);
      }),

      Policy: document(() => host.policies.state),

      PlanPolicy: document(({ policy }: PolicyRequest, call) =>
        db.planPolicy(policy === null ? host.policies.policy : fromDocument<Policy>([policy]), {
          signal: call.signal,
        }),
      ),

      Apply: duplex<ApplyRequest, CollectResponse>(async ({ requests, send }, call) => {
        const { plan, options } = await planIn(requests, limits.messageBytes * PLAN_MESSAGES_MAX);
        const run = (): Promise<PlanOutcome> => db.applyPlan(plan, { signal: call.signal }, options);
        await withProgress(send, () => host.observe(run, ({ stats }) => stats));
      }),

      Find: document((request: ObjectRequest, call) => db.find(call.cancellable, objectIn(request))),

      Why: document((request: ObjectRequest & { all: boolean }, call) =>
        db.why(call.cancellable, objectIn(request), { all: request.all }),
      ),

      DiskUsage: document(({ by, allNamespaces, without, disk }: DiskUsageRequest, call) => {
        const group = oneOf(by === '' ? 'image' : by, usageGroups) as UsageGroup;
        return db.du(allNamespaces ? { signal: call.signal } : call.cancellable, {
          by: group,
          without,
          disk,
        });
      }),

      Picture: stream<PictureRequest, DocumentMessage>(async ({ format, disk }, call, send) => {
        const options = { format: oneOf(format, pictureFormats) as PictureFormat, disk };
        const pieces = host.pictures.draw({ signal: call.signal }, options);
        for await (const json of pieces) await send({ json });
      }),

      Check: stream<CheckRequest, CheckResponse>(async ({ hash, repair, graph, layers }, call, send) => {
        const sender = new ProgressSender<CheckResponse>(send);
        const { findings: _, ...outcome } = await db.check(
          { signal: call.signal },
          {
            hash,
            repair,
            graph,
            layers,
            onFinding: (finding) => send({ finding: [...toDocument(finding)] }),
            onProgress: (phase, done) => sender.report({ progress: { phase, done } }),
          },
        );
        await send({ outcome: [...toDocument(outcome)] });
      }),

      Backup: stream<BackupRequest, BackupResponse>(async (request, call, send) => {
        if (!isOwner(call.peer)) throw notPermitted();
        const { directory, base, freshSnapshots } = request;
        if (![directory, base].every((path) => path === '' || isAbsolute(path)) || directory === '')
          throw invalidArgument('directory and base of a backup are absolute paths');
        const sender = new ProgressSender<BackupResponse>(send);
        const outcome = await db.backup(directory, {
          ...(base !== '' && { base }),
          activeSnapshots: freshSnapshots ? 'fresh' : 'copied',
          signal: call.signal,
          onProgress: (phase, done, total) => sender.report({ progress: { phase, done, total } }),
        });
        await send({ outcome: [...toDocument(outcome)] });
      }),

      History: document(({ limit }: { limit: number }) => db.history(limit > 0 ? { limit } : {})),

      Hosts: document(() => hostsOf(host).list()),

      RemoveHost: document(({ id }: { id: string }, call) => hostsOf(host).remove(id, call.signal)),

      Stats: document(() => stats()),

      ...listMethods(host),
    },
  };
}

/** A method that returns a document. */
function document<Request>(run: (request: Request, call: Call) => unknown): MethodImpl {
  return stream<Request, DocumentMessage>(async (request, call, send) => {
    for (const chunk of toDocument(await run(request, call))) await send(chunk);
  });
}

/** The plan of a request. InvalidArgument: it is missing or is not a valid plan. */
async function planIn(
  requests: AsyncIterable<ApplyRequest>,
  bytesMax: number,
): Promise<{ plan: Plan; options: RunOptions }> {
  const chunks: DocumentMessage[] = [];
  let options: RunOptions | undefined;
  let bytes = 0;
  for await (const request of requests) {
    options ??= { ...runOptions(request), massGuard: request.massGuard };
    if (request.plan === null) continue;
    bytes += request.plan.json.length;
    if (bytes > bytesMax) {
      throw resourceExhausted(`the plan is over the limit of ${bytesMax} bytes: plan fewer objects`);
    }
    chunks.push(request.plan);
  }
  if (options === undefined || chunks.length === 0) throw invalidArgument('the request has no plan');
  return { plan: parsePlan(fromDocument(chunks)), options };
}

function hostsOf({ db }: ServiceHost): ClusterHosts {
  if (db.hosts === undefined) throw noSharedTree();
  return db.hosts;
}

function runOptions({ maxObjects, maxBytes, sliceMs = 0 }: RunRequest): RunOptions {
  return {
    ...(maxObjects > 0 && { maxObjects }),
    ...(maxBytes > 0 && { maxBytes }),
    ...(sliceMs > 0 && { sliceBudgetMs: sliceMs }),
  };
}

function objectIn({ object, kind }: ObjectRequest): ObjectName {
  return { name: object, ...(kind !== '' && { kind: oneOf(kind, objectKinds) as ObjectKind }) };
}

function oneOf(value: string, allowed: readonly string[]): string {
  if (allowed.includes(value)) return value;
  throw invalidArgument(`"${value}" is not one of ${allowed.join(', ')}`, { object: value });
}

/** Sends progress messages at intervals during the run, then its result. */
async function withProgress(send: Send<CollectResponse>, run: () => Promise<unknown>): Promise<void> {
  const start = performance.now();
  let sending: Promise<void> = Promise.resolve();
  const timer = setInterval(() => {
    const message = { progress: { elapsedMs: performance.now() - start } };
    // A failed send is ignored: the call's own end shows that the client has gone.
    sending = sending.then(() => send(message)).catch(() => undefined);
  }, PROGRESS_MS);
  try {
    const outcome = await run();
    await sending;
    for (const chunk of toDocument(outcome)) await send({ outcome: chunk });
  } finally {
    clearInterval(timer);
  }
}

/** Sends progress at intervals; one that cannot be sent is left out. */
class ProgressSender<Response> {
  readonly #send: Send<Response>;
  #last = performance.now();

  constructor(send: Send<Response>) {
    this.#send = send;
  }

  report(message: Response): void {
    const now = performance.now();
    if (now - this.#last < PROGRESS_MS) return;
    this.#last = now;
    this.#send(message).catch(() => undefined);
  }
}
