/**
 * What takes disk: blobs and snapshots in the backends, each once, however many records name it. Read for reports by
 * retained.ts. Sizes of blobs come from their records, those of snapshots from the snapshotter.
 */
import type { SnapshotterBackend } from '../backends/contract.js';
import { breathe } from '../backends/files.js';
import type { Engine, Key, Value } from '../engine/contract.js';
import { components, leaf } from '../engine/schema/keys.js';
import { throwIfAborted } from '../errors.js';
import type { GraphView } from './reach.js';
import { ResourceContent, ResourceIngest, ResourceSnapshot } from './types.js';

export interface ItemsHost {
  readonly engine: Engine;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
}

export const NO_ITEM = -1;
const RECORDS_PER_TURN = 1024;

export class Items {
  /** Item by node; NO_ITEM for nodes that keep nothing on the disk themselves. */
  readonly ofNode: Int32Array;
  /** Bytes by item. */
  readonly sizes: number[] = [];
  readonly #known = new Map<string, number>();
  /** Nodes by item: namers[first[i]] … namers[first[i + 1] - 1]. */
  #first = new Uint32Array(1);
  #namers = new Uint32Array(0);

  private constructor(nodes: number) {
    this.ofNode = new Int32Array(nodes).fill(NO_ITEM);
  }

  /** Nodes whose record went since the view was read have no item. */
  static async read(host: ItemsHost, view: GraphView, signal?: AbortSignal): Promise<Items> {
    const items = new Items(view.limit);
    const ingests: number[] = [];
    let read = 0;
    for (let id = 0; id < view.limit; id++) {
      const type = view.typeOf(id);
      if (!view.isPresent(id)) continue;
      if (type === ResourceIngest) ingests.push(id);
      if (type !== ResourceContent && type !== ResourceSnapshot) continue;
      if (++read % RECORDS_PER_TURN === 0) {
        await breathe();
        throwIfAborted(signal);
      }
      const record = host.engine.keyOf(id);
      const value = record === undefined ? undefined : host.engine.get(record);
      if (record === undefined || typeof value !== 'object') continue;
      items.ofNode[id] =
        type === ResourceContent
          ? items.#add(leaf(record), () => sizeField(value))
          : await items.#addSnapshot(host, record, value);
    }
    for (const id of ingests) items.#expect(host.engine, id);
    items.#index();
    return items;
  }

  /** Whether `test` says so of a node that names the item; ends with the first. */
  someNamer(item: number, test: (id: number) => boolean): boolean {
    for (let at = this.#first[item]!; at < this.#first[item + 1]!; at++) {
      if (test(this.#namers[at]!)) return true;
    }
    return false;
  }

  #index(): void {
    const first = new Uint32Array(this.sizes.length + 1);
    for (const item of this.ofNode) if (item !== NO_ITEM) first[item + 1]!++;
    for (let item = 0; item < this.sizes.length; item++) first[item + 1]! += first[item]!;
    this.#first = first.slice();
    this.#namers = new Uint32Array(first[this.sizes.length]!);
    for (const [id, item] of this.ofNode.entries()) {
      if (item !== NO_ITEM) this.#namers[first[item]!++] = id;
    }
  }

  #add(name: string, size: () => number): number {
    let item = this.#known.get(name);
    if (item === undefined) {
      item = this.sizes.length;
      this.#known.set(name, item);
      this.sizes.push(size());
    }
    return item;
  }

  async #addSnapshot({ backends }: ItemsHost, record: Key, value: object): Promise<number> {
    const snapshotter = components(record)[2] ?? '';
    const name = 'name' in value && typeof value.name === 'string' ? value.name : '';
    const item = this.#known.get(`${snapshotter}\0${name}`);
    if (item !== undefined) return item;
    const size = await usageOf(backends.get(snapshotter), name);
    return this.#add(`${snapshotter}\0${name}`, () => size);
  }

  /** An open ingest keeps the bytes of the blob it expects, whichever namespace has it. */
  #expect(engine: Engine, id: number): void {
    const record = engine.keyOf(id);
    const value = record === undefined ? undefined : engine.get(record);
    if (typeof value !== 'object' || typeof value.expected !== 'string') return;
    this.ofNode[id] = this.#known.get(value.expected) ?? NO_ITEM;
  }
}

const sizeField = (value: Exclude<Value, string>): number =>
  typeof value.size === 'number' ? value.size : 0;

/** 0 when the backend does not know the snapshot, or is not there. */
async function usageOf(backend: SnapshotterBackend | undefined, name: string): Promise<number> {
  if (backend === undefined || name === '') return 0;
  try {
    return (await backend.usage(name)).size;
  } catch {
    return 0;
  }
}
