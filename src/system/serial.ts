/** Runs asynchronous calls one after another, in the order of the calls. Used by writers of ingests and the DB. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  /** A failed call rejects its own promise only. */
  run<T>(fn: () => Promise<T>): Promise<T> {
    const result = this.#last.then(fn);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
