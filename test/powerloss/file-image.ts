/**
 * One file as a disk has it: bytes that are certainly there, and what was written since the last flush, of which a
 * power loss leaves any part. The unit is the sector (512 bytes): a sector has one of the states it went through
 * since it was last flushed, whatever became of its neighbours.
 */
export const SECTOR = 512;
const ZEROES = Buffer.alloc(SECTOR);

/** What becomes of a write that was not flushed; `torn`: each of its sectors for itself. */
export type Fate = 'kept' | 'dropped' | 'torn';
export interface Fates {
  of(write: number): Fate;
  /** Whether one sector of a torn write is kept. */
  sector(): boolean;
}

interface Version {
  write: number;
  bytes: Buffer;
}
interface Sector {
  durable: Buffer | undefined;
  /** Newest last. */
  pending: Version[];
}

export interface FileContents {
  size: number;
  /** By sector number; sectors that are missing have zeroes. */
  sectors: Map<number, Buffer>;
}

export class FileImage {
  readonly #sectors = new Map<number, Sector>();
  /** Sectors with pending versions. */
  readonly #unflushed = new Set<number>();
  #durableSize = 0;
  #sizes: { write: number; size: number }[] = [];

  /** A file that is on disk as it is. */
  static of(bytes: Buffer): FileImage {
    const image = new FileImage();
    image.#durableSize = bytes.length;
    for (let at = 0; at < bytes.length; at += SECTOR) {
      const part = bytes.subarray(at, at + SECTOR);
      if (part.equals(ZEROES.subarray(0, part.length))) continue;
      const durable = Buffer.alloc(SECTOR);
      part.copy(durable);
      image.#sectors.set(at / SECTOR, { durable, pending: [] });
    }
    return image;
  }

  get size(): number {
    return this.#sizes.at(-1)?.size ?? this.#durableSize;
  }

  write(write: number, offset: number, bytes: Buffer): void {
    const end = offset + bytes.length;
    for (let at = offset; at < end; ) {
      const number = Math.floor(at / SECTOR);
      const from = at % SECTOR;
      const count = Math.min(SECTOR - from, end - at);
      this.#change(write, number, (sector) => bytes.copy(sector, from, at - offset, at - offset + count));
      at += count;
    }
    if (end > this.size) this.#sizes.push({ write, size: end });
  }

  truncate(write: number, size: number): void {
    for (const [number, { durable, pending }] of this.#sectors) {
      if (durable === undefined && pending.length === 0) continue;
      const kept = Math.max(0, size - number * SECTOR);
      if (kept < SECTOR) this.#change(write, number, (sector) => sector.fill(0, kept));
    }
    if (size !== this.size) this.#sizes.push({ write, size });
  }

  /** Everything before write number `before` is on disk. */
  flush(before: number): void {
    for (const number of this.#unflushed) this.#flushSector(number, before);
    const last = this.#sizes.findLastIndex((change) => change.write < before);
    if (last < 0) return;
    this.#durableSize = this.#sizes[last]!.size;
    this.#sizes.splice(0, last + 1);
  }

  /** A write that went through: its sectors are on disk as they are now. */
  flushRange(offset: number, length: number): void {
    for (let n = Math.floor(offset / SECTOR); n * SECTOR < offset + length; n++) {
      this.#flushSector(n, Number.POSITIVE_INFINITY);
    }
    if (offset + length > this.#durableSize) {
      this.#durableSize = offset + length;
      this.#sizes = this.#sizes.filter(({ size }) => size > offset + length);
    }
  }

  contents(fates: Fates): FileContents {
    const sectors = new Map<number, Buffer>();
    for (const [number, { durable, pending }] of this.#sectors) {
      const version = pending.findLast(({ write }) => survives(fates, write));
      const bytes = version?.bytes ?? durable;
      if (bytes !== undefined) sectors.set(number, bytes);
    }
    const size = this.#sizes.findLast(({ write }) => fates.of(write) !== 'dropped')?.size;
    return { size: size ?? this.#durableSize, sectors };
  }

  #change(write: number, number: number, edit: (sector: Buffer) => void): void {
    let sector = this.#sectors.get(number);
    if (sector === undefined) {
      sector = { durable: undefined, pending: [] };
      this.#sectors.set(number, sector);
    }
    const bytes = Buffer.alloc(SECTOR);
    (sector.pending.at(-1)?.bytes ?? sector.durable)?.copy(bytes);
    edit(bytes);
    sector.pending.push({ write, bytes });
    this.#unflushed.add(number);
  }

  #flushSector(number: number, before: number): void {
    const sector = this.#sectors.get(number);
    if (sector === undefined) return;
    const last = sector.pending.findLastIndex(({ write }) => write < before);
    if (last < 0) return;
    sector.durable = sector.pending[last]!.bytes;
    sector.pending.splice(0, last + 1);
    if (sector.pending.length === 0) this.#unflushed.delete(number);
  }
}

function survives(fates: Fates, write: number): boolean {
  const fate = fates.of(write);
  return fate === 'kept' || (fate === 'torn' && fates.sector());
}
