/**
 * A run for reports: marks as a collection does, with what collectors and conditions add, and removes nothing. Called in
 * turn with collections.
 */
import type { Instant } from '../model/time.js';
import { endCollectors, startCollectors } from './collectors.js';
import type { CollectHost } from './host.js';
import { RunEdges } from './run-edges.js';

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
      await edges.settle();
      return await look(edges);
    } finally {
      engine.graph.endRun();
    }
  } finally {
    await endCollectors(started, 'cancel', warn);
  }
}
