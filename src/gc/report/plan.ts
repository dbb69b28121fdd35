/**
 * Plans: what a collection would remove, written down to be looked at and applied later. Called by db.ts and the command
 * line. A plan is plain JSON. Applying one removes those of its objects that are garbage still, and nothing else: an
 * object that is in use again, was replaced under its name, or is gone is reported and left alone.
 */
import type { Engine, Key } from '../../engine/contract.js';
import { Relation } from '../../engine/schema/keys.js';
import { failedPrecondition, invalidArgument } from '../../errors.js';
import { formatTimestamp, now } from '../../model/time.js';
import { type CollectOptions, collect } from '../collect.js';
import type { CollectHost } from '../host.js';
import type { Candidate, GCStats } from '../stats.js';
import type { BackendItem } from '../sweep/orphan-candidates.js';
import { isUnnamed } from '../sweep/sweep.js';
import { keyOfNode, kindName, ResourceMax } from '../types.js';
import { identityOf, itemOfOrphan, orphanCandidate } from './dry-run.js';

export interface CollectionPlan {
  format: 'ebbtide-plan';
  version: 1;
  /** RFC 3339. */
  createdAt: string;
  /** Revision of the store the plan was made from. */
  revision: number;
  /** Bytes of all objects. */
  bytes: number;
  /** In the order of removal. */
  objects: Candidate[];
}

/** Why an object of a plan was not removed. */
export type RestReason =
  /** Removed before, by another run or a client. */
  | 'gone'
  /** Another object has its name now. */
  | 'replaced'
  /** Something refers to it again. */
  | 'in use'
  /** A snapshot with a child that is not part of the plan, or stayed. */
  | 'has a child';

export interface PlanOutcome {
  /** Revision of the store when the plan was applied. */
  revision: number;
  removed: Candidate[];
  rest: (Candidate & { reason: RestReason })[];
  stats: GCStats;
}

/** What a collection with these options would remove now. */
export async function planCollection(
  host: CollectHost,
  options: CollectOptions = {},
): Promise<CollectionPlan> {
  const stats = await collect(host, { ...options, dryRun: true });
  const objects = stats.wouldRemove ?? [];
  const bytes = objects.reduce((sum, { size }) => sum + size, 0);
  const createdAt = formatTimestamp(now());
  return { format: 'ebbtide-plan', version: 1, createdAt, revision: stats.revision, bytes, objects };
}

/** FailedPrecondition for a plan of a later revision: it belongs to another store, or this one was set back. */
export async function applyPlan(
  host: CollectHost,
  plan: CollectionPlan,
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
  const records = checked.objects.filter(({ orphan }) => !orphan);
  const selection = new Selection(engine, records);
  const orphans = await PlannedOrphans.look(
    host,
    checked.objects.filter(({ orphan }) => orphan),
  );
  const only = { choose: (ids: Uint32Array) => selection.choose(ids), orphans: orphans.items };
  const stats = await collect(host, { ...options, only });
  const { removed, rest } = selection.outcome();
  const left = await orphans.outcome();
  return {
    revision: stats.revision,
    removed: [...removed, ...left.removed],
    rest: [...rest, ...left.rest],
    stats,
  };
}

/** The plan in a parsed JSON document. InvalidArgument when it is none. */
export function parsePlan(document: unknown): CollectionPlan {
  const plan = document as Partial<CollectionPlan> | null;
  if (typeof plan !== 'object' || plan === null || plan.format !== 'ebbtide-plan') {
    throw notAPlan('it does not say so');
  }
  if (plan.version !== 1) throw notAPlan(`its version ${String(plan.version)} is not known`);
  const { revision, objects } = plan;
  if (!Number.isSafeInteger(revision) || !Array.isArray(objects))
    throw notAPlan('revision or objects missing');
  for (const object of objects) {
    if (!isPlanned(object)) throw notAPlan(`damaged entry ${JSON.stringify(object)?.slice(0, 200)}`);
  }
  return plan as CollectionPlan;
}

const notAPlan = (why: string) =>
  invalidArgument(`this is not a plan of a collection: ${why}`, {
    remedy: 'use a file that ebbtide gc --plan has written',
  });

function isPlanned(object: unknown): object is Candidate {
  if (typeof object !== 'object' || object === null) return false;
  const { kind, namespace, key, size, identity } = object as Partial<Candidate>;
  const texts = [kind, namespace, key, identity].every((text) => typeof text === 'string');
  return texts && typeof size === 'number' && isKnown(object as Candidate);
}

const isKnown = (object: Candidate): boolean =>
  (object.orphan ? itemOfOrphan(object) : keyOfPlanned(object)) !== undefined;

/** Type by the word that reports use. */
const types = new Map(Array.from({ length: ResourceMax }, (_, type) => [kindName(type), type]));

function keyOfPlanned({ kind, namespace, key }: Candidate): Key | undefined {
  const type = types.get(kind);
  if (type === undefined) return undefined;
  try {
    return keyOfNode({ type, namespace, key });
  } catch {
    return undefined;
  }
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
