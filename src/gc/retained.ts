/**
 * Who takes the disk: bytes by image, lease, namespace or snapshotter. Called by db.ts; reads only. Writers go on
 * meanwhile: records are read while they last, then the graph core says for one moment what goes with what.
 *
 * For each row: `total` is all that is reached from it, `retained` what would go if it were removed and the store
 * collected, `shared` the rest. Bytes that several records name (a blob in two namespaces) are counted once, and are
 * freed only when the last of the records goes.
 */
import { breathe } from '../backends/files.js';
import type { CallContext } from '../context.js';
import { NodeFlag } from '../engine/contract.js';
import type { RetainedQuery } from '../engine/graph.js';
import { components, namespaceOf } from '../engine/schema/keys.js';
import { invalidArgument, throwIfAborted } from '../errors.js';
import type { Instant } from '../model/time.js';
import { extraEdges, type InTurn } from './extra-edges.js';
import type { CollectHost } from './host.js';
import { Items, presentNodes } from './items.js';
import { describeKey } from './objects.js';
import type { ExtraEdges } from './reach.js';
import { ResourceImage, ResourceLease, ResourceSnapshot } from './types.js';
import type { LeaseOwner } from './why.js';

/** Nodes looked at before other work gets its turn. */
const NODES_PER_TURN = 4096;

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
  /** Leases of one host only. */
  host?: LeaseOwner;
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
  const at = host.expiryClock.now();
  const { graph } = host.engine;
  const extra = await extraEdges(host, inTurn, at, ctx.signal);
  const items = await Items.read(host, ctx.signal);
  const groups = await new Groups(host, ctx).by(by);
  const sizes = await graph.retained(queryOf(at, items, groups, extra), { signal: ctx.signal });
  const rows: UsageRow[] = [];
  for (const [n, { ids: _, ...group }] of groups.entries()) {
    if (sizes.reached[n] === 0) continue;
    const [total, retained] = [sizes.total[n]!, sizes.retained[n]!];
    rows.push({ ...group, total, shared: total - retained, retained });
  }
  rows.sort((a, b) => b.retained - a.retained || b.total - a.total || (a.name < b.name ? -1 : 1));
  const all = items.sizes.reduce((sum, size) => sum + size, 0);
  return { by, kept: sizes.kept, garbage: all - sizes.kept, rows };
}

/** The rows to be, each with the ids of its nodes. */
interface Group {
  readonly name: string;
  readonly namespace?: string;
  readonly expiresAt?: Instant;
  readonly ids: readonly number[];
}

class Groups {
  readonly #host: CollectHost;
  readonly #ctx: CallContext;

  constructor(host: CollectHost, ctx: CallContext) {
    this.#host = host;
    this.#ctx = ctx;
  }

  by(group: UsageGroup): Promise<Group[]> {
    return group === 'image' || group === 'lease' ? this.#single(group) : this.#sets(group);
  }

  async #single(by: 'image' | 'lease'): Promise<Group[]> {
    const { engine } = this.#host;
    const groups: Group[] = [];
    for (const id of presentNodes(engine.graph, by === 'image' ? ResourceImage : ResourceLease)) {
      const record = engine.keyOf(id);
      if (record === undefined) continue;
      const { namespace, key: name } = describeKey(record);
      if (!this.#isWanted(namespace)) continue;
      const expiresAt = engine.graph.expiryOf(id);
      groups.push({ name, namespace, ...(expiresAt !== undefined && { expiresAt }), ids: [id] });
      if (groups.length % NODES_PER_TURN === 0) await this.#turn();
    }
    return groups;
  }

  /** All nodes of each namespace, or all snapshots of each snapshotter. */
  async #sets(by: 'namespace' | 'snapshotter'): Promise<Group[]> {
    const { engine } = this.#host;
    const nodes =
      by === 'namespace'
        ? engine.graph.withFlags(NodeFlag.present)
        : presentNodes(engine.graph, ResourceSnapshot);
    const groups = new Map<string, number[]>();
    for (const [n, id] of nodes.entries()) {
      if (n % NODES_PER_TURN === NODES_PER_TURN - 1) await this.#turn();
      const record = engine.keyOf(id);
      if (record === undefined || !this.#isWanted(namespaceOf(record))) continue;
      const name = by === 'namespace' ? namespaceOf(record) : (components(record)[2] ?? '');
      const group = groups.get(name);
      if (group === undefined) groups.set(name, [id]);
      else group.push(id);
    }
    return [...groups].map(([name, ids]) => ({ name, ids }));
  }

  #isWanted(namespace: string): boolean {
    const wanted = this.#ctx.namespace;
    return wanted === undefined || wanted === '' || wanted === namespace;
  }

  async #turn(): Promise<void> {
    await breathe();
    throwIfAborted(this.#ctx.signal);
  }
}

function queryOf(
  now: Instant,
  items: Items,
  groups: readonly Group[],
  { edges, roots }: ExtraEdges,
): RetainedQuery {
  let end = 0;
  const pairs = [...edges].flatMap(([from, targets]) => targets.flatMap((to) => [from, to]));
  const ends = Uint32Array.from(groups, ({ ids }) => {
    end += ids.length;
    return end;
  });
  const members = new Uint32Array(end);
  for (const [n, { ids }] of groups.entries()) members.set(ids, ends[n]! - ids.length);
  return {
    now,
    itemOf: items.ofNode,
    sizes: Float64Array.from(items.sizes),
    members,
    ends,
    roots: Uint32Array.from(roots),
    edges: Uint32Array.from(pairs),
  };
}
