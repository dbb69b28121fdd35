/**
 * Edges that exist for one collection only: conditional references, and what collectors report (resources in use,
 * resources of leases, back references, forward references). They are followed to a fixed point together with
 * the graph core's own edges.
 *
 * Called by collect.ts on the main thread between the mark and the end of the run. Writers go on meanwhile, so
 * every slice follows what is new if the store has changed; each namespace, lease, label target and node is passed to a
 * collector once, so following again costs what is new.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import { type Engine, type Key, NodeFlag } from '../../engine/contract.js';
import { MarkBit } from '../../engine/graph.js';
import { components, key, leaf, namespaceOf, snapshotKey } from '../../engine/schema/keys.js';
import type { Instant } from '../../model/time.js';
import { usedAtTimes } from '../../stores/last-use.js';
import type { StartedCollector } from '../collectors.js';
import { isWord, labelsOf } from '../references.js';
import { keyOfNode, type Node, nodeName, ResourceLease, ResourceMax } from '../types.js';
import { conditionalReferences, conditionHolds } from './conditions.js';
import { NodeSet } from './tricolor.js';

interface BackReference {
  /** The parent, when it is a record. */
  readonly parent: Key;
  readonly child: Node;
}

export class RunEdges {
  readonly #engine: Engine;
  readonly #collectors: ReadonlyMap<number, StartedCollector>;
  readonly #now: Instant;
  readonly #signal: AbortSignal | undefined;

  /** Records that collectors named, for reports. */
  readonly fromCollectors = new Set<number>();
  /** Collectors' resources in use. */
  readonly #reached = new NodeSet();
  /** Reached ones whose collector was not asked for their references yet. */
  readonly #unasked: Node[] = [];
  readonly #askedNamespaces = new Set<string>();
  readonly #askedLeases = new Set<Key>();
  /** By key: an id may stand for another object before the run is over. */
  readonly #followedForeign = new Set<Key>();
  /**
   * Records in use for a collector's sake, each with the node it had when last looked at. A record may be missing,
   * or be removed and made again during the run: its new node has to be marked like the old one.
   */
  readonly #sent = new Map<Key, number | undefined>();
  readonly #backFromResources = new Map<string, Node[]>();
  #backFromRecords: BackReference[] = [];
  /** Store nodes to be marked. */
  #toMark: number[] = [];
  /** Results of collectors that are still to come. */
  #pending: Promise<void>[] = [];
  /** Revision up to which everything is followed, and the engine's epoch then. */
  #followedAt = -1;
  #followedIn = -1;

  constructor(
    engine: Engine,
    collectors: readonly StartedCollector[],
    now: Instant,
    signal: AbortSignal | undefined,
  ) {
    this.#engine = engine;
    this.#collectors = new Map(collectors.map((collector) => [collector.type, collector]));
    this.#now = now;
    this.#signal = signal;
  }

  /** Follows everything, waiting for collectors. The first error of a collector is thrown. */
  async followAll(): Promise<void> {
    for (;;) {
      while (!this.#engine.graph.catchUp()) await yieldToEventLoop();
      this.#follow();
      if (this.#pending.length === 0) return;
      const pending = this.#pending;
      this.#pending = [];
      await Promise.all(pending);
    }
  }

  /** Follows what is new. False when the marks, or a collector, must be waited for first (`followAll`). */
  tryFollowNew(): boolean {
    if (!this.#engine.graph.catchUp()) return false;
    this.#follow();
    return this.#pending.length === 0;
  }

  /** The same inside a slice, at the slice's revision; when false, nothing may be removed. */
  followAt(revision: number): boolean {
    const { epoch } = this.#engine;
    if (revision === this.#followedAt && epoch === this.#followedIn) return true;
    if (!this.tryFollowNew()) return false;
    this.#followedAt = revision;
    this.#followedIn = epoch;
    return true;
  }

  /** The run's own commit moved the store from `revision` by one, and added no reference. */
  ownCommit(revision: number): void {
    if (this.#followedAt === revision) this.#followedAt = revision + 1;
  }

  /** Whether a collector's resource is in use. */
  isReached(node: Node): boolean {
    return this.#reached.has(node);
  }

  #follow(): void {
    let more = true;
    while (more) {
      const sent = this.#sent.size;
      if (this.#collectors.size > 0) {
        this.#askNamespaces();
        this.#askLeases();
        this.#followForeign();
        this.#followBackReferences();
        this.#askReferences();
        this.#followSent();
      }
      this.#followConditions();
      const ids = Uint32Array.from(this.#toMark);
      this.#toMark = [];
      const marked = ids.length > 0 && this.#engine.graph.markFrom(ids) > 0;
      more = marked || this.#unasked.length > 0 || this.#sent.size > sent;
    }
  }

  // ---------------------------------------------------------------------------------------- what is reached

  readonly #send = (node: Node): void => this.#reach(node);

  #reach(node: Node): void {
    const type = node.type & ResourceMax;
    if (this.#collectors.has(type)) {
      const plain = type === node.type ? node : { ...node, type };
      if (!this.#reached.add(plain)) return;
      this.#unasked.push(plain);
      for (const child of this.#backFromResources.get(nodeName(plain)) ?? []) this.#reach(child);
      return;
    }
    const record = keyOfNode(node);
    if (record !== undefined && !this.#sent.has(record)) this.#sent.set(record, undefined);
  }

  #followSent(): void {
    for (const [record, known] of this.#sent) {
      if (known !== undefined && this.#isMarkedSinceBegin(known)) continue;
      const id = this.#engine.idOf(record);
      if (id !== known) this.#sent.set(record, id);
      if (id === undefined) continue;
      this.fromCollectors.add(id);
      if (!this.#isMarked(id)) this.#toMark.push(id);
    }
  }

  /** Whether a node is marked and stands for the record it stood for when the run began. */
  #isMarkedSinceBegin(id: number): boolean {
    const { graph } = this.#engine;
    const sinceBegin = (graph.marksOf(id) & (MarkBit.plain | MarkBit.allocatedBlack)) === MarkBit.plain;
    return sinceBegin && (graph.flagsOf(id) & NodeFlag.present) !== 0;
  }

  #isMarked(id: number): boolean {
    return (this.#engine.graph.marksOf(id) & MarkBit.plain) !== 0;
  }

  readonly #sendBack = (parent: Node, child: Node): void => {
    const type = parent.type & ResourceMax;
    if (this.#collectors.has(type)) {
      const name = nodeName({ ...parent, type });
      const children = this.#backFromResources.get(name);
      if (children === undefined) this.#backFromResources.set(name, [child]);
      else children.push(child);
      if (this.#reached.has({ ...parent, type })) this.#reach(child);
      return;
    }
    const record = keyOfNode(parent);
    if (record !== undefined) this.#backFromRecords.push({ parent: record, child });
  };

  // ------------------------------------------------------------------------------------------ whom to ask

  #ask(result: void | Promise<void>): void {
    if (result instanceof Promise) {
      // The result is awaited by `followAll`; until then a failure must not count as unhandled.
      result.catch(() => undefined);
      this.#pending.push(result);
    }
  }

  #askNamespaces(): void {
    for (const [record] of this.#engine.scan(key('namespaces'))) {
      const ns = leaf(record);
      if (this.#askedNamespaces.has(ns)) continue;
      this.#askedNamespaces.add(ns);
      for (const { context } of this.#collectors.values()) {
        if (context.activeWithBackRefs) {
          this.#ask(context.activeWithBackRefs(ns, this.#send, this.#sendBack));
        } else this.#ask(context.active(ns, this.#send));
      }
    }
  }

  #askLeases(): void {
    const { graph } = this.#engine;
    for (const id of graph.withFlags((ResourceLease << 8) | NodeFlag.present)) {
      if (graph.flagsOf(id) >> 8 !== ResourceLease || !this.#isMarked(id)) continue;
      const record = this.#engine.keyOf(id);
      if (record === undefined || this.#askedLeases.has(record)) continue;
      this.#askedLeases.add(record);
      for (const { context } of this.#collectors.values()) {
        this.#ask(context.leased(namespaceOf(record), leaf(record), this.#send));
      }
    }
  }

  #askReferences(): void {
    for (let node = this.#unasked.pop(); node !== undefined; node = this.#unasked.pop()) {
      const context = this.#collectors.get(node.type)?.context;
      if (context?.references) this.#ask(context.references({ signal: this.#signal }, node, this.#send));
    }
  }

  // --------------------------------------------------------------------------------------- edges to follow

  /** Labels whose word is a collector's, on objects that are kept. */
  #followForeign(): void {
    for (const id of this.#engine.graph.withFlags(NodeFlag.foreign)) {
      if (!this.#isMarked(id)) continue;
      const record = this.#engine.keyOf(id);
      if (record === undefined || this.#followedForeign.has(record)) continue;
      this.#followedForeign.add(record);
      const [, namespace = '', word = '', target = ''] = components(record);
      for (const { type, label } of this.#collectors.values()) {
        if (label !== '' && isWord(word, label)) this.#reach({ type, namespace, key: target });
      }
    }
  }

  #followBackReferences(): void {
    this.#backFromRecords = this.#backFromRecords.filter(({ parent, child }) => {
      const id = this.#engine.idOf(parent);
      // What a collector keeps counts as kept even while there is no record of it, as what a label names does.
      if (!this.#sent.has(parent) && (id === undefined || !this.#isMarked(id))) return true;
      this.#reach(child);
      return false;
    });
  }

  #followConditions(): void {
    const { graph } = this.#engine;
    for (const id of graph.withFlags(NodeFlag.conditional | NodeFlag.present)) {
      if (!this.#isMarked(id)) continue;
      const unmarked = (to: number): boolean => !this.#isMarked(to);
      for (const to of conditionTargets(this.#engine, id, this.#now, unmarked)) this.#toMark.push(to);
    }
  }
}

/** Those wanted of the snapshots' nodes that a node keeps by conditional references which hold at `now`. */
export function* conditionTargets(
  engine: Engine,
  id: number,
  now: Instant,
  wanted: (id: number) => boolean = () => true,
): Generator<number> {
  const record = engine.keyOf(id);
  if (record === undefined) return;
  for (const reference of conditionalReferences(labelsOf(engine.get(record)))) {
    const target = targetSnapshot(namespaceOf(record), reference.snapshotter, reference.snapshotKey);
    const to = target === undefined ? undefined : engine.idOf(target);
    if (target === undefined || to === undefined || !wanted(to)) continue;
    if (conditionHolds(reference.tests, usedAtTimes(labelsOf(engine.get(target))), now)) yield to;
  }
}

/** The snapshot a condition names; undefined when no snapshot can have that key. */
function targetSnapshot(ns: string, snapshotter: string, name: string): Key | undefined {
  try {
    return snapshotKey(ns, snapshotter, name);
  } catch {
    return undefined;
  }
}
