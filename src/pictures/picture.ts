/**
 * Takes a picture of what holds the disk: the measured directories, the records, the graph of one moment, and which roots keep
 * what. Called by draw.ts; reads only, beside the writers. It reckons as `du` does: the same disk, items and edges.
 *
 * Memory: some 250 bytes a record while it lasts, mostly names.
 */
import { dirname } from 'node:path';
import type { CallContext } from '../context.js';
import type { CollectHost } from '../gc/host.js';
import { type DiskReport, MeasuredDisk } from '../gc/report/disk-report.js';
import { Items } from '../gc/report/items.js';
import { type BetweenRuns, extraEdges } from '../gc/report/marked-run.js';
import { describeKey } from '../gc/report/objects.js';
import { GraphView } from '../gc/report/reach.js';
import type { Instant } from '../model/time.js';
import { now } from '../model/time.js';
import { readRoots } from '../policy/roots.js';
import { Pace } from '../stores/listing.js';
import { Leaves } from './leaves.js';
import { NOBODY, Support } from './support.js';
import { type PictureRoot, type Tree, treeOf } from './tree.js';

export interface Picture {
  readonly host: CollectHost;
  /** When it was taken, by the wall clock. */
  readonly at: Instant;
  readonly view: GraphView;
  readonly leaves: Leaves;
  readonly roots: readonly PictureRoot[];
  readonly support: Support;
  readonly tree: Tree;
  /** Undefined: sizes are those of the records. */
  readonly disk: DiskReport | undefined;
  /** When a root was used last, by its node; with `lastUse`. */
  readonly lastUse: ReadonlyMap<number, Instant>;
  readonly pace: Pace;
}

export interface TakeOptions {
  /** Measure the directories, as `du` does. */
  readonly disk: boolean;
  /** Also read when roots were used last; those used last come first, so that a leaf's first root is the last use of it. */
  readonly lastUse: boolean;
  /** What a root's name is followed by. */
  readonly describe?: ((kind: string, name: string) => string | undefined) | undefined;
}

export async function takePicture(
  host: CollectHost,
  betweenRuns: BetweenRuns,
  { signal }: CallContext,
  { disk: isMeasured, lastUse: hasLastUse, describe }: TakeOptions,
): Promise<Picture> {
  // The graph is read by all that follows.
  await host.read({}, () => undefined);
  const pace = new Pace({ ...(signal && { signal }) });
  const at = host.expiryClock.now();
  const extra = await extraEdges(host, betweenRuns, at, signal);
  // Before the records, which name what is found.
  const measured = isMeasured ? await MeasuredDisk.read(host, signal) : undefined;
  const leaves = await readLeaves(host, measured, signal);
  const view = await GraphView.read(host.engine.graph, at, extra, signal);
  const lastUse = new Map<number, Instant>();
  if (hasLastUse) for (const { id, lastUsed } of await readRoots(host, view, pace)) lastUse.set(id, lastUsed);
  const roots = latestFirst(await readNames(host, view, pace, describe), lastUse);
  const namespaces = [...new Set(roots.map(({ namespace }) => namespace))].sort();
  const numbers = new Map(namespaces.map((name, n) => [name, n]));
  const keepers = {
    ids: roots.map(({ id }) => id),
    namespaces: roots.map(({ namespace }) => numbers.get(namespace) ?? NOBODY),
  };
  const support = await Support.find(view, leaves, keepers, pace);
  const disk = measured?.report(sumsOf(leaves, support));
  const { root } = host.content;
  const name = root === undefined ? 'store' : dirname(root);
  const tree = treeOf({ leaves, support, roots, namespaces, disk, name });
  return { host, at: now(), view, leaves, roots, support, tree, disk, lastUse, pace };
}

/** The items are let go, with what finds them by name. */
async function readLeaves(
  host: CollectHost,
  measured: MeasuredDisk | undefined,
  signal: AbortSignal | undefined,
): Promise<Leaves> {
  const items = await Items.read(host, measured, { signal });
  const ingests = measured && (await Items.ofIngests(host, measured, signal));
  return new Leaves(items, ingests, measured);
}

/** By the millisecond: comparing instants takes longer. Without times, in their order. */
function latestFirst(roots: PictureRoot[], lastUse: ReadonlyMap<number, Instant>): PictureRoot[] {
  const times = Float64Array.from(roots, ({ id }) => Number(lastUse.get(id) ?? 0n) / 1e6);
  const order = [...roots.keys()].sort((a, b) => (times[b] ?? 0) - (times[a] ?? 0));
  return lastUse.size === 0 ? roots : order.flatMap((n) => roots[n] ?? []);
}

async function readNames(
  { engine }: CollectHost,
  view: GraphView,
  pace: Pace,
  describe: TakeOptions['describe'] = () => undefined,
): Promise<PictureRoot[]> {
  const roots: PictureRoot[] = [];
  for (const id of view.roots) {
    if (pace.isOver) await pace.pass();
    const record = engine.keyOf(id);
    if (record === undefined) roots.push({ id, kind: 'record', namespace: '', name: '(gone)' });
    else {
      const { kind, namespace, key } = describeKey(record);
      const description = describe(kind, key);
      roots.push({ id, kind, namespace, name: description === undefined ? key : `${key} ${description}` });
    }
  }
  return roots;
}

/** As `du` has them: `ingests` are those that nothing keeps, which are in `garbage` too. */
function sumsOf(leaves: Leaves, support: Support): { kept: number; garbage: number; ingests: number } {
  const sums = { kept: 0, garbage: 0, ingests: 0 };
  for (let leaf = 0; leaf < leaves.orphans; leaf++) {
    const size = leaves.sizeOf(leaf);
    const isIngest = leaves.kindOf(leaf) === 'ingest';
    if (support.first[leaf] === NOBODY) {
      sums.garbage += size;
      if (isIngest) sums.ingests += size;
    } else if (!isIngest) sums.kept += size;
  }
  return sums;
}
