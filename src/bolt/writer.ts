/**
 * Writes a bbolt file from sorted entries: what bbolt itself makes of them, without pages that are free. Called to bring
 * another program's file back, or to write it again.
 *
 * Leaves are written as they fill up, a bucket's branches at its end, the two meta pages last. The file gets its name when all of it is on
 * disk, and never takes the place of another one. Memory: an unfinished leaf for each open bucket, and the first key of each of its leaves.
 */
import { randomBytes } from 'node:crypto';
import { type FileHandle, link, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { alreadyExists, type EbbtideError, invalidArgument, present } from '../errors.js';
import { syncDirectory } from '../system/sync-directory.js';
import { errnoOf, fsError } from '../system/system-errors.js';
import { writeAll } from './bytes.js';
import {
  BUCKET_BYTES,
  BUCKET_FLAG,
  ELEMENT_BYTES,
  encodeMeta,
  PAGE_HEADER_BYTES,
  PAGE_SIZES,
  PageFlag,
} from './format.js';

/** bbolt's own limits. */
const KEY_BYTES_MAX = 32_768;
const VALUE_BYTES_MAX = 2 ** 31 - 2;
const COUNT_MAX = 0xffff;
/** Of a page, as bbolt's own compaction fills them: the next insertions split fewer pages than if they were full. */
const FILL = 0.9;
/** Of a page: what a bucket may have to stand in the value of its entry. */
const INLINE = 1 / 4;
/** Bytes that wait to be written before `drain` writes them. */
const PENDING_BYTES_MAX = 4 * 1024 * 1024;
/** Pages are made in one until it is full: to allocate each by itself takes longer than to fill it. */
const BLOCK_BYTES = 1024 * 1024;
/** bbolt takes no shorter file for one of its own. */
const FILE_BYTES_MIN = 4096;
const FREELIST = 2;

interface Element {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly isBucket: boolean;
}

interface Child {
  readonly key: Buffer;
  readonly page: number;
}

/** Pages that wait to be written, up to `end`; zeros after it. */
interface Block {
  readonly bytes: Buffer;
  end: number;
}

/** A bucket whose entries are still coming. */
class OpenBucket {
  /** Undefined for the root. */
  readonly parent: OpenBucket | undefined;
  readonly key: Buffer;
  readonly sequence: bigint;
  readonly leaves: Child[] = [];
  elements: Element[] = [];
  /** Of `elements`, as a page. */
  bytes = PAGE_HEADER_BYTES;
  last: Buffer | undefined;
  hasBuckets = false;

  constructor(parent: OpenBucket | undefined, key: Buffer, sequence: bigint) {
    this.parent = parent;
    this.key = key;
    this.sequence = sequence;
  }
}

export interface BoltWriterOptions {
  /** Bytes; default 4,096. */
  readonly pageSize?: number;
  readonly mode?: number;
}

export class BoltWriter implements AsyncDisposable {
  readonly path: string;
  readonly #pageSize: number;
  readonly #file: FileHandle;
  readonly #draft: string;
  #innermost = new OpenBucket(undefined, Buffer.alloc(0), 0n);
  #pages = FREELIST;
  #pending: Block[] = [];
  #pendingBytes = 0;

  private constructor(path: string, draft: string, file: FileHandle, pageSize: number) {
    this.path = path;
    this.#draft = draft;
    this.#file = file;
    this.#pageSize = pageSize;
    this.#page(PageFlag.freelist, 0, PAGE_HEADER_BYTES);
  }

  /** AlreadyExists: there is something at `path`. InvalidArgument: bbolt has no pages of that size. */
  static async create(
    path: string,
    { pageSize = 4096, mode = 0o600 }: BoltWriterOptions = {},
  ): Promise<BoltWriter> {
    if (!PAGE_SIZES.includes(pageSize))
      throw invalidArgument(`${pageSize} bytes is not a page size of bbolt`);
    const draft = `${path}.partial-${randomBytes(4).toString('hex')}`;
    try {
      return new BoltWriter(path, draft, await open(draft, 'wx', mode), pageSize);
    } catch (error) {
      throw fsError('write', path, error);
    }
  }

  /** Adds an entry to the innermost open bucket. REQUIRES: its key comes after all that the bucket has. */
  put(key: Buffer, value: Buffer): void {
    this.#add({ key, value, isBucket: false });
  }

  /** What is added from now on belongs to it, until `closeBucket`. */
  openBucket(key: Buffer, sequence: number | bigint = 0): void {
    const bucket = this.#innermost;
    checkKey(bucket, key);
    bucket.hasBuckets = true;
    this.#innermost = new OpenBucket(bucket, key, BigInt(sequence));
  }

  closeBucket(): void {
    const bucket = this.#innermost;
    const { parent, key, sequence } = bucket;
    if (parent === undefined) throw invalidArgument('there is no open bucket');
    this.#innermost = parent;
    const isInline =
      !bucket.hasBuckets && bucket.leaves.length === 0 && bucket.bytes <= this.#pageSize * INLINE;
    const value = Buffer.alloc(BUCKET_BYTES + (isInline ? bucket.bytes : 0));
    value.writeBigUInt64LE(BigInt(isInline ? 0 : this.#finishBucket(bucket)), 0);
    value.writeBigUInt64LE(sequence, 8);
    if (isInline) {
      const leaf = value.subarray(BUCKET_BYTES);
      writeHeader(leaf, 0, PageFlag.leaf, bucket.elements.length, 0);
      encodeElements(bucket.elements, leaf);
    }
    this.#add({ key, value, isBucket: true });
  }

  /** Whether much has gathered that is not written yet: `drain` writes it. To be asked all the time. */
  get isBehind(): boolean {
    return this.#pendingBytes >= PENDING_BYTES_MAX;
  }

  async drain(): Promise<void> {
    if (this.isBehind) await this.#write();
  }

  /** Returns the size of the file, in bytes, which is on disk then. AlreadyExists, and no file, when the name was taken meanwhile. */
  async finish(): Promise<number> {
    if (this.#innermost.parent !== undefined) throw invalidArgument('a bucket is still open');
    const root = this.#finishBucket(this.#innermost);
    const highWater = this.#pages;
    const size = Math.max(highWater * this.#pageSize, FILE_BYTES_MIN);
    await this.#write();
    try {
      await this.#file.truncate(size);
      await this.#file.sync();
      const metas = [0, 1].map((id) => {
        const page = Buffer.alloc(this.#pageSize);
        writeHeader(page, id, PageFlag.meta, 0, 0);
        const meta = { pageSize: this.#pageSize, root, highWater, transaction: BigInt(id) };
        encodeMeta(meta, FREELIST).copy(page, PAGE_HEADER_BYTES);
        return page;
      });
      await writeAll(this.#file, Buffer.concat(metas), 0);
      await this.#file.sync();
      await link(this.#draft, this.path);
      await syncDirectory(dirname(this.path));
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') throw isThere(this.path);
      throw fsError('write', this.path, error);
    }
    return size;
  }

  /** Takes away what is not finished. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    await rm(this.#draft, { force: true });
  }

  #add(element: Element): void {
    const { key, value } = element;
    const bucket = this.#innermost;
    checkKey(bucket, key);
    if (value.length > VALUE_BYTES_MAX) throw invalidArgument(`a value of ${value.length} bytes is too long`);
    const bytes = bytesOf(element);
    while (
      bucket.elements.length > 0 &&
      (bucket.bytes + bytes > this.#pageSize || bucket.elements.length >= COUNT_MAX)
    )
      this.#splitLeaf(bucket);
    bucket.elements.push(element);
    bucket.bytes += bytes;
    bucket.last = key;
  }

  /** Writes the first elements, as many as fill a page. As in bbolt, what fits into one page is not split. */
  #splitLeaf(bucket: OpenBucket): void {
    const { elements, bytes } = bucket;
    let count = 0;
    let filled = PAGE_HEADER_BYTES;
    for (const element of elements) {
      const more = bytesOf(element);
      if (count > 0 && filled + more > this.#pageSize * FILL) break;
      filled += more;
      count++;
    }
    bucket.elements = elements.slice(0, count);
    bucket.bytes = filled;
    this.#writeLeaf(bucket);
    bucket.elements = elements.slice(count);
    bucket.bytes = PAGE_HEADER_BYTES + bytes - filled;
  }

  #writeLeaf(bucket: OpenBucket): void {
    const { elements, bytes } = bucket;
    const page = this.#page(PageFlag.leaf, elements.length, bytes);
    encodeElements(elements, page.bytes);
    // A copy, which is all that stays of the page that it came from.
    bucket.leaves.push({ key: Buffer.from(elements[0]?.key ?? []), page: page.id });
    bucket.elements = [];
    bucket.bytes = PAGE_HEADER_BYTES;
  }

  /** Its root page. */
  #finishBucket(bucket: OpenBucket): number {
    if (bucket.elements.length > 0 || bucket.leaves.length === 0) this.#writeLeaf(bucket);
    let level = bucket.leaves;
    while (level.length > 1) level = this.#branches(level).map((children) => this.#writeBranch(children));
    return present(level[0], 'the root page').page;
  }

  /** The children of each branch: two at least, as in bbolt's own trees. */
  #branches(level: readonly Child[]): Child[][] {
    const branches: Child[][] = [];
    let bytes = Number.POSITIVE_INFINITY;
    for (const child of level) {
      const more = ELEMENT_BYTES + child.key.length;
      const last = branches.at(-1);
      if (
        last === undefined ||
        (bytes + more > this.#pageSize * FILL && last.length >= 2) ||
        last.length >= COUNT_MAX
      ) {
        branches.push([child]);
        bytes = PAGE_HEADER_BYTES + more;
      } else {
        last.push(child);
        bytes += more;
      }
    }
    const [before, last] = branches.slice(-2);
    if (before !== undefined && last?.length === 1) {
      if (before.length > 2) last.unshift(...before.splice(-1));
      else before.push(...branches.splice(-1).flat());
    }
    return branches;
  }

  #writeBranch(children: readonly Child[]): Child {
    const bytes = children.reduce((sum, { key }) => sum + ELEMENT_BYTES + key.length, PAGE_HEADER_BYTES);
    const page = this.#page(PageFlag.branch, children.length, bytes);
    let data = PAGE_HEADER_BYTES + children.length * ELEMENT_BYTES;
    for (const [n, { key, page: id }] of children.entries()) {
      const at = PAGE_HEADER_BYTES + n * ELEMENT_BYTES;
      page.bytes.writeUInt32LE(data - at, at);
      page.bytes.writeUInt32LE(key.length, at + 4);
      page.bytes.writeBigUInt64LE(BigInt(id), at + 8);
      data += key.copy(page.bytes, data);
    }
    return { key: present(children[0], 'the first child').key, page: page.id };
  }

  /** The next one, which is written with the others that wait. */
  #page(flags: number, count: number, bytes: number): { id: number; bytes: Buffer } {
    const pages = Math.ceil(bytes / this.#pageSize);
    const length = pages * this.#pageSize;
    let block = this.#pending.at(-1);
    if (block === undefined || block.end + length > block.bytes.length) {
      block = { bytes: Buffer.alloc(Math.max(length, BLOCK_BYTES)), end: 0 };
      this.#pending.push(block);
    }
    const page = block.bytes.subarray(block.end, block.end + length);
    const id = this.#pages;
    writeHeader(page, id, flags, count, pages - 1);
    block.end += length;
    this.#pages += pages;
    this.#pendingBytes += length;
    return { id, bytes: page };
  }

  async #write(): Promise<void> {
    const blocks = this.#pending;
    let at = this.#pages * this.#pageSize - this.#pendingBytes;
    this.#pending = [];
    this.#pendingBytes = 0;
    try {
      for (const { bytes, end } of blocks) {
        await writeAll(this.#file, bytes.subarray(0, end), at);
        at += end;
      }
    } catch (error) {
      throw fsError('write', this.path, error);
    }
  }
}

export const isThere = (path: string): EbbtideError =>
  alreadyExists(`there is a ${path} already`, { object: path, remedy: 'name one that is not there' });

const bytesOf = ({ key, value }: Element): number => ELEMENT_BYTES + key.length + value.length;

function checkKey({ last }: OpenBucket, key: Buffer): void {
  if (key.length > KEY_BYTES_MAX || key.length === 0)
    throw invalidArgument(`a key of ${key.length} bytes is not a valid key of bbolt`);
  if (last !== undefined && last.compare(key) >= 0)
    throw invalidArgument(`the key "${key.toString()}" is not in order`, { object: key.toString() });
}

/** After the header of a leaf, in a page or in the value of an inline bucket. */
function encodeElements(elements: readonly Element[], leaf: Buffer): void {
  let data = PAGE_HEADER_BYTES + elements.length * ELEMENT_BYTES;
  for (const [n, { key, value, isBucket }] of elements.entries()) {
    const at = PAGE_HEADER_BYTES + n * ELEMENT_BYTES;
    leaf.writeUInt32LE(isBucket ? BUCKET_FLAG : 0, at);
    leaf.writeUInt32LE(data - at, at + 4);
    leaf.writeUInt32LE(key.length, at + 8);
    leaf.writeUInt32LE(value.length, at + 12);
    data += key.copy(leaf, data);
    data += value.copy(leaf, data);
  }
}

function writeHeader(page: Buffer, id: number, flags: number, count: number, overflow: number): void {
  page.writeBigUInt64LE(BigInt(id), 0);
  page.writeUInt16LE(flags, 8);
  page.writeUInt16LE(count, 10);
  page.writeUInt32LE(overflow, 12);
}
