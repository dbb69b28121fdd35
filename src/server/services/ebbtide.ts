/** ebbtide.v1.Ebbtide: what containerd's API has no call for. Called by our own command line; errors are detailed. */
import type { RunOptions } from '../../db.js';
import { invalidArgument } from '../../errors.js';
import { type ObjectKind, objectKinds } from '../../gc/objects.js';
import { parsePlan } from '../../gc/plan.js';
import { type UsageGroup, usageGroups } from '../../gc/retained.js';
import type { Send } from '../call.js';
import { type DocumentMessage, fromDocument, toDocument } from '../documents.js';
import { type EMPTY, type Service, type ServiceHost, stream, unary } from '../service.js';

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
interface PlanRequest extends RunRequest {
  fullSweep: boolean;
}
interface ApplyRequest extends RunRequest {
  plan: DocumentMessage | null;
}
export interface CollectResponse {
  progress?: { elapsedMs: number } | null;
  outcome?: DocumentMessage | null;
}

const PROGRESS_MS = 500;

export function ebbtideService(host: ServiceHost, stats: () => unknown): Service {
  const { db } = host;
  return {
    name: 'ebbtide.v1.Ebbtide',
    detailedErrors: true,
    methods: {
      Collect: stream<CollectRequest, CollectResponse>(async (request, call, send) => {
        const { dryRun, fullSweep, massGuard, allowOrphans } = request;
        const options = { ...runOptions(request), dryRun, fullSweep, massGuard, orphanGuard: !allowOrphans };
        await withProgress(send, () => db.garbageCollect({ signal: call.signal }, options));
      }),

      Plan: unary(async (request: PlanRequest, call) => {
        const options = { ...runOptions(request), fullSweep: request.fullSweep };
        return toDocument(await db.planCollection({ signal: call.signal }, options));
      }),

      Apply: stream<ApplyRequest, CollectResponse>(async (request, call, send) => {
        if (request.plan === null) throw invalidArgument('the request has no plan');
        const plan = parsePlan(fromDocument(request.plan));
        await withProgress(send, () => db.applyPlan(plan, { signal: call.signal }, runOptions(request)));
      }),

      Why: unary(async ({ object, kind, all }: { object: string; kind: string; all: boolean }, call) => {
        const name = { name: object, ...(kind !== '' && { kind: oneOf(kind, objectKinds) as ObjectKind }) };
        return toDocument(await db.why(call.cancellable, name, { all }));
      }),

      DiskUsage: unary(async ({ by, allNamespaces }: { by: string; allNamespaces: boolean }, call) => {
        const group = oneOf(by === '' ? 'image' : by, usageGroups) as UsageGroup;
        const context = allNamespaces ? { signal: call.signal } : call.cancellable;
        return toDocument(await db.du(context, { by: group }));
      }),

      Stats: unary((_request: typeof EMPTY) => toDocument(stats())),
    },
  };
}

function runOptions({ maxObjects, maxBytes, sliceMs = 0 }: RunRequest): RunOptions {
  return {
    ...(maxObjects > 0 && { maxObjects }),
    ...(maxBytes > 0 && { maxBytes }),
    ...(sliceMs > 0 && { sliceBudgetMs: sliceMs }),
  };
}

function oneOf(value: string, allowed: readonly string[]): string {
  if (allowed.includes(value)) return value;
  throw invalidArgument(`"${value}" is none of ${allowed.join(', ')}`, { object: value });
}

/** Sends a message now and then while the run lasts, then what it came to. */
async function withProgress(send: Send<CollectResponse>, run: () => Promise<unknown>): Promise<void> {
  const start = performance.now();
  let sending: Promise<void> = Promise.resolve();
  const timer = setInterval(() => {
    const message = { progress: { elapsedMs: performance.now() - start } };
    // One that cannot be sent is no loss: the call's own end tells of a client that has gone.
    sending = sending.then(() => send(message)).catch(() => undefined);
  }, PROGRESS_MS);
  try {
    const outcome = await run();
    await sending;
    await send({ outcome: toDocument(outcome) });
  } finally {
    clearInterval(timer);
  }
}
