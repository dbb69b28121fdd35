/**
 * Progress of everything that takes over a second, on a terminal only: one line on standard error, rewritten
 * at most ten times a second and erased at the end. Silent when standard error is not a terminal.
 */
import type { Progress as ImageProgress } from '../../images/services.js';
import { progressLine } from './progress-line.js';

const START_MS = 1000;
const INTERVAL_MS = 100;

export type ProgressReport = Pick<ImageProgress, 'phase' | 'name' | 'done' | 'total' | 'all'>;

export class Progress {
  readonly #tty = process.stderr.isTTY === true;
  readonly #started = Date.now();
  #last = 0;
  #shown = false;
  #sum: Sum | undefined;

  /** Reports on blobs, sequential or parallel; the line shows their sum. */
  report({ phase, name, done, total, all }: ProgressReport): void {
    if (!this.#tty) return;
    if (this.#sum?.phase !== phase || this.#sum.all !== all) this.#sum = new Sum(phase, all);
    const sum = this.#sum;
    sum.add(name, done, total);
    this.#show((width) => progressLine(sum.view(name), width));
  }

  /** Reports on something that is counted, or measured in bytes, as a whole; `total` 0: unknown. */
  count(
    what: string,
    done: number,
    { total = 0, unit = 'items' as 'bytes' | 'items' | 'seconds' } = {},
  ): void {
    this.#show((width) => progressLine({ what, done, total, unit }, width));
  }

  #show(line: (width: number) => string): void {
    if (!this.#tty) return;
    const now = Date.now();
    if (now - this.#started < START_MS || now - this.#last < INTERVAL_MS) return;
    this.#last = now;
    process.stderr.write(`\r\u001b[K${line(process.stderr.columns ?? 80)}`);
    this.#shown = true;
  }

  end(): void {
    if (this.#shown) process.stderr.write('\r\u001b[K');
    this.#shown = false;
  }
}

/** The sum over the items of a phase. */
class Sum {
  readonly phase: string;
  readonly all: ProgressReport['all'];
  readonly #items = new Map<string, { done: number; total: number }>();
  readonly #started = Date.now();
  #done = 0;
  #total = 0;

  constructor(phase: string, all: ProgressReport['all']) {
    this.phase = phase;
    this.all = all;
  }

  add(name: string, done: number, total: number): void {
    const before = this.#items.get(name) ?? { done: 0, total: 0 };
    this.#done += done - before.done;
    this.#total += total - before.total;
    this.#items.set(name, { done, total });
  }

  view(name: string): Parameters<typeof progressLine>[0] {
    const seconds = (Date.now() - this.#started) / 1000;
    return {
      what: `${this.phase} ${name}`,
      done: this.#done,
      total: this.all?.bytes ?? this.#total,
      unit: 'bytes',
      ...(seconds > 0 && { rate: this.#done / seconds }),
      item: this.#items.size,
      items: this.all?.items,
    };
  }
}
