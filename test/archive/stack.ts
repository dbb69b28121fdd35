import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { applyDetached, applyLayer } from '../../src/backends/archive/apply.js';
import { KnownLayers } from '../../src/backends/archive/known-layers.js';
import type { Mount } from '../../src/backends/contract.js';
import { isKind } from '../../src/errors.js';
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

  #below(): string[] {
    return Array.from({ length: this.#layers - 1 }, (_, i) => this.#fs(i + 1)).reverse();
  }

  #lowerdir(): string {
    return `lowerdir=${this.#below().join(':')}`;
  }

  async #make(): Promise<{ upper: string; work: string }> {
    this.#layers++;
    const upper = this.#fs(this.#layers);
    const work = join(this.#dir, String(this.#layers), 'work');
    await mkdir(upper, { recursive: true });
    await mkdir(work);
    return { upper, work };
  }

  /** Writes it as if its parent were not there yet, or onto the parent if it does not fit; returns which. */
  async pushDetached(layer: Buffer): Promise<'fits' | 'needs its parent' | 'does not fit'> {
    const { upper } = await this.#make();
    try {
      const { assumed } = await applyDetached([bind(upper)], streamOf(layer));
      if (await assumed.fit(this.#below(), this.#known, undefined)) return 'fits';
      await this.#again(layer, upper);
      return 'does not fit';
    } catch (error) {
      if (!isKind(error, 'InvalidArgument')) throw error;
      await this.#again(layer, upper);
      return 'needs its parent';
    }
  }

  async #again(layer: Buffer, upper: string): Promise<void> {
    await rm(dirname(upper), { recursive: true });
    this.#layers--;
    await this.push(layer);
  }

  async push(layer: Buffer): Promise<void> {
    const { upper, work } = await this.#make();
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
