/**
 * What the tests of the graph core share: the core by each of its carriers, readable batches of ops, and a naive model that
 * says what every call must return.
 */
import { EdgeKind, NodeFlag } from '../../src/engine/contract.js';
import { type GraphCore, GraphOp } from '../../src/engine/graph.js';
import { createGraph } from '../../src/graph/carriers.js';
import { addonError, loadAddon } from '../../src/system/addon.js';

/** Why the addon is not tested; undefined when it is. */
export const nativeMissing: string | undefined =
  loadAddon('ebbtide_core') === undefined ? addonError('ebbtide_core') : undefined;

/** What brings the core here. */
export const kinds: readonly GraphCore['kind'][] =
  nativeMissing === undefined ? ['native', 'wasm'] : ['wasm'];

export const newCore = (kind: GraphCore['kind']): GraphCore => createGraph(kind);

export const P = NodeFlag.present;
export const R = NodeFlag.root;
export const X = NodeFlag.expires;
export const C = NodeFlag.collectible;
export const { label, structural, flat } = EdgeKind;

export const set = (id: number, flags: number, expiry = 0n): number[] => [
  GraphOp.set,
  id,
  flags,
  Number(BigInt.asUintN(32, expiry)),
  Number(BigInt.asUintN(32, expiry >> 32n)),
];
export const free = (id: number): number[] => [GraphOp.free, id];
export const add = (from: number, to: number, kind: number): number[] => [GraphOp.add, from, to, kind];
export const remove = (from: number, to: number, kind: number): number[] => [GraphOp.remove, from, to, kind];
export const batch = (...ops: number[][]): Uint32Array => Uint32Array.from(ops.flat());

export interface ModelEdge {
  from: number;
  to: number;
  kind: number;
}

/** A graph as two plain maps, and reachability as the definition has it. */
export class Model {
  readonly nodes = new Map<number, { flags: number; expiry: bigint }>();
  edges: ModelEdge[] = [];

  /** Takes ops that a core has taken. */
  follow(ops: number[][]): void {
    for (const [code, a = 0, b = 0, c = 0, d = 0] of ops) {
      if (code === GraphOp.set) {
        this.nodes.set(a, { flags: b, expiry: BigInt.asIntN(64, (BigInt(d) << 32n) | BigInt(c)) });
      } else if (code === GraphOp.free) this.nodes.delete(a);
      else if (code === GraphOp.add) this.edges.push({ from: a, to: b, kind: c });
      else {
        const at = this.edges.findIndex((e) => e.from === a && e.to === b && e.kind === c);
        this.edges.splice(at, 1);
      }
    }
  }

  /** From the roots at that time and those of `roots`, as if the nodes of `gone` were not there. */
  reachable(
    now: bigint,
    { gone = new Set<number>(), roots = new Set<number>() } = {},
  ): { plain: Set<number>; flat: Set<number> } {
    const plain = new Set<number>();
    const flatly = new Set<number>();
    for (const [id, { flags, expiry }] of this.nodes) {
      const isRoot = roots.has(id) || (flags & R && !(flags & X && now > expiry));
      if (isRoot && !gone.has(id)) plain.add(id);
    }
    for (let grown = true; grown; ) {
      const before = plain.size + flatly.size;
      for (const { from, to, kind } of this.edges) {
        if (gone.has(to)) continue;
        if (plain.has(from)) (kind === flat ? flatly : plain).add(to);
        if (flatly.has(from) && kind === structural) flatly.add(to);
      }
      grown = plain.size + flatly.size > before;
    }
    return { plain, flat: flatly };
  }
}

/** A core, or the oracle. */
type Described = Pick<
  GraphCore,
  | 'flagsOf'
  | 'inDegreeOf'
  | 'expiryOf'
  | 'edgesOf'
  | 'rows'
  | 'unusedIds'
  | 'withFlags'
  | 'path'
  | 'marksOf'
  | 'candidates'
  | 'stillCandidates'
> & { stats(): { nodes: number; edges: number; limit: number } };

/** Everything a core says about its graph, in comparable form. */
export function describeGraph(core: Described, ids: number): unknown {
  const { nodes, edges, limit } = core.stats();
  return {
    stats: { nodes, edges, limit },
    nodes: Array.from({ length: ids }, (_, id) => ({
      flags: core.flagsOf(id),
      inDegree: core.inDegreeOf(id),
      expiry: core.expiryOf(id),
      edges: [...core.edgesOf(id)],
    })),
    rows: [...core.rows(0, ids + 2)],
    rowsLater: [...core.rows(3, 2)],
    unused: [...core.unusedIds(0, 1000)],
    unusedLater: [...core.unusedIds(3, 2)],
    flagged: [0, P, R, P | C, NodeFlag.conditional, NodeFlag.foreign | P].map((f) => [...core.withFlags(f)]),
    paths: Array.from({ length: ids }, (_, id) => core.path(id, 0n)?.join()),
  };
}

/** What a run of a core shows. */
export function describeRun(core: Described, ids: number): unknown {
  const all = Uint32Array.from({ length: ids + 2 }, (_, id) => id);
  return {
    marks: [...all].map((id) => core.marksOf(id)),
    candidates: [...core.candidates()],
    still: [...core.stillCandidates(all.toReversed())],
  };
}
