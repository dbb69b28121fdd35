import { EbbtideError } from '../../errors.js';

/**
 * The graph in memory is not that of the records any more: it has part of a commit that failed. Unavailable for everything that
 * relies on it: collections, commits, checkpoints. The records are as they were, and an opening makes the graph again.
 */
export class GraphLost extends EbbtideError {
  constructor(cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    super('Unavailable', `the graph of references in memory was lost when a commit failed: ${why}`, {
      remedy: 'close the store and open it again, which makes the graph again from the records',
      cause,
    });
  }
}
