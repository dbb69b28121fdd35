/**
 * The commit queue: gathers what arrives while the log is being written and writes it as one batch with one flush.
 * Called by the storage. Nothing here blocks.
 *
 * Groups go one after the other; while one is written, the next is worked out if it is full, in steps between which
 * other work gets its turn. When one fails, everything queued behind it is lost as well, because later commits may
 * build on earlier ones; the queue then takes new work as before.
 */
import type { Commit, Written } from '../core/storage.js';
import { BatchBuilder } from './log-format.js';
import { writeError } from './write-error.js';

/** A group this large is closed. */
const GROUP_CHANGES_MAX = 1024;
/** So many commits are one group rather than two that go one after the other: the disk takes longer than they do. */
const FEW_COMMITS = 8;
/** Queued changes up to which work that can wait goes on: while others commit, and while nobody does. */
const SHARED_CHANGES_MAX = 128;
const ALONE_CHANGES_MAX = 2 * GROUP_CHANGES_MAX;
/** Milliseconds that a group of commits which can wait is kept open. */
const PATIENCE_MS = 2;
/** Milliseconds for which a commit of others counts. */
const SHARED_MS = 200;
/** Commits under way up to which a caller that asked for `visible` need not wait. */
const BACKLOG_MAX = 2048;

class Group {
  readonly builder: BatchBuilder;
  changes = 0;
  /** Those of its commits that cannot wait. */
  pressing = 0;
  readonly done: Promise<void>;
  resolve!: () => void;
  reject!: (error: Error) => void;

  /** Takes no more: its last commit is a revision that something else relies on. */
  sealed = false;
  readonly #commitsWanted: number;

  /** It takes no more. */
  get isFull(): boolean {
    return this.#isClosed(Math.max(FEW_COMMITS, this.#commitsWanted));
  }

  /** Nothing more is waited for. */
  get isReady(): boolean {
    return this.#isClosed(this.#commitsWanted);
  }

  #isClosed(commits: number): boolean {
    return this.sealed || this.changes >= GROUP_CHANGES_MAX || this.pressing >= commits;
  }

  constructor(builder: BatchBuilder, commitsWanted: number) {
    this.builder = builder;
    this.#commitsWanted = commitsWanted;
    this.done = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Those who wait see the failure; that nobody does must not end the process.
    this.done.catch(() => undefined);
  }
}

export interface WriterHost {
  /** Puts a batch on disk. Rejects when nothing of it is, or will be. */
  append(batch: Buffer): Promise<void>;
  /**
   * Both are called before anybody who waits is resumed. `isSealed`: the next commit begins something new; `pressing`:
   * how many of them are not of work that can wait.
   */
  stored(commits: BatchBuilder, batch: Buffer, isSealed: boolean, pressing: number): void;
  lost(commits: number, error: Error): void;
}

/** Builders kept for other groups. */
const SPARE_MAX = 4;

const resolved = Promise.resolve();
export class Writer {
  readonly #host: WriterHost;
  readonly #path: string;
  readonly #groups: Group[] = [];
  readonly #spare: BatchBuilder[] = [];
  /** Of the newest commit on disk. */
  #revision: number;
  #current: Group | undefined;
  #running: Promise<void> | undefined;
  #backlog = 0;
  /** Commits under way that cannot wait. */
  #pressing = 0;
  #queuedChanges = 0;
  /** Commits so far, and those that `paced` knew of when it was last asked. */
  #pushes = 0;
  #pushesSeen = 0;
  #sharedUntil = 0;
  /** Most commits that were under way at a time lately. */
  #callers = 0;

  /** @param revision of the newest commit on disk */
  constructor(path: string, host: WriterHost, revision: number) {
    this.#path = path;
    this.#host = host;
    this.#revision = revision;
  }

  /** `background`: it may wait for others a little, so that they make one write together. */
  push(commit: Commit, background = false): Written {
    const group = this.#group();
    group.builder.add(commit);
    const changes = commit.entries.size + commit.links.size + 1;
    group.changes += changes;
    this.#queuedChanges += changes;
    this.#backlog++;
    if (!background) {
      group.pressing++;
      this.#pressing++;
      if (this.#pressing > this.#callers) this.#callers = this.#pressing;
    }
    this.#pushes++;
    this.#running ??= this.#run();
    if (group.isReady || (!background && this.#isPatient)) this.#wake?.();
    return { visible: this.#backlog < BACKLOG_MAX ? resolved : group.done, flushed: group.done };
  }

  /** Whether the next commit begins a group: the last one is full, or being written. */
  beginsGroup(): boolean {
    return this.#groups[this.#groups.length - 1]?.isFull !== false;
  }

  /** Ends the open group, so that no batch holds commits from both sides of this moment. */
  seal(): void {
    const last = this.#groups[this.#groups.length - 1] ?? this.#current;
    if (last !== undefined) last.sealed = true;
  }

  /** Resolves when everything pushed so far is on disk. */
  flush(): Promise<void> {
    if (this.#isPatient) this.#wake?.();
    return (this.#groups[this.#groups.length - 1] ?? this.#current)?.done ?? resolved;
  }

  /**
   * For work that can wait, after each of its commits: resolves when what is queued keeps others waiting for little
   * longer than the disk does anyway.
   */
  async paced(): Promise<void> {
    const time = performance.now();
    if (this.#pushes - this.#pushesSeen > 1) this.#sharedUntil = time + SHARED_MS;
    this.#pushesSeen = this.#pushes;
    const limit = time < this.#sharedUntil ? SHARED_CHANGES_MAX : ALONE_CHANGES_MAX;
    while (this.#queuedChanges > limit) {
      const oldest = this.#current ?? this.#groups[0];
      if (oldest === undefined) return;
      if (this.#isPatient) this.#wake?.();
      // Whoever made the commits is told of their failure.
      await oldest.done.catch(() => undefined);
    }
  }

  /** Resolves when the commits under way that cannot wait, if there are any, have come to their end. */
  quiet(): Promise<void> {
    if (this.#pressing === 0) return resolved;
    const group = this.#groups.findLast(({ pressing }) => pressing > 0) ?? this.#current;
    return group === undefined ? resolved : group.done.catch(() => undefined);
  }

  /** Waits until nothing is under way, whatever became of it. */
  async drain(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  #group(): Group {
    const last = this.#groups[this.#groups.length - 1];
    if (last !== undefined && !last.isFull) return last;
    // Half of those who commit at a time: while one half waits for the disk, the other half does its work.
    const group = new Group(
      this.#spare.pop() ?? new BatchBuilder(),
      Math.max(1, Math.ceil(this.#callers / 2)),
    );
    this.#groups.push(group);
    return group;
  }

  async #run(): Promise<void> {
    while (this.#groups.length > 0) {
      // Callers that the last group resumed get to push their next commits, up to what makes a group.
      const next = this.#groups[0];
      if (next?.isReady !== true) await this.#gathered(next?.pressing === 0);
      const group = this.#groups.shift();
      if (group === undefined) break;
      this.#current = group;
      this.#callers = Math.max(this.#pressing, Math.floor(this.#callers * 0.9));
      try {
        const batch = group.builder.finish(this.#revision);
        await this.#host.append(batch);
        this.#revision = group.builder.revision;
        this.#backlog -= group.builder.commits;
        this.#pressing -= group.pressing;
        this.#queuedChanges -= group.changes;
        this.#current = undefined;
        this.#host.stored(group.builder, batch, group.sealed, group.pressing);
        group.resolve();
        this.#reuse(group.builder);
      } catch (error) {
        this.#fail(group, error);
      }
      this.#current = undefined;
    }
    this.#running = undefined;
  }

  /** The end of this turn (of some turns, when all can wait), or the moment in which a group is full or waited for. */
  #gathered(isPatient: boolean): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        this.#wake = undefined;
        this.#isPatient = false;
        resolve();
      };
      this.#isPatient = isPatient;
      if (isPatient) {
        const timer = setTimeout(end, PATIENCE_MS);
        this.#wake = () => {
          clearTimeout(timer);
          end();
        };
      } else {
        const timer = setImmediate(end);
        this.#wake = () => {
          clearImmediate(timer);
          end();
        };
      }
    });
  }
  #wake: (() => void) | undefined;
  #isPatient = false;

  #reuse(builder: BatchBuilder): void {
    if (builder.clear() && this.#spare.length < SPARE_MAX) this.#spare.push(builder);
  }

  #fail(group: Group, cause: unknown): void {
    const error = writeError(this.#path, cause);
    const lost = [group, ...this.#groups.splice(0)];
    const count = lost.reduce((sum, { builder }) => sum + builder.commits, 0);
    this.#backlog -= count;
    for (const { pressing } of lost) this.#pressing -= pressing;
    for (const { changes } of lost) this.#queuedChanges -= changes;
    this.#host.lost(count, error);
    for (const { reject } of lost) reject(error);
  }
}
