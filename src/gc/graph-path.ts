/**
 * Why is a node kept: a shortest path from a root to it. Used by the TypeScript graph core; native/path.cc is its
 * twin and must answer the same path.
 *
 * Of several shortest paths the one is taken that a breadth-first search finds when every state remembers its
 * smallest predecessor in the level before. A state is (id, variant) as id × 2, + 1 when reached flat.
 */
import { EdgeKind } from '../engine/contract.js';

interface Edges {
  forEachEdge(id: number, visit: (word: number, times: number) => void): void;
}

/** @param roots ascending. Answers ids, the root first; undefined when there is no path. */
export function shortestPath(graph: Edges, roots: readonly number[], id: number): Uint32Array | undefined {
  const came = new Map<number, number>();
  for (const root of roots) came.set(root * 2, -1);
  let level = roots.map((root) => root * 2);
  while (level.length > 0 && !came.has(id * 2) && !came.has(id * 2 + 1)) {
    const next = new Map<number, number>();
    for (const state of level) {
      graph.forEachEdge(state >>> 1, (word) => {
        const to = successor(state, word);
        if (to === undefined || came.has(to)) return;
        const smallest = next.get(to);
        if (smallest === undefined || state < smallest) next.set(to, state);
      });
    }
    for (const [state, from] of next) came.set(state, from);
    level = [...next.keys()];
  }
  const end = [id * 2, id * 2 + 1].find((state) => came.has(state));
  if (end === undefined) return undefined;
  const path: number[] = [];
  for (let state = end; state >= 0; state = came.get(state)!) path.push(state >>> 1);
  return Uint32Array.from(path.reverse());
}

function successor(state: number, word: number): number | undefined {
  const to = (word >>> 2) * 2;
  const kind = word & 3;
  if (state & 1) return kind === EdgeKind.structural ? to + 1 : undefined;
  return kind === EdgeKind.flat ? to + 1 : to;
}
