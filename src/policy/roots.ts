/** The roots that rules are about, as they are when a plan is made. Called by plan.ts; reads only. */
import type { Key } from '../engine/contract.js';
import { components } from '../engine/schema/keys.js';
import type { CollectHost } from '../gc/host.js';
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
  readonly id: number;
  readonly kind: RetirableKind;
  readonly namespace: string;
  /** Image name or id. */
  readonly key: string;
  readonly record: RootRecord;
  readonly lastUsed: Instant;
  readonly isPinned: boolean;
}

const kindOfType = new Map<number, RetirableKind>([
  [ResourceImage, 'image'],
  [ResourceLease, 'lease'],
  [ResourceContainer, 'container'],
]);

/** Those of a picture's roots that can be retired. */
export async function readRoots(host: CollectHost, view: GraphView, pace: Pace): Promise<Root[]> {
  const { engine, lastUse } = host;
  const noted = new Map<number, Instant>();
  for (const [k, time] of lastUse.noted) {
    const id = engine.idOf(k);
    if (id !== undefined) noted.set(id, time);
  }
  const graph = graphOf(view);
  const roots: Root[] = [];
  for (const id of view.roots) {
    if (pace.isOver) await pace.pass();
    const kind = kindOfType.get(view.typeOf(id));
    const k = kind === undefined ? undefined : engine.keyOf(id);
    const record = k === undefined ? undefined : (engine.get(k) as RootRecord | undefined);
    if (kind === undefined || k === undefined || record === undefined) continue;
    const [, namespace = '', key = ''] = components(k);
    const lastUsed = lastUseOf(engine, graph, (node) => noted.get(node), id, record);
    roots.push({ id, kind, namespace, key, record, lastUsed, isPinned: isPinned(record) });
  }
  return roots;
}

const graphOf = (view: GraphView): RootGraph => ({
  flagsOf: (id) => view.flags[id] ?? 0,
  forEachTarget: (id, visit) => view.forEachTarget(id, visit),
});

/** Fields for filters. */
export function fieldsOf({ kind, key, record }: Root): Adaptor {
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
  readonly #host: CollectHost;
  readonly #view: GraphView;
  readonly #images: ImagesInUse;

  private constructor(host: CollectHost, view: GraphView, images: ImagesInUse) {
    this.#host = host;
    this.#view = view;
    this.#images = images;
  }

  static async read(
    host: CollectHost,
    view: GraphView,
    pace: Pace,
    isRetired: (k: Key) => boolean,
  ): Promise<RootsInUse> {
    return new RootsInUse(host, view, await ImagesInUse.read(host.engine, pace, isRetired));
  }

  /** In words. */
  userOf({ id, kind, namespace, key, record }: Root): string | undefined {
    if (kind === 'lease') return holdsUpload(graphOf(this.#view), id) ? 'an upload' : undefined;
    if (kind === 'container' || !('target' in record)) return undefined;
    const container = this.#images.by(namespace, key, record.target.digest);
    if (container !== undefined) return `container ${container}`;
    return isReferredTo(this.#host.engine, id) ? 'a reference' : undefined;
  }
}

/** Repository and tag of an image's name; the tag is '' where there is none. */
export function repositoryAndTag(name: string): { repository: string; tag: string } {
  const at = name.indexOf('@');
  const tagged = at < 0 ? name : name.slice(0, at);
  const colon = tagged.indexOf(':', tagged.lastIndexOf('/') + 1);
  return colon < 0
    ? { repository: tagged, tag: '' }
    : { repository: tagged.slice(0, colon), tag: tagged.slice(colon + 1) };
}
