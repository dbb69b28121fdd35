/**
 * What takes disk: blobs and snapshots in the backends, each once, however many records name it. Read for reports by
 * retained.ts, which asks the graph core what goes with what. Sizes of blobs come from their records, those of snapshots
 * from the snapshotter; of both from the disk where it was measured. In whole blocks, on request: what a removal frees.
 */
import type { SnapshotterBackend } from '../../backends/contract.js';
import { yieldToEventLoop } from '../../backends/files.js';
import { type Engine, type Key, NodeFlag, type Value } from '../../engine/contract.js';
import { type GraphCore, NO_ITEM } from '../../engine/graph.js';
import { components, leaf } from '../../engine/schema/keys.js';
import { throwIfAborted } from '../../errors.js';
import { ResourceContent, ResourceIngest, ResourceSnapshot } from '../types.js';
import type { MeasuredDisk } from './disk-report.js';

export interface ItemsHost {
  readonly engine: Engine;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
}

const RECORDS_PER_TURN = 1024;
const TYPE_SHIFT = 8;

export class Items {
  /** Item by node; NO_ITEM for nodes that keep nothing on the disk themselves. */
  readonly ofNode: Uint32Array;
  /** Bytes by item. */
  readonly sizes: number[] = [];
  /** By item: a digest, `<snapshotter>\0<backend name>`, or the backend's ref of an ingest. */
  readonly names: string[] = [];
  readonly #known = new Map<string, number>();
  readonly #disk: MeasuredDisk | undefined;
  readonly #block: number;

  private constructor(nodes: number, disk: MeasuredDisk | undefined, block = 1) {
    this.#disk = disk;
    this.#block = block;
    this.ofNode = new Uint32Array(nodes).fill(NO_ITEM);
  }

  /**
   * Of the nodes as they are at the time of the call; those whose record goes meanwhile have no item. With a measured
   * disk, what it has of them; else blobs in blocks of so many bytes.
   */
  static async read(
    host: ItemsHost,
    disk: MeasuredDisk | undefined,
    signal?: AbortSignal,
    block?: number,
  ): Promise<Items> {
    const { graph } = host.engine;
    const items = new Items(graph.stats().limit, disk, block);
    const ingests = presentNodes(graph, ResourceIngest);
    const blobs = presentNodes(graph, ResourceContent);
    const snapshots = presentNodes(graph, ResourceSnapshot);
    let read = 0;
    for (const [ids, type] of [
      [blobs, ResourceContent],
      [snapshots, ResourceSnapshot],
    ] as const) {
      for (const id of ids) {
        if (++read % RECORDS_PER_TURN === 0) {
          await yieldToEventLoop();
          throwIfAborted(signal);
        }
        const record = host.engine.keyOf(id);
        const value = record === undefined ? undefined : host.engine.get(record);
        if (record === undefined || typeof value !== 'object') continue;
        items.ofNode[id] =
          type === ResourceContent
            ? items.#add(leaf(record), () => disk?.blob(leaf(record)) ?? items.#inBlocks(sizeField(value)))
            : await items.#addSnapshot(host, record, value);
      }
    }
    for (const id of ingests) items.#expect(host.engine, id);
    return items;
  }

  /** The open ingests by what the disk has of them; apart, since an ingest may keep a blob as well. */
  static async ofIngests({ engine }: ItemsHost, disk: MeasuredDisk, signal?: AbortSignal): Promise<Items> {
    const items = new Items(engine.graph.stats().limit, disk);
    for (const [n, id] of presentNodes(engine.graph, ResourceIngest).entries()) {
      if (n % RECORDS_PER_TURN === RECORDS_PER_TURN - 1) {
        await yieldToEventLoop();
        throwIfAborted(signal);
      }
      const record = engine.keyOf(id);
      const value = record === undefined ? undefined : engine.get(record);
      if (typeof value !== 'object' || typeof value.ref !== 'string') continue;
      const { ref } = value;
      items.ofNode[id] = items.#add(ref, () => disk.ingest(ref));
    }
    return items;
  }

  #inBlocks(size: number): number {
    return Math.ceil(size / this.#block) * this.#block;
  }

  #add(name: string, size: () => number): number {
    return this.#known.get(name) ?? this.#put(name, size());
  }

  #put(name: string, size: number): number {
    const item = this.sizes.push(size) - 1;
    this.names.push(name);
    this.#known.set(name, item);
    return item;
  }

  async #addSnapshot({ backends }: ItemsHost, record: Key, value: object): Promise<number> {
    const snapshotter = components(record)[2] ?? '';
    const name = 'name' in value && typeof value.name === 'string' ? value.name : '';
    const known = `${snapshotter}\0${name}`;
    const item = this.#known.get(known);
    if (item !== undefined) return item;
    return this.#put(known, await this.#snapshotSize(backends.get(snapshotter), snapshotter, name));
  }

  async #snapshotSize(
    backend: SnapshotterBackend | undefined,
    snapshotter: string,
    name: string,
  ): Promise<number> {
    if (this.#disk === undefined || backend?.directoryOf === undefined) {
      const size = await usageOf(backend, name);
      this.#disk?.addElsewhere(size);
      return size;
    }
    const directory = backend.directoryOf(name);
    return directory === undefined ? 0 : this.#disk.snapshot(snapshotter, directory);
  }

  /** An open ingest keeps the bytes of the blob it expects, whichever namespace has it. */
  #expect(engine: Engine, id: number): void {
    const record = engine.keyOf(id);
    const value = record === undefined ? undefined : engine.get(record);
    if (typeof value !== 'object' || typeof value.expected !== 'string') return;
    this.ofNode[id] = this.#known.get(value.expected) ?? NO_ITEM;
  }
}

/** Ids of the records of a type, ascending. */
export function presentNodes(graph: GraphCore, type: number): Uint32Array {
  return graph
    .withFlags(NodeFlag.present | (type << TYPE_SHIFT))
    .filter((id) => graph.flagsOf(id) >>> TYPE_SHIFT === type);
}

/** A size that no file can have counts as none: a report must not fail for one record. */
const sizeField = ({ size }: Exclude<Value, string>): number =>
  typeof size === 'number' && Number.isSafeInteger(size) && size >= 0 ? size : 0;

/** 0 when the backend does not know the snapshot, or is not there. */
async function usageOf(backend: SnapshotterBackend | undefined, name: string): Promise<number> {
  if (backend === undefined || name === '' || backend.has?.(name) === false) return 0;
  try {
    return (await backend.usage(name)).size;
  } catch {
    return 0;
  }
}
