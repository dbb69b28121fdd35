/**
 * What stands in the directories of a walk, known before it is asked for: the names of a directory are looked at in
 * batches, each in one native call for each place (native/host/look_at.cc), on other threads, while the walk is at the batch
 * before. Whatever is not known here (no addon, something in the way, much of it) the caller looks at by itself. Called by diff.ts.
 *
 * Memory: two batches for each directory on the way down, of few names once `NAMES_HELD` are held; `BYTES_HELD` of
 * contents and attributes, twice that while calls are under way.
 */
import { endianness } from 'node:os';
import { lookAt, lookAtSupported } from '../sys.js';
import type { Place, Root } from './beneath.js';
import { type Look, look, sightOf } from './overlay-lookup.js';
import { type BytePath, fsPath } from './paths.js';

const BATCH = 256;
const BATCH_MIN = 16;
const NAMES_HELD = 16 * 1024;
const BYTES_HELD = 8 * 1024 * 1024;
/** Larger files are read as they are needed. */
const CONTENT_MAX = 8 * 1024;

const FORMAT = 0o170000;
const Format = {
  directory: 0o040000,
  char: 0o020000,
  block: 0o060000,
  file: 0o100000,
  fifo: 0o010000,
  link: 0o120000,
};
const NANOS = 1_000_000_000n;
const SEEN_BYTES = 80;
const ENOENT = 2;
const NO_CONTENT = 0xffffffff;
const LITTLE = endianness() === 'LE';

/** The status of something, as `lstat` would give it. */
export class Status {
  constructor(
    /** Format and permissions. */
    readonly mode: number,
    readonly uid: number,
    readonly gid: number,
    readonly size: number,
    readonly mtimeNs: bigint,
    readonly rdev: number,
    readonly nlink: number,
    /** Identifies it on this host. */
    readonly inode: string,
  ) {}

  isDirectory = (): boolean => this.#is(Format.directory);
  isFile = (): boolean => this.#is(Format.file);
  isSymbolicLink = (): boolean => this.#is(Format.link);
  isFIFO = (): boolean => this.#is(Format.fifo);
  isBlockDevice = (): boolean => this.#is(Format.block);
  isCharacterDevice = (): boolean => this.#is(Format.char);

  #is(format: number): boolean {
    return (this.mode & FORMAT) === format;
  }
}

export interface Seen {
  readonly status: Status;
  /** All of them, overlay's own too. */
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** Of a symlink. */
  readonly destination: BytePath | undefined;
  /** Of a small file. */
  readonly content: Buffer | undefined;
}

/** By name; null: nothing is there. A name that is missing was not looked at. */
type Batch = ReadonlyMap<BytePath, Seen | null>;

interface BatchOf {
  readonly place: Place;
  readonly batch: Batch;
}

const NOTHING: Batch = new Map();
const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

export class LookedAt {
  /** The batches that a walk is at, by root and path of the directory. */
  readonly #at = new Map<Root, Map<BytePath, Batch>>();
  #names = 0;
  #bytes = 0;

  /** As `look` of overlay-lookup.ts. */
  readonly look: Look = (place, overlay) => {
    const seen = this.#find(place);
    if (seen === undefined) return look(place, overlay);
    return seen === null ? undefined : sightOf(place, seen.status, seen.xattrs, overlay);
  };

  seen(place: Place): Seen | undefined {
    return this.#find(place) ?? undefined;
  }

  #find({ root, path }: Place): Seen | null | undefined {
    const slash = path.lastIndexOf('/');
    return this.#at
      .get(root)
      ?.get(slash < 0 ? '' : path.slice(0, slash))
      ?.get(path.slice(slash + 1));
  }

  /** Names in the directories that merge at a point of the walk, in its order. What was looked at is known until the next batch. */
  async *names(places: readonly Place[], names: readonly BytePath[]): AsyncGenerator<BytePath, void, void> {
    let ahead = this.#begin(places, names, 0);
    try {
      for (let end = 0; end < names.length; ) {
        const start = end;
        const batches = await ahead.batches;
        end = ahead.end;
        this.#show(batches);
        ahead = this.#begin(places, names, end);
        try {
          for (const name of names.slice(start, end)) yield name;
        } finally {
          this.#forget(batches);
        }
      }
    } finally {
      // The roots must stay open until then.
      for (const { batch } of await ahead.batches) this.#release(batch);
    }
  }

  #begin(places: readonly Place[], names: readonly BytePath[], start: number) {
    const most = this.#names > NAMES_HELD ? BATCH_MIN : BATCH;
    const end = Math.min(names.length, start + Math.max(BATCH_MIN, Math.floor(most / places.length)));
    const budget = Math.max(0, Math.floor((BYTES_HELD - this.#bytes) / 2 / places.length));
    const wanted = names.slice(start, end);
    const batches = Promise.all(
      places.map(async (place) => {
        const batch = wanted.length === 0 ? NOTHING : await batchOf(place, wanted, budget);
        const { names: count, bytes } = sizeOf(batch);
        this.#names += count;
        this.#bytes += bytes;
        return { place, batch };
      }),
    );
    return { end, batches };
  }

  #release(batch: Batch): void {
    const { names, bytes } = sizeOf(batch);
    this.#names -= names;
    this.#bytes -= bytes;
  }

  #show(batches: readonly BatchOf[]): void {
    for (const { place, batch } of batches) {
      let directories = this.#at.get(place.root);
      if (directories === undefined) {
        directories = new Map();
        this.#at.set(place.root, directories);
      }
      directories.set(place.path, batch);
    }
  }

  #forget(batches: readonly BatchOf[]): void {
    for (const { place, batch } of batches) {
      this.#at.get(place.root)?.delete(place.path);
      this.#release(batch);
    }
  }
}

function sizeOf(batch: Batch): { names: number; bytes: number } {
  let bytes = 0;
  for (const seen of batch.values()) {
    if (seen === null) continue;
    bytes += seen.content?.length ?? 0;
    for (const value of seen.xattrs.values()) bytes += value.length;
  }
  return { names: batch.size, bytes };
}

async function batchOf(place: Place, names: readonly BytePath[], budget: number): Promise<Batch> {
  if (!lookAtSupported) return NOTHING;
  const list = Buffer.from(`${names.join('\0')}\0`, 'latin1');
  try {
    const directory = place.path === '' ? '.' : fsPath(place.path);
    return readBatch(names, await lookAt(place.root.fd, directory, list, CONTENT_MAX, budget));
  } catch {
    // Whoever looks there by himself learns what is wrong.
    return NOTHING;
  }
}

function readBatch(names: readonly BytePath[], bytes: Buffer): Batch {
  const batch = new Map<BytePath, Seen | null>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const u32 = (at: number): number => view.getUint32(at, LITTLE);
  let at = 0;
  for (const name of names) {
    const errno = u32(at);
    const [attributes, destination, content] = [u32(at + 64), u32(at + 68), u32(at + 72)];
    const start = at + SEEN_BYTES;
    const destinationStart = start + attributes;
    const contentStart = destinationStart + destination;
    const end = contentStart + (content === NO_CONTENT ? 0 : content);
    if (errno === 0) {
      const status = new Status(
        u32(at + 4),
        u32(at + 8),
        u32(at + 12),
        Number(view.getBigInt64(at + 16, LITTLE)),
        view.getBigInt64(at + 24, LITTLE) * NANOS + BigInt(u32(at + 56)),
        Number(view.getBigUint64(at + 48, LITTLE)),
        u32(at + 60),
        `${view.getBigUint64(at + 40, LITTLE)}:${view.getBigUint64(at + 32, LITTLE)}`,
      );
      batch.set(name, {
        status,
        xattrs: attributes === 0 ? NO_XATTRS : readXattrs(bytes, start, destinationStart, u32),
        destination: status.isSymbolicLink()
          ? bytes.toString('latin1', destinationStart, contentStart)
          : undefined,
        content: content === NO_CONTENT || !status.isFile() ? undefined : bytes.subarray(contentStart, end),
      });
    } else if (errno === ENOENT) batch.set(name, null);
    at = end;
  }
  return batch;
}

function readXattrs(
  bytes: Buffer,
  start: number,
  end: number,
  u32: (at: number) => number,
): Map<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  for (let at = start; at < end; ) {
    const nameEnd = at + 8 + u32(at);
    const valueEnd = nameEnd + u32(at + 4);
    xattrs.set(bytes.toString('utf8', at + 8, nameEnd), bytes.subarray(nameEnd, valueEnd));
    at = valueEnd;
  }
  return xattrs;
}
