/**
 * What reports know of reachability that is not in the graph: a run that marks as a collection does and removes
 * nothing, and the edges that it adds, conditional references that hold now and what collectors say is in use. Called by
 * why.ts, retained.ts and oldest.ts, after one collection and before the next.
 */
import { NodeFlag } from '../../engine/contract.js';
import type { Instant } from '../../model/time.js';
import { endCollectors, startCollectors } from '../collectors.js';
import type { CollectHost } from '../host.js';
import { conditionTargets, RunEdges } from '../mark/run-edges.js';
import { type ExtraEdges, noExtraEdges } from './reach.js';

/** Calls `look` while everything that is reached is marked. */
export async function whileMarked<T>(
  host: CollectHost,
  at: Instant,
  signal: AbortSignal | undefined,
  look: (edges: RunEdges) => T | Promise<T>,
): Promise<T> {
  const warn = (message: string, details: Readonly<Record<string, unknown>>): void =>
    host.log('warn', message, details);
  const { engine } = host;
  const started = await startCollectors(host.collectors, signal, warn);
  try {
    await engine.graph.mark(at, signal ? { signal } : {});
    try {
      const edges = new RunEdges(engine, started, at, signal);
      await edges.followAll();
      return await look(edges);
    } finally {
      engine.graph.endRun();
    }
  } finally {
    await endCollectors(started, 'cancel', warn);
  }
}

/** Runs something as a collection of its own: after the one under way, and before the next. */
export type BetweenRuns = <T>(run: () => Promise<T>) => Promise<T>;

/** Whether there can be any: then the graph alone does not show what is kept. */
export function mayHaveExtraEdges({ engine, collectors }: CollectHost): boolean {
  if (collectors.size > 0) return true;
  return engine.graph.withFlags(NodeFlag.conditional | NodeFlag.present).length > 0;
}

/**
 * Conditions are read from the records; collectors can only be asked within a run, so where some are registered one is made.
 */
export async function extraEdges(
  host: CollectHost,
  betweenRuns: BetweenRuns,
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
  const inUse = () => whileMarked(host, at, signal, ({ fromCollectors }) => fromCollectors);
  const roots = host.collectors.size === 0 ? new Set<number>() : await betweenRuns(inUse);
  return { edges, roots };
}
