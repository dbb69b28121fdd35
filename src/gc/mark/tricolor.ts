/**
 * The textbook algorithms over nodes, for programs that walk graphs of their own: marking one node at a time,
 * marking many at once, and removing what was not reached. The database itself marks in the graph core.
 *
 * Memory grows with the reachable nodes. Nothing here locks or stores.
 */
import { abortError, throwIfAborted } from '../../errors.js';
import { type Node, nodeName, ResourceMax } from '../types.js';

/** A set of nodes, equal by type, namespace and key, in order of insertion. */
export class NodeSet implements Iterable<Node> {
  readonly #nodes = new Map<string, Node>();

  constructor(nodes: Iterable<Node> = []) {
    for (const node of nodes) this.add(node);
  }

  /** How many nodes there are. */
  get size(): number {
    return this.#nodes.size;
  }

  /** Whether an equal node is in it. */
  has(node: Node): boolean {
    return this.#nodes.has(nodeName(node));
  }

  /** False when the node was there already. */
  add(node: Node): boolean {
    const name = nodeName(node);
    if (this.#nodes.has(name)) return false;
    this.#nodes.set(name, node);
    return true;
  }

  /** Every node once. */
  [Symbol.iterator](): IterableIterator<Node> {
    return this.#nodes.values();
  }
}

const withoutVariant = (node: Node): Node =>
  (node.type & ResourceMax) === node.type ? node : { ...node, type: node.type & ResourceMax };

/**
 * Everything reachable from `roots` over `refs`, variant bits cleared in the result. Each distinct node
 * (variants count as distinct) is expanded once. The first error of `refs` aborts and is thrown.
 */
export function tricolor(roots: Iterable<Node>, refs: (node: Node) => Iterable<Node>): NodeSet {
  const seen = new NodeSet();
  const grays: Node[] = [];
  for (const root of roots) if (seen.add(root)) grays.push(root);
  const reachable = new NodeSet();
  for (let node = grays.pop(); node !== undefined; node = grays.pop()) {
    for (const target of refs(node)) if (seen.add(target)) grays.push(target);
    reachable.add(withoutVariant(node));
  }
  return reachable;
}

/** How a mark with several readers is made. */
export interface ConcurrentOptions {
  /** Ends it. */
  signal?: AbortSignal | undefined;
  /** Most nodes expanded at a time; default 64. */
  width?: number;
}

/**
 * Like tricolor, with asynchronous `refs` that deliver targets through `send` and are run side by side. The
 * result holds every seen node with its variant bits as given. The first error cancels the others through the
 * signal they were given and is thrown; an ended `options.signal` throws its error.
 */
export async function concurrentMark(
  roots: Iterable<Node> | AsyncIterable<Node>,
  refs: (signal: AbortSignal, node: Node, send: (target: Node) => void) => Promise<void>,
  options: ConcurrentOptions = {},
): Promise<NodeSet> {
  const { signal, width = 64 } = options;
  throwIfAborted(signal);
  const marking = new Marking(refs, width);
  const cancel = (): void => marking.fail(signal ? abortError(signal) : undefined);
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return await marking.run(roots);
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

type Expand = (signal: AbortSignal, node: Node, send: (target: Node) => void) => Promise<void>;

/** One concurrent marking: the gray nodes, how many are being expanded, and how it ended. */
class Marking {
  readonly #refs: Expand;
  readonly #width: number;
  readonly #seen = new NodeSet();
  readonly #grays: Node[] = [];
  readonly #abort = new AbortController();
  #running = 0;
  #rootsDone = false;
  #outcome: { resolve: () => void; reject: (error: unknown) => void } | undefined;

  constructor(refs: Expand, width: number) {
    this.#refs = refs;
    this.#width = Math.max(1, width);
  }

  async run(roots: Iterable<Node> | AsyncIterable<Node>): Promise<NodeSet> {
    const done = new Promise<void>((resolve, reject) => {
      this.#outcome = { resolve, reject };
    });
    this.#readRoots(roots).catch((error: unknown) => this.fail(error));
    await done;
    return this.#seen;
  }

  fail(error: unknown): void {
    this.#abort.abort(error);
    this.#outcome?.reject(error);
    this.#outcome = undefined;
  }

  async #readRoots(roots: Iterable<Node> | AsyncIterable<Node>): Promise<void> {
    for await (const root of roots) {
      if (this.#outcome === undefined) return;
      this.#see(root);
    }
    this.#rootsDone = true;
    this.#next();
  }

  #see(node: Node): void {
    if (!this.#seen.add(node)) return;
    this.#grays.push(node);
    this.#next();
  }

  #next(): void {
    while (this.#outcome !== undefined && this.#running < this.#width) {
      const node = this.#grays.pop();
      if (node === undefined) break;
      this.#running++;
      void this.#expand(node);
    }
    if (this.#running > 0 || this.#grays.length > 0 || !this.#rootsDone) return;
    this.#outcome?.resolve();
    this.#outcome = undefined;
  }

  async #expand(node: Node): Promise<void> {
    try {
      await this.#refs(this.#abort.signal, node, (target) => this.#see(target));
    } catch (error) {
      this.fail(error);
    }
    this.#running--;
    this.#next();
  }
}

/** Calls `remove` for each node of `all` that is not in `reachable`, in order, up to the first error. */
export async function sweep(
  reachable: NodeSet,
  all: Iterable<Node> | AsyncIterable<Node>,
  remove: (node: Node) => Promise<void> | void,
): Promise<void> {
  for await (const node of all) if (!reachable.has(node)) await remove(node);
}
