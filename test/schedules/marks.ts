/**
 * What can come about in a schedule and is the reason for one protection or another. Each is counted; a long run that has
 * not come by all of them proves less than it seems to, and fails.
 */
export const marks = [
  /** A candidate was referred to again between the mark and its slice. */
  'revived during a slice',
  /** A record named an item again when its sweep came. */
  'named again before its bytes went',
  /** A sweep found an item's guard taken by a writer. */
  'kept by a writer’s guard',
  'retry after conflict',
  /** Garbage hung on something that came during the run. */
  'left to the next run',
  'commits lost by a failing disk',
  'backend failed before its effect',
  'backend failed after its effect',
  'backend failed in a run',
  'everything failed for a while',
  'client cancelled in the middle',
  'clock set forward',
  'clock set back',
  /** A lease, image or ingest had expired by the wall clock alone. */
  'kept by the grace',
  'run ended because the clock was set back',
  'commits lost by a death',
  'unacknowledged commits found after a death',
  'death in a run',
  'death in an opening',
  'opened after a clean close',
  'opened twice in a row after deaths',
  'orphan of a death removed',
  /** The records were lost: what is in the backends has no name, and a guard stops the run. */
  'orphan kept by guard',
] as const;
export type Mark = (typeof marks)[number];

export class Marks {
  readonly #counts = new Map<Mark, number>(marks.map((mark) => [mark, 0]));

  add(mark: Mark, n = 1): void {
    this.#counts.set(mark, (this.#counts.get(mark) ?? 0) + n);
  }
  get counts(): Readonly<Record<Mark, number>> {
    return Object.fromEntries(this.#counts) as Record<Mark, number>;
  }
}
