/**
 * The commit queue: commits that arrive while the write-ahead log is being written become one group, which is written as one
 * batch with one flush. Called by the storage. Nothing here blocks.
 *
 * Groups are written one after the other. When one fails, all later ones are lost as well, because commits may build on
 * earlier ones; the queue then takes new ones as before.
 *
 * A commit is in the foreground, or in the background: of work that can wait.
 */
import type { Written } from '../../core/storage.js';
import { writeError } from '../disk/write-error.js';
import { BatchBuilder, type LoggedCommit } from './format.js';

/** A group of so many changes takes no more. */
const GROUP_CHANGES_MAX = 1024;
/** So few commits are one group rather than two: the disk takes longer than they do. */
const FEW_COMMITS = 8;
/** Queued changes up to which background work goes on: while there are foreground commits, and while there are none. */
const SHARED_CHANGES_MAX = 128;
const ALONE_CHANGES_MAX = 2 * GROUP_CHANGES_MAX;
/** Milliseconds that a group of background commits is kept open. */
const PATIENCE_MS = 2;
/** Milliseconds for which a foreground commit counts. */
const SHARED_MS = 200;
/** Commits under way up to which a caller that asked for `visible` does not wait. */
const BACKLOG_MAX = 2048;

class Group {
  readonly builder: BatchBuilder;
  changes = 0;
  /** Foreground commits in it. */
  foreground = 0;
  readonly done: Promise<void>;
  resolve!: () => void;
  reject!: (error: Error) => void;

  /** Takes no more: something relies on the revision of its last commit. */
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
    return this.sealed || this.changes >= GROUP_CHANGES_MAX || this.foreground >= commits;
  }

  constructor(builder: BatchBuilder, commitsWanted: number) {
    this.builder = builder;
    this.#commitsWanted = commitsWanted;
    this.done = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Callers that wait get the error; that none does must not end the process.
    this.done.catch(() => undefined);
  }
}

export interface CommitQueueHost {
  /** Puts a batch on disk. Rejects when nothing of it is, or will be. */
  append(batch: Buffer): Promise<void>;
  /**
   * Both are called before the callers are resumed. `isSealed`: the next commit begins something new; `foreground`: how many
   * of them are foreground commits.
   */
  stored(commits: BatchBuilder, batch: Buffer, isSealed: boolean, foreground: number): void;
  lost(commits: number, error: Error): void;
}

/** Builders kept for other groups. */
const SPARE_MAX = 4;

const resolved = Promise.resolve();
export class CommitQueue {
  readonly #host: CommitQueueHost;
  readonly #path: string;
  readonly #groups: Group[] = [];
  readonly #spare: BatchBuilder[] = [];
  /** Of the newest commit on disk. */
  #revision: number;
  #current: Group | undefined;
  #running: Promise<void> | undefined;
  #backlog = 0;
  /** Foreground commits under way. */
  #foreground = 0;
  #queuedChanges = 0;
  #sharedUntil = 0;
  /** Most foreground commits that were under way at a time lately. */
  #callers = 0;

  /** @param revision of the newest commit on disk */
  constructor(path: string, host: CommitQueueHost, revision: number) {
    this.#path = path;
    this.#host = host;
    this.#revision = revision;
  }

  /** The log has commits up to a revision that did not come from here: the next batch follows them. */
  follow(revision: number): void {
    this.#revision = revision;
  }

  /** A `background` commit may wait a little for others, so that they become one write. */
  push(commit: LoggedCommit, background = false): Written {
    const group = this.#group();
    group.builder.add(commit);
    const changes = commit.entries.size + commit.links.size + commit.formerChildren.length + 1;
    group.changes += changes;
    this.#queuedChanges += changes;
    this.#backlog++;
    if (!background) {
      group.foreground++;
      this.#foreground++;
      if (this.#foreground > this.#callers) this.#callers = this.#foreground;
      this.#sharedUntil = performance.now() + SHARED_MS;
    }
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
   * For background work, after each of its commits: resolves when so little is queued that foreground commits wait hardly
   * longer than for the disk.
   */
  async paced(): Promise<void> {
    const limit = performance.now() < this.#sharedUntil ? SHARED_CHANGES_MAX : ALONE_CHANGES_MAX;
    while (this.#queuedChanges > limit) {
      const oldest = this.#current ?? this.#groups[0];
      if (oldest === undefined) return;
      if (this.#isPatient) this.#wake?.();
      // The callers of its commits get the error.
      await oldest.done.catch(() => undefined);
    }
  }

  /** Resolves when the foreground commits under way are on disk, or lost. */
  foregroundDone(): Promise<void> {
    if (this.#foreground === 0) return resolved;
    const group = this.#groups.findLast(({ foreground }) => foreground > 0) ?? this.#current;
    return group === undefined ? resolved : group.done.catch(() => undefined);
  }

  /** Resolves when nothing is under way, on disk or lost. */
  async drain(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  #group(): Group {
    const last = this.#groups[this.#groups.length - 1];
    if (last !== undefined && !last.isFull) return last;
    // Half of the callers: while one half waits for the disk, the other half does its work.
    const group = new Group(
      this.#spare.pop() ?? new BatchBuilder(),
      Math.max(1, Math.ceil(this.#callers / 2)),
    );
    this.#groups.push(group);
    return group;
  }

  async #run(): Promise<void> {
    while (this.#groups.length > 0) {
      // Callers that the last group resumed push their next commits first, up to a group.
      const next = this.#groups[0];
      if (next?.isReady !== true) await this.#gathered(next?.foreground === 0);
      const group = this.#groups.shift();
      if (group === undefined) break;
      this.#current = group;
      this.#callers = Math.max(this.#foreground, Math.floor(this.#callers * 0.9));
      try {
        const batch = group.builder.finish(this.#revision);
        await this.#host.append(batch);
        this.#revision = group.builder.revision;
        this.#backlog -= group.builder.commits;
        this.#foreground -= group.foreground;
        this.#queuedChanges -= group.changes;
        this.#current = undefined;
        this.#host.stored(group.builder, batch, group.sealed, group.foreground);
        group.resolve();
        this.#reuse(group.builder);
      } catch (error) {
        this.#fail(group, error);
      }
      this.#current = undefined;
    }
    this.#running = undefined;
  }

  /** Resolves at the end of this turn of the event loop (after PATIENCE_MS, if all are in the background), or when a group is ready. */
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
    for (const { foreground } of lost) this.#foreground -= foreground;
    for (const { changes } of lost) this.#queuedChanges -= changes;
    this.#host.lost(count, error);
    for (const { reject } of lost) reject(error);
  }
}
