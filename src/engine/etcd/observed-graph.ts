/**
 * The graph as the etcd engine hands it out: it calls `asked` when it is asked what is garbage still, because the commit of
 * the caller depends on every reference there is in the tree. Called by engine.ts.
 */
import type { GraphCore } from '../graph.js';

export function observedGraph(current: () => GraphCore, asked: () => void): GraphCore {
  const graph = current();
  const methods = new Map<PropertyKey, unknown>();
  const stillCandidates = (ids: Uint32Array): Uint32Array => {
    asked();
    return graph.stillCandidates(ids);
  };
  methods.set('stillCandidates', stillCandidates);
  return new Proxy(graph, {
    get: (target, name) => {
      // Throws when the graph must not be relied on any more.
      current();
      const known = methods.get(name);
      if (known !== undefined) return known;
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      const method = value.bind(target);
      methods.set(name, method);
      return method;
    },
  });
}
