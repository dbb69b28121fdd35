/**
 * The plan of one commit: what its changes mean for entries, ids and edges. Made by nodes.ts inside the commit step;
 * reads the state before the commit, changes nothing but the supply of ids.
 */
import { present } from '../../errors.js';
import { type Adjacency, type Edge, type EdgeKind, type Indexer, type Key, NodeFlag } from '../contract.js';
import { GraphOp } from '../graph.js';
import type { Ids } from './ids.js';
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
  readonly ops: Uint32Array;
  /** Undoes `ops`: groups of words in their order, each followed by its length; see `undoing`. */
  readonly inverse: Uint32Array;
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

const NO_EDGES: readonly never[] = [];
const I64_MIN = -(2n ** 63n);
const I64_MAX = 2n ** 63n - 1n;

export class Planner {
  readonly #indexer: Indexer;
  readonly #storage: Storage;
  readonly #ids: Ids;
  readonly #known: ReadonlyMap<Key, Entry | undefined>;
  readonly #drafts = new Map<Key, Draft>();
  readonly #inverse: number[] = [];
  readonly #freed = new Map<number, Key>();
  readonly #taken: number[] = [];
  readonly #deleted = new Map<number, Key>();
  #recordDelta = 0;
  /** Of the link that was set last. */
  #owner: { readonly key: Key; readonly id: number } | undefined;
  readonly ops: number[] = [];
  /** Whether the commit deletes a node or an edge. */
  mayFree = false;

  /** `known` are entries that have been read already. */
  constructor(indexer: Indexer, storage: Storage, ids: Ids, known: ReadonlyMap<Key, Entry | undefined>) {
    this.#indexer = indexer;
    this.#storage = storage;
    this.#ids = ids;
    this.#known = known;
  }

  change(records: Iterable<[Key, RecordChange]>, links: ReadonlyMap<LinkKey, boolean>): void {
    const edges: { draft: Draft; before: readonly number[]; wanted: readonly Edge[] }[] = [];
    for (const [key, change] of records) {
      const draft = this.#draft(key);
      const before = draft.adjacency?.edges ?? NO_EDGES;
      this.#setRecord(key, draft, change);
      if (change.bytes === undefined && draft.id !== NO_ID) this.#deleted.set(draft.id, key);
      const wanted = change.adjacency?.edges ?? NO_EDGES;
      if (before.length + wanted.length > 0) edges.push({ draft, before, wanted });
    }
    // Every record of the commit has its node now.
    for (const { draft, before, wanted } of edges) this.#setEdges(draft, before, wanted);
    for (const [link, present] of links) this.#setLink(link, present);
  }

  /** Takes away nodes that the graph calls free: those deleted here, and what earlier commits left. */
  free(ids: readonly number[]): void {
    for (const id of ids) {
      const key = this.#deleted.get(id) ?? this.#storage.keyOf(id);
      const draft = key === undefined ? undefined : this.#draft(key);
      if (key === undefined || draft?.id !== id || draft.adjacency !== undefined) continue;
      this.ops.push(GraphOp.free, id);
      pushSet(this.#inverse, id, this.#indexer.absent(key), undefined);
      this.#inverse.push(SET_WORDS);
      this.#freed.set(id, key);
      draft.id = NO_ID;
    }
  }

  plan(): Plan {
    const entries = new Map<Key, EntryChange>();
    for (const [key, { before, id, adjacency, bytes }] of this.#drafts) {
      const after = id === NO_ID && bytes === undefined ? undefined : { id, adjacency, bytes };
      const changed = { before, after };
      if (isChange(changed)) entries.set(key, changed);
    }
    return {
      entries,
      ops: Uint32Array.from(this.ops),
      inverse: Uint32Array.from(this.#inverse),
      freed: this.#freed,
      taken: this.#taken,
      recordDelta: this.#recordDelta,
    };
  }

  /** Words of `inverse` so far. */
  get undone(): number {
    return this.#inverse.length;
  }

  /** What takes back the first ops, up to where `undone` was `words`. */
  takingBack(words: number): Pick<Plan, 'inverse' | 'taken'> {
    return { inverse: Uint32Array.from(this.#inverse.slice(0, words)), taken: this.#taken };
  }

  #takeId(): number {
    const id = this.#ids.take();
    this.#taken.push(id);
    return id;
  }

  #draft(key: Key): Draft {
    let draft = this.#drafts.get(key);
    if (draft === undefined) {
      const known = this.#known.get(key);
      const entry = known !== undefined || this.#known.has(key) ? known : this.#storage.entry(key);
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
      this.mayFree = true;
      if (before !== undefined) this.#emitSet(draft.id, this.#indexer.absent(key), undefined, before);
      return;
    }
    const flags =
      (wanted.flags & ~NodeFlag.expires) |
      NodeFlag.present |
      (wanted.expireAt === undefined ? 0 : NodeFlag.expires);
    if (before !== undefined && change.recreated) {
      // A collection must take it for a new object, which it does when the node appears again.
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
    if (wanted.length === 0) {
      for (const edge of before) this.#emitPacked(GraphOp.remove, draft.id, edge);
      return;
    }
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
    // A lease is emptied by many links at a time.
    if (this.#owner?.key !== from) this.#owner = { key: from, id: this.#target(from) };
    this.#emitEdge(present ? GraphOp.add : GraphOp.remove, this.#owner.id, this.#target(to), kind);
  }

  /** Id of a key's node; makes a dangling one if need be. */
  #target(key: Key): number {
    if (!this.#drafts.has(key)) {
      // Most are there and stay as they are: their record need not be read.
      const id = this.#storage.idOf(key);
      if (id !== undefined) return id;
    }
    const draft = this.#draft(key);
    if (draft.id === NO_ID) {
      draft.id = this.#takeId();
      this.#emitSet(draft.id, this.#indexer.absent(key), undefined, undefined);
    }
    return draft.id;
  }

  #emitSet(
    id: number,
    flags: number,
    expireAt: bigint | undefined,
    before: { flags: number; expireAt: bigint | undefined } | undefined,
  ): void {
    pushSet(this.ops, id, flags, expireAt);
    if (before === undefined) {
      pushSet(this.#inverse, id, 0, undefined);
      this.#inverse.push(GraphOp.free, id, SET_WORDS + 2);
    } else {
      pushSet(this.#inverse, id, before.flags, before.expireAt);
      this.#inverse.push(SET_WORDS);
    }
  }

  #emitPacked(op: number, id: number, edge: number): void {
    const target = edgeTarget(edge);
    if (edgeIsBack(edge)) this.#emitEdge(op, target, id, edgeKind(edge));
    else this.#emitEdge(op, id, target, edgeKind(edge));
  }

  #emitEdge(op: number, from: number, to: number, kind: number): void {
    this.ops.push(op, from, to, kind);
    if (op === GraphOp.remove) this.mayFree = true;
    this.#inverse.push(op === GraphOp.add ? GraphOp.remove : GraphOp.add, from, to, kind, 4);
  }
}

/** Most targets of edges are looked up and stay as they are. */
function isChange({ before, after }: EntryChange): boolean {
  if (before === undefined || after === undefined) return before !== after;
  return before.id !== after.id || before.bytes !== after.bytes || before.adjacency !== after.adjacency;
}

const absentState = (flags: number) => ({ flags, expireAt: undefined });

const SET_WORDS = 5;

/** The op that makes a node look as an entry says. */
function pushSet(words: number[], id: number, flags: number, expireAt: bigint | undefined): void {
  if (expireAt === undefined) {
    words.push(GraphOp.set, id, flags & ~NodeFlag.expires, 0, 0);
    return;
  }
  const clamped = expireAt < I64_MIN ? I64_MIN : expireAt > I64_MAX ? I64_MAX : expireAt;
  const bits = BigInt.asUintN(64, clamped);
  words.push(GraphOp.set, id, flags | NodeFlag.expires, Number(bits & 0xffffffffn), Number(bits >> 32n));
}

/** The words that take back what a plan did, the last first. */
export function undoing(inverse: Uint32Array): number[] {
  const words: number[] = [];
  for (let end = inverse.length; end > 0; ) {
    const start = end - 1 - present(inverse[end - 1], 'the number of words');
    for (const word of inverse.subarray(start, end - 1)) words.push(word);
    end = start;
  }
  return words;
}

/** All edges of a record as the graph holds them: from, to, kind. */
export function expandEdges(id: number, adjacency: StoredAdjacency): [number, number, EdgeKind][] {
  return adjacency.edges.map((edge) => {
    const target = edgeTarget(edge);
    const kind = edgeKind(edge) as EdgeKind; // stored from an EdgeKind by packEdge
    return edgeIsBack(edge) ? [target, id, kind] : [id, target, kind];
  });
}

export function setOp(id: number, flags: number, expireAt: bigint | undefined): number[] {
  const words: number[] = [];
  pushSet(words, id, flags, expireAt);
  return words;
}
