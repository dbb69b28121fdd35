/**
 * Outside effects of one transaction over all its attempts: each runs once, its result (or failure) is kept, and
 * it is undone when the transaction finally fails, or commits in an attempt that did not ask for it. Called by
 * transaction.ts and engine.ts.
 */
interface Effect {
  result: Promise<unknown>;
  /** The last attempt that asked for it. */
  attempt: number;
  undo?: () => Promise<void>;
}

export class Effects {
  readonly #effects = new Map<string, Effect>();

  once<T>(
    attempt: number,
    name: string,
    effect: () => Promise<T>,
    undo?: (result: T) => Promise<void>,
  ): Promise<T> {
    const known = this.#effects.get(name);
    if (known !== undefined) {
      known.attempt = attempt;
      // Only this method fills the map, and a name stands for one effect: the kept result has the asked type.
      return known.result as Promise<T>;
    }
    const made: Effect = { result: Promise.resolve(), attempt };
    const result = (async () => {
      const value = await effect();
      if (undo !== undefined) made.undo = () => undo(value);
      return value;
    })();
    made.result = result;
    // Kept for later attempts, which may never ask again.
    result.catch(() => undefined);
    this.#effects.set(name, made);
    return result;
  }

  /**
   * Undoes what was done, last first, except what the attempt that committed (if one did) asked for; a failing
   * undo does not keep the others from running.
   */
  async undo(committed?: number): Promise<void> {
    const unwanted = [...this.#effects.values()].filter(({ attempt }) => attempt !== committed);
    // An effect that the body did not wait for may still be under way.
    await Promise.allSettled(unwanted.map(({ result }) => result));
    for (const effect of unwanted.reverse()) {
      await effect.undo?.().catch(() => undefined);
      delete effect.undo;
    }
  }
}
