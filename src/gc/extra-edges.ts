/**
 * Edges for reports that are not in the graph: conditional references that hold now, and what collectors say is in use.
 * Called by why.ts and retained.ts. Conditions are read from the records; collectors can only be asked within a run, so
 * where some are registered one is made that marks and removes nothing.
 */
import { NodeFlag } from '../engine/contract.js';
import type { Instant } from '../model/time.js';
import type { CollectHost } from './host.js';
import { type ExtraEdges, noExtraEdges } from './reach.js';
import { conditionTargets } from './run-edges.js';
import { whileMarked } from './while-marked.js';

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
  const inUse = () => whileMarked(host, at, signal, ({ fromCollectors }) => fromCollectors);
  const roots = host.collectors.size === 0 ? new Set<number>() : await inTurn(inUse);
  return { edges, roots };
}
