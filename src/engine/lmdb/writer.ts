/**
 * The commit queue: gathers what arrives while LMDB is busy and writes it as one LMDB transaction with one flush.
 * Called by the storage and the checkpointer. LMDB's own thread does the writing; nothing here blocks.
 *
 * Groups go one after the other; while one is written, the next is worked out if it is full, in steps between which other work gets
 * its turn. When one fails, everything queued behind it is lost as well, because later commits
 * may build on earlier ones; the queue then takes new work as before.
 */
import type { RootDatabase } from 'lmdb';
import { EbbtideError, unavailable } from '../../errors.js';
import type { Commit, Written } from '../core/storage.js';

/** A group this large is closed: handing it to LMDB holds the thread for about a microsecond a row. */
const GROUP_CHANGES_MAX = 1024;
/** Milliseconds that working out a group may hold the thread at a time. */
const STEP_MS = 0.5;
/** Queued changes up to which work that can wait goes on: while others commit, and while nobody does. */
const SHARED_CHANGES_MAX = 128;
const ALONE_CHANGES_MAX = 2 * GROUP_CHANGES_MAX;
/** Milliseconds for which a commit of others counts. */
const SHARED_MS = 200;
/** Commits under way up to which a caller that asked for `visible` need not wait. */
const BACKLOG_MAX = 2048;

class Group {
  readonly commits: Commit[] = [];
  readonly jobs: (() => void)[] = [];
  changes = 0;
  /** Puts the commits; worked out ahead of the group's turn. */
  put: (() => void) | undefined;
  readonly done: Promise<void>;
  resolve!: () => void;
  reject!: (error: Error) => void;

  /** Takes no more: its last commit is a revision that something else relies on. */
  sealed = false;

  get isFull(): boolean {
    return this.sealed || this.changes >= GROUP_CHANGES_MAX;
  }

  constructor() {
    this.done = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Those who wait see the failure; that nobody does must not end the process.
    this.done.catch(() => undefined);
  }
}

export interface WriterHost {
  /** Encodes commits, in short steps; the answer puts them, inside an LMDB batch, and must not fail half-way. */
  prepare(commits: readonly Commit[]): Generator<void, () => void>;
  /** Both are called before anybody who waits is resumed. */
  stored(commits: readonly Commit[]): void;
  lost(commits: number, error: Error): void;
}

const resolved = Promise.resolve();
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class Writer {
  readonly #env: RootDatabase;
  readonly #host: WriterHost;
  readonly #path: string;
  readonly #groups: Group[] = [];
  #current: Group | undefined;
  #running: Promise<void> | undefined;
  #backlog = 0;
  #queuedChanges = 0;
  /** Commits so far, and those that `paced` knew of when it was last asked. */
  #pushes = 0;
  #pushesSeen = 0;
  #sharedUntil = 0;
  /** Commits of the newest group. */
  #lastCommits = 0;

  constructor(env: RootDatabase, path: string, host: WriterHost) {
    this.#env = env;
    this.#path = path;
    this.#host = host;
  }

  push(commit: Commit): Written {
    const group = this.#group();
    group.commits.push(commit);
    const changes = commit.entries.size + commit.links.size + 1;
    group.changes += changes;
    this.#queuedChanges += changes;
    this.#backlog++;
    this.#pushes++;
    this.#running ??= this.#run();
    return { visible: this.#backlog < BACKLOG_MAX ? resolved : group.done, flushed: group.done };
  }

  /** Writes of another kind, behind all commits that were pushed before; resolves when they are on disk. */
  run(job: () => void, changes = 1): Promise<void> {
    const group = this.#group();
    group.jobs.push(job);
    group.changes += changes;
    this.#queuedChanges += changes;
    this.#running ??= this.#run();
    return group.done;
  }

  /** Ends the open group, so that no LMDB transaction holds commits from both sides of this moment. */
  seal(): void {
    const last = this.#groups[this.#groups.length - 1];
    if (last !== undefined) last.sealed = true;
  }

  /** Resolves when everything pushed so far is on disk. */
  flush(): Promise<void> {
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
      // Whoever made the commits is told of their failure.
      await oldest.done.catch(() => undefined);
    }
  }

  /** Waits until nothing is under way, whatever became of it. */
  async drain(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  #group(): Group {
    const last = this.#groups[this.#groups.length - 1];
    if (last !== undefined && !last.isFull) return last;
    const group = new Group();
    this.#groups.push(group);
    return group;
  }

  async #run(): Promise<void> {
    // Callers that the last group resumed get to push their next commits into the next one; a single caller need not
    // wait for others.
    let isAlone = this.#lastCommits === 1;
    while (this.#groups.length > 0) {
      if (!isAlone) await nextTurn();
      isAlone = false;
      const group = this.#groups.shift();
      if (group === undefined) break;
      this.#current = group;
      this.#lastCommits = group.commits.length;
      try {
        await this.#write(group);
        this.#backlog -= group.commits.length;
        this.#queuedChanges -= group.changes;
        this.#host.stored(group.commits);
        group.resolve();
      } catch (error) {
        this.#fail(group, await reasonOf(error));
      }
      this.#current = undefined;
    }
    this.#running = undefined;
  }

  async #write(group: Group): Promise<void> {
    const put = group.put ?? (await this.#prepare(group));
    const written = this.#env.batch(() => {
      put();
      for (const job of group.jobs) job();
    });
    const next = this.#groups[0];
    if (next?.isFull) {
      written.catch(() => undefined); // awaited below; it may fail before
      next.put = await this.#prepare(next);
    }
    await written;
  }

  async #prepare(group: Group): Promise<() => void> {
    const steps = this.#host.prepare(group.commits);
    for (let start = performance.now(); ; ) {
      const step = steps.next();
      if (step.done) return step.value;
      if (performance.now() - start < STEP_MS) continue;
      await nextTurn();
      start = performance.now();
    }
  }

  #fail(group: Group, cause: unknown): void {
    const error = writeError(this.#path, cause);
    const lost = [group, ...this.#groups.splice(0)];
    const count = lost.reduce((sum, { commits }) => sum + commits.length, 0);
    this.#backlog -= count;
    for (const { changes } of lost) this.#queuedChanges -= changes;
    this.#host.lost(count, error);
    for (const { reject } of lost) reject(error);
  }
}

/** LMDB's own error; its package first tells only that there is one. */
async function reasonOf(error: unknown): Promise<unknown> {
  if (!(error instanceof Error && 'commitError' in error)) return error;
  const told = Promise.resolve(error.commitError).catch((reason: unknown) => reason);
  // It has been told already if it ever will.
  const waited = new Promise((resolve) => setImmediate(() => resolve(error)));
  return Promise.race([told, waited]);
}

/** Numbers of the system's errors, whose texts LMDB mixes up. */
const systemErrors: Readonly<Record<string, string>> = {
  5: 'input/output error, or no space left on the device',
  28: 'no space left on the device',
  122: 'the quota is used up',
};

function writeError(path: string, cause: unknown): EbbtideError {
  if (cause instanceof EbbtideError) return cause;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const text = systemErrors[code] ?? (cause instanceof Error ? cause.message : String(cause));
  return unavailable(`cannot write to ${path}: ${text}`, {
    object: path,
    remedy: 'make room on the disk (the kernel log tells of other troubles), then try again',
    cause,
  });
}
