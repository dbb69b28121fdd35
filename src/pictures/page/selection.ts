/** The roots that are selected, and what their removal would free together. */
import type { PageData } from '../view/page-data.js';

export class Selection {
  readonly roots = new Set<number>();
  readonly #data: PageData;
  readonly #changed: (() => void)[] = [];

  constructor(data: PageData) {
    this.#data = data;
  }

  onChange(fn: () => void): void {
    this.#changed.push(fn);
  }

  toggle(root: number): void {
    if (!this.roots.delete(root)) this.roots.add(root);
    for (const fn of this.#changed) fn();
  }

  clear(): void {
    this.roots.clear();
    for (const fn of this.#changed) fn();
  }

  /** Bytes; undefined: not known. */
  freed(): number | undefined {
    let sum = 0;
    for (const [bytes, ...members] of this.#data.sets ?? []) {
      if (members.every((root) => this.roots.has(root))) sum += bytes;
    }
    return this.#data.sets === undefined ? undefined : sum;
  }
}
