/** The roots that rules are about, as they are when a plan is made. Called by plan.ts; reads only. */
import type { StoredNode } from '../engine/contract.js';
import { decodeFields } from '../engine/schema/codec.js';
import type { CollectHost } from '../gc/host.js';
import { describeNode } from '../gc/report/objects.js';
import type { RetirableKind } from '../gc/report/plan.js';
import type { GraphView } from '../gc/report/reach.js';
import {
  holdsUpload,
  ImagesInUse,
  isPinned,
  isReferredTo,
  lastUseOf,
  type RootGraph,
  type RootRecord,
  targetOf,
  targetsIn,
} from '../gc/report/root-use.js';
import { ResourceContainer, ResourceImage, ResourceLease } from '../gc/types.js';
import type { Adaptor } from '../model/filters.js';
import type { ContainerRecord, ImageRecord, LeaseRecord } from '../model/records.js';
import type { Instant } from '../model/time.js';
import { containerFields } from '../stores/containers.js';
import { imageFields } from '../stores/images.js';
import { leaseFields } from '../stores/leases.js';
import type { Pace } from '../stores/listing.js';

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
export type ForEachRoot = (root: Root, fields: Adaptor) => void;

const kindOfType = new Map<number, RetirableKind>([
  [ResourceImage, 'image'],
  [ResourceLease, 'lease'],
  [ResourceContainer, 'container'],
]);

/** Between two looks at the clock. */
const ROOTS_AT_ONCE = 32;

/** Those of a picture's roots that can be retired. Their records are not kept. */
export async function readRoots(
  host: CollectHost,
  view: GraphView,
  pace: Pace,
  forEach?: ForEachRoot,
): Promise<Root[]> {
  const { engine, lastUse } = host;
  const noted = new Map<number, Instant>();
  for (const [k, time] of lastUse.noted) {
    const id = engine.idOf(k);
    if (id !== undefined) noted.set(id, time);
  }
  const graph = graphOf(view);
  const roots: Root[] = [];
  // Filters may take long.
  const rootsAtOnce = forEach === undefined ? ROOTS_AT_ONCE : 4;
  for (const [n, id] of view.roots.entries()) {
    if (n % rootsAtOnce === 0 && pace.isOver) await pace.pass();
    const kind = kindOfType.get(view.typeOf(id));
    const found = kind === undefined ? undefined : engine.readNode(id, read);
    if (kind === undefined || found === undefined) continue;
    const { namespace, key, record } = found;
    const lastUsed = lastUseOf(engine, graph, (node) => noted.get(node), id, record);
    const root: Root = {
      place: roots.length,
      id,
      kind,
      namespace,
      key,
      createdAt: record.createdat,
      changedAt: 'updatedat' in record ? record.updatedat : record.createdat,
      lastUsed,
      isPinned: isPinned(record),
      target: targetOf(record),
      image: 'image' in record ? record.image : '',
    };
    forEach?.(root, fieldsOf(kind, key, record));
    roots.push(root);
  }
  return roots;
}

/** Fields of roots that anything here asks for. */
const FIELDS = new Set(['createdat', 'updatedat', 'labels', 'annotations', 'target', 'image', 'runtime']);

function read(node: StoredNode): { namespace: string; key: string; record: RootRecord } {
  const { namespace, key } = describeNode(node);
  // Every record of these kinds has the other fields that its type says.
  const record = decodeFields(node, FIELDS) as unknown as RootRecord;
  return { namespace, key, record };
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
    for (const [n, { namespace, key, image }] of containers.entries()) {
      if (n % ROOTS_AT_ONCE === 0 && pace.isOver) await pace.pass();
      images.add(namespace, key, image);
    }
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
  for (const [n, { namespace, key, target }] of roots.entries()) {
    if (n % ROOTS_AT_ONCE === 0 && pace.isOver) await pace.pass();
    if (target === undefined) continue;
    const of = targets.get(namespace);
    if (of === undefined) targets.set(namespace, new Map([[key, target]]));
    else of.set(key, target);
  }
  return targets;
}

const IMAGE_ID = /^sha256:[0-9a-f]{64}$/;

/** Whether it is the name by which the CRI plugin finds an image by its id: it stays with the image's other names. */
export const isImageId = (name: string): boolean => IMAGE_ID.test(name);

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
