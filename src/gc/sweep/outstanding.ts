/**
 * Commits handed to the engine and not yet visible: a collection goes on with its next slice meanwhile, up to a
 * limit. The first failure is thrown by the next call, and none goes unhandled.
 */

export class Outstanding {
  readonly #limit: number;
  readonly #commits: Promise<void>[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Takes a commit on; waits for the oldest one while there are too many. */
  async add(commit: Promise<void>): Promise<void> {
    commit.catch(() => undefined);
    this.#commits.push(commit);
    while (this.#commits.length > this.#limit) await this.#commits.shift();
  }

  /** Waits for all of them, then throws the first failure, if any. */
  async drain(): Promise<void> {
    const results = await Promise.allSettled(this.#commits.splice(0));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }
}
