/**
 * Work on items whose results are taken in their order, several at once: some are begun ahead of the one that is taken next. Used
 * by chain.ts.
 */
export interface AheadLimits {
  /** Under way at once. */
  atOnce: number;
  /** Begun, and not taken yet. */
  begun: number;
}

/**
 * Does `work` on each item, and calls `take` with the results in order. The first failure, of whatever item, ends all other work, and
 * is thrown when that has ended and `drop` was called with each result that was not taken. `drop` does not fail.
 */
export async function takeInOrder<T, R>(
  items: readonly T[],
  { atOnce, begun }: AheadLimits,
  signal: AbortSignal | undefined,
  work: (item: T, signal: AbortSignal) => Promise<R>,
  drop: (result: R) => Promise<void>,
  take: (item: T, result: R) => Promise<void>,
): Promise<void> {
  const end = new AbortController();
  const ended = signal === undefined ? end.signal : AbortSignal.any([signal, end.signal]);
  const results: Promise<R>[] = [];
  let underWay = 0;
  let taken = 0;
  let failure: { error: unknown } | undefined;
  const fail = (error: unknown): void => {
    failure ??= { error };
    end.abort(error);
  };
  const begin = (): void => {
    while (failure === undefined && underWay < atOnce && results.length < taken + begun) {
      const item = items[results.length];
      if (item === undefined) return;
      underWay++;
      const result = work(item, ended);
      results.push(result);
      void result.catch(fail).finally(() => {
        underWay--;
        begin();
      });
    }
  };
  try {
    begin();
    for (const item of items) {
      const result = results[taken];
      if (result === undefined || failure !== undefined) break;
      const value = await result;
      taken++;
      await take(item, value);
      begin();
    }
  } catch (error) {
    fail(error);
  }
  for (const outcome of await Promise.allSettled(results.slice(taken))) {
    if (outcome.status === 'fulfilled') await drop(outcome.value);
  }
  if (failure !== undefined) throw failure.error;
}
