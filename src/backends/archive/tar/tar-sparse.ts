/**
 * Maps of sparse files as GNU tar writes them: the old format in the header, pax 0.0, 0.1 and 1.0. A map is
 * accepted only when its segments ascend, do not overlap and are inside the file.
 */
import type { ChunkReader } from '../chunks.js';
import type { BytePath } from '../paths.js';
import { BLOCK, malformed, number, paxNumber } from './tar-header.js';

export interface Segment {
  readonly offset: number;
  readonly size: number;
}

export interface SparseFile {
  segments: Segment[];
  /** Size of the file with its holes. */
  size: number;
  /** The file's real name, if the format stores it separately. */
  name?: BytePath;
}

const MAX_SEGMENTS = 1_000_000;

/** The old format: four pairs in the header, more in blocks that follow it. */
export async function gnuSparseMap(header: Buffer, source: ChunkReader): Promise<SparseFile> {
  const segments: Segment[] = [];
  const size = number(header, 483, 12, 'sparse size');
  readPairs(header, 386, 4, segments);
  let more = header[482] !== 0;
  while (more) {
    const block = await source.exactly(BLOCK);
    if (block.length < BLOCK) throw malformed('it ends inside a sparse map');
    readPairs(block, 0, 21, segments);
    more = block[504] !== 0;
    if (segments.length > MAX_SEGMENTS) throw malformed('a sparse map is too long');
  }
  return checked({ segments, size });
}

/** Reads pairs up to the first empty one. */
function readPairs(block: Buffer, offset: number, count: number, into: Segment[]): void {
  for (let i = 0; i < count; i++) {
    const at = offset + i * 24;
    if (block[at] === 0) return;
    into.push({
      offset: number(block, at, 12, 'sparse map'),
      size: number(block, at + 12, 12, 'sparse map'),
    });
  }
}

/**
 * The pax formats; undefined when the records do not describe a sparse file. `read` reads from the entry's
 * content.
 */
export async function paxSparseMap(
  pax: ReadonlyMap<string, Buffer>,
  read: (size: number) => Promise<Buffer>,
): Promise<SparseFile | undefined> {
  const major = pax.get('GNU.sparse.major')?.toString('latin1');
  const minor = pax.get('GNU.sparse.minor')?.toString('latin1');
  const map = pax.get('GNU.sparse.map');
  if (major === undefined && map === undefined) return undefined;
  const name = pax.get('GNU.sparse.name')?.toString('latin1');
  const sizeRecord = pax.get('GNU.sparse.realsize') ?? pax.get('GNU.sparse.size');
  if (sizeRecord === undefined) throw malformed('a sparse file without its size');
  let numbers: number[];
  if (major === '1' && minor === '0') numbers = await leadingMap(read);
  else if (map !== undefined) numbers = listedMap(map);
  else throw malformed(`unknown sparse format ${major}.${minor}`);
  const segments: Segment[] = [];
  let offset: number | undefined;
  for (const number of numbers) {
    if (offset !== undefined) segments.push({ offset, size: number });
    offset = offset === undefined ? number : undefined;
  }
  const size = paxNumber(sizeRecord, 'sparse size');
  return checked({ segments, size, ...(name !== undefined && name !== '' && { name }) });
}

function listedMap(map: Buffer): number[] {
  const numbers = map.length === 0 ? [] : map.toString('latin1').split(',');
  if (numbers.length % 2 !== 0 || numbers.length > 2 * MAX_SEGMENTS)
    throw malformed('a sparse map is uneven');
  return numbers.map((digits) => paxNumber(Buffer.from(digits, 'latin1'), 'sparse map'));
}

/** Format 1.0: decimal lines at the start of the content, padded to whole blocks. */
async function leadingMap(read: (size: number) => Promise<Buffer>): Promise<number[]> {
  const numbers: number[] = [];
  let wanted = 1;
  let digits = '';
  while (numbers.length < wanted) {
    for (const byte of await read(BLOCK)) {
      if (byte !== 0x0a) {
        digits += String.fromCharCode(byte);
        if (digits.length > 20) throw malformed('a sparse map is not decimal');
        continue;
      }
      const value = paxNumber(Buffer.from(digits, 'latin1'), 'sparse map');
      numbers.push(value);
      digits = '';
      if (numbers.length === 1) wanted = 1 + 2 * value;
      if (wanted > 2 * MAX_SEGMENTS) throw malformed('a sparse map is too long');
      if (numbers.length === wanted) break;
    }
  }
  return numbers.slice(1);
}

function checked(file: SparseFile): SparseFile {
  let end = 0;
  for (const { offset, size } of file.segments) {
    if (offset < end || offset + size > file.size) throw malformed('a sparse map does not fit its file');
    end = offset + size;
  }
  return file;
}
