/**
 * What was deleted since the last collection, and which backends need a sweep. Told by stores and by the
 * collection itself, inside their transactions; read by mutation callbacks and by the collection.
 *
 * Durability: the flags of backends are stored in the transaction that deletes, so a crash forgets none. The
 * lists of backend items that no record names any more are kept in memory only: where a list is not known to be
 * complete (after a start, past its limit) the sweep walks the whole backend instead.
 */
import type { Engine, Key, Transaction } from '../engine/contract.js';
import { leaf, metaKey } from '../engine/schema/keys.js';
import type { UnnamedContent, UnnamedSnapshot } from '../stores/host.js';
import { type BackendItem, UnnamedItems } from './unnamed-items.js';

/** Bytes of items kept per backend before the sweep walks it instead: about two million blobs. */
const ITEMS_BYTES_MAX = 150 * 1024 * 1024;

const CONTENT_KEY = metaKey('dirty', 'content');
const SNAPSHOTTERS_KEY = metaKey('dirty', 'snapshots');
const snapshotterFlag = (name: string): Key => metaKey('dirty', 'snapshots', name);

/** A backend that is swept by lists only is walked once in a while: failed calls may leave orphans untold. */
const WALK_INTERVAL_MS = 24 * 3600 * 1000;

/** What a sweep of one backend has to do. */
export interface SweepOrder {
  /** Items that may be unnamed, oldest first. */
  readonly items: UnnamedItems;
  /** The items are not all there is: the whole backend must be walked. */
  readonly walk: boolean;
  /** Told back to `swept`, so that a flag raised meanwhile stays. */
  readonly raised: number;
}

/** Flag and list of one backend. */
class BackendState {
  dirty = false;
  walk = false;
  raised = 0;
  items = new UnnamedItems();
  #walkedAt = performance.now();

  raise(items: readonly BackendItem[] | undefined): void {
    this.dirty = true;
    this.raised++;
    if (items === undefined || this.items.size > ITEMS_BYTES_MAX) this.needWalk();
    else if (!this.walk) for (const item of items) this.items.push(item);
  }

  needWalk(): void {
    this.dirty = true;
    this.walk = true;
    this.items = new UnnamedItems();
  }

  take(): SweepOrder {
    const walk = this.walk || performance.now() - this.#walkedAt > WALK_INTERVAL_MS;
    if (walk) this.#walkedAt = performance.now();
    const order = { items: this.items, walk, raised: this.raised };
    this.items = new UnnamedItems();
    this.walk = false;
    return order;
  }
}

export class DirtyFlags {
  readonly #engine: Engine;
  readonly #content = new BackendState();
  readonly #snapshotters = new Map<string, BackendState>();
  #deletions = 0;
  #unclean = false;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Reads the stored flags; called once, before the first collection. */
  load(): void {
    this.#unclean = !this.#engine.cleanStart;
    if (this.#engine.has(CONTENT_KEY)) this.#content.needWalk();
    for (const [key] of this.#engine.scan(SNAPSHOTTERS_KEY)) this.#of(leaf(key)).needWalk();
  }

  /** Asks for a walk of the content backend and these snapshotters. */
  distrust(snapshotters: Iterable<string>): void {
    this.#content.needWalk();
    for (const name of snapshotters) this.#of(name).needWalk();
  }

  /** After an unclean shutdown no backend is trusted until it was walked once. */
  distrustAfterUncleanStart(snapshotters: Iterable<string>): void {
    if (this.#unclean) this.distrust(snapshotters);
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
  markContentDirty(tx: Transaction, removed?: UnnamedContent): void {
    this.#mark(tx, CONTENT_KEY, this.#content, removed && [removed]);
  }

  /** The same for a snapshotter. */
  markSnapshotterDirty(tx: Transaction, name: string, removed?: UnnamedSnapshot): void {
    this.#mark(tx, snapshotterFlag(name), this.#of(name), removed && [removed]);
  }

  /** Marks the items' backends dirty because of them. */
  noteRemoved(tx: Transaction, ...items: BackendItem[]): void {
    const content = items.filter((item) => item.kind !== 'snapshot');
    if (content.length > 0) this.#mark(tx, CONTENT_KEY, this.#content, content);
    const bySnapshotter = new Map<string, BackendItem[]>();
    for (const item of items) {
      if (item.kind !== 'snapshot') continue;
      const list = bySnapshotter.get(item.snapshotter);
      if (list === undefined) bySnapshotter.set(item.snapshotter, [item]);
      else list.push(item);
    }
    for (const [name, list] of bySnapshotter) this.#mark(tx, snapshotterFlag(name), this.#of(name), list);
  }

  takeContent(): SweepOrder {
    return this.#content.take();
  }

  takeSnapshotter(name: string): SweepOrder {
    return this.#of(name).take();
  }

  /** A sweep succeeded: lowers the flag unless it was raised after the order was taken. */
  async sweptContent(order: SweepOrder): Promise<void> {
    await this.#swept(CONTENT_KEY, this.#content, order);
  }

  async sweptSnapshotter(name: string, order: SweepOrder): Promise<void> {
    await this.#swept(snapshotterFlag(name), this.#of(name), order);
  }

  /** Items a sweep had to leave to the next one. */
  postponeContent(items: readonly BackendItem[]): void {
    if (items.length > 0) this.#content.raise(items);
  }

  postponeSnapshotter(name: string, items: readonly BackendItem[]): void {
    if (items.length > 0) this.#of(name).raise(items);
  }

  /** A sweep failed: the flag stays, and the next sweep walks the whole backend. */
  failedContent(): void {
    this.#content.needWalk();
  }

  failedSnapshotter(name: string): void {
    this.#of(name).needWalk();
  }

  #of(name: string): BackendState {
    let state = this.#snapshotters.get(name);
    if (state === undefined) {
      state = new BackendState();
      this.#snapshotters.set(name, state);
    }
    return state;
  }

  #mark(tx: Transaction, flag: Key, state: BackendState, items: BackendItem[] | undefined): void {
    // Reading the flag makes this transaction conflict with the one that clears it, so it is never lost.
    if (!tx.has(flag)) tx.put(flag, '1');
    tx.onCommit(() => {
      state.raise(items);
      this.#keepStored(flag);
    });
  }

  /** Hooks run a moment after their commit; a sweep that ended in that moment has cleared the stored flag. */
  #keepStored(flag: Key): void {
    try {
      if (this.#engine.has(flag)) return;
    } catch {
      return; // Closed meanwhile: the next start finds no list and no flag, and nothing to lose but an orphan.
    }
    // Background: on a full disk too.
    this.#engine
      .update((tx) => tx.put(flag, '1'), { durability: 'visible', background: true })
      .catch(() => undefined);
  }

  async #swept(flag: Key, state: BackendState, order: SweepOrder): Promise<void> {
    await this.#engine.update(
      (tx) => {
        if (state.raised !== order.raised || state.walk) return;
        tx.delete(flag);
        tx.onCommit(() => {
          state.dirty = false;
        });
      },
      { durability: 'visible' },
    );
  }
}
