/**
 * Resources outside the store that take part in collections: streams, mounts and what embedders register.
 * The registry is filled by the DB; a collection starts every collector, asks it what is in use, says what
 * to remove, and ends it with exactly one of `cancel` and `finish`.
 *
 * No lock of the store is held while a collector is asked, so a collection goes on beside writers; a collector
 * guards its own resources. Each namespace, lease and node is asked about at most once in a run.
 */
import { alreadyExists, invalidArgument } from '../errors.js';
import { isWord } from './references.js';
import { kindName, type Node, RESOURCE_END, ResourceMax, type ResourceType } from './types.js';

/** Called with each node. */
export type Send = (node: Node) => void;
/** Adds the edge "if `parent` is kept, so is `child`" for this run. */
export type SendBackReference = (parent: Node, child: Node) => void;

type MaybePromise<T> = T | Promise<T>;

/** What a collector is told of the run. */
export interface CollectOptionsForCollector {
  /** Ends the run. */
  readonly signal?: AbortSignal | undefined;
}

/** One collection as one collector sees it. */
export interface CollectionContext {
  /** Every known resource, in any namespace. */
  all(send: Send): MaybePromise<void>;
  /** Resources in use without a lease; asked only for namespaces the store knows. */
  active(namespace: string, send: Send): MaybePromise<void>;
  /** Replaces `active` where present. */
  activeWithBackRefs?(namespace: string, send: Send, bref: SendBackReference): MaybePromise<void>;
  /** Resources a live lease holds. */
  leased(namespace: string, lease: string, send: Send): MaybePromise<void>;
  /** Forward edges of one node of this collector's type. */
  references?(ctx: CollectOptionsForCollector, node: Node, send: Send): MaybePromise<void>;
  /** The resource is garbage: remember it for `finish`. Must be fast. */
  remove(node: Node): void;
  /** The collection failed: undo, release what `startCollection` took. Errors are logged. */
  cancel(): MaybePromise<void>;
  /** The collection succeeded: do the slow work, release what was taken. Errors are logged. */
  finish(): MaybePromise<void>;
}

/** A program's own kind of resource in collections. */
export interface Collector {
  /** Throws to be left out of this run; it must then have released what it took. */
  startCollection(ctx: CollectOptionsForCollector): MaybePromise<CollectionContext>;
  /** Word of `containerd.io/gc.ref.<word>` labels; '' when labels cannot refer to the resources. */
  referenceLabel(): string;
}

/** Words the store's own references use; a collector with one of them would never be asked. */
const builtInWords = ['content', 'image', 'snapshot'];

export class CollectorRegistry {
  readonly #collectors = new Map<ResourceType, Collector>();

  /** Takes effect with the next run. InvalidArgument out of range, AlreadyExists for a second of one type. */
  register(type: ResourceType, collector: Collector): void {
    if (!Number.isInteger(type) || type < RESOURCE_END || type >= ResourceMax) {
      throw invalidArgument(`cannot register resource type ${type}`, {
        object: String(type),
        remedy: `use a number from ${RESOURCE_END} and below ${ResourceMax}`,
      });
    }
    const label = collector.referenceLabel();
    if (builtInWords.some((word) => isWord(label, word))) {
      throw invalidArgument(`reference label "${label}" is built in`, { remedy: 'choose another word' });
    }
    if (this.#collectors.has(type)) {
      throw alreadyExists(`resource type ${kindName(type)} (${type}) has a collector`, {
        object: String(type),
        remedy: 'register one collector per type',
      });
    }
    this.#collectors.set(type, collector);
  }

  get size(): number {
    return this.#collectors.size;
  }

  /** Type and collector, in order of registration. */
  entries(): [ResourceType, Collector][] {
    return [...this.#collectors];
  }
}

/** A collector that started in this run. */
export interface StartedCollector {
  readonly type: ResourceType;
  readonly label: string;
  readonly context: CollectionContext;
}

/** Reports a collector's failure that does not fail the collection. */
export type Warn = (message: string, details: Readonly<Record<string, unknown>>) => void;

/** Starts every registered collector; one that fails is left out of the run. */
export async function startCollectors(
  registry: CollectorRegistry,
  signal: AbortSignal | undefined,
  warn: Warn,
): Promise<StartedCollector[]> {
  const started: StartedCollector[] = [];
  for (const [type, collector] of registry.entries()) {
    try {
      const label = collector.referenceLabel();
      started.push({ type, label, context: await collector.startCollection({ signal }) });
    } catch (error) {
      warn('a collector did not start and is left out of this collection', {
        type: kindName(type),
        error: String(error),
      });
    }
  }
  return started;
}

/** Ends every started collector, side by side; errors are logged and go no further. */
export async function endCollectors(
  started: readonly StartedCollector[],
  how: 'cancel' | 'finish',
  warn: Warn,
): Promise<void> {
  await Promise.all(
    started.map(async ({ type, context }) => {
      try {
        await context[how]();
      } catch (error) {
        warn(`a collector failed to ${how}`, { type: kindName(type), error: String(error) });
      }
    }),
  );
}
