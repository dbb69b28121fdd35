/**
 * The judge of a schedule. Looks at every removal at the moment it happens, with the slow oracle over the state of
 * that moment: nothing reachable may go, no bytes may go that a record names (now, or after a crash), no record may
 * come without its bytes. Keeps the list of what a run must have removed at its end.
 */
import type { Key } from '../../src/engine/contract.js';
import type { Node } from '../../src/gc/types.js';
import { ResourceStream } from '../../src/gc/types.js';
import type { FakeContent, FakeSnapshotter } from '../support/fake-backends.js';
import { collectibles, type Model, reached, readModel } from '../support/oracle.js';
import type { RemovalWatcher } from './backends.js';
import type { Marks } from './marks.js';
import type { Change, CommitWatcher, Mirror, WatchedStorage } from './mirror.js';
import { orphans, snapshotItem } from './orphans.js';
import { asRecords, isKept, type Resource, type ResourceWatcher, resourceName } from './resources.js';
import type { TrueTime } from './true-time.js';

/** `kind|namespace|key` of a collectible record, as the oracle names it; undefined for others. */
function nameOf(record: Key): string | undefined {
  const kinds: Readonly<Record<string, string>> = {
    leases: 'lease',
    images: 'image',
    ingests: 'ingest',
    blobs: 'content',
    snapshots: 'snapshot',
  };
  const [collection = '', namespace = '', ...rest] = record.split('\0');
  const kind = kinds[collection];
  return kind === undefined ? undefined : `${kind}|${namespace}|${rest.join('/')}`;
}

/** The wall clock as the store reads it may be ahead by a second. */
const CLOCK_READING = 2_000_000_000n;

/** One collection as the judge sees it. */
interface Run {
  readonly now: bigint;
  /** Unreachable since the run began, and there all the time. */
  readonly garbage: Set<string>;
  /** Reachable at some moment of the run: what hangs on these may wait for the next run. */
  readonly everReached: Set<string>;
  /** Records that came during the run. */
  readonly created: Set<string>;
  /** What hung on a record that came during the run, or that a writer removed: its slice may have been in vain. */
  readonly mayWait: Set<string>;
}

type Fields = Readonly<Record<string, unknown>>;

export interface JudgeParts {
  /** That of the process that lives. */
  storage: WatchedStorage;
  readonly content: FakeContent;
  readonly snapshotters: ReadonlyMap<string, FakeSnapshotter>;
  readonly resources: Resource[];
  /** Called with each violation. */
  readonly violation: (text: string) => void;
  readonly time: TrueTime;
  readonly marks: Marks;
}

export class Judge implements CommitWatcher, RemovalWatcher, ResourceWatcher {
  /** Whose commits arrive. */
  origin: 'writer' | 'collection' = 'writer';
  /** Records that collections removed, and objects that had to wait for the next run. */
  readonly seen = { removed: 0, blobs: 0, snapshots: 0, ingests: 0, resources: 0, waiting: 0 };
  readonly #parts: JudgeParts;
  #run: Run | undefined;
  /** Items of backends that no record named when the process began. */
  readonly #orphans = new Set<string>();
  /** Those whose records were lost, and that no task has removed since. */
  readonly #unexplained = new Set<string>();
  /** Refs, and snapshots by snapshotter, that were committed in the backend. */
  readonly #committed = new Set<string>();
  /** The last model made, and of which state. */
  #modelled: { state: string; model: Model } = { state: '', model: new Map() };

  constructor(parts: JudgeParts) {
    this.#parts = parts;
  }

  // ---------------------------------------------------------------------------------------------------- commits

  before(change: Change): void {
    if (this.origin === 'collection') this.#recordsGo(change);
    else {
      this.#writerRemoves(change);
      this.#writerReplaces(change);
    }
    for (const [record, value] of change.records) {
      if (value === undefined || change.existed.has(record)) continue;
      this.#named(record, value as Fields);
      const missing = this.#missingBytes(record, value as Fields);
      if (missing !== undefined && !this.#wasCommitted(record, value as Fields))
        this.#parts.violation(`a record came whose ${missing} is not there: ${shown(record)}`);
    }
  }

  after(change: Change): void {
    const run = this.#run;
    if (run === undefined) return;
    for (const [record, value] of change.records) {
      const name = nameOf(record);
      if (name === undefined) continue;
      if (value === undefined) run.garbage.delete(name);
      else if (!change.existed.has(record)) run.created.add(name);
    }
    if (run.garbage.size === 0 || this.origin === 'collection') return;
    for (const name of this.#reachedWith(run.everReached, run.now)) {
      run.everReached.add(name);
      run.garbage.delete(name);
    }
  }

  lost(): void {
    // What a run must have removed at its end does not count any more; what it must not, still is.
    this.#run?.garbage.clear();
  }

  #writerRemoves(change: Change): void {
    const run = this.#run;
    const going = removals(change);
    if (run === undefined || run.garbage.size === 0 || going.length === 0) return;
    for (const name of this.#reachedWith([...run.created, ...going], run.now)) run.mayWait.add(name);
  }

  /** A record that was deleted and made again in one commit is another one. Ingests do not show it. */
  #writerReplaces(change: Change): void {
    const run = this.#run;
    if (run === undefined) return;
    for (const [record, value] of change.records) {
      const name = nameOf(record);
      const before = this.#parts.storage.newest.get(record);
      if (name === undefined || value === undefined || before === undefined) continue;
      const [created, createdBefore] = [(value as Fields).createdat, (before as Fields).createdat];
      if (created === createdBefore && created !== undefined) continue;
      run.garbage.delete(name);
      run.created.add(name);
    }
  }

  #recordsGo(change: Change): void {
    const going = removals(change);
    if (going.length === 0) return;
    this.seen.removed += going.length;
    const now = this.#run?.now;
    if (now === undefined) {
      this.#parts.violation(`records were removed outside a run: ${going.join(', ')}`);
      return;
    }
    const kept = reached(this.#model(), this.#judged(now));
    for (const name of going) {
      if (kept.has(name)) this.#parts.violation(`a reachable record was removed: ${name}`);
    }
  }

  /** The moment of the run, unless that has not come yet, as far as expiries go. */
  #judged(at: bigint): bigint {
    const { latest } = this.#parts.time;
    return at > latest + CLOCK_READING ? latest : at;
  }

  #missingBytes(record: Key, value: Fields): string | undefined {
    const [collection, , second = ''] = record.split('\0');
    const { content, snapshotters } = this.#parts;
    if (collection === 'blobs') return content.blobs.has(second) ? undefined : 'blob';
    if (collection === 'ingests') {
      return value.expected !== undefined || content.ingests.has(String(value.ref)) ? undefined : 'ingest';
    }
    if (collection !== 'snapshots') return undefined;
    return snapshotters.get(second)?.items.has(String(value.name)) ? undefined : 'backend snapshot';
  }

  // ------------------------------------------------------------------------------------------------------ bytes

  blobGoes(digest: string): void {
    this.seen.blobs++;
    this.#orphanGoes(digest);
    this.#bytesGo(`blob ${digest}`, (mirror) => {
      for (const record of mirror.scan('blobs').keys()) if (record.endsWith(`\0${digest}`)) return record;
      for (const [record, value] of mirror.scan('ingests')) {
        if ((value as Fields).expected === digest) return record;
      }
      return undefined;
    });
  }

  ingestGoes(ref: string): void {
    this.seen.ingests++;
    this.#orphanGoes(ref);
    for (const [record, value] of this.#parts.storage.newest.scan('ingests')) {
      if ((value as Fields).ref !== ref || (value as Fields).expected !== undefined) continue;
      this.#parts.violation(`ingest ${ref} goes while ${shown(record)} names it`);
    }
  }

  #orphanGoes(item: string): void {
    if (this.#unexplained.has(item))
      this.#parts.violation(`an item goes whose record was lost: ${item.replaceAll('\0', ' ')}`);
    if (this.#orphans.delete(item)) this.#parts.marks.add('orphan of a death removed');
  }

  ingestIsCommitted(ref: string): void {
    this.#committed.add(ref);
  }

  snapshotIsCommitted(snapshotter: string, name: string): void {
    this.#committed.add(snapshotItem(snapshotter, name));
  }

  snapshotGoes(snapshotter: string, name: string): void {
    this.seen.snapshots++;
    this.#orphanGoes(snapshotItem(snapshotter, name));
    this.#bytesGo(`snapshot ${name} of ${snapshotter}`, (mirror) => {
      for (const [record, value] of mirror.scan('snapshots')) {
        if (record.split('\0')[2] === snapshotter && (value as Fields).name === name) return record;
      }
      return undefined;
    });
  }

  #bytesGo(what: string, namedBy: (mirror: Mirror) => Key | undefined): void {
    const { newest, durable } = this.#parts.storage;
    const record = namedBy(newest);
    if (record !== undefined) this.#parts.violation(`${what} goes while ${shown(record)} names it`);
    const onDisk = namedBy(durable);
    if (record === undefined && onDisk !== undefined) {
      this.#parts.violation(`${what} goes while, after a crash, ${shown(onDisk)} would name it`);
    }
  }

  resourceGoes(node: Node): void {
    this.seen.resources++;
    const resource = this.#parts.resources[this.#indexOf(node)];
    const what = `${wordOf(node)} ${node.namespace} ${node.key}`;
    if (resource === undefined || this.#run === undefined) {
      this.#parts.violation(`something unknown was removed: ${what}`);
    } else if (isKept(reached(this.#model(), this.#judged(this.#run.now)), resource)) {
      this.#parts.violation(`something in use was removed: ${what}`);
    }
  }

  resourcesGone(nodes: readonly Node[]): void {
    for (const node of nodes) this.#parts.resources.splice(this.#indexOf(node), 1);
  }

  #indexOf(node: Node): number {
    const name = resourceName({ ...node, word: wordOf(node), name: node.key });
    return this.#parts.resources.findIndex((resource) => resourceName(resource) === name);
  }

  // ------------------------------------------------------------------------------------------------------- runs

  /** Marking begins in this very step. */
  runBegins(now: bigint): void {
    const model = this.#model();
    const all = collectibles(readModel(this.#parts.storage.newest));
    const kept = reached(model, now);
    const garbage = new Set([...all].filter((name) => !kept.has(name)));
    const wall = this.#parts.time.clock.wall();
    if (now < wall - CLOCK_READING && reached(model, wall).size < kept.size)
      this.#parts.marks.add('kept by the grace');
    this.#run = { now, garbage, everReached: kept, created: new Set(), mayWait: new Set() };
  }

  /** A run has removed its last record. */
  runIsComplete(): void {
    const run = this.#run;
    if (run === undefined) return;
    // Garbage under a snapshot that came meanwhile has to wait, and so has what a record that came refers to.
    if (run.garbage.size === 0) return;
    const waiting = this.#reachedWith(run.created, run.now);
    for (const name of run.garbage) {
      if (waiting.has(name) || run.mayWait.has(name)) this.seen.waiting++;
      else this.#parts.violation(`garbage was left by a run: ${name}`);
    }
  }

  /** What a process finds when it opens what another one, which died, has left. */
  opened(storage: WatchedStorage, metadataLost: boolean): void {
    this.#parts.storage = storage;
    this.#run = undefined;
    this.origin = 'writer';
    this.#modelled = { state: '', model: new Map() };
    this.#orphans.clear();
    const { content, snapshotters } = this.#parts;
    for (const { what, item } of orphans(storage.newest, content, snapshotters)) {
      this.#orphans.add(item);
      // Unfinished uploads do not make an empty tree doubtful.
      if (metadataLost && what !== 'an ingest') this.#unexplained.add(item);
    }
    for (const [record, value] of storage.newest.records()) {
      const missing = this.#missingBytes(record, value as Fields);
      if (missing === undefined || this.#wasCommitted(record, value as Fields)) continue;
      this.#parts.violation(
        `after a death a record is found whose ${missing} is not there: ${shown(record)}`,
      );
    }
  }

  /** A record names the item again, so it is explained. */
  #named(record: Key, { name, expected }: Fields): void {
    const [collection, , third = ''] = record.split('\0');
    if (collection === 'blobs') this.#unexplained.delete(third);
    if (collection === 'ingests') this.#unexplained.delete(String(expected));
    if (collection === 'snapshots') this.#unexplained.delete(snapshotItem(third, String(name)));
  }

  #wasCommitted(record: Key, { name, ref }: Fields): boolean {
    return this.#committed.has(String(ref)) || this.#committed.has(`${record.split('\0')[2]}\0${name}`);
  }

  /** What no record names may go. */
  consent(): void {
    this.#unexplained.clear();
  }

  /** A run has begun and not ended. */
  get inRun(): boolean {
    return this.#run !== undefined;
  }

  /** A run's records are done with, or it failed. */
  runEnds(): void {
    this.#run = undefined;
  }

  /** No task is at work and a run without writers has just ended: nothing may be left over anywhere. */
  atRest(now: bigint): void {
    const { storage, content, snapshotters, violation } = this.#parts;
    const model = readModel(storage.newest);
    const kept = reached(this.#model(), now);
    for (const name of collectibles(model)) if (!kept.has(name)) violation(`garbage is left: ${name}`);
    for (const { what, item } of orphans(storage.newest, content, snapshotters))
      violation(`${what} without a record is left: ${item.replaceAll('\0', ' ')}`);
    this.#childrenAtRest();
  }

  #childrenAtRest(): void {
    const { storage, violation } = this.#parts;
    for (const [record, value] of storage.newest.scan('snapshots')) {
      const { parent } = value as Fields;
      const [, ns, snapshotter] = record.split('\0');
      if (parent === undefined) continue;
      const children = storage.newest.links(['snapshots', ns, snapshotter, parent].join('\0'), 'children');
      if (![...children].includes(record))
        violation(`a snapshot is not a child of its parent: ${shown(record)}`);
    }
    for (const [parent, child] of storage.newest.children()) {
      if (storage.newest.get(child) === undefined)
        violation(`${shown(parent)} has a child that is gone: ${shown(child)}`);
    }
  }

  /** What is kept if a lease keeps all of these, too. */
  #reachedWith(roots: Iterable<string>, now: bigint): Set<string> {
    const model = this.#model();
    const lease = '\0judge';
    for (const root of roots) {
      const [kind = '', ns = '', key = ''] = root.split('|');
      const space = model.get(ns);
      if (space === undefined || kind === 'lease') continue;
      const held = space.leases.get(lease)?.resources ?? [];
      held.push({ kind, key });
      space.leases.set(lease, { labels: {}, resources: held });
    }
    const kept = reached(model, now);
    for (const space of model.values()) space.leases.delete(lease);
    return kept;
  }

  /** The newest state with the resources in it. */
  #model(): Model {
    const { storage, resources } = this.#parts;
    const state = `${storage.newest.changes} ${resources.map(resourceName)}`;
    if (state === this.#modelled.state) return this.#modelled.model;
    const model = readModel(storage.newest);
    asRecords(model, resources);
    this.#modelled = { state, model };
    return model;
  }
}

const wordOf = (node: Node) => (node.type === ResourceStream ? 'stream' : 'mount');

/** Names of the collectible records a commit removes. */
function removals({ records, existed }: Change): string[] {
  return records.flatMap(([record, value]) => {
    const name = value === undefined && existed.has(record) ? nameOf(record) : undefined;
    return name === undefined ? [] : [name];
  });
}

const shown = (record: Key): string => record.replaceAll('\0', '/');
