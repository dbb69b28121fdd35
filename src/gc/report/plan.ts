/**
 * Plans: what a collection would remove, or what a policy would retire and what then goes, written down to be looked at and
 * applied later (apply-plan.ts). Called by db.ts, policy/ and the command line. A plan is plain JSON.
 */
import type { Key } from '../../engine/contract.js';
import { invalidArgument } from '../../errors.js';
import { formatTimestamp, now, parseTimestamp } from '../../model/time.js';
import { type CollectOptions, collect } from '../collect.js';
import type { CollectHost } from '../host.js';
import type { Candidate } from '../stats.js';
import { keyOfNode, kindName, ResourceMax } from '../types.js';
import { itemOfOrphan } from './dry-run.js';

/** What every plan has. */
interface PlanOfRemovals {
  /** Distinguishes a plan from other JSON. */
  format: 'ebbtide-plan';
  /** RFC 3339. */
  createdAt: string;
  /** Revision of the store the plan was made from. */
  revision: number;
  /** Bytes of all objects. */
  bytes: number;
  /** Referrers before what they refer to, as far as that is known. */
  objects: Candidate[];
}

/** What a collection would remove, to be looked at and applied later. */
export interface CollectionPlan extends PlanOfRemovals {
  /** Of the format. */
  version: 1;
}

/** Of a policy. Bytes that several records name are those of the first of them: the sizes of the objects add up. */
export interface PolicyPlan extends PlanOfRemovals {
  /** Of the format. */
  version: 2;
  /** Roots that a rule retires, in this order. The objects are garbage already, or as soon as these are gone. */
  retired: RetiredRoot[];
  /** All other roots. Their bytes add up to what the store keeps. */
  kept: KeptRoot[];
  /** In the order of the policy. */
  rules: RuleOutcome[];
  /** Of the store and its file system. */
  space: PlannedSpace;
}

/** What `applyPlan` takes. */
export type Plan = CollectionPlan | PolicyPlan;

export const retirableKinds = ['image', 'lease', 'container'] as const;
/** What rules may cover. */
export type RetirableKind = (typeof retirableKinds)[number];

/** A root that a policy retires. */
export interface RetiredRoot {
  /** What it is. */
  kind: RetirableKind;
  /** Where it is. */
  namespace: string;
  /** Image name or id. */
  key: string;
  /** Distinguishes it from a later one of the same name, or of another target. */
  identity: string;
  /** RFC 3339. */
  lastUsed: string;
  /** Name of the rule. */
  rule: string;
  /** What goes with it, once those before it are gone. */
  bytes: number;
}

/**
 * Why a root stays. `target met`: enough goes without it. `frees nothing`: all it has is kept by others. `no rule`: none
 * covers it. `held`: nothing that a policy retires.
 */
export type KeepReason =
  | 'pinned'
  | 'in use'
  | 'keepDuration'
  | 'keepLast'
  | 'keepTagged'
  | 'reservedSpace'
  | 'target met'
  | 'frees nothing'
  | 'no rule'
  | 'held';

/** A root that stays. */
export interface KeptRoot {
  /** image, container, lease, sandbox, ingest; content or snapshot with a label. */
  kind: string;
  /** Where it is. */
  namespace: string;
  /** Image name, id, ref, digest or SNAPSHOTTER/KEY. */
  key: string;
  /** RFC 3339; of images, leases and containers. */
  lastUsed?: string;
  /** The last rule that covered it. */
  rule?: string;
  /** Why it stays. */
  reason: KeepReason;
  /** What uses it. */
  by?: string;
  /** What it keeps. Bytes that several roots keep are those of one of them. */
  bytes: number;
  /** Of these, what retired roots have too: it stays because of this root. */
  pins: number;
}

/** What a rule does in a plan. */
export interface RuleOutcome {
  /** Of the rule. */
  name: string;
  /** Roots that it covers. */
  covered: number;
  /** Those of them that it retires. */
  retired: number;
  /** Bytes that go by that. */
  bytes: number;
  /** Bytes that had to go for what it says of space; 0: none. Absent: it says nothing of space. */
  wanted?: number;
  /** Whether so much goes. */
  met: boolean;
}

/** Bytes. Before the plan, and after it is applied. */
export interface PlannedSpace {
  /** Of the file system. Absent: the content is in no directory. */
  size?: number;
  /** Of the file system, before. */
  free?: number;
  /** Of the file system, afterwards. */
  freeAfter?: number;
  /** Of blobs and snapshots that something keeps. */
  used: number;
  /** Of blobs and snapshots whose records are garbage. */
  garbage: number;
  /** Of those that something keeps afterwards. */
  usedAfter: number;
}

/** Why an object of a plan was not removed. */
export type RestReason =
  /** Removed before, by another run or a client. */
  | 'gone'
  /** Another object has its name now. */
  | 'replaced'
  /** Something refers to it again; a root is pinned or used by a container now. */
  | 'in use'
  /** A root that was used after the plan was made. */
  | 'used since'
  /** A snapshot with a child that is not part of the plan, or stayed. */
  | 'has a child';

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

/** The plan in a parsed JSON document. InvalidArgument when it is none. */
export function parsePlan(document: unknown): Plan {
  const plan = document as Partial<Plan> | null;
  if (typeof plan !== 'object' || plan === null || plan.format !== 'ebbtide-plan') {
    throw notAPlan('it does not say so');
  }
  if (plan.version !== 1 && plan.version !== 2)
    throw notAPlan(`its version ${String((plan as { version?: unknown }).version)} is not known`);
  const { revision, objects } = plan;
  if (!Number.isSafeInteger(revision) || !Array.isArray(objects))
    throw notAPlan('revision or objects missing');
  checkEntries(objects, isPlanned);
  if (plan.version === 2) {
    if (!Array.isArray(plan.retired)) throw notAPlan('retired roots missing');
    checkEntries(plan.retired, isRetired);
  }
  return plan as Plan;
}

function checkEntries(entries: readonly unknown[], isGood: (entry: unknown) => boolean): void {
  for (const entry of entries) {
    if (!isGood(entry)) throw notAPlan(`damaged entry ${JSON.stringify(entry)?.slice(0, 200)}`);
  }
}

const notAPlan = (why: string) =>
  invalidArgument(`this is not a plan of a collection: ${why}`, {
    remedy: 'use a file that `ebbtide gc --plan` or `ebbtide policy plan` has written',
  });

function isPlanned(object: unknown): object is Candidate {
  return isNamed(object) && typeof (object as Partial<Candidate>).size === 'number' && isKnown(object);
}

function isRetired(root: unknown): root is RetiredRoot {
  if (!isNamed(root)) return false;
  const { kind, lastUsed, rule } = root as unknown as RetiredRoot;
  const isDated = typeof lastUsed === 'string' && parseTimestamp(lastUsed) !== undefined;
  return retirableKinds.includes(kind) && isDated && typeof rule === 'string' && isKnown(root);
}

function isNamed(object: unknown): object is Candidate {
  if (typeof object !== 'object' || object === null) return false;
  const { kind, namespace, key, identity } = object as Partial<Candidate>;
  return [kind, namespace, key, identity].every((text) => typeof text === 'string');
}

const isKnown = (object: Candidate): boolean =>
  (object.orphan ? itemOfOrphan(object) : keyOfPlanned(object)) !== undefined;

/** Type by the word that reports use. */
const types = new Map(Array.from({ length: ResourceMax }, (_, type) => [kindName(type), type]));

/** The key of a record that a plan names; undefined when there can be none. */
export function keyOfPlanned({
  kind,
  namespace,
  key,
}: Pick<Candidate, 'kind' | 'namespace' | 'key'>): Key | undefined {
  const type = types.get(kind);
  if (type === undefined) return undefined;
  try {
    return keyOfNode({ type, namespace, key });
  } catch {
    return undefined;
  }
}
