/** Has the live marks compared with a count anew once in a while. Used by scheduler.ts; one timer, which keeps no process. */
import { timerMs } from '../../system/timers.js';
import type { CheckedMarks } from '../mark/live-marks.js';

export interface MarksCheckParts {
  check(): Promise<CheckedMarks>;
  setTimeout(fn: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
}

export class MarksCheck {
  readonly #parts: MarksCheckParts;
  readonly #everyMs: number;
  #timer: unknown;
  #running: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(everyMs: number, parts: MarksCheckParts) {
    this.#everyMs = timerMs(everyMs);
    this.#parts = parts;
    this.#plan();
  }

  /** Waits for a check under way. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#parts.clearTimeout(this.#timer);
    await this.#running;
  }

  #plan(): void {
    if (this.#closed) return;
    this.#timer = this.#parts.setTimeout(() => {
      // What it finds is logged and counted where it is found; a check that fails is made again.
      this.#running = this.#parts.check().then(
        () => this.#plan(),
        () => this.#plan(),
      );
    }, this.#everyMs);
  }
}
