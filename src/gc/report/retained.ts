/**
 * What takes the disk: bytes by root, of every kind or of one, by namespace or by snapshotter. Called by db.ts; reads only. Writers go on
 * meanwhile: records are read while they last, then the graph core says for one moment what goes with what.
 *
 * For each row: `total` is all that is reached from it, `retained` what would go if it were removed and the store
 * collected, `shared` the rest. Bytes that several records name (a blob in two namespaces) are counted once, and are
 * freed only when the last of the records goes.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import type { CallContext } from '../../context.js';
import { NodeFlag } from '../../engine/contract.js';
import type { RetainedQuery } from '../../engine/graph.js';
import { components, namespaceOf } from '../../engine/schema/keys.js';
import { invalidArgument, notFound, throwIfAborted } from '../../errors.js';
import type { Instant } from '../../model/time.js';
import type { CollectHost } from '../host.js';
import {
  ResourceContainer,
  ResourceContent,
  ResourceImage,
  ResourceIngest,
  ResourceLease,
  ResourceSnapshot,
  ResourceUnknown,
} from '../types.js';
import { type DiskReport, MeasuredDisk } from './disk-report.js';
import { Items, presentNodes } from './items.js';
import { type BetweenRuns, extraEdges } from './marked-run.js';
import { describeKey } from './objects.js';
import { type DatedObject, oldestGarbage, oldestLease } from './oldest.js';
import type { ExtraEdges } from './reach.js';
import type { LeaseOwner } from './why.js';

/** Nodes looked at between two pauses. */
const NODES_PER_PAUSE = 4096;

const typeOfKind = {
  image: ResourceImage,
  container: ResourceContainer,
  lease: ResourceLease,
  sandbox: ResourceUnknown,
  ingest: ResourceIngest,
} as const;
type SingleKind = keyof typeof typeOfKind;

/**
 * `root`: everything that keeps itself, of all these kinds, by a `gc.root` label, and what collectors say is in use. `none`: no
 * rows, the whole store only.
 */
export const usageGroups = [
  'root',
  'image',
  'container',
  'lease',
  'sandbox',
  'ingest',
  'label',
  'collector',
  'namespace',
  'snapshotter',
  'none',
] as const;
/** What the rows of a usage report are of. */
export type UsageGroup = (typeof usageGroups)[number];

/** What a usage report is to have. */
export interface UsageOptions {
  /** What the rows are; default image. */
  by?: UsageGroup | undefined;
  /** Names of rows, or KIND/NAME: also say what the removal of all of them would free together. */
  without?: readonly string[] | undefined;
  /**
   * Also measure the directories, as `du` does, and find the oldest garbage: reads them all, and waits for a collection under
   * way. Sizes are then what the disk has, of ingests too, instead of what the records say.
   */
  disk?: boolean | undefined;
}

/** Sizes in bytes. */
export interface UsageRow {
  /** image, container, lease, sandbox, ingest; content or snapshot with a label; namespace, snapshotter. */
  kind: string;
  /** Image name, id, ref, digest, SNAPSHOTTER/KEY, namespace or snapshotter. */
  name: string;
  /** Single objects only. */
  namespace?: string;
  /** Objects that end by themselves. */
  expiresAt?: Instant;
  /** Leases of one host only. */
  host?: LeaseOwner;
  /** Bytes that it reaches. */
  total: number;
  /** Bytes that others keep too. */
  shared: number;
  /** What a removal would free. */
  retained: number;
}

/** Bytes of a store, by what keeps them. */
export interface UsageReport {
  /** What the rows are of. */
  by: UsageGroup;
  /** Bytes that something keeps, and bytes whose records are garbage. */
  kept: number;
  /** Bytes that nothing keeps. */
  garbage: number;
  /** Most retained first. */
  rows: UsageRow[];
  /**
   * All rows together: what they reach; of that, what one of them alone keeps; the rest, which several do, or something that
   * is not a row; what the removal of all would free.
   */
  all: { total: number; alone: number; shared: number; retained: number };
  /** What the removal of the named rows would free. */
  without?: { names: string[]; total: number; retained: number };
  /** With `disk`. */
  disk?: DiskReport;
  /** With `disk`: since when, as `why` says it, for what has been garbage for longest. */
  oldestGarbage?: DatedObject;
  /** With `disk`: of the leases that have not expired, when it was made. */
  oldestLease?: DatedObject;
}

/** Rows are those of the context's namespace, if it names one. InvalidArgument for another grouping. */
export async function diskUsageBy(
  host: CollectHost,
  betweenRuns: BetweenRuns,
  ctx: CallContext,
  { by = 'image', without = [], disk = false }: UsageOptions = {},
): Promise<UsageReport> {
  if (!usageGroups.includes(by)) {
    throw invalidArgument(`usage cannot be grouped by "${by}"`, {
      object: by,
      remedy: `use one of ${usageGroups.join(', ')}`,
    });
  }
  // The graph is read by all that follows.
  await host.read(ctx, () => undefined);
  const at = host.expiryClock.now();
  const { graph } = host.engine;
  const extra = await extraEdges(host, betweenRuns, at, ctx.signal);
  // Before the records, which name what is found.
  const measured = disk ? await MeasuredDisk.read(host, ctx.signal) : undefined;
  const items = await Items.read(host, measured, { signal: ctx.signal });
  const groups = await new Groups(host, ctx, extra.roots).by(by);
  const sets = [...groups, union(groups)];
  if (without.length > 0) sets.push(together(groups, without));
  const sizes = await graph.retained(queryOf(at, items, sets, extra), { signal: ctx.signal });
  const ingests = measured && (await ingestSizes(host, measured, at, sets, extra, ctx.signal));
  const sizesOf = (n: number) => ({
    total: (sizes.total[n] ?? 0) + (ingests?.total[n] ?? 0),
    retained: (sizes.retained[n] ?? 0) + (ingests?.retained[n] ?? 0),
  });
  const rows: UsageRow[] = [];
  for (const [n, { ids: _, ...group }] of groups.entries()) {
    const { total, retained } = sizesOf(n);
    if (sizes.reached[n] !== 0) rows.push({ ...group, total, shared: total - retained, retained });
  }
  rows.sort((a, b) => b.retained - a.retained || b.total - a.total || (a.name < b.name ? -1 : 1));
  const unfinished = ingests === undefined ? 0 : ingests.bytes - ingests.kept;
  const garbage = bytesOf(items) - sizes.kept + unfinished;
  return {
    by,
    kept: sizes.kept,
    garbage,
    rows,
    all: allOf(rows, sizesOf(groups.length)),
    ...(without.length > 0 && { without: { names: [...without], ...sizesOf(groups.length + 1) } }),
    ...(measured && { disk: measured.report({ kept: sizes.kept, garbage, ingests: unfinished }) }),
    ...(disk && (await oldestOf(host, betweenRuns, ctx.signal))),
  };
}

const bytesOf = ({ sizes }: Items): number => sizes.reduce((sum, size) => sum + size, 0);

/** What the rows have of unfinished ingests. */
async function ingestSizes(
  host: CollectHost,
  measured: MeasuredDisk,
  at: Instant,
  sets: readonly Group[],
  extra: ExtraEdges,
  signal: AbortSignal | undefined,
) {
  const items = await Items.ofIngests(host, measured, signal);
  if (items.sizes.length === 0) return undefined;
  return {
    bytes: bytesOf(items),
    ...(await host.engine.graph.retained(queryOf(at, items, sets, extra), { signal })),
  };
}

/** A row that another one keeps can free the same bytes as that one. */
function allOf(
  rows: readonly UsageRow[],
  { total, retained }: { total: number; retained: number },
): UsageReport['all'] {
  const alone = Math.min(
    total,
    rows.reduce((sum, row) => sum + row.retained, 0),
  );
  return { total, alone, shared: total - alone, retained };
}

async function oldestOf(
  host: CollectHost,
  betweenRuns: BetweenRuns,
  signal: AbortSignal | undefined,
): Promise<Pick<UsageReport, 'oldestGarbage' | 'oldestLease'>> {
  const at = host.expiryClock.now();
  const garbage = await betweenRuns(() => oldestGarbage(host, at, signal));
  const lease = await oldestLease(host, at, signal);
  return { ...(garbage && { oldestGarbage: garbage }), ...(lease && { oldestLease: lease }) };
}

const union = (groups: readonly Group[]): Group => ({
  kind: '',
  name: '',
  ids: [...new Set(groups.flatMap(({ ids }) => ids))],
});

/** One set of all the rows that are named. NotFound for a name without a row, InvalidArgument for one of several. */
function together(groups: readonly Group[], names: readonly string[]): Group {
  const ids = names.flatMap((name) => {
    const found = groups.filter((one) => one.name === name || `${one.kind}/${one.name}` === name);
    const [first, ...others] = found;
    if (first === undefined) {
      throw notFound(`no row of this report is named "${name}"`, {
        object: name,
        remedy: 'see `ebbtide du`; --by and -A choose the rows',
      });
    }
    if (others.length === 0) return [...first.ids];
    throw invalidArgument(`several rows are named "${name}"`, {
      object: name,
      remedy: `name one of ${found.map(({ kind }) => `${kind}/${name}`).join(', ')}, or a single namespace`,
    });
  });
  return { kind: '', name: '', ids: [...new Set(ids)] };
}

/** The rows to be, each with the ids of its nodes. */
interface Group {
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
  readonly expiresAt?: Instant;
  readonly ids: readonly number[];
}

class Groups {
  readonly #host: CollectHost;
  readonly #ctx: CallContext;
  readonly #inUse: ReadonlySet<number>;

  /** @param inUse what collectors name */
  constructor(host: CollectHost, ctx: CallContext, inUse: ReadonlySet<number>) {
    this.#host = host;
    this.#ctx = ctx;
    this.#inUse = inUse;
  }

  by(group: UsageGroup): Promise<Group[]> {
    if (group === 'none') return Promise.resolve([]);
    return group === 'namespace' || group === 'snapshotter'
      ? this.#sets(group)
      : this.#single(this.#nodes(group));
  }

  #nodes(group: Exclude<UsageGroup, 'namespace' | 'snapshotter' | 'none'>): Iterable<number> {
    const { graph } = this.#host.engine;
    if (group === 'collector') return this.#inUse;
    const roots = graph.withFlags(NodeFlag.present | NodeFlag.root);
    if (group === 'root') return new Set([...roots, ...this.#inUse]);
    const typeOf = (id: number): number => graph.flagsOf(id) >>> 8;
    if (group !== 'label') return presentNodes(graph, typeOfKind[group satisfies SingleKind]);
    return roots.filter((id) => typeOf(id) === ResourceContent || typeOf(id) === ResourceSnapshot);
  }

  async #single(ids: Iterable<number>): Promise<Group[]> {
    const { engine } = this.#host;
    const groups: Group[] = [];
    for (const id of ids) {
      const record = engine.keyOf(id);
      if (record === undefined) continue;
      const { kind, namespace, key: name } = describeKey(record);
      if (!this.#isWanted(namespace)) continue;
      const expiresAt = engine.graph.expiryOf(id);
      groups.push({ kind, name, namespace, ...(expiresAt !== undefined && { expiresAt }), ids: [id] });
      if (groups.length % NODES_PER_PAUSE === 0) await this.#pause();
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
      if (n % NODES_PER_PAUSE === NODES_PER_PAUSE - 1) await this.#pause();
      const record = engine.keyOf(id);
      if (record === undefined || !this.#isWanted(namespaceOf(record))) continue;
      const name = by === 'namespace' ? namespaceOf(record) : (components(record)[2] ?? '');
      const group = groups.get(name);
      if (group === undefined) groups.set(name, [id]);
      else group.push(id);
    }
    return [...groups].map(([name, ids]) => ({ kind: by, name, ids }));
  }

  #isWanted(namespace: string): boolean {
    const wanted = this.#ctx.namespace;
    return wanted === undefined || wanted === '' || wanted === namespace;
  }

  async #pause(): Promise<void> {
    await yieldToEventLoop();
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
  for (const [n, { ids }] of groups.entries()) members.set(ids, (ends[n] ?? 0) - ids.length);
  return {
    now,
    itemOf: items.ofNode,
    sizes: items.sizes,
    members,
    ends,
    roots: Uint32Array.from(roots),
    edges: Uint32Array.from(pairs),
  };
}
