/**
 * What was deleted since the last collection, and which backends need a sweep. Written by stores and by the
 * collection itself, inside their transactions; read by mutation callbacks and by the collection.
 *
 * Durability: the flags of backends are stored in the transaction that deletes, so a crash forgets none. The
 * lists of backend items that no record names any more are kept in memory only: where a list is not known to be
 * complete (after a start, past its limit) the sweep walks the whole backend instead.
 */
import type { Engine, Key, Transaction } from '../../engine/contract.js';
import { leaf, metaKey } from '../../engine/schema/keys.js';
import type { RemovedContent, RemovedSnapshot } from '../../stores/host.js';
import { type BackendItem, ITEMS_BYTES_MAX, OrphanCandidates } from './orphan-candidates.js';

const SNAPSHOTTERS_KEY = metaKey('dirty', 'snapshots');

/** Closing does not wait longer for a cluster that does not respond. */
const STORE_PATIENCE_MS = 2000;

/** Where a backend's state is stored. */
interface StoredAs {
  readonly flag: Key;
  /** How many items lost their record and may still be there, as a decimal text. */
  readonly removed: Key;
}
const CONTENT: StoredAs = { flag: metaKey('dirty', 'content'), removed: metaKey('removed', 'content') };
const snapshotterKeys = (name: string): StoredAs => ({
  flag: metaKey('dirty', 'snapshots', name),
  removed: metaKey('removed', 'snapshots', name),
});

/** A backend that is swept by lists only is walked once in a while: failed calls may leave orphans unnoticed. */
const WALK_INTERVAL_MS = 24 * 3600 * 1000;

/** An item that its backend refused to remove is tried again after this long, and after twice as long each time. */
const FIRST_RETRY_MS = 10_000;
const LAST_RETRY_MS = 3600 * 1000;

/** A snapshotter's name, or the content backend. */
export type BackendName = string | typeof CONTENT_BACKEND;
export const CONTENT_BACKEND = Symbol('content');

/** What a sweep of one backend has to do. */
export interface SweepWork {
  /** Items that may be unnamed, oldest first. */
  readonly items: OrphanCandidates;
  /** Items without a record that a survey found (survey.ts); they are asked about again, as the others. */
  readonly orphans?: OrphanCandidates | undefined;
}

export interface SweepOrder extends SweepWork {
  /** The items are not all there is: the whole backend must be walked. */
  readonly walk: boolean;
  /** Passed back to `swept`, so that a flag raised meanwhile stays. */
  readonly raised: number;
  /** Items whose records this store removed since the last complete sweep: orphans that are accounted for. */
  readonly accounted: number;
}

/** Flag and list of one backend. */
class BackendState {
  dirty = false;
  walk = false;
  raised = 0;
  items = new OrphanCandidates();
  accounted = 0;
  /** Items that the backend refused to remove. */
  #refused: BackendItem[] = [];
  #retryAt = 0;
  #retryMs = 0;
  #walkedAt = performance.now();

  constructor(readonly stored: StoredAs) {}

  raise(items: readonly BackendItem[] | undefined, isNew = true): void {
    this.dirty = true;
    this.raised++;
    if (isNew) this.accounted += items?.length ?? 0;
    if (items === undefined || this.items.size > ITEMS_BYTES_MAX) this.needWalk();
    else if (!this.walk) for (const item of items) this.items.push(item);
  }

  needWalk(): void {
    this.dirty = true;
    this.walk = true;
    this.items = new OrphanCandidates();
  }

  get isWalkDue(): boolean {
    return this.dirty && (this.walk || performance.now() - this.#walkedAt > WALK_INTERVAL_MS);
  }

  take(): SweepOrder {
    const walk = this.isWalkDue;
    if (walk) this.#walkedAt = performance.now();
    const { items, raised, accounted } = this;
    if (walk) this.#refused = [];
    else if (performance.now() >= this.#retryAt) for (const item of this.#refused.splice(0)) items.push(item);
    this.items = new OrphanCandidates();
    this.walk = false;
    return { items, walk, raised, accounted };
  }

  refuse(items: readonly BackendItem[]): void {
    if (items.length === 0) {
      if (this.#refused.length === 0) this.#retryMs = 0;
      return;
    }
    this.#retryMs = Math.min(LAST_RETRY_MS, this.#retryMs === 0 ? FIRST_RETRY_MS : 2 * this.#retryMs);
    this.#retryAt = performance.now() + this.#retryMs;
    // No longer a list: a walk finds them again.
    if (this.#refused.length + items.length > REFUSED_MAX) this.needWalk();
    else this.#refused.push(...items);
  }

  /** Milliseconds to the next attempt on refused items; undefined when there are none. */
  get retryInMs(): number | undefined {
    return this.#refused.length === 0 ? undefined : Math.max(0, this.#retryAt - performance.now());
  }

  get hasRefused(): boolean {
    return this.#refused.length > 0;
  }
}

/** Refused items kept as a list. */
const REFUSED_MAX = 10_000;

export class DirtyFlags {
  readonly #engine: Engine;
  readonly #content = new BackendState(CONTENT);
  readonly #snapshotters = new Map<string, BackendState>();
  #deletions = 0;
  #unclean = false;
  /** Calls of `requireSurvey`, and how many of them a survey has answered. */
  #doubts = 0;
  #settledDoubts = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Reads the stored flags; called once, before the first collection. */
  load(): void {
    this.#unclean = !this.#engine.cleanStart;
    if (this.#engine.has(CONTENT.flag)) this.#content.needWalk();
    for (const [key] of this.#engine.scan(SNAPSHOTTERS_KEY)) this.#of(leaf(key)).needWalk();
    for (const state of this.#states()) state.accounted = countOf(this.#engine.get(state.stored.removed));
  }

  /** Called before the engine closes: what only memory knows of dirty backends is stored. */
  async store(): Promise<void> {
    const engine = this.#engine;
    const isStored = ({ stored, accounted }: BackendState): boolean =>
      engine.has(stored.flag) && countOf(engine.get(stored.removed)) >= accounted;
    const missing = this.#states().filter((state) => state.dirty && !isStored(state));
    if (missing.length === 0) return;
    const body = (tx: Transaction): void => {
      for (const { stored, accounted } of missing) {
        tx.put(stored.flag, '1');
        tx.put(stored.removed, String(accounted));
      }
    };
    await engine.update(body, { background: true, signal: AbortSignal.timeout(STORE_PATIENCE_MS) });
  }

  /** Called when a flag is raised. */
  onRaised: () => void = () => undefined;

  #states(): BackendState[] {
    return [this.#content, ...this.#snapshotters.values()];
  }

  /** Asks for a walk of the content backend and these snapshotters. */
  requireFullScan(snapshotters: Iterable<string>): void {
    this.#content.needWalk();
    for (const name of snapshotters) this.#of(name).needWalk();
  }

  /**
   * The same when records go that nobody of this tree removed, called before they do: that some of them were to go anyway accounts for
   * nothing any more, since what is missing now may be all that there was. Until a survey is done the records are doubtful.
   */
  requireSurvey(snapshotters: Iterable<string>): void {
    this.#doubts++;
    this.#content.accounted = 0;
    for (const name of snapshotters) this.#of(name).accounted = 0;
    this.requireFullScan(snapshotters);
  }

  /**
   * Records went that nobody of this tree removed, and the guard has not judged what they leave yet. A sweep that has its list from before
   * asks this in the turn in which it finds an item unnamed, and removes nothing then.
   */
  get isDoubtful(): boolean {
    return this.#doubts !== this.#settledDoubts;
  }

  /** Number of doubts so far, for `settle`. */
  get doubts(): number {
    return this.#doubts;
  }

  /** A survey that began at this number of doubts was let pass by the guard. */
  settle(doubts: number): void {
    this.#settledDoubts = doubts;
  }

  /** After an unclean shutdown no backend is trusted until it was walked once. */
  requireFullScanAfterUncleanStart(snapshotters: Iterable<string>): void {
    if (this.#unclean) this.requireFullScan(snapshotters);
    this.#unclean = false;
  }

  /** Deletions committed since the last collection. */
  get deletions(): number {
    return this.#deletions;
  }

  /** Forgets `seen` deletions (all by default): those the collection saw; later ones stay counted. */
  resetDeletions(seen: number = this.#deletions): void {
    this.#deletions = Math.max(0, this.#deletions - seen);
  }

  get contentDirty(): boolean {
    return this.#content.dirty;
  }

  get dirtySnapshotters(): ReadonlySet<string> {
    const names = [...this.#snapshotters].filter(([, state]) => state.dirty).map(([name]) => name);
    return new Set(names.sort());
  }

  countDeletion(tx: Transaction): void {
    tx.onCommit(() => {
      this.#deletions++;
    });
  }

  /** The content backend needs a sweep. `removed` is what lost its record; without it, the sweep walks. */
  markContentDirty(tx: Transaction, removed?: RemovedContent): void {
    this.#mark(tx, this.#content, removed && [removed]);
  }

  /** The same for a snapshotter. */
  markSnapshotterDirty(tx: Transaction, name: string, removed?: RemovedSnapshot): void {
    this.#mark(tx, this.#of(name), removed && [removed]);
  }

  /**
   * Marks the items' backends dirty because of them. The number is stored too, so that a crash between the removal of
   * many records and that of their bytes does not make the bytes look like those of a lost tree.
   */
  markRemoved(tx: Transaction, ...items: BackendItem[]): void {
    const byState = new Map<BackendState, BackendItem[]>();
    for (const item of items) {
      const state = item.kind === 'snapshot' ? this.#of(item.snapshotter) : this.#content;
      const list = byState.get(state);
      if (list === undefined) byState.set(state, [item]);
      else list.push(item);
    }
    for (const [state, list] of byState) {
      this.#mark(tx, state, list);
      const { removed } = state.stored;
      tx.put(removed, String(countOf(tx.get(removed)) + list.length));
    }
  }

  /** Marks backends dirty after a commit of another host. */
  removedElsewhere(items: readonly BackendItem[]): void {
    const states = new Set<BackendState>();
    for (const item of items) {
      const state = item.kind === 'snapshot' ? this.#of(item.snapshotter) : this.#content;
      state.raise([item]);
      states.add(state);
    }
    for (const state of states) this.#keepStored(state);
  }

  /** Another host's user deleted something. */
  deletedElsewhere(count: number): void {
    this.#deletions += count;
  }

  /** Which of these backends the next sweep walks. */
  walksDue(snapshotters: Iterable<string>): BackendName[] {
    const names: BackendName[] = this.#content.isWalkDue ? [CONTENT_BACKEND] : [];
    for (const name of snapshotters) if (this.#of(name).isWalkDue) names.push(name);
    return names;
  }

  /** Items whose record went and whose bytes wait for a sweep, as far as they are listed. */
  waiting(backend: BackendName): Iterable<BackendItem> {
    return this.#stateOf(backend).items;
  }

  /** Items that lost their record since the last complete sweep: orphans that are accounted for. */
  accounted(backend: BackendName): number {
    return this.#stateOf(backend).accounted;
  }

  take(backend: BackendName): SweepOrder {
    return this.#stateOf(backend).take();
  }

  /** A sweep succeeded: lowers the flag unless it was raised after the order was taken. */
  async swept(backend: BackendName, order: SweepOrder): Promise<void> {
    const state = this.#stateOf(backend);
    const { flag, removed } = state.stored;
    const isClean = (): boolean => state.raised === order.raised && !state.walk && !state.hasRefused;
    await this.#engine.update(
      (tx) => {
        const rest = Math.max(0, state.accounted - order.accounted);
        if (rest === 0) {
          if (tx.has(removed)) tx.delete(removed);
        } else tx.put(removed, String(rest));
        const clean = isClean();
        if (clean) tx.delete(flag);
        tx.onCommit(() => {
          state.accounted = Math.max(0, state.accounted - order.accounted);
          if (!clean) return;
          // Raised between the body and this hook: by then the removal of the stored flag was on its way.
          if (isClean()) state.dirty = false;
          else this.#keepStored(state);
        });
      },
      { durability: 'visible' },
    );
  }

  /** Items a sweep had to leave to the next one. */
  postpone(backend: BackendName, items: readonly BackendItem[]): void {
    if (items.length > 0) this.#stateOf(backend).raise(items, false);
  }

  /** Items that the backend refused to remove: the flag stays, and they are tried again after a while. */
  refused(backend: BackendName, items: readonly BackendItem[]): void {
    this.#stateOf(backend).refuse(items);
  }

  /** Milliseconds until refused items are due; undefined when there are none. */
  get retryInMs(): number | undefined {
    const waits = this.#states().flatMap((state) => state.retryInMs ?? []);
    return waits.length === 0 ? undefined : Math.min(...waits);
  }

  /** A sweep failed or was not allowed: the flag stays, and the next sweep walks the whole backend. */
  failed(backend: BackendName): void {
    this.#stateOf(backend).needWalk();
  }

  #stateOf(backend: BackendName): BackendState {
    return backend === CONTENT_BACKEND ? this.#content : this.#of(backend);
  }

  #of(name: string): BackendState {
    let state = this.#snapshotters.get(name);
    if (state === undefined) {
      state = new BackendState(snapshotterKeys(name));
      this.#snapshotters.set(name, state);
    }
    return state;
  }

  #mark(tx: Transaction, state: BackendState, items: BackendItem[] | undefined): void {
    const { flag } = state.stored;
    // Reading the flag makes this transaction conflict with the one that clears it, so it is never lost.
    if (!tx.has(flag)) tx.put(flag, '1');
    tx.onCommit(() => {
      state.raise(items);
      this.#keepStored(state);
      this.onRaised();
    });
  }

  /**
   * Stores the flag again if a sweep that ended a moment ago has removed it. A crash before that is an unclean stop,
   * after which every backend is walked.
   */
  #keepStored({ stored: { flag } }: BackendState): void {
    try {
      if (this.#engine.has(flag)) return;
    } catch {
      return; // Closed meanwhile: `store` was called before.
    }
    // Background: on a full disk too.
    this.#engine
      .update((tx) => tx.put(flag, '1'), { durability: 'visible', background: true })
      .catch(() => undefined);
  }
}

const countOf = (value: unknown): number => {
  const count = Number(value);
  return typeof value === 'string' && Number.isSafeInteger(count) && count > 0 ? count : 0;
};
