/**
 * Streams: a ready-made collector for connections that live in memory, by namespace and name. A stream made
 * under a lease lives as long as the lease or a label that refers to it; any other is always in use.
 *
 * Embedders register it with `db.registerCollectibleResource(ResourceStream, streams)`. Nothing is stored, so
 * nothing is left after a restart. No lock: a run removes only what was there when it began, so streams may come
 * and go meanwhile.
 */
import { type CallContext, requireNamespace } from '../context.js';
import { alreadyExists, invalidArgument, notFound } from '../errors.js';
import type { CollectionContext, Collector, Send } from './collectors.js';
import { type Node, ResourceStream } from './types.js';

/** A stream that a lease keeps open. */
export interface Stream {
  /** Called when nothing keeps it any more. */
  close(): Promise<void> | void;
}

interface Entry {
  readonly stream: Stream;
  readonly lease: string | undefined;
}

type Namespaces = Map<string, Map<string, Entry>>;

/** Streams as resources of collections. */
export class Streams implements Collector {
  readonly #namespaces: Namespaces = new Map();

  /** The part of a label's name that refers to a stream. */
  referenceLabel(): string {
    return 'stream';
  }

  /** AlreadyExists for a name in use. The context's lease, if any, is all that keeps it then. */
  register(ctx: CallContext, name: string, stream: Stream): void {
    const ns = requireNamespace(ctx);
    if (name === '') throw invalidArgument('a stream needs a name');
    const streams = this.#namespaces.get(ns) ?? new Map<string, Entry>();
    if (streams.has(name)) throw alreadyExists(`stream "${name}" exists`, { object: name });
    streams.set(name, { stream, lease: ctx.lease === '' ? undefined : ctx.lease });
    this.#namespaces.set(ns, streams);
  }

  /** NotFound when there is none of that name. */
  get(ctx: CallContext, name: string): Stream {
    const entry = this.#namespaces.get(requireNamespace(ctx))?.get(name);
    if (entry === undefined) throw notFound(`stream "${name}" not found`, { object: name });
    return entry.stream;
  }

  /** Forgets and closes it; NotFound when there is none. */
  async remove(ctx: CallContext, name: string): Promise<void> {
    const stream = this.get(ctx, name);
    this.#forget(requireNamespace(ctx), name);
    await stream.close();
  }

  /** Called by a collection. */
  startCollection(): CollectionContext {
    const known = new Map(Array.from(this.#namespaces, ([ns, streams]) => [ns, new Map(streams)]));
    return new StreamCollection(known, this.#namespaces, (ns, name) => this.#forget(ns, name));
  }

  #forget(ns: string, name: string): void {
    const streams = this.#namespaces.get(ns);
    streams?.delete(name);
    if (streams?.size === 0) this.#namespaces.delete(ns);
  }
}

class StreamCollection implements CollectionContext {
  readonly #known: Namespaces;
  readonly #live: Namespaces;
  readonly #forget: (ns: string, name: string) => void;
  readonly #removed: Node[] = [];

  constructor(known: Namespaces, live: Namespaces, forget: (ns: string, name: string) => void) {
    this.#known = known;
    this.#live = live;
    this.#forget = forget;
  }

  all(send: Send): void {
    for (const [ns, streams] of this.#known) for (const name of streams.keys()) send(nodeOf(ns, name));
  }

  active(namespace: string, send: Send): void {
    this.#send(namespace, undefined, send);
  }

  leased(namespace: string, lease: string, send: Send): void {
    this.#send(namespace, lease, send);
  }

  remove(node: Node): void {
    this.#removed.push(node);
  }

  cancel(): void {
    this.#removed.length = 0;
  }

  async finish(): Promise<void> {
    const closing = this.#removed.flatMap(({ namespace, key }) => {
      const entry = this.#known.get(namespace)?.get(key);
      // Removed, or removed and made again, while the run was under way: not ours to close.
      if (entry === undefined || this.#live.get(namespace)?.get(key) !== entry) return [];
      this.#forget(namespace, key);
      return [entry.stream];
    });
    const results = await Promise.allSettled(closing.map(async (stream) => stream.close()));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
  }

  #send(ns: string, lease: string | undefined, send: Send): void {
    for (const [name, entry] of this.#known.get(ns) ?? []) if (entry.lease === lease) send(nodeOf(ns, name));
  }
}

const nodeOf = (namespace: string, name: string): Node => ({ type: ResourceStream, namespace, key: name });
