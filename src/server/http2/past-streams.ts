/**
 * Streams of a connection that are no longer open, as far as that matters (RFC 9113, section 5.1): those that
 * this side has ended and whose frames may still arrive, and ids that were skipped and never began. Called by
 * connection.ts and open-streams.ts.
 */

/** Streams ended by this side, which the peer may not know yet. */
const ENDED_MAX = 1000;
/** Ranges of ids that never began. */
const PASSED_OVER_MAX = 50;

export class PastStreams {
  readonly #ended = new Set<number>();
  /** First and last. */
  readonly #passedOver: [number, number][] = [];
  /** The newest stream that the peer has begun. */
  lastId = 0;

  /** The peer begins a stream, which closes the unused ids below it (section 5.1.1). */
  begin(id: number): void {
    const first = this.lastId === 0 ? 1 : this.lastId + 2;
    if (first < id) {
      this.#passedOver.push([first, id - 2]);
      if (this.#passedOver.length > PASSED_OVER_MAX) this.#passedOver.shift();
    }
    this.lastId = id;
  }

  /** This side ends a stream, and the peer may not know. */
  end(id: number): void {
    this.#ended.add(id);
    if (this.#ended.size <= ENDED_MAX) return;
    const [oldest = id] = this.#ended;
    this.#ended.delete(oldest);
  }

  /** The peer has ended it too. */
  forget(id: number): void {
    this.#ended.delete(id);
  }

  ended(id: number): boolean {
    return this.#ended.has(id);
  }

  passedOver(id: number): boolean {
    return this.#passedOver.some(([first, last]) => id >= first && id <= last);
  }
}
