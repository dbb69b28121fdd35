/**
 * Resources outside the store in a schedule: streams (the ready-made collector) and mounts (one of the test's own,
 * with leases, back references and references of its own). `asRecords` gives them to the oracle in the only terms it
 * knows: each becomes a blob that nothing can mistake for one, with labels that mean the same.
 */
import type { CollectionContext, Collector, Send, SendBackReference } from '../../src/gc/collectors.js';
import { type Node, ResourceContent, ResourceImage, ResourceMount } from '../../src/gc/types.js';
import { altered } from '../stores/store-world.js';
import type { Model, NamespaceModel } from '../support/oracle.js';

export interface Resource {
  readonly word: 'stream' | 'mount';
  readonly namespace: string;
  readonly name: string;
  /** In use on its own. */
  readonly active: boolean;
  readonly lease?: string;
  /** Kept while these are. */
  readonly parents: readonly Node[];
  readonly references: readonly Node[];
}

export const resourceName = ({ word, namespace, name }: Pick<Resource, 'word' | 'namespace' | 'name'>) =>
  `${word}|${namespace}|${name}`;

const stands = (word: string, name: string): string => `${word}!${name}`;

/** The label word and value that name a node. */
function labelOf({ type, key }: Node): [string, string] {
  if (type === ResourceContent) return ['content', key];
  if (type === ResourceImage) return ['image', key];
  const slash = key.indexOf('/');
  return [`snapshot.${key.slice(0, slash)}`, key.slice(slash + 1)];
}

const GC = 'containerd.io/gc.';

/** Adds the resources to a model, and to every label that names one the label it stands for. */
export function asRecords(model: Model, resources: Iterable<Resource>): void {
  for (const resource of resources) {
    const space = model.get(resource.namespace);
    if (space === undefined) continue;
    const labels: Record<string, string> = {};
    if (resource.active) labels[`${GC}root`] = 'x';
    for (const [kind, nodes] of [
      ['ref', resource.references],
      ['bref', resource.parents],
    ] as const) {
      nodes.forEach((node, i) => {
        const [word, value] = labelOf(node);
        labels[`${GC}${kind}.${word}/${i}`] = value;
      });
    }
    const key = stands(resource.word, resource.name);
    space.blobs.set(key, { labels });
    if (resource.lease === undefined) continue;
    // By way of an ingest, because every lease keeps those plain.
    space.ingests.set(key, { expireat: undefined, expected: key });
    space.leases.get(resource.lease)?.resources.push({ kind: 'ingest', key });
  }
  for (const space of model.values()) translateLabels(space);
}

function translateLabels(space: NamespaceModel): void {
  for (const objects of [space.blobs, space.images, space.snapshots, space.containers, space.sandboxes]) {
    for (const object of objects.values()) {
      for (const [label, value] of Object.entries(object.labels)) {
        const word = /^containerd\.io\/gc\.ref\.(stream|mount)(?:[./]|$)/.exec(label)?.[1];
        if (word === undefined) continue;
        object.labels = { ...object.labels, [`${GC}ref.content/${label}`]: stands(word, value) };
      }
    }
  }
}

/** Whether the oracle keeps a resource. */
export const isKept = (reached: ReadonlySet<string>, { word, namespace, name }: Resource): boolean =>
  reached.has(`content|${namespace}|${stands(word, name)}`);

/** A collector over a fixed list. It returns at once or by promises, as the schedule chooses. */
export class Mounts implements Collector {
  readonly resources: Resource[];
  readonly #delay: () => Promise<void> | undefined;

  constructor(resources: readonly Resource[], delay: () => Promise<void> | undefined) {
    this.resources = [...resources];
    this.#delay = delay;
  }

  referenceLabel(): string {
    return 'mount';
  }

  startCollection(): CollectionContext {
    const paced = (fn: () => void): void | Promise<void> => {
      const wait = this.#delay();
      return wait === undefined ? fn() : wait.then(fn);
    };
    const of = (namespace: string) => this.resources.filter((r) => r.namespace === namespace);
    const garbage: Node[] = [];
    return {
      all: (send) => this.resources.forEach((r) => void send(nodeOf(r))),
      active: () => {
        throw new Error('asked for less than it offers');
      },
      activeWithBackRefs: (ns: string, send: Send, bref: SendBackReference) =>
        paced(() => {
          for (const r of of(ns)) {
            if (r.active) send(nodeOf(r));
            for (const parent of r.parents) bref(parent, nodeOf(r));
          }
        }),
      leased: (ns, lease, send) =>
        paced(() => of(ns).forEach((r) => void (r.lease === lease && send(nodeOf(r))))),
      references: (_ctx, node, send) =>
        paced(() => {
          for (const r of of(node.namespace)) {
            if (r.name !== node.key) continue;
            for (const target of r.references) send(target);
          }
        }),
      remove: (node) => void garbage.push(node),
      cancel: () => void garbage.splice(0),
      finish: () => {
        for (const { namespace, key } of garbage) {
          const at = this.resources.findIndex((r) => r.namespace === namespace && r.name === key);
          if (at >= 0) this.resources.splice(at, 1);
        }
      },
    };
  }
}

const nodeOf = ({ namespace, name }: Resource): Node => ({ type: ResourceMount, namespace, key: name });

export interface ResourceWatcher {
  /** At the moment it is decided. */
  resourceGoes(node: Node): void;
  /** The collection has succeeded, so these are gone. */
  resourcesGone(nodes: readonly Node[]): void;
}

/** A collector whose removals are reported. */
export function watched(collector: Collector, watcher: ResourceWatcher): Collector {
  return altered<Collector>(collector, {
    startCollection: async (ctx) => {
      const context = await collector.startCollection(ctx);
      const going: Node[] = [];
      return altered<CollectionContext>(context, {
        remove: (node) => {
          watcher.resourceGoes(node);
          going.push(node);
          context.remove(node);
        },
        finish: async () => {
          await context.finish();
          watcher.resourcesGone(going);
        },
      });
    },
  });
}
