/**
 * Writes tar archives: plain ustar headers, with a pax header before an entry whose values do not fit (long
 * or non-ASCII names, large numbers, fractions of seconds, extended attributes). The same input gives the
 * same bytes. Called by diff (layers) and images/export.
 */
import { NANOS_PER_SECOND } from '../../../model/time.js';
import { type BytePath, showPath } from '../paths.js';
import { BLOCK, TypeFlag } from './tar-header.js';
import type { EntryType } from './tar-reader.js';

/** Receives bytes in order; resolves when it wants more. The bytes belong to it. */
export type Sink = (bytes: Uint8Array) => Promise<void>;

export interface NewEntry {
  name: BytePath;
  type: EntryType;
  /** Permission bits with set-id and sticky. */
  mode: number;
  uid?: number;
  gid?: number;
  /** Bytes of content; only files have any. */
  size?: number;
  /** Nanoseconds since 1970; default 0. */
  mtime?: bigint;
  linkname?: BytePath;
  major?: number;
  minor?: number;
  xattrs?: ReadonlyMap<string, Buffer>;
}

const flags: Readonly<Record<EntryType, string>> = {
  file: TypeFlag.file,
  link: TypeFlag.link,
  symlink: TypeFlag.symlink,
  char: TypeFlag.char,
  block: TypeFlag.block,
  directory: TypeFlag.directory,
  fifo: TypeFlag.fifo,
};

export class TarWriter {
  readonly #sink: Sink;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  /** Writes one entry. REQUIRES: `content` yields exactly `size` bytes. */
  async add(entry: NewEntry, content?: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void> {
    const named = entry.type === 'directory' ? { ...entry, name: `${entry.name}/` } : entry;
    const pax = paxRecords(named);
    if (pax.length > 0) {
      const shortName = `PaxHeaders.0/${named.name.replaceAll('/', '_').replace(/[^\x20-\x7e]/g, '_')}`.slice(
        0,
        100,
      );
      await this.#sink(
        header({ name: shortName, type: 'file', mode: 0o644, size: pax.length }, TypeFlag.pax),
      );
      await this.#padded(pax);
    }
    await this.#sink(header(named, flags[entry.type]));
    if (content === undefined) return;
    let done = 0;
    for await (const chunk of content) {
      done += chunk.length;
      await this.#sink(chunk);
    }
    if (done !== (entry.size ?? 0)) {
      throw new Error(`"${showPath(entry.name)}" gave ${done} of ${entry.size ?? 0} bytes`);
    }
    await this.#pad(done);
  }

  /** Writes the end mark. */
  async end(): Promise<void> {
    await this.#sink(Buffer.alloc(2 * BLOCK));
  }

  async #padded(bytes: Buffer): Promise<void> {
    await this.#sink(bytes);
    await this.#pad(bytes.length);
  }

  async #pad(written: number): Promise<void> {
    const rest = written % BLOCK;
    if (rest !== 0) await this.#sink(Buffer.alloc(BLOCK - rest));
  }
}

const fitsOctal = (value: number, digits: number): boolean => value >= 0 && value < 8 ** digits;

/** The records an entry needs in addition to its header. */
function paxRecords(entry: NewEntry): Buffer {
  const records: Buffer[] = [];
  const add = (key: string, value: Buffer | string): void => {
    records.push(paxRecord(key, typeof value === 'string' ? Buffer.from(value, 'latin1') : value));
  };
  const { name, linkname = '', uid = 0, gid = 0, size = 0, mtime = 0n, xattrs } = entry;
  if (splitName(name) === undefined) add('path', name);
  if (linkname.length > 100 || !isAscii(linkname)) add('linkpath', linkname);
  if (!fitsOctal(uid, 7)) add('uid', String(uid));
  if (!fitsOctal(gid, 7)) add('gid', String(gid));
  if (!fitsOctal(size, 11)) add('size', String(size));
  if (mtime % NANOS_PER_SECOND !== 0n || mtime < 0n) add('mtime', secondsText(mtime));
  const names = [...(xattrs?.keys() ?? [])].sort();
  for (const xattr of names) add(`SCHILY.xattr.${xattr}`, xattrs?.get(xattr) ?? '');
  return Buffer.concat(records);
}

/** `length key=value newline`, where the length counts itself. */
function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function secondsText(t: bigint): string {
  const positive = t < 0n ? -t : t;
  const fraction = String(positive % NANOS_PER_SECOND)
    .padStart(9, '0')
    .replace(/0+$/, '');
  return `${t < 0n ? '-' : ''}${positive / NANOS_PER_SECOND}${fraction === '' ? '' : `.${fraction}`}`;
}

const isAscii = (text: BytePath): boolean => /^[\x01-\x7f]*$/.test(text);

/** Name and prefix of a ustar header; undefined when the name does not fit. */
function splitName(name: BytePath): { name: BytePath; prefix: BytePath } | undefined {
  if (!isAscii(name)) return undefined;
  if (name.length <= 100) return { name, prefix: '' };
  for (let slash = name.lastIndexOf('/', 155); slash > 0; slash = name.lastIndexOf('/', slash - 1)) {
    const rest = name.slice(slash + 1);
    if (rest.length > 100) return undefined;
    if (rest !== '') return { name: rest, prefix: name.slice(0, slash) };
  }
  return undefined;
}

function header(entry: NewEntry, flag: string): Buffer {
  const { linkname = '', uid = 0, gid = 0, size = 0, mtime = 0n, major = 0, minor = 0 } = entry;
  const { name, prefix } = splitName(entry.name) ?? { name: entry.name.slice(0, 100), prefix: '' };
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, offset: number, digits: number): void => {
    const shown = fitsOctal(value, digits) ? value : 0;
    block.write(shown.toString(8).padStart(digits, '0'), offset, 'latin1');
  };
  block.write(name, 0, 100, 'latin1');
  octal(entry.mode & 0o7777, 100, 7);
  octal(uid, 108, 7);
  octal(gid, 116, 7);
  octal(size, 124, 11);
  octal(Number(mtime < 0n ? 0n : mtime / NANOS_PER_SECOND), 136, 11);
  block.fill(0x20, 148, 156);
  block.write(flag, 156, 'latin1');
  block.write(linkname.slice(0, 100), 157, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  octal(major, 329, 7);
  octal(minor, 337, 7);
  block.write(prefix, 345, 155, 'latin1');
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
