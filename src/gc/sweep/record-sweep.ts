/**
 * Removing a run's candidates, slice by slice. Called by collect.ts after the mark.
 *
 * Each slice is one synchronous transaction: it follows what has changed since the last one, asks the graph which
 * candidates are garbage still, and removes those. Writers go on between slices. The next slice need not
 * wait until the last one is visible to readers, since transactions see every commit before them.
 */
import type { Transaction } from '../../engine/contract.js';
import { IdMap } from '../../engine/core/id-map.js';
import { throwIfAborted } from '../../errors.js';
import type { Instant } from '../../model/time.js';
import type { Event } from '../../stores/events.js';
import type { CollectHost } from '../host.js';
import type { RunEdges } from '../mark/run-edges.js';
import type { RemovedNames } from '../report/collection-record.js';
import { describeKey } from '../report/objects.js';
import { type Counts, count } from '../stats.js';
import type { BackendItem } from './orphan-candidates.js';
import { Outstanding } from './outstanding.js';
import { Removal } from './removal.js';
import type { Slicer } from './slicer.js';

/** Commits of slices that may be on their way at once. */
const COMMITS_UNDER_WAY = 1;

/** What one removal changes at most, where a transaction has room for so much only: record, links, stamps. */
const CHANGES_OF_A_REMOVAL = 8;

/** Events that are kept at most before they are published. */
const EVENTS_MAX = 4096;

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** What one slice did. */
interface Slice {
  /** The transaction's body has run. */
  ran: boolean;
  /** Candidates dealt with. */
  done: number;
  /** A collector must be waited for first. */
  mustFollow: boolean;
  /** Revision it saw, if it wrote anything. */
  wroteAt: number | undefined;
}

export class RecordSweep {
  /** Of removals that were committed, not yet published. */
  #events: Event[] = [];
  /** Backend items of the same removals. */
  readonly items: BackendItem[] = [];
  readonly #host: CollectHost;
  readonly #edges: RunEdges;
  readonly #slicer: Slicer;
  readonly #removed: Counts;
  readonly #keepItems: boolean;
  readonly #names: RemovedNames;
  readonly #publish: (events: readonly Event[]) => Promise<void>;
  /** The time that the run judges expiries by. */
  readonly #at: Instant;
  /** Garbage snapshots with children, and those that have lost one since. */
  readonly #withChild = new IdMap<true>();
  readonly #childless: number[] = [];
  /** Revision at the next slice, if no other commit comes between. */
  #expected: number | undefined;

  /**
   * Adds to `removed` and `names`, and to `items` if they are to be kept, as removals become visible. `publish` gets their events when they
   * are on disk.
   */
  constructor(
    host: CollectHost,
    edges: RunEdges,
    slicer: Slicer,
    removed: Counts,
    {
      at,
      keepItems = false,
      names,
      publish,
    }: {
      at: Instant;
      keepItems?: boolean;
      names: RemovedNames;
      publish: (events: readonly Event[]) => Promise<void>;
    },
  ) {
    this.#at = at;
    this.#host = host;
    this.#edges = edges;
    this.#slicer = slicer;
    this.#removed = removed;
    this.#keepItems = keepItems;
    this.#names = names;
    this.#publish = publish;
  }

  /** Rejects with the first failure; what was committed until then is gone. */
  async run(candidates: Uint32Array, signal: AbortSignal | undefined): Promise<void> {
    try {
      await this.#pass(candidates, signal);
      while (this.#childless.length > 0)
        await this.#pass(Uint32Array.from(this.#childless.splice(0)), signal);
    } finally {
      // What could not be flushed is not announced; the run fails by its own flush.
      await this.#publishEvents().catch(() => undefined);
    }
  }

  async #publishEvents(): Promise<void> {
    const events = this.#events;
    if (events.length === 0) return;
    this.#events = [];
    await this.#host.engine.flush();
    await this.#publish(events);
  }

  async #pass(candidates: Uint32Array, signal: AbortSignal | undefined): Promise<void> {
    const commits = new Outstanding(COMMITS_UNDER_WAY);
    try {
      for (let at = 0; at < candidates.length; ) {
        throwIfAborted(signal);
        const { done, mustFollow } = await this.#slice(
          candidates.subarray(at, at + this.#slicer.size),
          commits,
        );
        at += done;
        if (mustFollow) await this.#edges.followAll();
        else await nextTurn();
        await this.#host.engine.foregroundDone();
        if (this.#events.length >= EVENTS_MAX) await this.#publishEvents();
      }
    } finally {
      await commits.drain();
    }
  }

  async #slice(ids: Uint32Array, commits: Outstanding): Promise<Slice> {
    const slice: Slice = { ran: false, done: 0, mustFollow: false, wroteAt: undefined };
    let pauseMs = 0;
    const start = performance.now();
    const commit = this.#host.engine.update(
      (tx) => {
        const bodyStart = performance.now();
        this.#body(tx, ids, slice, bodyStart);
        pauseMs = performance.now() - bodyStart;
      },
      { durability: 'visible', background: true },
    );
    // A synchronous body has run and committed when the call returns, unless it had to wait for another.
    if (slice.ran) {
      pauseMs = performance.now() - start;
      await commits.add(commit);
    } else await commit;
    if (slice.wroteAt !== undefined) this.#edges.ownCommit(slice.wroteAt);
    this.#slicer.ended(slice.done, pauseMs);
    return slice;
  }

  #body(tx: Transaction, ids: Uint32Array, slice: Slice, start: number): void {
    const { engine, dirty, publisher, backends, expiryClock } = this.#host;
    // Each backend's flag, and the number of its items, come on top.
    const enough = CHANGES_OF_A_REMOVAL + backends.size + 1;
    slice.ran = true;
    // In the same step as the removals: whatever a lease that is committed holds is marked, unless it had expired.
    expiryClock.checkRun(this.#at);
    if (this.#expected !== undefined && tx.revision !== this.#expected) this.#slicer.shared();
    this.#expected = tx.revision;
    slice.mustFollow = !this.#edges.followAt(tx.revision);
    if (slice.mustFollow) return;
    const garbage = engine.graph.stillCandidates(ids);
    const removal = new Removal(engine, tx, {
      wantsEvents: publisher !== undefined && publisher.isIdle !== true,
      names: this.#names,
    });
    let at = 0;
    let whole = true;
    while (at < garbage.length && whole) {
      whole = removal.remove(garbage[at] ?? 0);
      if (whole) at++;
      if (at % 8 === 0 && this.#slicer.isSpent(start)) break;
      if (tx.room !== undefined && tx.room < enough) break;
    }
    dirty.markRemoved(tx, ...removal.items);
    if (removal.wrote) {
      slice.wroteAt = tx.revision;
      this.#expected = tx.revision + 1;
    }
    // Everything before the first one left over has been dealt with.
    const next = garbage[at];
    slice.done = next === undefined ? ids.length : ids.indexOf(next);
    tx.onCommit(() => this.#committed(removal));
  }

  #committed({ counts, records, events, items, withChild, parents }: Removal): void {
    for (const record of records) {
      const { kind, namespace, key } = describeKey(record);
      this.#names.add({ kind, namespace, key });
    }
    for (const [kind, n] of Object.entries(counts)) count(this.#removed, kind, n);
    for (const event of events) this.#events.push(event);
    if (this.#keepItems) for (const item of items) this.items.push(item);
    // Snapshots that were passed over because of a child are tried again when it goes.
    for (const id of withChild) this.#withChild.set(id, true);
    if (this.#withChild.size === 0) return;
    for (const parent of parents) {
      const id = this.#host.engine.idOf(parent);
      if (id !== undefined && this.#withChild.delete(id)) this.#childless.push(id);
    }
  }
}
