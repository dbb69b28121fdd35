/**
 * Which roots a policy retires: rule by rule, in the order of last use, until what a rule says of space is met. Called by
 * plan.ts; pure but for the questions that its host answers. Each rule sees what those before it have left. No rule
 * retires what is pinned or in use.
 */
import { type EbbtideError, failedPrecondition } from '../errors.js';
import type { KeepReason, RuleOutcome } from '../gc/report/plan.js';
import type { Instant } from '../model/time.js';
import { compareUtf8 } from '../model/utf8.js';
import type { Pace } from '../stores/listing.js';
import { bytesOf, type CheckedPolicy, type Rule } from './policy.js';
import { isImageId, type Root, repositoryAndTag } from './roots.js';

/** Why a root stays, by the last rule that covered it. */
export interface Kept {
  readonly rule: Rule;
  readonly reason: KeepReason;
  readonly by?: string;
}

export interface Retired {
  readonly root: Root;
  readonly rule: Rule;
}

/** Of the file system; undefined where there is none. */
export interface Disk {
  readonly size: number;
  readonly free: number;
  readonly block: number;
}

/** What goes when roots retire in an order, beside those that were retired before. */
export interface Effect {
  /** Bytes gone after the first n, all bytes of the store. */
  readonly gone: Float64Array;
  readonly total: number;
  /** Whether the n-th, when all before `end` go, takes nothing with it. */
  freesNothing(n: number, end: number): boolean;
}

export interface ChoiceHost {
  readonly at: Instant;
  readonly roots: readonly Root[];
  /** Places of the roots that the n-th rule covers. */
  coveredBy(n: number): Uint32Array;
  readonly disk: Disk | undefined;
  readonly pace: Pace;
  /** Who uses roots, once some containers are retired. */
  inUse(retired: readonly Retired[]): Promise<(root: Root) => string | undefined>;
  effectOf(retired: readonly Retired[], retiring: readonly Root[]): Promise<Effect>;
}

export interface Choice {
  readonly retired: readonly Retired[];
  /** By the places of the roots. */
  readonly kept: readonly (Kept | undefined)[];
  readonly rules: readonly RuleOutcome[];
}

export async function choose(host: ChoiceHost, policy: CheckedPolicy): Promise<Choice> {
  const retired: Retired[] = [];
  const kept: (Kept | undefined)[] = new Array(host.roots.length).fill(undefined);
  const rules: RuleOutcome[] = [];
  const gone = new Uint8Array(host.roots.length);
  const { pace } = host;
  for (const [r, rule] of policy.rules.entries()) {
    const covered = coveredBy(host, r, gone);
    const eligible = await eligibleOf(host, rule, covered, await host.inUse(retired), kept);
    const { count, useless, outcome } = await stopOf(host, policy, rule, retired, eligible);
    const freesNothing: Kept = { rule, reason: 'frees nothing' };
    const stopped: Kept = { rule, reason: outcome.stoppedBy };
    for (const [n, root] of eligible.entries()) {
      if (n % ROOTS_AT_ONCE === 0 && pace.isOver) await pace.pass();
      if (n < count && !useless.has(n)) {
        retired.push({ root, rule });
        gone[root.place] = 1;
        kept[root.place] = undefined;
      } else kept[root.place] = n < count ? freesNothing : stopped;
    }
    const { stoppedBy: _, ...shown } = outcome;
    rules.push({ ...shown, covered: covered.length, retired: count - useless.size });
  }
  return { retired, kept, rules };
}

/** Between two looks at the clock. */
const ROOTS_AT_ONCE = 32;

/** Of the roots but those that are gone. */
function coveredBy(host: ChoiceHost, rule: number, gone: Uint8Array): Root[] {
  const covered: Root[] = [];
  for (const place of host.coveredBy(rule)) {
    const root = host.roots[place];
    if (root !== undefined && gone[place] === 0) covered.push(root);
  }
  return covered;
}

/** What the rule may retire, the least recently used first; says of the others why they stay. */
async function eligibleOf(
  { at, pace }: ChoiceHost,
  rule: Rule,
  covered: readonly Root[],
  userOf: (root: Root) => string | undefined,
  kept: (Kept | undefined)[],
): Promise<Root[]> {
  const last = await lastOfRepositories(rule, covered, pace);
  const eligible: Root[] = [];
  const ids: Root[] = [];
  // Of images that stay, by their targets.
  const reasons = new Map<string, KeepReason>();
  for (const [n, root] of covered.entries()) {
    if (n % ROOTS_AT_ONCE === 0 && pace.isOver) await pace.pass();
    const by = root.isPinned ? undefined : userOf(root);
    const reason = by === undefined ? protectionOf(rule, root, at, last) : 'in use';
    if (reason === undefined) (isImageId(root.key) ? ids : eligible).push(root);
    else {
      kept[root.place] = by === undefined ? { rule, reason } : { rule, reason, by };
      reasons.set(targetIn(root), reason);
    }
  }
  for (const root of await notNamed(ids, rule, reasons, kept, pace)) eligible.push(root);
  return sortedInSteps(eligible, byLastUse, pace);
}

/** Of images that are named by their ids, those that have no other name that stays; says of the others why they do. */
async function notNamed(
  ids: readonly Root[],
  rule: Rule,
  reasons: ReadonlyMap<string, KeepReason>,
  kept: (Kept | undefined)[],
  pace: Pace,
): Promise<Root[]> {
  const found: Root[] = [];
  for (const [n, root] of ids.entries()) {
    if (n % ROOTS_AT_ONCE === 0 && pace.isOver) await pace.pass();
    const reason = reasons.get(targetIn(root));
    if (reason === undefined) found.push(root);
    else kept[root.place] = { rule, reason };
  }
  return found;
}

const targetIn = ({ namespace, target = '' }: Root): string => `${namespace}\0${target}`;

function protectionOf(rule: Rule, root: Root, at: Instant, last: ReadonlySet<Root>): KeepReason | undefined {
  if (root.isPinned) return 'pinned';
  if (rule.keepDuration > 0n && at - root.lastUsed < rule.keepDuration) return 'keepDuration';
  if (root.kind === 'image' && rule.isKeptTag(repositoryAndTag(root.key).tag)) return 'keepTagged';
  return last.has(root) ? 'keepLast' : undefined;
}

const byLastUse = (a: Root, b: Root): number => {
  if (a.lastUsed !== b.lastUsed) return a.lastUsed < b.lastUsed ? -1 : 1;
  return a.id - b.id;
};

const SORTED_AT_ONCE = 1024;

/** Sorts runs, then merges them, and lets others have the thread between. */
async function sortedInSteps<T>(
  list: readonly T[],
  compare: (a: T, b: T) => number,
  pace: Pace,
): Promise<T[]> {
  let runs: T[][] = [];
  for (let at = 0; at < list.length; at += SORTED_AT_ONCE) {
    runs.push(list.slice(at, at + SORTED_AT_ONCE).sort(compare));
    if (pace.isOver) await pace.pass();
  }
  while (runs.length > 1) {
    const merged: T[][] = [];
    for (let n = 0; n < runs.length; n += 2)
      merged.push(await merge(runs[n] ?? [], runs[n + 1] ?? [], compare, pace));
    runs = merged;
  }
  return runs[0] ?? [];
}

async function merge<T>(
  left: readonly T[],
  right: readonly T[],
  compare: (a: T, b: T) => number,
  pace: Pace,
): Promise<T[]> {
  const merged: T[] = [];
  let at = 0;
  for (const one of left) {
    for (let next = right[at]; next !== undefined && compare(next, one) < 0; next = right[++at])
      merged.push(next);
    merged.push(one);
    if (merged.length % SORTED_AT_ONCE === 0 && pace.isOver) await pace.pass();
  }
  for (const rest of right.slice(at)) merged.push(rest);
  return merged;
}

/** The last one first. Images that are made to be reproducible often have one time: then what was used last, then the name. */
function byChange(a: Root, b: Root): number {
  if (a.changedAt !== b.changedAt) return a.changedAt > b.changedAt ? -1 : 1;
  if (a.lastUsed !== b.lastUsed) return a.lastUsed > b.lastUsed ? -1 : 1;
  return compareUtf8(b.key, a.key);
}

/** The images of each repository that were made or moved last, with all their names there; names of one target count once. */
async function lastOfRepositories(
  { keepLast }: Rule,
  covered: readonly Root[],
  pace: Pace,
): Promise<ReadonlySet<Root>> {
  const last = new Set<Root>();
  if (keepLast === 0) return last;
  // Of each namespace.
  const namespaces = new Map<string, Map<string, Root[]>>();
  for (const [n, root] of covered.entries()) {
    if (n % ROOTS_AT_ONCE === 0 && pace.isOver) await pace.pass();
    if (root.kind !== 'image' || isImageId(root.key)) continue;
    const repositories = namespaces.get(root.namespace) ?? new Map<string, Root[]>();
    if (repositories.size === 0) namespaces.set(root.namespace, repositories);
    const { repository } = repositoryAndTag(root.key);
    const known = repositories.get(repository);
    if (known === undefined) repositories.set(repository, [root]);
    else known.push(root);
  }
  for (const images of [...namespaces.values()].flatMap((repositories) => [...repositories.values()])) {
    if (pace.isOver) await pace.pass();
    if (images.length > keepLast) images.sort(byChange);
    const targets = new Set<string>();
    for (const image of images) {
      const { target = '' } = image;
      if (targets.size === keepLast && !targets.has(target)) continue;
      targets.add(target);
      last.add(image);
    }
  }
  return last;
}

// -------------------------------------------------------------------------------------------------------- space

interface Stop {
  /** So many of the eligible, from the first on, are to retire. */
  count: number;
  /** Of these, by their place, those whose retirement frees nothing. */
  useless: ReadonlySet<number>;
  outcome: Omit<RuleOutcome, 'covered' | 'retired'> & { stoppedBy: KeepReason };
}

/** How far a rule goes. */
async function stopOf(
  host: ChoiceHost,
  policy: CheckedPolicy,
  rule: Rule,
  retired: readonly Retired[],
  eligible: readonly Root[],
): Promise<Stop> {
  const effect = await host.effectOf(retired, eligible);
  const { gone, total } = effect;
  const before = gone[0] ?? 0;
  const { name } = rule;
  const goal = goalOf(policy, rule, host.disk);
  const bytesAt = (n: number): number => (gone[n] ?? 0) - before;
  if (goal === undefined) {
    const bytes = bytesAt(eligible.length);
    const outcome = { name, bytes, met: true, stoppedBy: 'target met' as const };
    return { count: eligible.length, useless: new Set(), outcome };
  }
  const wanted = Math.max(goal.used === undefined ? 0 : total - goal.used, goal.gone ?? 0) - before;
  // Nothing but reserved space is said: all beyond it goes.
  const isOpen = goal.used === undefined && goal.gone === undefined;
  const mayGo = total - goal.reserved - before;
  let count = 0;
  while (count < eligible.length && (isOpen || bytesAt(count) < wanted) && bytesAt(count + 1) <= mayGo)
    count++;
  const met = isOpen || bytesAt(count) >= wanted;
  const stoppedBy = met && !isOpen ? 'target met' : 'reservedSpace';
  const useless = new Set<number>();
  for (let n = 0; n < count; n++) {
    if (n % ROOTS_AT_ONCE === 0 && host.pace.isOver) await host.pace.pass();
    if (effect.freesNothing(n, count)) useless.add(n);
  }
  const shown = isOpen ? Math.max(0, mayGo) : Math.max(0, wanted);
  return { count, useless, outcome: { name, bytes: bytesAt(count), wanted: shown, met, stoppedBy } };
}

/** Bytes. */
interface Goal {
  /** What the store may have at most. */
  used: number | undefined;
  /** What must be gone, garbage included. */
  gone: number | undefined;
  reserved: number;
}

/** A mistake, or another disk than it was: for what can never be free the rule would retire all it may. */
const neverFree = ({ name }: Rule, wanted: number, total: number): EbbtideError =>
  failedPrecondition(`the rule "${name}" wants ${wanted} bytes free on a file system of ${total}`, {
    object: name,
    remedy: 'use less than that, or a share like 15%',
  });

/** Undefined: the rule retires all it may. */
function goalOf({ lowWater }: CheckedPolicy, rule: Rule, disk: Disk | undefined): Goal | undefined {
  const { reservedSpace, maxUsedSpace, minFreeSpace } = rule;
  const total = disk?.size ?? 0;
  const free = disk?.free ?? 0;
  const reserved = reservedSpace === undefined ? 0 : bytesOf(reservedSpace, total);
  const used = maxUsedSpace && bytesOf(maxUsedSpace, total);
  if (reservedSpace !== undefined || used !== undefined || minFreeSpace !== undefined) {
    const wanted = minFreeSpace && bytesOf(minFreeSpace, total);
    if (wanted !== undefined && wanted > total) throw neverFree(rule, wanted, total);
    return { used, gone: wanted && Math.max(0, wanted - free), reserved };
  }
  if (lowWater === undefined) return undefined;
  return { used, gone: Math.max(0, total - bytesOf(lowWater, total) - free), reserved };
}
