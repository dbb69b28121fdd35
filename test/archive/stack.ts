import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { applyLayer } from '../../src/backends/archive/apply.js';
import { KnownLayers } from '../../src/backends/archive/known-layers.js';
import type { Mount } from '../../src/backends/contract.js';
import { bind, streamOf } from './support.js';

/** One directory for each layer, as the overlay snapshotter has them. */
export class Stack implements Disposable {
  readonly #dir: string;
  /** So few names that some are remembered and others looked at again. */
  readonly #known = new KnownLayers(6);
  #layers = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  #fs(layer: number): string {
    return join(this.#dir, String(layer), 'fs');
  }

  #lowerdir(): string {
    const below = Array.from({ length: this.#layers - 1 }, (_, i) => this.#fs(i + 1)).reverse();
    return `lowerdir=${below.join(':')}`;
  }

  async push(layer: Buffer): Promise<void> {
    this.#layers++;
    const upper = this.#fs(this.#layers);
    const work = join(this.#dir, String(this.#layers), 'work');
    await mkdir(upper, { recursive: true });
    await mkdir(work);
    const options = [`workdir=${work}`, `upperdir=${upper}`, this.#lowerdir()];
    const mounts = this.#layers === 1 ? [bind(upper)] : [{ type: 'overlay', source: 'overlay', options }];
    await applyLayer(mounts, streamOf(layer), { known: this.#known });
  }

  view(): Mount[] {
    if (this.#layers === 1) return [{ type: 'bind', source: this.#fs(1), options: ['rbind', 'ro'] }];
    this.#layers++;
    const options = [this.#lowerdir()];
    this.#layers--;
    return [{ type: 'overlay', source: 'overlay', options }];
  }

  [Symbol.dispose](): void {
    this.#known.close();
  }

  upper(path: string): string {
    return join(this.#fs(this.#layers), path);
  }
}
