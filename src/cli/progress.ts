/**
 * Progress for whatever takes over a second, on a terminal only: one line on standard error, rewritten at most
 * ten times a second and wiped at the end. Silent when standard error is not a terminal.
 */
import { bytes } from './output.js';

const START_MS = 1000;
const INTERVAL_MS = 100;

export class Progress {
  readonly #tty = process.stderr.isTTY === true;
  readonly #started = Date.now();
  #last = 0;
  #shown = false;

  /** `total` 0 or absent: unknown. Units are bytes unless `unit` names another. */
  report(what: string, done: number, total = 0, unit: 'bytes' | 'items' = 'bytes'): void {
    if (!this.#tty) return;
    const now = Date.now();
    if (now - this.#started < START_MS || now - this.#last < INTERVAL_MS) return;
    this.#last = now;
    const format = unit === 'bytes' ? bytes : String;
    const amount = total > 0 ? `${format(done)} of ${format(total)}` : format(done);
    const line = `${what}: ${amount}`.slice(0, (process.stderr.columns ?? 80) - 1);
    process.stderr.write(`\r\u001b[K${line}`);
    this.#shown = true;
  }

  end(): void {
    if (this.#shown) process.stderr.write('\r\u001b[K');
    this.#shown = false;
  }
}
