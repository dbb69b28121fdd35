/**
 * Tracing channels of `node:diagnostics_channel`, for a program that wants to see what takes time: `ebbtide:transaction`,
 * `ebbtide:collection` and `ebbtide:backend`. Each operation publishes the events of `TracingChannel.tracePromise` (start, end,
 * asyncStart, asyncEnd, error) with one context object, below; `result` and `error` are set by Node when it ends. Without
 * a subscriber an operation costs a comparison. Called by db-host.ts, db.ts and open.ts.
 */
import { tracingChannel } from 'node:diagnostics_channel';
import type { ContentBackend, SnapshotterBackend } from './backends/contract.js';

/** A transaction that writes: from the call to the moment it is as durable as asked for, or visible to the caller's next read. */
export interface TransactionTrace {
  /** '' when the context has none. */
  readonly namespace: string;
  /** Attempts of the body so far; more than one after a conflict. */
  attempts: number;
}

/** A collection, its wait for another one included. `result` is its GCStats. */
export interface CollectionTrace {
  /** Whether it removes nothing. */
  readonly dryRun: boolean;
  /** Whether it surveys every backend. */
  readonly fullSweep: boolean;
}

/** A call of a backend, as src/backends/contract.ts has it. */
export interface BackendTrace {
  /** `content`, or the name of the snapshotter. */
  readonly backend: string;
  /** Name of the method. */
  readonly operation: string;
  /** The digest, ref, key or name it was called with; undefined when it takes none, or several. */
  readonly object: string | undefined;
}

interface Traces {
  transaction: TransactionTrace;
  collection: CollectionTrace;
  backend: BackendTrace;
}

const channels = {
  transaction: tracingChannel<unknown, TransactionTrace>('ebbtide:transaction'),
  collection: tracingChannel<unknown, CollectionTrace>('ebbtide:collection'),
  backend: tracingChannel<unknown, BackendTrace>('ebbtide:backend'),
};

const STAGES = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'] as const;

/** Runs `work`, between events if there is a subscriber; only then `context` is made. */
export function traced<Name extends keyof Traces, T>(
  name: Name,
  context: () => Traces[Name],
  work: (trace: Traces[Name] | undefined) => Promise<T>,
): Promise<T> {
  const channel = channels[name];
  if (!STAGES.some((stage) => channel[stage].hasSubscribers)) return work(undefined);
  const trace = context();
  return channel.tracePromise(() => work(trace), trace as never) as Promise<T>;
}

/** Those that take a moment; what else a backend has goes through. */
const OPERATIONS: ReadonlySet<string> = new Set<keyof ContentBackend | keyof SnapshotterBackend>([
  ...(['info', 'readerAt', 'delete', 'deleteMany', 'abort', 'writer', 'status', 'listStatuses'] as const),
  ...(['stat', 'update', 'usage', 'mounts', 'prepare', 'view', 'commit', 'remove', 'write'] as const),
  ...(['walk', 'walkStatusRefs', 'cleanup', 'inspect', 'setAside', 'damagedIngests'] as const),
]);

/** The backend, whose operations publish events. */
export function tracedBackend<B extends ContentBackend | SnapshotterBackend>(name: string, backend: B): B {
  const methods = new Map<string | symbol, unknown>();
  return new Proxy(backend, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property, target);
      if (typeof value !== 'function') return value;
      let method = methods.get(property);
      if (method === undefined) {
        const call = value.bind(target) as (...args: unknown[]) => Promise<unknown>;
        method = OPERATIONS.has(String(property))
          ? (...args: unknown[]) => {
              const trace = () => ({ backend: name, operation: String(property), object: objectOf(args[0]) });
              return traced('backend', trace, () => call(...args));
            }
          : call;
        methods.set(property, method);
      }
      return method;
    },
  });
}

function objectOf(argument: unknown): string | undefined {
  if (typeof argument === 'string') return argument;
  const name = (argument as { name?: unknown } | null | undefined)?.name;
  return typeof name === 'string' && typeof argument === 'object' ? name : undefined;
}
