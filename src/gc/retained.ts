/**
 * Who takes the disk: bytes by image, lease, namespace or snapshotter. Called by db.ts; reads only. Writers go on
 * meanwhile: the graph is of one moment, records are read while they last.
 *
 * For each row: `total` is all that is reached from it, `retained` what would go if it were removed and the store
 * collected, `shared` the rest. Bytes that several records name (a blob in two namespaces) are counted once, and are
 * freed only when the last of the records goes. Images and leases are single nodes, so one pass over the graph gives
 * what each of them dominates; namespaces and snapshotters are sets of nodes, left out one after the other.
 */
import { breathe } from '../backends/files.js';
import type { CallContext } from '../context.js';
import { components, namespaceOf } from '../engine/schema/keys.js';
import { invalidArgument, throwIfAborted } from '../errors.js';
import { type Instant, now } from '../model/time.js';
import type { CollectHost } from './collect.js';
import { dominators } from './dominators.js';
import { extraEdges, type InTurn } from './extra-edges.js';
import { Items, NO_ITEM } from './items.js';
import { describeKey } from './objects.js';
import { flatState, GraphView, idOfState, plainState } from './reach.js';
import { ResourceImage, ResourceLease, ResourceSnapshot } from './types.js';

export const usageGroups = ['image', 'lease', 'namespace', 'snapshotter'] as const;
export type UsageGroup = (typeof usageGroups)[number];

export interface UsageOptions {
  /** What the rows are; default image. */
  by?: UsageGroup | undefined;
}

/** Sizes in bytes. */
export interface UsageRow {
  /** Image name, lease id, namespace or snapshotter. */
  name: string;
  /** Images and leases only. */
  namespace?: string;
  /** Images and leases that end by themselves. */
  expiresAt?: Instant;
  total: number;
  shared: number;
  /** What a removal would free. */
  retained: number;
}

export interface UsageReport {
  by: UsageGroup;
  /** Bytes that something keeps, and bytes whose records are garbage. */
  kept: number;
  garbage: number;
  /** Most retained first. */
  rows: UsageRow[];
}

/** Rows are those of the context's namespace, if it names one. InvalidArgument for another grouping. */
export async function diskUsageBy(
  host: CollectHost,
  inTurn: InTurn,
  ctx: CallContext,
  { by = 'image' }: UsageOptions = {},
): Promise<UsageReport> {
  if (!usageGroups.includes(by)) {
    throw invalidArgument(`usage cannot be grouped by "${by}"`, {
      object: by,
      remedy: `use one of ${usageGroups.join(', ')}`,
    });
  }
  host.reader(ctx);
  const at = now();
  const extra = await extraEdges(host, inTurn, at, ctx.signal);
  const view = await GraphView.read(host.engine.graph, at, extra, ctx.signal);
  const items = await Items.read(host, view, ctx.signal);
  const usage = new Usage(host, view, items, ctx);
  const rows = by === 'image' || by === 'lease' ? await usage.single(by) : await usage.sets(by);
  rows.sort((a, b) => b.retained - a.retained || b.total - a.total || (a.name < b.name ? -1 : 1));
  return { by, ...usage.sums(), rows };
}

class Usage {
  readonly #host: CollectHost;
  readonly #view: GraphView;
  readonly #items: Items;
  readonly #ctx: CallContext;
  readonly #roots: number[];
  /** By state. */
  readonly #reached: Uint8Array;

  constructor(host: CollectHost, view: GraphView, items: Items, ctx: CallContext) {
    this.#host = host;
    this.#view = view;
    this.#items = items;
    this.#ctx = ctx;
    this.#roots = view.roots.map(plainState);
    this.#reached = view.reach(this.#roots);
  }

  sums(): { kept: number; garbage: number } {
    const kept = this.#bytes(this.#reached);
    return { kept, garbage: this.#items.sizes.reduce((sum, size) => sum + size, 0) - kept };
  }

  // --------------------------------------------------------------------------------------------- single nodes

  async single(by: 'image' | 'lease'): Promise<UsageRow[]> {
    const view = this.#view;
    const retained = this.#dominated();
    const measure = new Measure(view, this.#items);
    const type = by === 'image' ? ResourceImage : ResourceLease;
    const rows: UsageRow[] = [];
    for (let id = 0; id < view.limit; id++) {
      if (view.typeOf(id) !== type || !view.isPresent(id) || !this.#isReached(id)) continue;
      const record = this.#host.engine.keyOf(id);
      if (record === undefined) continue;
      const { namespace, key: name } = describeKey(record);
      if (!this.#isWanted(namespace)) continue;
      const state = this.#stateOf(id);
      const total = measure.from(state);
      const expiresAt = this.#host.engine.graph.expiryOf(id);
      rows.push({
        name,
        namespace,
        ...(expiresAt !== undefined && { expiresAt }),
        total,
        shared: total - retained[state]!,
        retained: retained[state]!,
      });
      if (rows.length % 256 === 0) await this.#turn();
    }
    return rows;
  }

  /**
   * Bytes that each state dominates. The flow graph has an entry before the roots, the states, and the items behind
   * the states whose nodes name them.
   */
  #dominated(): Float64Array {
    const { limit } = this.#view;
    const { ofNode, sizes } = this.#items;
    const entry = limit * 2;
    const firstItem = entry + 1;
    const successors = (node: number): number[] => {
      if (node === entry) return this.#roots;
      if (node > entry) return [];
      const next: number[] = [];
      this.#view.forEachStep(node, (to) => next.push(this.#merged(to)));
      const item = ofNode[idOfState(node)]!;
      if (item !== NO_ITEM) next.push(firstItem + item);
      return next;
    };
    const { order, immediate } = dominators({ size: firstItem + sizes.length, entry, successors });
    const bytes = new Float64Array(firstItem + sizes.length);
    for (let i = order.length - 1; i > 0; i--) {
      const node = order[i]!;
      if (node >= firstItem) bytes[node]! += sizes[node - firstItem]!;
      bytes[immediate[node]!]! += bytes[node]!;
    }
    return bytes;
  }

  /**
   * An image has one state, so that what it dominates is what its removal frees: what a flat image reaches is reached
   * by the plain one as well, where there is one.
   */
  #merged(state: number): number {
    const id = idOfState(state);
    return this.#view.typeOf(id) === ResourceImage ? this.#stateOf(id) : state;
  }

  #stateOf(id: number): number {
    return this.#reached[plainState(id)] ? plainState(id) : flatState(id);
  }

  // ------------------------------------------------------------------------------------------------------ sets

  async sets(by: 'namespace' | 'snapshotter'): Promise<UsageRow[]> {
    const groups = await this.#groups(by);
    const kept = this.#bytes(this.#reached);
    const rows: UsageRow[] = [];
    for (const [name, ids] of groups) {
      const members = new Uint8Array(this.#view.limit);
      const starts: number[] = [];
      for (const id of ids) {
        members[id] = 1;
        for (const state of [plainState(id), flatState(id)]) if (this.#reached[state]) starts.push(state);
      }
      const total = this.#bytes(this.#view.reach(starts));
      const without = this.#view.reach(this.#roots, (id) => members[id] === 1);
      const retained = kept - this.#bytes(without);
      rows.push({ name, total, shared: total - retained, retained });
      await this.#turn();
    }
    return rows;
  }

  /** Reached nodes of each namespace, or reached snapshots of each snapshotter. */
  async #groups(by: 'namespace' | 'snapshotter'): Promise<Map<string, number[]>> {
    const view = this.#view;
    const groups = new Map<string, number[]>();
    for (let id = 0; id < view.limit; id++) {
      if (id % 4096 === 4095) await this.#turn();
      if (!view.isPresent(id) || !this.#isReached(id)) continue;
      if (by === 'snapshotter' && view.typeOf(id) !== ResourceSnapshot) continue;
      const record = this.#host.engine.keyOf(id);
      if (record === undefined || !this.#isWanted(namespaceOf(record))) continue;
      const name = by === 'namespace' ? namespaceOf(record) : (components(record)[2] ?? '');
      const group = groups.get(name);
      if (group === undefined) groups.set(name, [id]);
      else group.push(id);
    }
    return groups;
  }

  // ---------------------------------------------------------------------------------------------------- shared

  #isReached(id: number): boolean {
    return (this.#reached[plainState(id)]! | this.#reached[flatState(id)]!) !== 0;
  }

  #isWanted(namespace: string): boolean {
    const wanted = this.#ctx.namespace;
    return wanted === undefined || wanted === '' || wanted === namespace;
  }

  /** Bytes of the items of reached nodes, each item once. */
  #bytes(reached: Uint8Array): number {
    const { ofNode, sizes } = this.#items;
    const counted = new Uint8Array(sizes.length);
    let bytes = 0;
    for (let id = 0; id < this.#view.limit; id++) {
      const item = ofNode[id]!;
      if (item === NO_ITEM || counted[item]) continue;
      if (!reached[plainState(id)] && !reached[flatState(id)]) continue;
      counted[item] = 1;
      bytes += sizes[item]!;
    }
    return bytes;
  }

  async #turn(): Promise<void> {
    await breathe();
    throwIfAborted(this.#ctx.signal);
  }
}

/** Bytes reached from one state after the other, without clearing anything in between. */
class Measure {
  readonly #view: GraphView;
  readonly #items: Items;
  readonly #seen: Int32Array;
  readonly #counted: Int32Array;
  #round = 0;

  constructor(view: GraphView, items: Items) {
    this.#view = view;
    this.#items = items;
    this.#seen = new Int32Array(view.limit * 2);
    this.#counted = new Int32Array(items.sizes.length);
  }

  from(start: number): number {
    const round = ++this.#round;
    const { ofNode, sizes } = this.#items;
    const open = [start];
    this.#seen[start] = round;
    let bytes = 0;
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      const item = ofNode[idOfState(state)]!;
      if (item !== NO_ITEM && this.#counted[item] !== round) {
        this.#counted[item] = round;
        bytes += sizes[item]!;
      }
      this.#view.forEachStep(state, (to) => {
        if (this.#seen[to] === round) return;
        this.#seen[to] = round;
        open.push(to);
      });
    }
    return bytes;
  }
}
