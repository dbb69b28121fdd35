/**
 * `ebbtide/opentelemetry`: the tracing channels (tracing.ts) as spans. Needs the package `@opentelemetry/api`, which ebbtide
 * does not install.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { tracingChannel } from 'node:diagnostics_channel';
import {
  type Attributes,
  type Context,
  context,
  type Span,
  SpanStatusCode,
  type TracerProvider,
  trace,
} from '@opentelemetry/api';
import { kindOf } from './errors.js';
import type { GCStats } from './gc/stats.js';
import type { BackendTrace, CollectionTrace, TransactionTrace } from './tracing.js';

/** Of an operation that has ended, `result` or `error` as Node sets them. */
type Ended<T> = T & { readonly result?: unknown; readonly error?: unknown };

/** Of the operation that the caller is in. */
interface Around {
  /** The caller's own context at its start. As long as that is the same, spans go below `inner`. */
  readonly active: Context;
  readonly inner: Context;
}

interface Kind {
  name(operation: never): string;
  /** At the beginning. */
  attributes(operation: never): Attributes;
  /** At the end. */
  outcome(operation: never): Attributes;
}

const kinds: Readonly<Record<string, Kind>> = {
  'ebbtide:transaction': {
    name: () => 'ebbtide transaction',
    attributes: ({ namespace }: TransactionTrace) => ({ 'ebbtide.namespace': namespace }),
    outcome: ({ attempts }: TransactionTrace) => ({ 'ebbtide.attempts': attempts }),
  },
  'ebbtide:collection': {
    name: () => 'ebbtide collection',
    attributes: ({ dryRun, fullSweep }: CollectionTrace) => ({
      'ebbtide.dry_run': dryRun,
      'ebbtide.full_sweep': fullSweep,
    }),
    outcome: ({ result }: Ended<CollectionTrace>) => {
      if (result === undefined) return {};
      const { removed, bytesFreed } = result as GCStats;
      return {
        'ebbtide.removed': Object.values(removed).reduce((sum, count) => sum + count, 0),
        'ebbtide.bytes_freed': bytesFreed,
      };
    },
  },
  'ebbtide:backend': {
    name: ({ backend, operation }: BackendTrace) => `ebbtide ${backend} ${operation}`,
    attributes: ({ backend, operation, object }: BackendTrace) => ({
      'ebbtide.backend': backend,
      'ebbtide.operation': operation,
      ...(object !== undefined && { 'ebbtide.object': object }),
    }),
    outcome: () => ({}),
  },
};

/**
 * Makes a span of every transaction, collection and backend call from now on, below the span that is active where the call is
 * made, or else below the operation around it. Without `provider` the global one. The returned function ends it.
 */
export function traceWithOpenTelemetry(provider: TracerProvider = trace.getTracerProvider()): () => void {
  const tracer = provider.getTracer('ebbtide');
  const spans = new WeakMap<object, Span>();
  const around = new AsyncLocalStorage<Around>();
  const undo: (() => void)[] = [];
  for (const [channelName, { name, attributes, outcome }] of Object.entries(kinds)) {
    const channel = tracingChannel<Around, object>(channelName);
    const finish = (operation: object): void => {
      const span = spans.get(operation);
      if (span === undefined) return;
      spans.delete(operation);
      span.setAttributes(outcome(operation as never));
      const { error } = operation as Ended<object>;
      if (error !== undefined) {
        span.recordException(error as Error);
        span.setStatus({ code: SpanStatusCode.ERROR, message: kindOf(error) });
      }
      span.end();
    };
    channel.start.bindStore(around, (operation) => {
      const active = context.active();
      const outer = around.getStore();
      const parent = outer?.active === active ? outer.inner : active;
      const options = { attributes: attributes(operation as never) };
      const span = tracer.startSpan(name(operation as never), options, parent);
      spans.set(operation, span);
      return { active, inner: trace.setSpan(parent, span) };
    });
    const subscribers = {
      start: () => undefined,
      // An operation that threw before it had a promise has no asynchronous end.
      end: (operation: object) => 'error' in operation && finish(operation),
      asyncStart: () => undefined,
      asyncEnd: finish,
      error: () => undefined,
    };
    channel.subscribe(subscribers);
    undo.push(() => {
      channel.unsubscribe(subscribers);
      channel.start.unbindStore(around);
    });
  }
  return () => {
    for (const step of undo) step();
  };
}
