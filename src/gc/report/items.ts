/**
 * What takes disk: blobs and snapshots in the backends, each once, however many records name it. Read for reports by
 * retained.ts, which asks the graph core what goes with what. Sizes of blobs come from their records, those of snapshots
 * from the snapshotter; of both from the disk where it was measured. In whole blocks, on request: what a removal frees.
 */
import type { SnapshotterBackend } from '../../backends/contract.js';
import { type Engine, type FieldValue, NodeFlag, type StoredNode } from '../../engine/contract.js';
import { type GraphCore, NO_ITEM } from '../../engine/graph.js';
import { DamagedBytes } from '../../engine/schema/bytes.js';
import { decodeFields } from '../../engine/schema/codec.js';
import { Growing } from '../../engine/schema/growing.js';
import { SEPARATOR } from '../../engine/schema/keys.js';
import { NameTable } from '../../engine/schema/name-table.js';
import { StoredRecord } from '../../engine/schema/stored-record.js';
import { Pace } from '../../stores/listing.js';
import { ResourceContent, ResourceIngest, ResourceSnapshot } from '../types.js';
import type { MeasuredDisk } from './disk-report.js';

export interface ItemsHost {
  readonly engine: Engine;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
}

const TYPE_SHIFT = 8;
/** Between two looks at the clock. */
const NODES_AT_ONCE = 32;

/** Of a snapshot, and of an ingest, what is read. */
const NAME = new Set(['name']);
const OF_BLOB = new Set(['size', 'createdat']);
const EXPECTED = new Set(['expected']);
const REF = new Set(['ref']);

/** How items are read. */
export interface ItemsOptions {
  readonly signal?: AbortSignal | undefined;
  /** Blobs take whole blocks of so many bytes. */
  readonly block?: number | undefined;
  /** Of the nodes of a picture of the graph, instead of those that there are: `NodeFlag` bits | resource type << 8, by id. */
  readonly flags?: Uint16Array | undefined;
  /** Also where blobs are, and when they were made. */
  readonly blobs?: boolean | undefined;
}

export class Items {
  /** Item by node; NO_ITEM for nodes that keep nothing on the disk themselves. */
  readonly ofNode: Uint32Array;
  /** By node; empty unless they were asked for. */
  readonly #created: BigInt64Array;
  readonly #parentOf: Uint32Array;
  /** Beginnings of keys, with the separator; the first one is ''. */
  readonly parents: string[] = [''];
  readonly #parentNumbers = new Map<string, number>();
  readonly #record = new StoredRecord();
  readonly #sizes = new Growing(Float64Array);
  readonly #names = new NameTable();
  readonly #disk: MeasuredDisk | undefined;
  readonly #block: number;

  private constructor(
    nodes: number,
    disk: MeasuredDisk | undefined,
    { block = 1, blobs }: ItemsOptions = {},
  ) {
    this.#disk = disk;
    this.#block = block;
    this.ofNode = new Uint32Array(nodes).fill(NO_ITEM);
    const kept = blobs === true ? nodes : 0;
    this.#created = new BigInt64Array(kept);
    this.#parentOf = new Uint32Array(kept);
  }

  /** Bytes by item. */
  get sizes(): Float64Array {
    return this.#sizes.take();
  }

  /** By item, made anew: a digest, `<snapshotter>\0<backend name>`, or the backend's ref of an ingest. */
  get names(): string[] {
    return Array.from({ length: this.#names.length }, (_, item) => this.#names.at(item));
  }

  /** The name of an item. */
  nameOf(item: number): string {
    return this.#names.at(item);
  }

  /**
   * Where a node's blob is: number of the beginning of its key (`parents`), all but the digest. 0 for other nodes, and for a
   * blob that has no digest by SHA-256, or no time.
   */
  parentOf(id: number): number {
    return this.#parentOf[id] ?? 0;
  }

  /** When the blob was made. */
  createdAt(id: number): bigint {
    return this.#created[id] ?? 0n;
  }

  /**
   * Of the nodes that there are at the time of the call; those whose record goes meanwhile have no item. With a measured
   * disk, what it has of them.
   */
  static async read(
    host: ItemsHost,
    disk: MeasuredDisk | undefined,
    options: ItemsOptions = {},
  ): Promise<Items> {
    const { graph } = host.engine;
    const { signal } = options;
    const pace = new Pace(signal === undefined ? {} : { signal });
    const flags = options.flags ?? (await flagsOf(graph, pace));
    const items = new Items(flags.length, disk, options);
    const ingests: number[] = [];
    // In the order of the ids, in which the tree has the records.
    for (let id = 0; id < flags.length; id++) {
      if (id % NODES_AT_ONCE === 0 && pace.isOver) await pace.pass();
      const bits = flags[id] ?? 0;
      if ((bits & NodeFlag.present) === 0) continue;
      const type = bits >>> TYPE_SHIFT;
      if (type === ResourceContent) items.#addBlob(host.engine, id);
      else if (type === ResourceSnapshot) {
        const size = items.#addSnapshot(host, id);
        if (size !== undefined) items.#sizes.push(typeof size === 'number' ? size : await size);
      } else if (type === ResourceIngest) ingests.push(id);
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

  #addBlob(engine: Engine, id: number): void {
    this.#blobId = id;
    this.ofNode[id] = engine.readNode(id, this.#readBlob) ?? NO_ITEM;
  }

  #blobId = 0;
  /** Of the blob that was read last. */
  #size = 0;
  #time: bigint | undefined;

  readonly #readBlob = (node: StoredNode): number => {
    const digest = this.#names.addDigest(node);
    const item = digest ?? this.#names.add(node.leaf);
    const isNew = this.#isNew(item);
    const isKept = digest !== undefined && this.#created.length > 0;
    const measured = isNew ? this.#disk?.blob(node.leaf) : undefined;
    if (isKept || (isNew && measured === undefined)) this.#readFields(node);
    if (isNew) this.#sizes.push(measured ?? this.#inBlocks(this.#size));
    if (isKept && this.#time !== undefined) {
      this.#created[this.#blobId] = this.#time;
      this.#parentOf[this.#blobId] = this.#parentNumber(node.parent);
    }
    return item;
  };

  #parentNumber(parent: string): number {
    const known = this.#parentNumbers.get(parent);
    if (known !== undefined) return known;
    const number = this.parents.length;
    this.parents.push(parent);
    this.#parentNumbers.set(parent, number);
    return number;
  }

  #readFields(node: StoredNode): void {
    this.#size = 0;
    this.#time = undefined;
    if (this.#readQuickly(node)) return;
    const { size, createdat } = decodeFields(node, OF_BLOB);
    this.#size = bytesOf(size);
    this.#time = fitting(createdat);
  }

  /** As far as a blob's record is what it mostly is, and without an object for it; else false. */
  #readQuickly(node: StoredNode): boolean {
    const record = this.#record;
    try {
      record.beginNode(node);
      for (let left = record.fields(); left > 0; left--) {
        const field = record.field();
        if (field === 'createdat') {
          this.#time = record.instant();
          if (this.#time === undefined) return false;
        } else if (field === 'size') {
          // The last one of those that are wanted.
          this.#size = record.natural();
          return Number.isSafeInteger(this.#size) && this.#size >= 0 && this.#time !== undefined;
        } else if (field === undefined || !record.skip()) return false;
      }
    } catch (error) {
      // `decodeFields` says what is damaged.
      if (!(error instanceof DamagedBytes)) throw error;
    }
    return false;
  }

  /** The size of a new item, for the caller to add; a promise only where a backend has to be asked. */
  #addSnapshot({ engine, backends }: ItemsHost, id: number): Promise<number> | number | undefined {
    let snapshotter = '';
    const name = engine.readNode(id, (node) => {
      snapshotter = snapshotterOf(node.parent);
      return decodeFields(node, NAME).name ?? '';
    });
    if (name === undefined) return undefined;
    const backendName = typeof name === 'string' ? name : '';
    const item = this.#names.add(`${snapshotter}\0${backendName}`);
    this.ofNode[id] = item;
    return this.#isNew(item)
      ? this.#snapshotSize(backends.get(snapshotter), snapshotter, backendName)
      : undefined;
  }

  #snapshotSize(
    backend: SnapshotterBackend | undefined,
    snapshotter: string,
    name: string,
  ): Promise<number> | number {
    const disk = this.#disk;
    if (disk === undefined) return usageOf(backend, name);
    if (backend?.directoryOf === undefined) return this.#elsewhere(usageOf(backend, name));
    const directory = backend.directoryOf(name);
    return directory === undefined ? 0 : disk.snapshot(snapshotter, directory);
  }

  async #elsewhere(usage: Promise<number> | number): Promise<number> {
    const size = await usage;
    this.#disk?.addElsewhere(size);
    return size;
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

/** By id. */
async function flagsOf(graph: GraphCore, pace: Pace): Promise<Uint16Array> {
  const flags = new Uint16Array(graph.stats().limit);
  for (let from = 0; from < flags.length; from += ROWS_AT_ONCE) {
    if (pace.isOver) await pace.pass();
    const rows = graph.rows(from, Math.min(ROWS_AT_ONCE, flags.length - from));
    for (let id = from, at = 0; at < rows.length; id++) {
      flags[id] = rows[at] ?? 0;
      at += 2 + (rows[at + 1] ?? 0);
    }
  }
  return flags;
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

/** An instant that 64 bits hold. */
const fitting = (value: FieldValue | undefined): bigint | undefined =>
  typeof value === 'bigint' && BigInt.asIntN(64, value) === value ? value : undefined;

/** 0 when the backend does not know the snapshot, or is not there. */
const usageOf = (backend: SnapshotterBackend | undefined, name: string): Promise<number> | number =>
  backend === undefined || name === '' || backend.has?.(name) === false ? 0 : knownUsage(backend, name);

async function knownUsage(backend: SnapshotterBackend, name: string): Promise<number> {
  try {
    return (await backend.usage(name)).size;
  } catch {
    return 0;
  }
}
