/**
 * What takes disk: blobs and snapshots in the backends, each once, however many records name it. Read for reports by
 * retained.ts, which asks the graph core what goes with what. Sizes of blobs come from their records, those of snapshots
 * from the snapshotter; of both from the disk where it was measured. In whole blocks, on request: what a removal frees.
 */
import type { SnapshotterBackend } from '../../backends/contract.js';
import { type Engine, type FieldValue, NodeFlag } from '../../engine/contract.js';
import { type GraphCore, NO_ITEM } from '../../engine/graph.js';
import { decodeFields } from '../../engine/schema/codec.js';
import { SEPARATOR } from '../../engine/schema/keys.js';
import { Pace } from '../../stores/listing.js';
import { ResourceContent, ResourceIngest, ResourceSnapshot } from '../types.js';
import type { MeasuredDisk } from './disk-report.js';
import { Growing } from './growing.js';
import { ItemNames } from './item-names.js';

export interface ItemsHost {
  readonly engine: Engine;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
}

const TYPE_SHIFT = 8;
/** Between two looks at the clock. */
const NODES_AT_ONCE = 32;

/** Of a snapshot, and of an ingest, what is read. */
const NAME = new Set(['name']);
const SIZE = new Set(['size']);
const EXPECTED = new Set(['expected']);
const REF = new Set(['ref']);

export class Items {
  /** Item by node; NO_ITEM for nodes that keep nothing on the disk themselves. */
  readonly ofNode: Uint32Array;
  readonly #sizes = new Growing(Float64Array);
  readonly #names = new ItemNames();
  readonly #disk: MeasuredDisk | undefined;
  readonly #block: number;

  private constructor(nodes: number, disk: MeasuredDisk | undefined, block = 1) {
    this.#disk = disk;
    this.#block = block;
    this.ofNode = new Uint32Array(nodes).fill(NO_ITEM);
  }

  /** Bytes by item. */
  get sizes(): Float64Array {
    return this.#sizes.take();
  }

  /** By item, made anew: a digest, `<snapshotter>\0<backend name>`, or the backend's ref of an ingest. */
  get names(): string[] {
    return Array.from({ length: this.#names.length }, (_, item) => this.#names.at(item));
  }

  /**
   * Of the nodes that there are at the time of the call; those whose record goes meanwhile have no item. With a measured
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
    const pace = new Pace(signal === undefined ? {} : { signal });
    const types = await typesOf(graph, items.ofNode.length, pace);
    const ingests: number[] = [];
    // In the order of the ids, in which the tree has the records.
    for (let id = 0; id < types.length; id++) {
      if (id % NODES_AT_ONCE === 0 && pace.isOver) await pace.pass();
      if (types[id] === ResourceContent) items.#addBlob(host, id);
      else if (types[id] === ResourceSnapshot) await items.#addSnapshot(host, id);
      else if (types[id] === ResourceIngest) ingests.push(id);
    }
    for (const id of ingests) {
      if (pace.isOver) await pace.pass();
      items.#expect(host.engine, id);
    }
    return items;
  }

  /** The open ingests by what the disk has of them; apart, since an ingest may keep a blob as well. */
  static async ofIngests({ engine }: ItemsHost, disk: MeasuredDisk, signal?: AbortSignal): Promise<Items> {
    const items = new Items(engine.graph.stats().limit, disk);
    const pace = new Pace(signal === undefined ? {} : { signal });
    for (const id of presentNodes(engine.graph, ResourceIngest)) {
      if (pace.isOver) await pace.pass();
      const ref = engine.readNode(id, (node) => decodeFields(node, REF).ref);
      if (typeof ref !== 'string') continue;
      const item = items.#names.add(ref);
      if (items.#isNew(item)) items.#sizes.push(disk.ingest(ref));
      items.ofNode[id] = item;
    }
    return items;
  }

  /** Its size is to be added. */
  #isNew(item: number): boolean {
    return item === this.#sizes.length;
  }

  #inBlocks(size: number): number {
    return Math.ceil(size / this.#block) * this.#block;
  }

  #addBlob({ engine }: ItemsHost, id: number): void {
    const item = engine.readNode(id, (node) => {
      const known = this.#names.addDigest(node) ?? this.#names.add(node.leaf);
      if (this.#isNew(known)) {
        const size = this.#disk?.blob(node.leaf);
        this.#sizes.push(size ?? this.#inBlocks(bytesOf(decodeFields(node, SIZE).size)));
      }
      return known;
    });
    this.ofNode[id] = item ?? NO_ITEM;
  }

  async #addSnapshot({ engine, backends }: ItemsHost, id: number): Promise<void> {
    let snapshotter = '';
    const name = engine.readNode(id, (node) => {
      snapshotter = snapshotterOf(node.parent);
      return decodeFields(node, NAME).name ?? '';
    });
    if (name === undefined) return;
    const backendName = typeof name === 'string' ? name : '';
    const item = this.#names.add(`${snapshotter}\0${backendName}`);
    this.ofNode[id] = item;
    if (!this.#isNew(item)) return;
    this.#sizes.push(await this.#snapshotSize(backends.get(snapshotter), snapshotter, backendName));
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
    const expected = engine.readNode(id, (node) => decodeFields(node, EXPECTED).expected);
    if (typeof expected === 'string') this.ofNode[id] = this.#names.find(expected) ?? NO_ITEM;
  }
}

/** The third component of a snapshot's key, by all that comes before its last one. */
function snapshotterOf(parent: string): string {
  const end = parent.length - 1;
  return parent.slice(parent.lastIndexOf(SEPARATOR, end - 1) + 1, end);
}

const ROWS_AT_ONCE = 8192;

/** Types of the first records by id; 0 where there is none, and for what has no type. */
async function typesOf(graph: GraphCore, limit: number, pace: Pace): Promise<Uint8Array> {
  const types = new Uint8Array(limit);
  for (let from = 0; from < limit; from += ROWS_AT_ONCE) {
    if (pace.isOver) await pace.pass();
    const rows = graph.rows(from, Math.min(ROWS_AT_ONCE, limit - from));
    for (let id = from, at = 0; at < rows.length; id++) {
      const flags = rows[at] ?? 0;
      if ((flags & NodeFlag.present) !== 0) types[id] = flags >>> TYPE_SHIFT;
      at += 2 + (rows[at + 1] ?? 0);
    }
  }
  return types;
}

const TYPE_MASK = 0x1f;

/** Ids of the records of a type, ascending. */
export function presentNodes(graph: GraphCore, type: number): Uint32Array {
  const withBits = graph.withFlags(NodeFlag.present | (type << TYPE_SHIFT));
  // Those of a type with more bits than this one have its bits, too.
  const others = new Uint8Array(graph.stats().limit);
  for (let bit = 1; bit <= TYPE_MASK; bit <<= 1) {
    if ((type & bit) !== 0) continue;
    for (const id of graph.withFlags(NodeFlag.present | ((type | bit) << TYPE_SHIFT))) others[id] = 1;
  }
  return withBits.filter((id) => others[id] === 0);
}

/** A size that no file can have counts as none: a report must not fail for one record. */
const bytesOf = (size: FieldValue | undefined): number =>
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
