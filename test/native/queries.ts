/**
 * Random queries of retained sizes, and the results by definition: what is reachable with a set and
 * what without it. Shared by the tests of the graph cores.
 */
import fc from 'fast-check';
import { NO_ITEM, type RetainedQuery, type RetainedSizes } from '../../src/engine/graph.js';
import { label, type Model } from './cores.js';

const words = (numbers: readonly number[]): Uint32Array => Uint32Array.from(numbers);

/** Over ids below `ids`, some of which may not exist; items shared by several nodes, sets that overlap or are empty. */
export function aQuery(ids: number): fc.Arbitrary<RetainedQuery> {
  const id = fc.nat(ids + 1);
  return fc
    .record({
      now: fc.bigInt({ min: -3n, max: 3n }),
      sizes: fc.array(fc.nat(1000), { minLength: 1, maxLength: ids }),
      items: fc.array(fc.option(fc.nat(ids - 1), { nil: NO_ITEM }), { maxLength: ids + 3 }),
      sets: fc.array(fc.array(id, { maxLength: 4 }), { maxLength: 6 }),
      roots: fc.array(id, { maxLength: 2 }),
      edges: fc.array(fc.tuple(id, id), { maxLength: 4 }),
    })
    .map(({ now, sizes, items, sets, roots, edges }) => {
      let end = 0;
      return {
        now,
        sizes: Float64Array.from(sizes),
        itemOf: words(items.map((item) => (item === NO_ITEM ? item : item % sizes.length))),
        members: words(sets.flat()),
        ends: words(
          sets.map((set) => {
            end += set.length;
            return end;
          }),
        ),
        roots: words(roots),
        edges: words(edges.flat()),
      };
    });
}

/** Sets of a query. */
function setsOf({ members, ends }: RetainedQuery): Set<number>[] {
  return [...ends].map((end, n) => new Set(members.subarray(n === 0 ? 0 : ends[n - 1]!, end)));
}

/** The result by definition. */
export function retainedOf(model: Model, query: RetainedQuery): Omit<RetainedSizes, 'durationMs'> {
  const exists = (id: number): boolean => model.nodes.has(id);
  const roots = new Set([...(query.roots ?? [])].filter(exists));
  const pairs = [...(query.edges ?? [])];
  const before = model.edges.length;
  for (let i = 0; i < pairs.length; i += 2) {
    const [from = 0, to = 0] = pairs.slice(i);
    if (exists(from) && exists(to)) model.edges.push({ from, to, kind: label });
  }
  try {
    const reach = (gone: Set<number>): Set<number> => {
      const { plain, flat } = model.reachable(query.now, { gone, roots });
      return new Set([...plain, ...flat]);
    };
    const bytes = (ids: Iterable<number>): number => {
      const items = new Set(
        [...ids].map((id) => query.itemOf[id] ?? NO_ITEM).filter((item) => item !== NO_ITEM),
      );
      return [...items].reduce((sum, item) => sum + query.sizes[item]!, 0);
    };
    const kept = reach(new Set());
    const sets = setsOf(query);
    return {
      kept: bytes(kept),
      total: Float64Array.from(sets, (set) => bytes(below(model, query, roots, set))),
      retained: Float64Array.from(sets, (set) => bytes(kept) - bytes(reach(set))),
      reached: Uint32Array.from(sets, (set) => [...set].filter((id) => kept.has(id)).length),
    };
  } finally {
    model.edges.length = before;
  }
}

/** Nodes reached from the reached variants of a set. */
function below(model: Model, { now }: RetainedQuery, roots: Set<number>, set: Set<number>): Set<number> {
  const { plain, flat } = model.reachable(now, { roots });
  const found = {
    plain: new Set([...set].filter((id) => plain.has(id))),
    flat: new Set([...set].filter((id) => flat.has(id))),
  };
  for (let grown = true; grown; ) {
    const size = found.plain.size + found.flat.size;
    for (const { from, to, kind } of model.edges) {
      if (found.plain.has(from)) (kind === 2 ? found.flat : found.plain).add(to);
      if (found.flat.has(from) && kind === 1) found.flat.add(to);
    }
    grown = found.plain.size + found.flat.size > size;
  }
  return new Set([...found.plain, ...found.flat]);
}
