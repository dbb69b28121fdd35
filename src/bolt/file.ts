/**
 * A bbolt file that another process may write to: its bytes, and its newest meta page. Never a lock, never an open for writing.
 * Called by snapshot.ts and scan.ts. Reads are synchronous: nearly all are of pages in memory, and the less time is between two looks
 * at the metas, the fewer commits can be.
 */
import { closeSync, constants, fstatSync, openSync, read, readSync, statSync } from 'node:fs';
import { failedPrecondition, notFound } from '../errors.js';
import { errnoOf, fsError, isAbsent } from '../system/system-errors.js';
import { BoltDamage, META_BYTES, type Meta, PAGE_HEADER_BYTES, PAGE_SIZES, parseMeta } from './format.js';

/** What a reading is of. */
export interface BoltSource {
  readonly path: string;
  /** Bytes. */
  length(): number;
  /** Fills `bytes` with what is there from `at` on. Returns how many bytes that are; the rest is zeros. */
  read(bytes: Buffer, at: number): number;
  /** As `read`, by another thread. */
  readBeside(bytes: Buffer, at: number): Promise<number>;
  /** The newest valid meta. BoltDamage without one. */
  newest(): Meta;
}

/** Node reads no more at once. */
const READ_BYTES_MAX = 1024 * 1024 * 1024;

export class BoltFile implements BoltSource, Disposable {
  readonly path: string;
  readonly #fd: number;
  readonly #inode: string;
  /** The bytes of both metas when they were last parsed, and the newer one of them. */
  #parsed = Buffer.alloc(2 * META_BYTES);
  #bytes = Buffer.alloc(2 * META_BYTES);
  #newest: Meta | undefined;

  /** NotFound; FailedPrecondition for what is not a file. */
  constructor(path: string) {
    this.path = path;
    this.#fd = openQuietly(path);
    const { dev, ino } = fstatSync(this.#fd);
    this.#inode = `${dev} ${ino}`;
  }

  /** Whether there is another file by that name now. */
  isReplaced(): boolean {
    const now = statSync(this.path, { throwIfNoEntry: false });
    return now !== undefined && `${now.dev} ${now.ino}` !== this.#inode;
  }

  length(): number {
    return fstatSync(this.#fd).size;
  }

  /** Milliseconds since its last change. */
  age(): number {
    return Date.now() - fstatSync(this.#fd).mtimeMs;
  }

  read(bytes: Buffer, at: number): number {
    for (let done = 0; done < bytes.length; ) {
      const length = Math.min(bytes.length - done, READ_BYTES_MAX);
      const more = readSync(this.#fd, bytes, done, length, at + done);
      if (more === 0) {
        bytes.fill(0, done);
        return done;
      }
      done += more;
    }
    return bytes.length;
  }

  async readBeside(bytes: Buffer, at: number): Promise<number> {
    for (let done = 0; done < bytes.length; ) {
      const more = await readSome(this.#fd, bytes, done, at + done);
      if (more === 0) {
        bytes.fill(0, done);
        return done;
      }
      done += more;
    }
    return bytes.length;
  }

  /** Parses only what changed, since it is called all the time. */
  newest(): Meta {
    const known = this.#newest;
    if (known !== undefined) {
      this.read(this.#bytes.subarray(0, META_BYTES), PAGE_HEADER_BYTES);
      this.read(this.#bytes.subarray(META_BYTES), known.pageSize + PAGE_HEADER_BYTES);
      if (this.#bytes.equals(this.#parsed)) return known;
    }
    const found = this.#find() ?? this.#find() ?? this.#find();
    if (found === undefined) throw this.#withoutMeta();
    const [before, now] = [this.#parsed, this.#bytes];
    this.#parsed = now;
    this.#bytes = before;
    this.#newest = found;
    return found;
  }

  /**
   * A page size is known from the other meta only: where the second one is follows from it, unless the first is torn. Undefined also
   * if each was being written when it was looked at.
   */
  #find(): Meta | undefined {
    const first = this.#metaAt(0);
    let newest = first;
    for (const size of first === undefined ? PAGE_SIZES : [first.pageSize]) {
      const second = this.#metaAt(size);
      if (second === undefined || second.pageSize !== size) continue;
      if (newest === undefined || second.transaction > newest.transaction) newest = second;
    }
    return newest;
  }

  #withoutMeta(): Error {
    if (this.length() === 0)
      return failedPrecondition(`${this.path} is empty: its owner has not begun it`, {
        object: this.path,
        remedy: 'start its owner; if it has run before, what was in the file is lost: look for a copy of it',
      });
    return new BoltDamage(this.path, 'neither of its meta pages is valid, or it is not a bbolt file');
  }

  #metaAt(page: number): Meta | undefined {
    const bytes = Buffer.alloc(META_BYTES);
    return this.read(bytes, page + PAGE_HEADER_BYTES) < META_BYTES ? undefined : parseMeta(bytes, 0);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/** Without an access time on the file, where that is allowed; a pipe in its place must not block. */
function openQuietly(path: string): number {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK;
  let fd: number;
  try {
    try {
      fd = openSync(path, flags | constants.O_NOATIME);
    } catch (error) {
      if (errnoOf(error) !== 'EPERM') throw error;
      fd = openSync(path, flags);
    }
    if (fstatSync(fd).isFile()) return fd;
    closeSync(fd);
  } catch (error) {
    if (isAbsent(error)) throw notFound(`there is no ${path}`, { object: path, cause: error });
    throw fsError('open', path, error);
  }
  throw failedPrecondition(`${path} is not a regular file`, {
    object: path,
    remedy: 'move it away, and put the file back, or name another root',
  });
}

const readSome = (fd: number, bytes: Buffer, from: number, at: number): Promise<number> =>
  new Promise((resolve, reject) => {
    read(fd, bytes, from, Math.min(bytes.length - from, READ_BYTES_MAX), at, (error, bytesRead) =>
      error === null ? resolve(bytesRead) : reject(error),
    );
  });
