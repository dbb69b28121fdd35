/** The roots that rules are about, as they are when a plan is made. Called by plan.ts; reads only. */
import { NodeFlag, type StoredNode } from '../engine/contract.js';
import type { CollectHost } from '../gc/host.js';
import { describeNode } from '../gc/report/objects.js';
import type { RetirableKind } from '../gc/report/plan.js';
import type { GraphView } from '../gc/report/reach.js';
import {
  changedAtOf,
  holdsUpload,
  ImagesInUse,
  isPinned,
  isReferredTo,
  lastUseOf,
  type RootGraph,
  type RootRecord,
  targetsIn,
  type UseOf,
  useOfSnapshot,
} from '../gc/report/root-use.js';
import { ResourceContainer, ResourceImage, ResourceLease, ResourceSnapshot } from '../gc/types.js';
import type { Adaptor } from '../model/filters.js';
import type { ContainerRecord, ImageRecord, LeaseRecord } from '../model/records.js';
import type { Instant } from '../model/time.js';
import { containerFields } from '../stores/containers.js';
import { imageFields } from '../stores/images.js';
import { leaseFields } from '../stores/leases.js';
import type { Pace } from '../stores/listing.js';
import { readRoot, wholeRoot } from './root-record.js';

export interface Root {
  /** In the list of all. */
  readonly place: number;
  readonly id: number;
  readonly kind: RetirableKind;
  readonly namespace: string;
  /** Image name or id. */
  readonly key: string;
  readonly createdAt: Instant;
  /** When it was made or moved. */
  readonly changedAt: Instant;
  readonly lastUsed: Instant;
  readonly isPinned: boolean;
  /** The digest that an image names; undefined for others. */
  readonly target: string | undefined;
  /** The image that a container names; '' for others. */
  readonly image: string;
}

/** Is given each root with its fields for filters, which are good until it returns. */
export type ForEachRoot = (root: Pick<Root, 'kind' | 'namespace' | 'place'>, fields: Adaptor) => void;

const kindOfType = new Map<number, RetirableKind>([
  [ResourceImage, 'image'],
  [ResourceLease, 'lease'],
  [ResourceContainer, 'container'],
]);

/** Between two looks at the clock. */
const ROOTS_AT_ONCE = 32;
const NODES_AT_ONCE = 4096;

/** Those of a picture's roots that can be retired. Their records are not kept. */
export async function readRoots(
  host: CollectHost,
  view: GraphView,
  pace: Pace,
  forEach?: ForEachRoot,
): Promise<Root[]> {
  const { engine } = host;
  const graph = graphOf(view);
  const noted = notedUses(host);
  const ofSnapshot = await useOfSnapshots(host, view, noted, pace);
  const noteOf = (id: number): Instant | undefined => noted.get(id);
  const roots: Root[] = [];
  let kind: RetirableKind = 'image';
  const read = (node: StoredNode) => {
    const { namespace, key } = describeNode(node);
    const record = readRoot(node);
    if (forEach !== undefined) {
      let fields: Adaptor | undefined;
      forEach({ kind, namespace, place: roots.length }, (path) => {
        fields ??= fieldsOf(kind, key, wholeRoot(node));
        return fields(path);
      });
    }
    return { namespace, key, record };
  };
  // Filters may take long.
  const rootsAtOnce = forEach === undefined ? ROOTS_AT_ONCE : 4;
  await pace.forEach(view.roots, rootsAtOnce, (id) => {
    const known = kindOfType.get(view.typeOf(id));
    if (known === undefined) return;
    kind = known;
    const found = engine.readNode(id, read);
    if (found === undefined) return;
    const { namespace, key, record } = found;
    roots.push({
      place: roots.length,
      id,
      kind,
      namespace,
      key,
      createdAt: record.createdat,
      changedAt: changedAtOf(record),
      lastUsed: lastUseOf(graph, noteOf, ofSnapshot, id, record),
      isPinned: isPinned(record),
      target: record.target,
      image: record.image,
    });
  });
  return roots;
}

/** By the node. */
function notedUses({ engine, lastUse }: CollectHost): Map<number, Instant> {
  const noted = new Map<number, Instant>();
  for (const [k, time] of lastUse.noted) {
    const id = engine.idOf(k);
    if (id !== undefined) noted.set(id, time);
  }
  return noted;
}

/** Of each snapshot read once, however many images were unpacked to it. Undefined: nothing is said of any. */
async function useOfSnapshots(
  { engine }: CollectHost,
  view: GraphView,
  noted: ReadonlyMap<number, Instant>,
  pace: Pace,
): Promise<UseOf | undefined> {
  let isSaid = [...noted.keys()].some((id) => view.typeOf(id) === ResourceSnapshot);
  for (let id = 0; id < view.limit && !isSaid; id++) {
    if (id % NODES_AT_ONCE === 0 && pace.isOver) await pace.pass();
    isSaid = view.typeOf(id) === ResourceSnapshot && ((view.flags[id] ?? 0) & NodeFlag.conditionValue) !== 0;
  }
  if (!isSaid) return undefined;
  const read = useOfSnapshot(engine, graphOf(view), (id) => noted.get(id));
  const known = new Map<number, Instant | undefined>();
  return (id) => {
    const use = known.get(id);
    if (use !== undefined || known.has(id)) return use;
    const first = read(id);
    known.set(id, first);
    return first;
  };
}

const graphOf = (view: GraphView): RootGraph => ({
  flagsOf: (id) => view.flags[id] ?? 0,
  forEachTarget: (id, visit) => view.forEachTarget(id, visit),
  isTarget: (id) => view.isTarget(id),
});

/** Fields for filters. */
function fieldsOf(kind: RetirableKind, key: string, record: RootRecord): Adaptor {
  switch (kind) {
    case 'image':
      return imageFields(key, record as ImageRecord);
    case 'lease':
      return leaseFields(key, record as LeaseRecord);
    case 'container':
      return containerFields(key, record as ContainerRecord);
  }
}

/** Who uses roots: containers that stay their images, uploads their leases, any reference what it names. */
export class RootsInUse {
  readonly #graph: RootGraph;
  readonly #images: ImagesInUse;

  private constructor(graph: RootGraph, images: ImagesInUse) {
    this.#graph = graph;
    this.#images = images;
  }

  /** By the containers among the roots, but those that are retired. */
  static async read(
    { engine }: CollectHost,
    view: GraphView,
    roots: readonly Root[],
    pace: Pace,
    isRetired: (root: Root) => boolean,
  ): Promise<RootsInUse> {
    const stored = targetsIn(engine);
    const containers = roots.filter((root) => root.kind === 'container' && !isRetired(root));
    const targets = await targetsOf(containers.length === 0 ? [] : roots, pace);
    const images = new ImagesInUse((ns, image) => targets.get(ns)?.get(image) ?? stored(ns, image));
    await pace.forEach(containers, ROOTS_AT_ONCE, ({ namespace, key, image }) =>
      images.add(namespace, key, image),
    );
    return new RootsInUse(graphOf(view), images);
  }

  /** In words. */
  userOf({ id, kind, namespace, key, target }: Root): string | undefined {
    if (kind === 'lease') return holdsUpload(this.#graph, id) ? 'an upload' : undefined;
    if (target === undefined) return undefined;
    const container = this.#images.by(namespace, key, target);
    if (container !== undefined) return `container ${container}`;
    return isReferredTo(this.#graph, id) ? 'a reference' : undefined;
  }
}

/** Targets of the images among the roots, by namespace and name. */
async function targetsOf(roots: readonly Root[], pace: Pace): Promise<Map<string, Map<string, string>>> {
  const targets = new Map<string, Map<string, string>>();
  await pace.forEach(roots, ROOTS_AT_ONCE, ({ namespace, key, target }) => {
    if (target === undefined) return;
    const of = targets.get(namespace);
    if (of === undefined) targets.set(namespace, new Map([[key, target]]));
    else of.set(key, target);
  });
  return targets;
}

const IMAGE_ID = /^sha256:[0-9a-f]{64}$/;
const IMAGE_ID_LENGTH = 71;

/** Whether it is the name by which the CRI plugin finds an image by its id: it stays with the image's other names. */
export const isImageId = (name: string): boolean => name.length === IMAGE_ID_LENGTH && IMAGE_ID.test(name);

/** Repository and tag of an image's name; the tag is '' where there is none. */
export function repositoryAndTag(name: string): { repository: string; tag: string } {
  if (isImageId(name)) return { repository: '', tag: '' };
  const at = name.indexOf('@');
  const tagged = at < 0 ? name : name.slice(0, at);
  const colon = tagged.indexOf(':', tagged.lastIndexOf('/') + 1);
  return colon < 0
    ? { repository: tagged, tag: '' }
    : { repository: tagged.slice(0, colon), tag: tagged.slice(colon + 1) };
}
