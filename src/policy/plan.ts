/**
 * The plan of a policy: which roots it retires, what goes with them, and why everything else stays. Called by db.ts. Reads
 * only, beside the writers: the graph is that of one moment, records are read while they last. What is retired, and the
 * bytes that go by it, are exact for that moment; applying the plan (gc/report/apply-plan.ts) looks at each root again.
 */

import { failedPrecondition } from '../errors.js';
import type { CollectHost } from '../gc/host.js';
import { fileSystemOf } from '../gc/report/disk-report.js';
import { Items } from '../gc/report/items.js';
import { type BetweenRuns, extraEdges } from '../gc/report/marked-run.js';
import type { PolicyPlan, RetiredRoot } from '../gc/report/plan.js';
import { GraphView } from '../gc/report/reach.js';
import { rootIdentity } from '../gc/report/root-use.js';
import { formatTimestamp, now } from '../model/time.js';
import { Pace } from '../stores/listing.js';
import { type Choice, type ChoiceHost, choose, type Disk, type Effect, type Retired } from './choice.js';
import { Coverage } from './coverage.js';
import { Holders } from './holders.js';
import type { CheckedPolicy, Size } from './policy.js';
import { type Root, RootsInUse, readRoots } from './roots.js';
import { keptOf, objectsOf, type Picture } from './rows.js';

/** FailedPrecondition for a policy about a file system when the content is in no directory. */
export async function planPolicy(
  host: CollectHost,
  betweenRuns: BetweenRuns,
  policy: CheckedPolicy,
  signal?: AbortSignal,
): Promise<PolicyPlan> {
  // The graph is read by all that follows.
  await host.read({}, () => undefined);
  const pace = new Pace({ ...(signal && { signal }) });
  const { engine } = host;
  const at = host.expiryClock.now();
  const disk = await diskOf(host, policy);
  const { revision } = engine;
  const extra = await extraEdges(host, betweenRuns, at, signal);
  const view = await GraphView.read(engine.graph, at, extra, signal);
  const { flags } = view;
  const items = await Items.read(host, undefined, { signal, block: disk?.block, flags, blobs: true });
  const coverage = new Coverage(policy);
  const roots = await readRoots(host, view, pace, (root, fields) => coverage.add(root, fields));
  const picture: Picture = { host, view, items, pace };
  const choice = await choose(choiceHost(picture, at, roots, coverage, disk), policy);
  return compose(picture, choice, roots, { disk, revision });
}

async function diskOf({ content }: CollectHost, policy: CheckedPolicy): Promise<Disk | undefined> {
  if (content.root !== undefined) return fileSystemOf(content.root);
  const isShare = (size: Size | undefined): boolean => size !== undefined && 'share' in size;
  const needsDisk = policy.rules.some(
    ({ reservedSpace, maxUsedSpace, minFreeSpace }) =>
      isShare(reservedSpace) || isShare(maxUsedSpace) || minFreeSpace !== undefined,
  );
  if (!needsDisk && policy.lowWater === undefined) return undefined;
  throw failedPrecondition('the policy is about a file system, and the content is in no directory', {
    remedy: 'use reservedSpace and maxUsedSpace in bytes',
  });
}

function choiceHost(
  picture: Picture,
  at: bigint,
  roots: readonly Root[],
  coverage: Coverage,
  disk: Disk | undefined,
): ChoiceHost {
  const { host, view, pace } = picture;
  let inUse: { read: RootsInUse; without: number } | undefined;
  return {
    at,
    roots,
    coveredBy: (rule) => coverage.of(rule),
    disk,
    pace,
    async inUse(retired) {
      const containers = new Set(retired.flatMap(({ root }) => (root.kind === 'container' ? [root] : [])));
      // Roots are only ever retired, so with as many containers gone it is the same.
      if (inUse?.without !== containers.size) {
        const read = await RootsInUse.read(host, view, roots, pace, (root) => containers.has(root));
        inUse = { read, without: containers.size };
      }
      const { read } = inUse;
      return (root) => read.userOf(root);
    },
    async effectOf(retired, retiring): Promise<Effect> {
      const ids = [...idsOf(retired), ...retiring.map(({ id }) => id)];
      const holders = await Holders.find(picture, ids, others(view, ids));
      const { gone, total } = await holders.bytesGone(pace);
      const first = retired.length;
      return {
        gone: gone.subarray(first),
        total,
        freesNothing: (n, end) => holders.freesNothing(ids[first + n] ?? 0, first + end),
      };
    },
  };
}

const idsOf = (retired: readonly Retired[]): number[] => retired.map(({ root }) => root.id);

/** The roots of the view but these. */
function others(view: GraphView, retiring: readonly number[]): number[] {
  const going = marked(view, retiring);
  return view.roots.filter((id) => going[id] === 0);
}

/** 1 for each of these ids. */
function marked(view: GraphView, ids: readonly number[]): Uint8Array {
  const marks = new Uint8Array(view.limit);
  for (const id of ids) marks[id] = 1;
  return marks;
}

/** Between two looks at the clock. */
const ROWS_AT_ONCE = 32;

async function retiredRows(
  retired: readonly Retired[],
  gone: Float64Array,
  pace: Pace,
): Promise<RetiredRoot[]> {
  const rows: RetiredRoot[] = [];
  for (const [n, { root, rule }] of retired.entries()) {
    if (n % ROWS_AT_ONCE === 0 && pace.isOver) await pace.pass();
    rows.push({
      kind: root.kind,
      namespace: root.namespace,
      key: root.key,
      identity: rootIdentity(root.createdAt, root.target),
      lastUsed: formatTimestamp(root.lastUsed),
      rule: rule.name,
      bytes: (gone[n + 1] ?? 0) - (gone[n] ?? 0),
    });
  }
  return rows;
}

async function compose(
  picture: Picture,
  choice: Choice,
  roots: readonly Root[],
  { disk, revision }: { disk: Disk | undefined; revision: number },
): Promise<PolicyPlan> {
  const { view } = picture;
  const ids = idsOf(choice.retired);
  const staying = others(view, ids);
  const holders = await Holders.find(picture, ids, staying);
  const { gone, total } = await holders.bytesGone(picture.pace);
  const garbage = gone[0] ?? 0;
  const freed = gone[ids.length] ?? 0;
  const objects = await objectsOf(picture, holders, marked(view, ids));
  const ingests = objects.reduce((sum, { kind, size }) => sum + (kind === 'ingest' ? size : 0), 0);
  const retired = await retiredRows(choice.retired, gone, picture.pace);
  return {
    format: 'ebbtide-plan',
    version: 2,
    createdAt: formatTimestamp(now()),
    revision,
    bytes: freed + ingests,
    objects,
    retired,
    kept: await keptOf(picture, choice, roots, { holders, ids, staying }),
    rules: [...choice.rules],
    space: {
      ...(disk && { size: disk.size, free: disk.free, freeAfter: disk.free + freed + ingests }),
      used: total - garbage,
      garbage,
      usedAfter: total - freed,
    },
  };
}
