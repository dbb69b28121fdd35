/**
 * Nodes of the tree that were read before anybody asked for them (by lookup.ts). Called by the storage, which looks here
 * for what no commit has changed since; forgotten whenever the tree changes.
 */
import type { Key } from '../contract.js';
import type { Entry } from '../core/storage.js';
import type { Lookups, NodesAnswer } from './lookup.js';
import { readEntry } from './node-codec.js';

/** Answers kept: one in use, and the next. */
const WINDOWS = 2;

interface Window {
  readonly places: ReadonlyMap<number, number>;
  readonly nodes: NodesAnswer;
}

export class ReadAhead {
  #windows: Window[] = [];
  /** Changes with the tree. */
  #generation = 0;

  async read(lookups: Lookups, ids: Uint32Array): Promise<void> {
    const generation = this.#generation;
    const nodes = await lookups.nodes(ids);
    if (nodes === undefined || generation !== this.#generation) return;
    const places = new Map<number, number>();
    ids.forEach((id, i) => {
      if (nodes.keys[i] !== '') places.set(id, i);
    });
    this.#windows = [...this.#windows, { places, nodes }].slice(-WINDOWS);
  }

  forget(): void {
    this.#generation++;
    this.#windows = [];
  }

  get(id: number): { key: Key; entry: Entry } | undefined {
    for (const { places, nodes } of this.#windows) {
      const place = places.get(id);
      if (place === undefined) continue;
      const { keys, ends, bytes } = nodes;
      const start = place === 0 ? 0 : ends[place - 1]!;
      const node = Buffer.from(bytes.buffer, bytes.byteOffset + start, ends[place]! - start);
      return { key: keys[place]!, entry: readEntry(id, node, node.length) };
    }
    return undefined;
  }
}
