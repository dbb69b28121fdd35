/**
 * The host's own copy of the tree: an embedded engine (LMDB or memory) that is fed by one watch, so that reads are
 * local and synchronous and the graph is kept by the core. Called by engine.ts.
 *
 * One etcd revision is one commit of the embedded engine, made in one synchronous step together with the position it
 * brings the mirror to: after a restart the watch goes on from there. When etcd has compacted what the mirror missed,
 * everything is loaded again at one revision and compared with what is here.
 *
 * The mirror is never ahead of etcd and never shows part of a transaction: a unit that was too big for one etcd
 * transaction is shown whole at the revision that decided it (unit.ts).
 */
import { type EbbtideError, unavailable } from '../../../errors.js';
import type { Key } from '../../contract.js';
import type { CoreEngine } from '../../core/engine.js';
import { linkPrefix } from '../../core/storage.js';
import { type EtcdClient, type KeyValue, prefixEnd } from '../client/client.js';
import {
  type CommitRecord,
  decimal,
  fetchUnit,
  type Gate,
  parseCommitRecord,
  parseGate,
} from '../format/gate.js';
import { DIRTY, type Layout, type Place, Sys } from '../format/layout.js';
import type { StagedChange } from '../format/unit.js';
import { Changes } from './changes.js';
import { loadTree } from './load.js';
import { MirrorState } from './mirror-state.js';
import { Watch, type WatchEvent } from './watch.js';
import { type History, historyOf, type Witness, witnessOf } from './witness.js';

const LOAD_CHUNK = 2_000;
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export interface MirrorListener {
  /** Before records go: their values can still be read. */
  removing(host: string | undefined, keys: readonly Key[]): void;
  deletions(host: string, count: number): void;
  collected(): void;
  /** A counter was forgotten. */
  counterGone(name: Key): void;
  /** etcd was set back, or is another: before what it lacks goes. */
  setBack(): void;
  /** A lock's record came or went; `name` is its key. */
  lockChanged(name: string): void;
}

export interface MirrorOptions {
  client: EtcdClient;
  layout: Layout;
  engine: CoreEngine;
  /** What was there until now was the mirror of another tree. */
  wasOther: boolean;
  warn: (message: string) => void;
}

/** What one revision has beside records and links. */
interface Seen {
  host: string | undefined;
  commit: CommitRecord | undefined;
  witness: Witness | undefined;
  collected: boolean;
  gateChanged: boolean;
}

export class Mirror {
  readonly engine: CoreEngine;
  readonly #client: EtcdClient;
  readonly #layout: Layout;
  readonly #warn: (message: string) => void;
  listener: MirrorListener | undefined;
  /** Everything of the tree up to this revision is here. */
  revision = 0;
  /** Grows when the state changed in a way that the history does not show. */
  epoch = 0;
  gate: Gate | undefined;
  /** Deletions that users of all hosts asked for, as last known. */
  deletionsTotal = 0;
  /** Set while everything is loaded again; transactions wait. */
  #loading: Promise<void> | undefined;
  #watch: Watch | undefined;
  #queue: { revision: number; events: readonly WatchEvent[] }[] = [];
  #draining = false;
  #waiters: { revision: number; resolve: () => void; reject: (error: Error) => void }[] = [];
  #gateWaiters: (() => void)[] = [];
  readonly state: MirrorState;
  #closed = false;
  /** Whether the mirror went on from where it was, rather than loading everything. */
  resumed = false;
  /** The last commit that is here. */
  #witness: Witness | undefined;

  constructor({ client, layout, engine, wasOther, warn }: MirrorOptions) {
    this.#client = client;
    this.#layout = layout;
    this.engine = engine;
    this.#warn = warn;
    this.state = new MirrorState(engine, client);
    if (wasOther) this.state.doubt();
  }

  /** Brings the mirror up to date and keeps it so. */
  async start(): Promise<void> {
    const position = this.state.readPosition();
    this.#witness = this.state.readWitness();
    const history = position === undefined ? 'unknown' : await this.#history();
    if (history === 'other') this.#setBack();
    if (position !== undefined && history === 'same') {
      this.revision = position;
      this.resumed = true;
      const gate = await this.#client.range(Sys.gate);
      this.gate = gate.kvs[0] && parseGate(gate.kvs[0]);
      // A gate that is newer than the mirror comes with the watch.
      if (this.gate !== undefined && this.gate.mod > this.revision) this.gate = undefined;
      const dirty = await this.#client.range(DIRTY);
      if (dirty.kvs[0] !== undefined) this.deletionsTotal = decimal(dirty.kvs[0]);
    } else {
      await this.#load();
    }
    this.#follow();
  }

  /** A mirror without a witness knows no commit: it is loaded again, which costs as little. */
  async #history(): Promise<History> {
    return this.#witness === undefined ? 'unknown' : historyOf(this.#client, this.#witness);
  }

  #setBack(): void {
    this.state.doubt();
    this.#warn('etcd was set back to an earlier state, or is another; loading everything again');
    this.listener?.setBack();
  }

  /**
   * The newest commit that etcd knows. One that is older than what is here shows an etcd that was set back, before the watch has
   * noticed.
   */
  async sees(newest: number): Promise<void> {
    if (newest >= (this.#witness?.mod ?? 0) || (await this.#history()) !== 'other') return;
    this.#watch?.end();
    if (this.#loading === undefined) this.#setBack();
    void this.#reload();
    await this.ready();
  }

  #follow(): void {
    this.#watch = new Watch(this.#client, this.revision, {
      revision: (revision, events) => {
        this.#queue.push({ revision, events });
        if (!this.#draining) void this.#drain();
      },
      progress: (revision) => {
        if (this.#queue.length === 0 && !this.#draining) this.#reached(revision);
      },
      compacted: () => {
        this.#warn('etcd has compacted changes that this host missed; loading everything again');
        void this.#reload();
      },
      history: async () => (this.#witness === undefined ? 'same' : this.#history()),
      replaced: () => {
        this.#setBack();
        void this.#reload();
      },
      warn: this.#warn,
    });
  }

  /** Works the queue off; synchronous unless a unit has to be fetched. */
  async #drain(): Promise<void> {
    this.#draining = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        const fetched = this.#unitOf(next.events);
        if (fetched === undefined) this.#apply(next.revision, next.events, []);
        else {
          const staged = await fetched;
          if (this.#closed) return;
          this.#apply(next.revision, next.events, staged);
        }
      }
    } catch (error) {
      if (!this.#closed) this.#broken(error);
    } finally {
      this.#draining = false;
    }
  }

  /** The embedded engine or a unit failed: only a full comparison makes sure again. */
  #broken(error: unknown): void {
    this.#warn(
      `the mirror of etcd failed and is loaded again: ${error instanceof Error ? error.message : error}`,
    );
    this.#queue = [];
    this.#watch?.end();
    void this.#reload();
  }

  // -------------------------------------------------------------------------------------------------- waiting

  /** Resolves when everything up to `revision` is here. */
  async reach(revision: number, signal?: AbortSignal): Promise<void> {
    if (this.revision >= revision && this.#loading === undefined) return;
    // A stream that says nothing for so long may hang with its member.
    const silenceMs = Math.min(this.#client.settings.requestTimeoutMs, 2000);
    const nudge = setInterval(() => this.#watch?.restartIfSilent(silenceMs), silenceMs / 4);
    let giveUp = (): void => undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        if (this.#closed) reject(closedError());
        else this.#waiters.push({ revision, resolve, reject });
        giveUp = () => reject(signal?.reason);
        signal?.addEventListener('abort', giveUp, { once: true });
        if (signal?.aborted) giveUp();
      });
    } finally {
      clearInterval(nudge);
      signal?.removeEventListener('abort', giveUp);
    }
  }

  /** Waits while everything is loaded again. */
  async ready(): Promise<void> {
    while (this.#loading !== undefined) await this.#loading;
    if (this.#closed) throw closedError();
  }

  get isLoading(): boolean {
    return this.#loading !== undefined;
  }

  /** Resolves when the gate changes, or after `ms`. */
  async gateChange(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#gateWaiters.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  /** A record in etcd that cannot be read: what it refers to is unknown. */
  get damaged(): Key | undefined {
    for (const record of this.state.damaged) return record;
    return undefined;
  }

  #reached(revision: number): void {
    if (revision > this.revision) this.revision = revision;
    if (this.#loading !== undefined) return;
    const ready = this.#waiters.filter((waiter) => waiter.revision <= this.revision);
    if (ready.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => waiter.revision > this.revision);
    for (const { resolve } of ready) resolve();
  }

  // ------------------------------------------------------------------------------------------------- applying

  /** Changes of a unit that this revision decided. */
  #unitOf(events: readonly WatchEvent[]): Promise<StagedChange[]> | undefined {
    for (const { deleted, kv } of events) {
      if (deleted || kv.key !== Sys.gate) continue;
      const gate = parseGate(kv);
      if (gate?.state === 'flipped') return fetchUnit(this.#client, gate, kv.mod);
    }
    return undefined;
  }

  /** One revision, in one synchronous step. */
  #apply(revision: number, events: readonly WatchEvent[], unit: readonly StagedChange[]): void {
    // Between the decision and the end of a unit only its own changes arrive here, which are known already.
    const isKnown = this.gate?.state === 'flipped';
    const changes = new Changes(this.#layout, this.engine, this.#warn);
    const seen: Seen = {
      ...{ host: undefined, commit: undefined, witness: undefined },
      ...{ collected: false, gateChanged: false },
    };
    for (const { deleted, kv } of events) {
      const place = this.#layout.parse(kv.key);
      if (place?.is !== 'record' && place?.is !== 'link') this.#see(place, deleted, kv, seen);
      else if (!isKnown) changes.add(place, deleted ? undefined : kv);
    }
    const { host, commit, collected, gateChanged } = seen;
    this.#witness = seen.witness ?? this.#witness;
    // Compacted at exactly this revision, etcd 3.4 sends its puts and not its deletions.
    const gone = events.filter(({ deleted }) => deleted).length;
    if (gone < (commit?.gone ?? 0)) throw unavailable(`etcd did not send all of revision ${revision}`);
    for (const change of unit) changes.addStaged(change, revision);
    for (const again of commit?.again ?? []) changes.recreated.add(again);
    this.#write(changes, revision, host);
    this.#reached(revision);
    if (gateChanged) for (const wake of this.#gateWaiters.splice(0)) wake();
    if (host !== undefined && commit?.deletions) this.listener?.deletions(host, commit.deletions);
    if (collected) this.listener?.collected();
  }

  /** What is neither a record nor a link. */
  #see(place: Place | undefined, deleted: boolean, kv: KeyValue, seen: Seen): void {
    switch (place?.is) {
      case 'commit':
        if (deleted) break;
        seen.host = place.host;
        seen.commit = parseCommitRecord(kv.value);
        seen.witness = witnessOf(kv);
        break;
      case 'gate':
        this.gate = deleted ? undefined : parseGate(kv);
        seen.gateChanged = true;
        break;
      case 'dirty':
        if (!deleted) this.deletionsTotal = decimal(kv);
        break;
      case 'lock':
        this.listener?.lockChanged(kv.key);
        break;
      case 'counter':
        if (deleted) this.listener?.counterGone(place.name);
        break;
      case 'last':
        seen.collected = !deleted;
        break;
      case undefined:
        this.#warn(`etcd key ${kv.key.slice(0, 200)} is not of this version's making and is passed over`);
        break;
      default:
    }
  }

  #write(changes: Changes, revision: number, host: string | undefined): void {
    const { deletes, recreated, puts, links, wiped } = changes;
    if (changes.isEmpty) return;
    if (deletes.length > 0) this.listener?.removing(host, deletes);
    const written = this.engine.update(
      (tx) => {
        for (const owner of wiped) tx.delete(owner);
        for (const record of deletes) tx.delete(record);
        for (const record of recreated) if (puts.has(record)) tx.delete(record);
        for (const [record, value] of puts) tx.put(record, value);
        for (const { from, relation, to, present } of links) {
          if (present) tx.link(from, relation, to);
          else tx.unlink(from, relation, to);
        }
        this.state.write(tx, changes);
        this.state.writePosition(tx, revision, this.#witness);
      },
      { durability: 'visible' },
    );
    // A synchronous body has committed by now; later trouble of the storage shows here.
    written.catch((error: unknown) => {
      if (!this.#closed) this.#broken(error);
    });
  }

  // -------------------------------------------------------------------------------------------------- loading

  async #reload(): Promise<void> {
    if (this.#loading !== undefined) return;
    let done!: () => void;
    this.#loading = new Promise((resolve) => {
      done = resolve;
    });
    try {
      for (let pause = 100; !this.#closed; pause = Math.min(pause * 2, 5000)) {
        try {
          await this.#load();
          break;
        } catch (error) {
          this.#warn(`loading the tree from etcd failed: ${error instanceof Error ? error.message : error}`);
          await new Promise((resolve) => setTimeout(resolve, pause));
        }
      }
    } finally {
      this.epoch++;
      this.#loading = undefined;
      done();
    }
    if (this.#closed) return;
    this.#reached(this.revision);
    this.#follow();
  }

  /** Makes the mirror equal to the tree at one revision. */
  async #load(): Promise<void> {
    const { revision } = await this.#client.range(Sys.head, { keysOnly: true });
    const isNew = this.engine.revision === 0 && this.engine.stats().records === 0;
    const records = new Set<Key>();
    const links = new Set<string>();
    let changes = new Changes(this.#layout, this.engine, this.#warn);
    let buffered = 0;
    let gate: Gate | undefined;
    const write = async (): Promise<void> => {
      const loaded = changes;
      changes = new Changes(this.#layout, this.engine, this.#warn);
      buffered = 0;
      await this.#writeLoaded(loaded);
      await nextTurn();
    };
    let writing: Promise<void> = Promise.resolve();
    await loadTree(this.#client, revision, async (kvs) => {
      for (const kv of kvs) {
        const place = this.#layout.parse(kv.key);
        if (place?.is === 'gate') gate = parseGate(kv);
        else if (place?.is === 'dirty') this.deletionsTotal = decimal(kv);
        else if (place?.is === 'record' || place?.is === 'link') {
          if (!isNew) {
            if (place.is === 'record') records.add(place.key);
            else links.add(linkPrefix(place.from, place.relation) + place.to);
          }
          changes.add(place, kv);
          buffered++;
        }
        if (buffered >= LOAD_CHUNK) {
          writing = writing.then(write);
          await writing;
        }
      }
    });
    await writing;
    await write();
    if (!isNew) await this.#removeUnseen(records, links);
    if (gate?.state === 'flipped') {
      for (const change of await fetchUnit(this.#client, gate, revision)) changes.addStaged(change, revision);
      this.#write(changes, revision, undefined);
    }
    this.gate = gate;
    this.#queue = [];
    const { kvs } = await this.#client.range(Sys.commits, {
      ...{ end: prefixEnd(Sys.commits), newestFirst: true, limit: 1, revision },
    });
    this.#witness = kvs[0] && witnessOf(kvs[0]);
    // An empty mirror of an empty tree has nothing to say yet.
    if (this.engine.revision > 0)
      await this.engine.update((tx) => this.state.writePosition(tx, revision, this.#witness));
    this.revision = revision;
  }

  async #writeLoaded(changes: Changes): Promise<void> {
    if (changes.isEmpty) return;
    await this.engine.update(
      (tx) => {
        for (const [record, value] of changes.puts) tx.put(record, value);
        for (const { from, relation, to } of changes.links) tx.link(from, relation, to);
        this.state.write(tx, changes);
      },
      { durability: 'visible' },
    );
  }

  async #removeUnseen(records: ReadonlySet<Key>, links: ReadonlySet<string>): Promise<void> {
    const gone: Key[] = [];
    const staleLinks: { from: Key; relation: string; to: Key; present: false }[] = [];
    const checkLinks = (from: Key): void => {
      for (const { relation, to } of this.state.linksOf(from)) {
        if (!links.has(linkPrefix(from, relation) + to)) {
          staleLinks.push({ from, relation, to, present: false });
        }
      }
    };
    for (const [record] of this.engine.scan('')) {
      if (!records.has(record)) gone.push(record);
      checkLinks(record);
    }
    for (const owner of this.state.owners) checkLinks(owner);
    for (let at = 0; at < Math.max(gone.length, staleLinks.length); at += LOAD_CHUNK) {
      const deletes = gone.slice(at, at + LOAD_CHUNK);
      if (deletes.length > 0) this.listener?.removing(undefined, deletes);
      await this.engine.update(
        (tx) => {
          for (const record of deletes) tx.delete(record);
          for (const { from, relation, to } of staleLinks.slice(at, at + LOAD_CHUNK))
            tx.unlink(from, relation, to);
        },
        { durability: 'visible' },
      );
      await nextTurn();
    }
  }

  /** Ends the watch, stores how far the mirror has come, and closes the embedded engine. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch?.end();
    for (const { reject } of this.#waiters.splice(0)) reject(closedError());
    for (const wake of this.#gateWaiters.splice(0)) wake();
    if (this.#loading === undefined && this.revision > this.state.stored && this.state.stored > 0) {
      await this.engine
        .update((tx) => this.state.writePosition(tx, this.revision, this.#witness))
        .catch(() => undefined);
    }
    await this.engine.close();
  }
}

const closedError = (): EbbtideError =>
  unavailable('the store was closed before the change was seen here', { remedy: 'open it again and look' });
