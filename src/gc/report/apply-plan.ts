/**
 * Applying a plan: removes those of its objects that are garbage still, and nothing else; before that, the roots that a
 * policy retires. What is in use again, was replaced under its name, or is gone is reported and left alone. Called by db.ts.
 */
import type { Engine, Key } from '../../engine/contract.js';
import { Relation } from '../../engine/schema/keys.js';
import { failedPrecondition } from '../../errors.js';
import { type CollectOptions, collect } from '../collect.js';
import type { CollectHost } from '../host.js';
import type { Candidate, GCStats } from '../stats.js';
import { checkMass, massGuard } from '../sweep/mass-guard.js';
import type { BackendItem } from '../sweep/orphan-candidates.js';
import { isUnnamed } from '../sweep/sweep.js';
import { identityOf, itemOfOrphan, orphanCandidate } from './dry-run.js';
import { keyOfPlanned, type Plan, type PolicyPlan, parsePlan, type RestReason } from './plan.js';
import { type Retirement, retire } from './retire.js';

/** What became of a plan's objects. */
export interface PlanOutcome {
  /** Revision of the store when the plan was applied. */
  revision: number;
  /** Those that were removed; retired roots first. */
  removed: Candidate[];
  /** Those that were left alone, and why. */
  rest: (Candidate & { reason: RestReason })[];
  /** Of the collection; its counts have the retired roots, too. */
  stats: GCStats;
}

const NO_ROOTS: Retirement = { removed: [], rest: [] };

/** FailedPrecondition for a plan of a later revision: it belongs to another store, or this one was set back. */
export async function applyPlan(
  host: CollectHost,
  plan: Plan,
  options: CollectOptions = {},
): Promise<PlanOutcome> {
  const { engine } = host;
  const checked = parsePlan(plan);
  if (checked.revision > engine.revision) {
    throw failedPrecondition(
      `the plan is of revision ${checked.revision}, the store is at ${engine.revision} only`,
      { remedy: 'make a plan of this store: ebbtide gc --plan FILE' },
    );
  }
  const roots = checked.version === 2 ? await retireRoots(host, checked, options) : NO_ROOTS;
  const records = checked.objects.filter(({ orphan }) => !orphan);
  const selection = new Selection(engine, records);
  const orphans = await PlannedOrphans.look(
    host,
    checked.objects.filter(({ orphan }) => orphan),
  );
  const only = {
    choose: (ids: Uint32Array) => selection.choose(ids),
    orphans: orphans.items,
    retired: roots.removed,
  };
  // The roots of a policy's plan are gone: what that frees has passed the guard with them.
  const guard = checked.version === 2 ? { massGuard: false } : {};
  const stats = await collect(host, { ...options, ...guard, only });
  const { removed, rest } = selection.outcome();
  const left = await orphans.outcome();
  return {
    revision: stats.revision,
    removed: [...roots.removed, ...removed, ...left.removed],
    rest: [...roots.rest, ...rest, ...left.rest],
    stats,
  };
}

/** FailedPrecondition, and nothing is retired, when the mass guard stops what the plan removes. */
async function retireRoots(
  host: CollectHost,
  { retired, objects }: PolicyPlan,
  options: CollectOptions,
): Promise<Retirement> {
  const { engine } = host;
  const guard = massGuard(options.massGuard);
  if (guard !== undefined) {
    const going = new Set<number>();
    for (const object of [...retired, ...objects]) {
      const record = keyOfPlanned(object);
      const id = record === undefined ? undefined : engine.idOf(record);
      if (id !== undefined) going.add(id);
    }
    await checkMass(engine, Uint32Array.from(going), guard, { isKept: (id) => !going.has(id) });
  }
  return retire(host, retired, options.signal);
}

interface Planned {
  readonly object: Candidate;
  readonly record: Key;
  /** Undefined while it is to be removed. */
  reason?: RestReason;
}

/** The objects of one plan, and what becomes of them. */
class Selection {
  readonly #engine: Engine;
  readonly #planned: Planned[];

  constructor(engine: Engine, objects: readonly Candidate[]) {
    this.#engine = engine;
    this.#planned = objects.map((object) => ({ object, record: keyOfPlanned(object) ?? '' }));
  }

  /** Those of a run's candidates that are in the plan, in the run's order. */
  choose(candidates: Uint32Array): Uint32Array {
    const garbage = new Set(candidates);
    const chosen = new Set<number>();
    for (const planned of this.#planned) {
      const id = this.#engine.idOf(planned.record);
      const present = this.#presence(planned);
      if (present !== 'there') planned.reason = present;
      else if (id === undefined || !garbage.has(id)) planned.reason = 'in use';
      else chosen.add(id);
    }
    return candidates.filter((id) => chosen.has(id));
  }

  /** To be called after the run. */
  outcome(): Pick<PlanOutcome, 'removed' | 'rest'> {
    const removed: Candidate[] = [];
    const rest: PlanOutcome['rest'] = [];
    for (const planned of this.#planned) {
      const reason = planned.reason ?? this.#leftBecause(planned);
      if (reason === undefined) removed.push(planned.object);
      else rest.push({ ...planned.object, reason });
    }
    return { removed, rest };
  }

  #presence({ record, object }: Planned): 'there' | 'gone' | 'replaced' {
    const value = this.#engine.get(record);
    if (value === undefined) return 'gone';
    return identityOf(value) === object.identity ? 'there' : 'replaced';
  }

  #leftBecause(planned: Planned): RestReason | undefined {
    if (this.#presence(planned) !== 'there') return undefined;
    return this.#engine.hasLinks(planned.record, Relation.children) ? 'has a child' : 'in use';
  }
}

/** The orphans of one plan, and what becomes of them. */
class PlannedOrphans {
  readonly #host: CollectHost;
  readonly #planned: { object: Candidate; item: BackendItem; reason?: RestReason }[];

  private constructor(host: CollectHost, objects: readonly Candidate[]) {
    this.#host = host;
    this.#planned = objects.flatMap((object) => {
      const item = itemOfOrphan(object);
      return item === undefined ? [] : [{ object, item }];
    });
  }

  static async look(host: CollectHost, objects: readonly Candidate[]): Promise<PlannedOrphans> {
    const orphans = new PlannedOrphans(host, objects);
    for (const planned of orphans.#planned) {
      const reason = await orphans.#reasonToLeave(planned.item);
      if (reason !== undefined) planned.reason = reason;
    }
    return orphans;
  }

  /** Those that are still orphans; the sweep asks again. */
  get items(): BackendItem[] {
    return this.#planned.filter(({ reason }) => reason === undefined).map(({ item }) => item);
  }

  /** To be called after the run. */
  async outcome(): Promise<Pick<PlanOutcome, 'removed' | 'rest'>> {
    const removed: Candidate[] = [];
    const rest: PlanOutcome['rest'] = [];
    for (const { object, item, reason } of this.#planned) {
      if (reason !== undefined) rest.push({ ...object, reason });
      else if ((await this.#reasonToLeave(item)) === 'gone') removed.push(object);
      else rest.push({ ...object, reason: item.kind === 'snapshot' ? 'has a child' : 'in use' });
    }
    return { removed, rest };
  }

  async #reasonToLeave(item: BackendItem): Promise<'gone' | 'in use' | undefined> {
    if ((await orphanCandidate(this.#host, item, undefined)) === undefined) return 'gone';
    return (await isUnnamed(this.#host, item)) ? undefined : 'in use';
  }
}
