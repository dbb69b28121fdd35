/**
 * What decides whether a policy may retire a root: which record it is, when it was used last, and what forbids it. Called by
 * policy/ for a plan and by retire.ts, in the transaction that removes it, for the same checks once more.
 */
import { type Engine, type Key, NodeFlag, type Value } from '../../engine/contract.js';
import { NodeInMemory } from '../../engine/core/stored-node.js';
import { decodeFields } from '../../engine/schema/codec.js';
import { components, key, leaf } from '../../engine/schema/keys.js';
import { labelOf } from '../../model/labels.js';
import type { ContainerRecord, ImageRecord, LeaseRecord, StringMap } from '../../model/records.js';
import type { Instant } from '../../model/time.js';
import { compareUtf8 } from '../../model/utf8.js';
import { usedAtTimes } from '../../stores/last-use.js';
import type { Pace } from '../../stores/listing.js';
import { labelsOf } from '../references.js';
import { ResourceContent, ResourceImage, ResourceIngest, ResourceLease, ResourceSnapshot } from '../types.js';

/** The label by which the CRI plugin, and so the kubelet, pins an image. */
const PINNED = 'io.cri-containerd.pinned';

export type RootRecord = ImageRecord | LeaseRecord | ContainerRecord;

/** Tells a root from a later one of its name; a tag that was moved is another one. */
export function rootIdentity(createdAt: Instant, target: string | undefined): string {
  return target === undefined ? String(createdAt) : `${createdAt} ${target}`;
}

/** The digest that an image names; undefined for other roots. */
export const targetOf = (record: RootRecord): string | undefined =>
  'target' in record ? record.target.digest : undefined;

export const isPinned = ({ labels }: { labels?: StringMap }): boolean => labelOf(labels, PINNED) === 'pinned';

/** The graph as the questions here need it: of a moment, or as it is. */
export interface RootGraph {
  flagsOf(id: number): number;
  forEachTarget(id: number, visit: (to: number) => void): void;
  /** Whether a record refers to it. */
  isTarget(id: number): boolean;
}

export const liveGraph = ({ graph }: Engine): RootGraph => ({
  flagsOf: (id) => graph.flagsOf(id),
  forEachTarget(id, visit) {
    const pairs = graph.edgesOf(id);
    for (let at = 0; at < pairs.length; at += 2) visit(pairs[at] ?? 0);
  },
  isTarget: (id) => graph.inDegreeOf(id) > 0,
});

/** Nodes of an image that are looked at for its snapshots. */
const LOOKED_AT_MAX = 256;

/** Calls `visit` for the snapshots that an image's content names: what it was unpacked to. */
function forEachUnpacked(graph: RootGraph, image: number, visit: (snapshot: number) => void): void {
  const seen = [image];
  const enter = (to: number): void => {
    const type = graph.flagsOf(to) >> 8;
    if (type === ResourceSnapshot) visit(to);
    else if (type === ResourceContent && seen.length < LOOKED_AT_MAX && !seen.includes(to)) seen.push(to);
  };
  for (let at = 0; at < seen.length; at++) graph.forEachTarget(seen[at] ?? 0, enter);
}

/** When something of a root was used that is in no label yet, by its node. */
export type Noted = (id: number) => Instant | undefined;

/**
 * The last use of a root: when it was made or changed, what its labels say, and for an image what is said of the
 * snapshots that it was unpacked to.
 */
export function lastUseOf(
  engine: Pick<Engine, 'get' | 'keyOf'>,
  graph: RootGraph,
  noted: Noted,
  id: number,
  record: RootRecord,
): Instant {
  let last = 'updatedat' in record ? record.updatedat : record.createdat;
  const used = (time: Instant | undefined): void => {
    if (time !== undefined && time > last) last = time;
  };
  used(noted(id));
  for (const time of usedAtTimes(record.labels ?? {})) used(time);
  if (graph.flagsOf(id) >> 8 !== ResourceImage) return last;
  forEachUnpacked(graph, id, (snapshot) => {
    used(noted(snapshot));
    if ((graph.flagsOf(snapshot) & NodeFlag.conditionValue) === 0) return;
    const k = engine.keyOf(snapshot);
    const value: Value | undefined = k === undefined ? undefined : engine.get(k);
    for (const time of usedAtTimes(labelsOf(value))) used(time);
  });
  return last;
}

/** Whether a lease holds an upload: whoever made it is at work. */
export function holdsUpload(graph: RootGraph, id: number): boolean {
  if (graph.flagsOf(id) >> 8 !== ResourceLease) return false;
  let found = false;
  graph.forEachTarget(id, (to) => {
    const flags = graph.flagsOf(to);
    if (flags >> 8 === ResourceIngest && (flags & NodeFlag.present) !== 0) found = true;
  });
  return found;
}

/** Whether a record refers to an image: a lease that holds it, content whose label names it. */
export const isReferredTo = (graph: RootGraph, id: number): boolean =>
  graph.flagsOf(id) >> 8 === ResourceImage && graph.isTarget(id);

/** Of a container, what says which image it uses. */
const IMAGE = new Set(['image']);

/** Of one namespace. */
interface Users {
  /** By the image that a container names: the first one. */
  readonly names: Map<string, string>;
  /** By the target of such an image: an image has several names. Undefined until it is asked for. */
  targets: Map<string, string> | undefined;
}

/** Containers by the image that they name, and by its target. */
export class ImagesInUse {
  readonly #users = new Map<string, Users>();
  readonly #targetOf: TargetOf;

  /** @param targetOf of an image, by its namespace and name */
  constructor(targetOf: TargetOf) {
    this.#targetOf = targetOf;
  }

  /** By all containers there are, but those that `isGoing`. */
  static async read(engine: Engine, pace: Pace, isGoing: (k: Key) => boolean): Promise<ImagesInUse> {
    const inUse = new ImagesInUse(targetsIn(engine));
    for (const [record] of engine.scan(key('namespaces'))) {
      const ns = components(record)[1] ?? '';
      for (let after: Key | undefined, isFirst = true; isFirst || after !== undefined; isFirst = false) {
        const found: [Key, string][] = [];
        after = engine.visit(key('containers', ns), after, (k, bytes, start, end) => {
          const { image } = decodeFields(new NodeInMemory(k, bytes, start, end), IMAGE);
          if (typeof image === 'string') found.push([k, image]);
        });
        for (const [k, image] of found) if (!isGoing(k)) inUse.add(ns, leaf(k), image);
        if (pace.isOver) await pace.pass();
      }
    }
    return inUse;
  }

  /** In any order: of several containers that use an image it is the same one that is named. */
  add(ns: string, container: string, image: string): void {
    if (image === '') return;
    let users = this.#users.get(ns);
    if (users === undefined) {
      users = { names: new Map(), targets: undefined };
      this.#users.set(ns, users);
    }
    const known = users.names.get(image);
    if (known !== undefined && compareUtf8(known, container) <= 0) return;
    users.names.set(image, container);
    users.targets = undefined;
  }

  /** The id of a container that uses the image. */
  by(ns: string, name: string, target: string): string | undefined {
    const users = this.#users.get(ns);
    if (users === undefined) return undefined;
    users.targets ??= this.#targets(ns, users.names);
    return users.names.get(name) ?? users.targets.get(target);
  }

  #targets(ns: string, names: ReadonlyMap<string, string>): Map<string, string> {
    const targets = new Map<string, string>();
    for (const [image, container] of names) {
      const target = this.#targetOf(ns, image);
      const known = target === undefined ? undefined : targets.get(target);
      if (target === undefined || (known !== undefined && compareUtf8(known, container) > 0)) continue;
      targets.set(target, container);
    }
    return targets;
  }
}

type TargetOf = (ns: string, image: string) => string | undefined;

/** As the records have it. */
export const targetsIn =
  (engine: Pick<Engine, 'get'>): TargetOf =>
  (ns, image) =>
    // Not by `imageKey`: a container may name what no image can be called.
    (engine.get(`images\0${ns}\0${image}`) as ImageRecord | undefined)?.target.digest;
