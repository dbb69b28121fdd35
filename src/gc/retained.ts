/**
 * Who takes the disk: bytes by image, lease, namespace or snapshotter. Called by db.ts; reads only. Writers go on
 * meanwhile: the graph is of one moment, records are read while they last.
 *
 * For each row: `total` is all that is reached from it, `retained` what would go if it were removed and the store
 * collected, `shared` the rest. Bytes that several records name (a blob in two namespaces) are counted once, and are
 * freed only when the last of the records goes.
 */
import { breathe } from '../backends/files.js';
import type { CallContext } from '../context.js';
import { components, namespaceOf } from '../engine/schema/keys.js';
import { invalidArgument, throwIfAborted } from '../errors.js';
import { type Instant, now } from '../model/time.js';
import type { CollectHost } from './collect.js';
import { extraEdges, type InTurn } from './extra-edges.js';
import { Removals } from './impact.js';
import { Items } from './items.js';
import { describeKey } from './objects.js';
import { flatState, GraphView, plainState } from './reach.js';
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
  /** By state. */
  readonly #reached: Uint8Array;
  readonly #removals: Removals;

  constructor(host: CollectHost, view: GraphView, items: Items, ctx: CallContext) {
    this.#host = host;
    this.#view = view;
    this.#items = items;
    this.#ctx = ctx;
    this.#reached = view.reach(view.roots.map(plainState));
    this.#removals = new Removals(view, items, this.#reached);
  }

  sums(): { kept: number; garbage: number } {
    const kept = this.#keptBytes();
    return { kept, garbage: this.#items.sizes.reduce((sum, size) => sum + size, 0) - kept };
  }

  async single(by: 'image' | 'lease'): Promise<UsageRow[]> {
    const view = this.#view;
    const { engine } = this.#host;
    const type = by === 'image' ? ResourceImage : ResourceLease;
    const rows: UsageRow[] = [];
    for (let id = 0; id < view.limit; id++) {
      if (view.typeOf(id) !== type || !view.isPresent(id) || !this.#isReached(id)) continue;
      const record = engine.keyOf(id);
      if (record === undefined) continue;
      const { namespace, key: name } = describeKey(record);
      if (!this.#isWanted(namespace)) continue;
      const expiresAt = engine.graph.expiryOf(id);
      rows.push({ name, namespace, ...(expiresAt !== undefined && { expiresAt }), ...this.#sizes([id]) });
      if (rows.length % 256 === 0) await this.#turn();
    }
    return rows;
  }

  async sets(by: 'namespace' | 'snapshotter'): Promise<UsageRow[]> {
    const rows: UsageRow[] = [];
    for (const [name, ids] of await this.#groups(by)) {
      rows.push({ name, ...this.#sizes(ids) });
      await this.#turn();
    }
    return rows;
  }

  #sizes(ids: readonly number[]): Pick<UsageRow, 'total' | 'shared' | 'retained'> {
    const { total, retained } = this.#removals.of(ids);
    return { total, shared: total - retained, retained };
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

  #isReached(id: number): boolean {
    return (this.#reached[plainState(id)]! | this.#reached[flatState(id)]!) !== 0;
  }

  #isWanted(namespace: string): boolean {
    const wanted = this.#ctx.namespace;
    return wanted === undefined || wanted === '' || wanted === namespace;
  }

  /** Bytes of the items of reached nodes, each item once. */
  #keptBytes(): number {
    let bytes = 0;
    for (const [item, size] of this.#items.sizes.entries()) {
      if (this.#items.someNamer(item, (id) => this.#isReached(id))) bytes += size;
    }
    return bytes;
  }

  async #turn(): Promise<void> {
    await breathe();
    throwIfAborted(this.#ctx.signal);
  }
}
