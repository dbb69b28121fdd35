/**
 * Why is an object kept: the shortest way from a root to it, or from every root; or that nothing keeps it, and when it
 * goes. Called by db.ts; reads only. Writers go on meanwhile: the result is of one moment of the call.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import type { CallContext } from '../../context.js';
import { requireNamespace } from '../../context.js';
import { type Engine, NodeFlag } from '../../engine/contract.js';
import { notFound, throwIfAborted } from '../../errors.js';
import { type Instant, zeroTime } from '../../model/time.js';
import type { CollectHost } from '../host.js';
import { labelsOf } from '../references.js';
import { EdgeReasons, type StepReason } from './edge-reasons.js';
import { type BetweenRuns, extraEdges, mayHaveExtraEdges } from './marked-run.js';
import { describeKey, findObject, type ObjectName } from './objects.js';
import { type GarbageSince, garbageSince } from './oldest.js';
import {
  END_OF_WAY,
  type ExtraEdges,
  GraphView,
  idOfState,
  isRootAt,
  NO_WAY,
  noExtraEdges,
  plainState,
} from './reach.js';

/** How much an answer has. */
export interface WhyOptions {
  /** Every root that keeps the object, not only a nearest one. */
  all?: boolean | undefined;
}

/** The host whose own a lease is, where leases are kept per host over etcd. */
export interface LeaseOwner {
  /** The host's id in the tree. */
  readonly id: string;
  /** `gone`: it has no session. */
  readonly state: 'here' | 'alive' | 'gone';
  /** When it was there last, where known. */
  readonly seen?: Instant;
}

/** One object on the way from a root. */
export interface WhyStep extends StepReason {
  /** content, snapshot, image, container, lease, ingest, sandbox or mount. */
  kind: string;
  /** Where it is. */
  namespace: string;
  /** Digest, name, id or ref; `<snapshotter>/<key>` for snapshots. */
  key: string;
  /** When it stops being a root by itself: leases, images and ingests with an expiry. */
  expiresAt?: Instant;
  /** Leases only: its labels may say who took it. */
  labels?: Readonly<Record<string, string>>;
  /** Of a root, when that is known. */
  createdAt?: Instant;
  /** Leases of one host only. */
  host?: LeaseOwner;
}

/** Why an object is kept, or since when it is garbage. */
export interface Why {
  /** The object that was found. */
  object: { kind: string; namespace: string; key: string };
  /** Whether a root reaches it. */
  state: 'kept' | 'garbage';
  /** Roots first, the object last; the shortest way first. Empty for garbage. */
  paths: WhyStep[][];
  /** With `all`, when every root expires: when the last one has, by the wall clock. */
  keptUntil?: Instant;
  /** Garbage only. */
  since?: GarbageSince;
  /** Garbage only. */
  goes?: 'with the next collection';
}

/** NotFound and InvalidArgument as `findObject`; FailedPrecondition without a namespace. */
export async function why(
  host: CollectHost,
  betweenRuns: BetweenRuns,
  ctx: CallContext,
  object: ObjectName,
  { all = false }: WhyOptions = {},
): Promise<Why> {
  const { engine } = host;
  const ns = requireNamespace(ctx);
  const record = await host.read(ctx, (reader) => findObject(reader, [...host.backends.keys()], ns, object));
  const id = engine.idOf(record);
  if (id === undefined) throw notFound(`"${object.name}" was removed meanwhile`, { object: object.name });
  const at = host.expiryClock.now();
  const teller = new Teller(engine, at);
  const nearest = all ? undefined : engine.graph.path(id, at);
  const ways = nearest
    ? [[...nearest]]
    : await farther(host, betweenRuns, { id, at, all }, teller, ctx.signal);
  const described = describeKey(record);
  if (ways.length === 0) return { object: described, state: 'garbage', paths: [], ...teller.garbage(id) };
  const paths: WhyStep[][] = [];
  for (const way of ways) {
    paths.push(teller.path(way));
    if (paths.length % 64 === 0) await yieldToEventLoop();
  }
  const until = all ? lastExpiry(paths) : undefined;
  const kept = until === undefined ? {} : { keptUntil: host.expiryClock.wallAt(until) };
  return { object: described, state: 'kept', paths, ...kept };
}

interface Question {
  id: number;
  at: Instant;
  all: boolean;
}

/** Ways that the core does not find: from every root, or over edges that it does not know. */
async function farther(
  host: CollectHost,
  betweenRuns: BetweenRuns,
  { id, at, all }: Question,
  teller: Teller,
  signal: AbortSignal | undefined,
): Promise<number[][]> {
  if (!all && !mayHaveExtraEdges(host)) return [];
  const extra = await extraEdges(host, betweenRuns, at, signal);
  teller.extra = extra;
  const view = await GraphView.read(host.engine.graph, at, extra, signal);
  throwIfAborted(signal);
  if (id >= view.limit) return [];
  const next = view.waysTo(id);
  const ways: number[][] = [];
  for (const root of view.roots) {
    if (next[plainState(root)] === NO_WAY) continue;
    const way: number[] = [];
    for (let state = plainState(root); state !== END_OF_WAY; state = next[state] ?? END_OF_WAY)
      way.push(idOfState(state));
    ways.push(way);
  }
  ways.sort((a, b) => a.length - b.length || (a[0] ?? 0) - (b[0] ?? 0));
  return all ? ways : ways.slice(0, 1);
}

/** The latest of the roots' expiries; undefined when one of them stays for good. */
function lastExpiry(paths: readonly WhyStep[][]): Instant | undefined {
  let last: Instant = zeroTime;
  for (const [root] of paths) {
    if (root?.expiresAt === undefined) return undefined;
    if (root.expiresAt > last) last = root.expiresAt;
  }
  return last;
}

/** Converts ids to steps. */
class Teller {
  extra: ExtraEdges = noExtraEdges;
  readonly #engine: Engine;
  readonly #at: Instant;
  readonly #reasons: EdgeReasons;

  constructor(engine: Engine, at: Instant) {
    this.#engine = engine;
    this.#at = at;
    this.#reasons = new EdgeReasons(engine);
  }

  path(way: readonly number[]): WhyStep[] {
    return way.map((id, i) => {
      const before = way[i - 1];
      return this.#step(id, before === undefined ? this.#rootReason(id) : this.#reasons.of(before, id));
    });
  }

  garbage(id: number): Pick<Why, 'since' | 'goes'> {
    const since = garbageSince(this.#engine, id);
    return { ...(since && { since }), goes: 'with the next collection' };
  }

  #rootReason(id: number): StepReason {
    const { graph } = this.#engine;
    const own = isRootAt(graph.flagsOf(id), graph.expiryOf(id), this.#at);
    if (!own && this.extra.roots.has(id)) return { via: 'collector', name: '' };
    return this.#reasons.ofRoot(id);
  }

  #step(id: number, reason: StepReason): WhyStep {
    const record = this.#engine.keyOf(id);
    if (record === undefined) return { kind: 'record', namespace: '', key: '(gone)', ...reason };
    const { kind, namespace, key } = describeKey(record);
    const step: WhyStep = { kind, namespace, key, ...reason };
    const { graph } = this.#engine;
    const expiry = graph.flagsOf(id) & NodeFlag.root ? graph.expiryOf(id) : undefined;
    if (expiry !== undefined) step.expiresAt = expiry;
    if (kind !== 'lease') return step;
    const value = this.#engine.get(record);
    const created = typeof value === 'object' ? value.createdat : undefined;
    if (typeof created === 'bigint') step.createdAt = created;
    // Labels of a stored lease are texts.
    step.labels = { ...(labelsOf(value) as Record<string, string>) };
    return step;
  }
}
