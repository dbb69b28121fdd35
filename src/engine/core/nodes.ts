/**
 * Keeps the graph beside the records: turns the changes of one commit into new entries, ids and graph ops.
 * Called by engine.ts inside the commit step, so everything here is synchronous and sees the newest state.
 *
 * A key has a node while it has a record that the indexer knows, or while anything refers to it. The node of a
 * deleted record goes at once when nothing refers to it, else as soon as a later commit finds it free.
 */
import { type Adjacency, type Edge, type EdgeKind, type Indexer, type Key, NodeFlag } from '../contract.js';
import { type GraphCore, GraphOp } from '../graph.js';
import { Ids } from './ids.js';
import {
  type Entry,
  type EntryChange,
  edgeIsBack,
  edgeKind,
  edgeTarget,
  type LinkKey,
  NO_ID,
  packEdge,
  type Storage,
  type StoredAdjacency,
  splitLink,
} from './storage.js';

/** What a transaction wants stored under a key. */
export interface RecordChange {
  /** Encoded value; undefined deletes. */
  readonly bytes: Uint8Array | undefined;
  readonly adjacency: Adjacency | undefined;
  /** A record of that key was deleted earlier in the same transaction: the node is a new one to a collection. */
  readonly recreated: boolean;
}

export interface Plan {
  readonly entries: Map<Key, EntryChange>;
  readonly ops: number[];
  /** Undoes `ops`; groups of words, in the order of `ops` (run the last group first). */
  readonly inverse: number[][];
  readonly freed: Map<number, Key>;
  /** Ids that were handed out. */
  readonly taken: number[];
  readonly recordDelta: number;
}

interface Draft {
  readonly before: Entry | undefined;
  id: number;
  adjacency: StoredAdjacency | undefined;
  bytes: Uint8Array | undefined;
}

/** In-degrees at and above this are not exact (graph.ts). */
const SATURATED = 255;
/** Nodes that became free outside their own commit, removed by one commit. */
const FREED_PER_COMMIT = 256;
const I64_MIN = -(2n ** 63n);
const I64_MAX = 2n ** 63n - 1n;

export class Nodes {
  readonly #graph: GraphCore;
  readonly #indexer: Indexer;
  readonly #storage: Storage;
  #ids: Ids;
  #freeable: number[] = [];

  constructor(graph: GraphCore, indexer: Indexer, storage: Storage) {
    this.#graph = graph;
    this.#indexer = indexer;
    this.#storage = storage;
    this.#ids = new Ids(graph);
  }

  plan(records: Iterable<[Key, RecordChange]>, links: ReadonlyMap<LinkKey, boolean>): Plan {
    return new Planner(this.#graph, this.#indexer, this.#storage, this.#ids, () => this.#takeFreeable()).run(
      records,
      links,
    );
  }

  /** After the commit was handed over. */
  done(plan: Plan): void {
    for (const id of plan.freed.keys()) this.#ids.giveBack(id);
  }

  /** After the commit was lost, and every later one was undone. */
  undone(plan: Pick<Plan, 'freed' | 'taken'>): void {
    for (const id of plan.taken) this.#ids.giveBack(id);
    this.#ids.forget(plan.freed);
    this.#freeable = [];
  }

  #takeFreeable(): number[] {
    if (this.#freeable.length === 0) this.#freeable = Array.from(this.#graph.takeFreeable());
    return this.#freeable.splice(-FREED_PER_COMMIT);
  }
}

class Planner {
  readonly #graph: GraphCore;
  readonly #indexer: Indexer;
  readonly #storage: Storage;
  readonly #ids: Ids;
  readonly #takeFreeable: () => number[];
  readonly #drafts = new Map<Key, Draft>();
  readonly #ops: number[] = [];
  readonly #inverse: number[][] = [];
  readonly #freed = new Map<number, Key>();
  readonly #taken: number[] = [];
  /** Changes of in- and out-degrees by this commit. */
  readonly #inDelta = new Map<number, number>();
  readonly #outDelta = new Map<number, number>();
  #recordDelta = 0;

  constructor(graph: GraphCore, indexer: Indexer, storage: Storage, ids: Ids, takeFreeable: () => number[]) {
    this.#graph = graph;
    this.#indexer = indexer;
    this.#storage = storage;
    this.#ids = ids;
    this.#takeFreeable = takeFreeable;
  }

  run(records: Iterable<[Key, RecordChange]>, links: ReadonlyMap<LinkKey, boolean>): Plan {
    const deleted: Key[] = [];
    const edges: { draft: Draft; before: readonly number[]; wanted: readonly Edge[] }[] = [];
    for (const [key, change] of records) {
      const draft = this.#draft(key);
      const before = draft.adjacency?.edges ?? [];
      this.#setRecord(key, draft, change);
      if (change.bytes === undefined) deleted.push(key);
      edges.push({ draft, before, wanted: change.adjacency?.edges ?? [] });
    }
    for (const { draft, before, wanted } of edges) this.#setEdges(draft, before, wanted);
    for (const [link, present] of links) this.#setLink(link, present);
    this.#free(deleted);
    const entries = new Map<Key, EntryChange>();
    for (const [key, { before, ...after }] of this.#drafts) {
      const changed = { before, after: after.id === NO_ID && after.bytes === undefined ? undefined : after };
      if (isChange(changed)) entries.set(key, changed);
    }
    return {
      entries,
      ops: this.#ops,
      inverse: this.#inverse,
      freed: this.#freed,
      taken: this.#taken,
      recordDelta: this.#recordDelta,
    };
  }

  #takeId(): number {
    const id = this.#ids.take();
    this.#taken.push(id);
    return id;
  }

  #draft(key: Key): Draft {
    let draft = this.#drafts.get(key);
    if (draft === undefined) {
      const entry = this.#storage.entry(key);
      draft = { before: entry, id: entry?.id ?? NO_ID, adjacency: entry?.adjacency, bytes: entry?.bytes };
      this.#drafts.set(key, draft);
    }
    return draft;
  }

  #setRecord(key: Key, draft: Draft, change: RecordChange): void {
    this.#recordDelta += (change.bytes === undefined ? 0 : 1) - (draft.bytes === undefined ? 0 : 1);
    const before = draft.adjacency;
    const wanted = change.adjacency;
    draft.bytes = change.bytes;
    if (wanted === undefined) {
      draft.adjacency = undefined;
      if (before !== undefined) this.#emitSet(draft.id, this.#indexer.absent(key), undefined, before);
      return;
    }
    const flags =
      (wanted.flags & ~NodeFlag.expires) |
      NodeFlag.present |
      (wanted.expireAt === undefined ? 0 : NodeFlag.expires);
    if (before !== undefined && change.recreated) {
      // A collection must take it for a new object, which it does when the node appears anew.
      const absent = this.#indexer.absent(key);
      this.#emitSet(draft.id, absent, undefined, before);
      this.#emitSet(draft.id, flags, wanted.expireAt, { flags: absent, expireAt: undefined });
    } else if (before === undefined || before.flags !== flags || before.expireAt !== wanted.expireAt) {
      const old = before ?? (draft.id === NO_ID ? undefined : absentState(this.#indexer.absent(key)));
      if (draft.id === NO_ID) draft.id = this.#takeId();
      this.#emitSet(draft.id, flags, wanted.expireAt, old);
    }
    // Edges follow when every node of the commit has its id.
    draft.adjacency = { flags, expireAt: wanted.expireAt, edges: [] };
  }

  #setEdges(draft: Draft, before: readonly number[], wanted: readonly Edge[]): void {
    const edges = wanted.map((edge) => packEdge(this.#target(edge.to), edge.kind, edge.back === true));
    if (draft.adjacency !== undefined) draft.adjacency = { ...draft.adjacency, edges };
    if (before.length === edges.length && before.every((edge, i) => edge === edges[i])) return;
    const surplus = new Map<number, number>();
    for (const edge of before) surplus.set(edge, (surplus.get(edge) ?? 0) + 1);
    for (const edge of edges) {
      const count = surplus.get(edge) ?? 0;
      if (count > 0) surplus.set(edge, count - 1);
      else this.#emitPacked(GraphOp.add, draft.id, edge);
    }
    for (const [edge, count] of surplus) {
      for (let i = 0; i < count; i++) this.#emitPacked(GraphOp.remove, draft.id, edge);
    }
  }

  #setLink(link: LinkKey, present: boolean): void {
    const { from, relation, to } = splitLink(link);
    const kind = this.#indexer.link(from, relation, to);
    if (kind === undefined) return;
    this.#emitEdge(present ? GraphOp.add : GraphOp.remove, this.#target(from), this.#target(to), kind);
  }

  /** Id of a key's node; makes a dangling one if need be. */
  #target(key: Key): number {
    const draft = this.#draft(key);
    if (draft.id === NO_ID) {
      draft.id = this.#takeId();
      this.#emitSet(draft.id, this.#indexer.absent(key), undefined, undefined);
    }
    return draft.id;
  }

  /** Frees the nodes of records deleted here, and those that earlier commits left free. */
  #free(deleted: readonly Key[]): void {
    // While ops are queued the graph's answers lag behind; what is free will be told later.
    if (this.#graph.stats().queuedWords > 0) return;
    for (const key of deleted) {
      const draft = this.#draft(key);
      if (draft.id !== NO_ID && draft.adjacency === undefined && this.#isFree(draft.id)) {
        this.#freeNode(key, draft);
      }
    }
    for (const id of this.#takeFreeable()) {
      const key = this.#storage.keyOf(id);
      // Those this commit touches are told again if they end up free.
      if (key === undefined || this.#drafts.has(key) || this.#freed.has(id) || !this.#isFree(id)) continue;
      if ((this.#graph.flagsOf(id) & NodeFlag.present) !== 0) continue;
      const draft = this.#draft(key);
      if (draft.id === id && draft.adjacency === undefined) this.#freeNode(key, draft);
    }
  }

  #isFree(id: number): boolean {
    const inDegree = this.#graph.inDegreeOf(id);
    if (inDegree >= SATURATED || inDegree + (this.#inDelta.get(id) ?? 0) !== 0) return false;
    return this.#graph.edgesOf(id).length / 2 + (this.#outDelta.get(id) ?? 0) === 0;
  }

  #freeNode(key: Key, draft: Draft): void {
    this.#ops.push(GraphOp.free, draft.id);
    this.#inverse.push(setWords(draft.id, this.#indexer.absent(key), undefined));
    this.#freed.set(draft.id, key);
    draft.id = NO_ID;
  }

  #emitSet(
    id: number,
    flags: number,
    expireAt: bigint | undefined,
    before: { flags: number; expireAt: bigint | undefined } | undefined,
  ): void {
    this.#ops.push(...setWords(id, flags, expireAt));
    this.#inverse.push(
      before === undefined
        ? [...setWords(id, 0, undefined), GraphOp.free, id]
        : setWords(id, before.flags, before.expireAt),
    );
  }

  #emitPacked(op: number, id: number, edge: number): void {
    const target = edgeTarget(edge);
    if (edgeIsBack(edge)) this.#emitEdge(op, target, id, edgeKind(edge));
    else this.#emitEdge(op, id, target, edgeKind(edge));
  }

  #emitEdge(op: number, from: number, to: number, kind: number): void {
    this.#ops.push(op, from, to, kind);
    this.#inverse.push([op === GraphOp.add ? GraphOp.remove : GraphOp.add, from, to, kind]);
    const delta = op === GraphOp.add ? 1 : -1;
    this.#outDelta.set(from, (this.#outDelta.get(from) ?? 0) + delta);
    this.#inDelta.set(to, (this.#inDelta.get(to) ?? 0) + delta);
  }
}

/** Most targets of edges are looked up and stay as they are. */
function isChange({ before, after }: EntryChange): boolean {
  if (before === undefined || after === undefined) return before !== after;
  return before.id !== after.id || before.bytes !== after.bytes || before.adjacency !== after.adjacency;
}

const absentState = (flags: number) => ({ flags, expireAt: undefined });

function setWords(id: number, flags: number, expireAt: bigint | undefined): number[] {
  if (expireAt === undefined) return [GraphOp.set, id, flags & ~NodeFlag.expires, 0, 0];
  const clamped = expireAt < I64_MIN ? I64_MIN : expireAt > I64_MAX ? I64_MAX : expireAt;
  const words = BigInt.asUintN(64, clamped);
  return [GraphOp.set, id, flags | NodeFlag.expires, Number(words & 0xffffffffn), Number(words >> 32n)];
}

/** All edges of a record as the graph holds them: from, to, kind. */
export function expandEdges(id: number, adjacency: StoredAdjacency): [number, number, EdgeKind][] {
  return adjacency.edges.map((edge) => {
    const target = edgeTarget(edge);
    const kind = edgeKind(edge) as EdgeKind; // stored from an EdgeKind by packEdge
    return edgeIsBack(edge) ? [target, id, kind] : [id, target, kind];
  });
}

/** The op that makes a node look as an entry says. */
export const setOp = setWords;
