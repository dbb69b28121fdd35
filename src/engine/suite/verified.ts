/**
 * Compares an engine's graph with its records after each transaction, as bbolt's verify mode does. For tests with small
 * stores, since each comparison reads all of them: the contract suite and the schedules.
 */
import { kindOf, unknownError } from '../../errors.js';
import type { Engine } from '../contract.js';

/**
 * Returns the engine itself. From now on an update rejects with Unknown if its commit leaves the graph different from the
 * records; with `report`, that is called instead and updates are as they were, to the last turn of the event loop.
 */
export function verifyEachCommit<E extends Engine>(engine: E, report?: (difference: string) => void): E {
  const update = engine.update.bind(engine);
  engine.update = (fn, options) => {
    const done = update(fn, options);
    const verified = done.then((result) => {
      const [difference] = differences(engine);
      if (difference === undefined) return result;
      if (report === undefined) throw unknownError(`the graph is not what the records say: ${difference}`);
      report(difference);
      return result;
    });
    if (report === undefined) return verified;
    verified.catch(() => undefined);
    return done;
  };
  return engine;
}

function differences(engine: Engine): string[] {
  try {
    return engine.verifyGraph();
  } catch (error) {
    // Closed while the commit was on its way.
    if (kindOf(error) === 'Unavailable') return [];
    throw error;
  }
}
