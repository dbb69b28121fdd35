/**
 * Whether runs may rely on the marks that live on: until a check has found one that is wrong. From then on, as long as the
 * process runs, each marks from the roots. Used by collect.ts and by the DB.
 */
import type { GraphCore } from '../../engine/graph.js';

export type CheckedMarks = 'right' | 'wrong' | 'not checked';

export class LiveMarks {
  readonly #log: (message: string, details: Readonly<Record<string, unknown>>) => void;
  /** Checks that compared every mark and count, and those of them that found a wrong one. */
  checks = 0;
  alarms = 0;

  constructor(log: (message: string, details: Readonly<Record<string, unknown>>) => void) {
    this.#log = log;
  }

  get areTrusted(): boolean {
    return this.alarms === 0;
  }

  /**
   * Compares every mark and count with those of a count anew, beside the writers. `not checked`: no marks live, or they were
   * in doubt. REQUIRES: no run is under way.
   */
  async check(graph: GraphCore): Promise<CheckedMarks> {
    const wrong = this.areTrusted ? await graph.checkLive() : undefined;
    if (wrong === undefined) return 'not checked';
    this.checks++;
    if (wrong.length === 0) return 'right';
    this.alarms++;
    this.#log('live marks are wrong: from now on every collection marks from the roots', {
      nodes: [...wrong.subarray(0, 10)],
      count: wrong.length,
      remedy: 'restart, which counts them anew; run doctor --check; report it with the log',
    });
    return 'wrong';
  }
}
