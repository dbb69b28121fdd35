/**
 * Edges for reports that are not in the graph: conditional references that hold now, and what collectors say is in use.
 * Called by why.ts and retained.ts. Conditions are read from the records; collectors can only be asked within a run, so
 * where some are registered one is made that marks and removes nothing.
 */
import { NodeFlag } from '../engine/contract.js';
import type { Instant } from '../model/time.js';
import { endCollectors, startCollectors } from './collectors.js';
import type { CollectHost } from './host.js';
import { type ExtraEdges, noExtraEdges } from './reach.js';
import { conditionTargets, RunEdges } from './run-edges.js';

/** Runs something as a collection of its own: after the one under way, and before the next. */
export type InTurn = <T>(run: () => Promise<T>) => Promise<T>;

/** Whether there can be any: then the graph alone does not tell what is kept. */
export function mayHaveExtraEdges({ engine, collectors }: CollectHost): boolean {
  if (collectors.size > 0) return true;
  return engine.graph.withFlags(NodeFlag.conditional | NodeFlag.present).length > 0;
}

export async function extraEdges(
  host: CollectHost,
  inTurn: InTurn,
  at: Instant,
  signal?: AbortSignal,
): Promise<ExtraEdges> {
  if (!mayHaveExtraEdges(host)) return noExtraEdges;
  const { engine } = host;
  const edges = new Map<number, number[]>();
  for (const id of engine.graph.withFlags(NodeFlag.conditional | NodeFlag.present)) {
    const targets = [...conditionTargets(engine, id, at)];
    if (targets.length > 0) edges.set(id, targets);
  }
  const roots = host.collectors.size === 0 ? new Set<number>() : await inTurn(() => inUse(host, at, signal));
  return { edges, roots };
}

/** Records that collectors name, in one run that ends without a removal. */
async function inUse(
  host: CollectHost,
  at: Instant,
  signal: AbortSignal | undefined,
): Promise<ReadonlySet<number>> {
  const warn = (message: string, details: Readonly<Record<string, unknown>>): void =>
    host.log('warn', message, details);
  const { graph } = host.engine;
  const started = await startCollectors(host.collectors, signal, warn);
  try {
    await graph.mark(at, signal ? { signal } : {});
    try {
      const edges = new RunEdges(host.engine, started, at, signal);
      await edges.settle();
      return edges.fromCollectors;
    } finally {
      graph.endRun();
    }
  } finally {
    await endCollectors(started, 'cancel', warn);
  }
}
