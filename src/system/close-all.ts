/**
 * Closes something with several parts. Used by the DB and the engine, whose lock must not outlive a close
 * that fails.
 */

/** Runs every step, also after one that fails, then throws the first failure. */
export async function closeAll(steps: readonly (() => unknown)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
