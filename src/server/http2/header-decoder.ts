/**
 * Header blocks of the peer, decoded (HPACK, RFC 7541). One for each connection, since a block may refer to fields of
 * earlier ones. Strings come out with a character a byte.
 *
 * A block is decoded to its end whatever it holds, because the next one builds on it; fields beyond the limit are
 * counted and forgotten, and strings are shared, so that a small block cannot become a large list.
 */
import { ConnectionError, ErrorCode, TABLE_BYTES } from './constants.js';
import { decodeHuffman } from './huffman.js';
import { type Field, staticTable } from './static-table.js';

/** What a field counts beyond its name and value (RFC 7541, section 4.1). */
const FIELD_BYTES = 32;
/** No length, index or size of ours is larger. */
const INTEGER_MAX = 2 ** 24;
const NOTHING = Buffer.alloc(0);

export interface Block {
  readonly fields: readonly Field[];
  /** Whether fields were left out because the list is over the limit. */
  readonly tooLarge: boolean;
  /** Whether equal bytes mean the same fields, for as long as `version` stays what it is. */
  readonly repeatable: boolean;
}

const sizeOf = ({ name, value }: Field): number => name.length + value.length + FIELD_BYTES;

export class HeaderDecoder {
  readonly #listBytesMax: number;
  /** The newest last. */
  readonly #table: Field[] = [];
  #tableBytes = 0;
  #tableBytesMax = TABLE_BYTES;
  #bytes: Buffer = NOTHING;
  #at = 0;
  /** Grows with every change of the table. */
  version = 0;

  constructor(listBytesMax: number) {
    this.#listBytesMax = listBytesMax;
  }

  /** A ConnectionError when the block breaks the rules: what comes after it cannot be understood either. */
  decode(block: Buffer): Block {
    this.#bytes = block;
    this.#at = 0;
    const before = this.version;
    const fields: Field[] = [];
    let listBytes = 0;
    while (this.#at < block.length) {
      const first = block[this.#at]!;
      if ((first & 0xe0) === 0x20) {
        if (listBytes > 0) throw damaged('a table size inside a block');
        this.#resize(this.#integer(5));
        continue;
      }
      const field = first & 0x80 ? this.#known(this.#integer(7)) : this.#literal(first);
      listBytes += sizeOf(field);
      if (listBytes <= this.#listBytesMax) fields.push(field);
    }
    this.#bytes = NOTHING;
    return { fields, tooLarge: listBytes > this.#listBytesMax, repeatable: this.version === before };
  }

  #literal(first: number): Field {
    const keep = (first & 0xc0) === 0x40;
    const index = this.#integer(keep ? 6 : 4);
    const name = index === 0 ? this.#string() : this.#known(index).name;
    const field = { name, value: this.#string() };
    if (keep) this.#add(field);
    return field;
  }

  #known(index: number): Field {
    const field =
      index <= staticTable.length
        ? staticTable[index - 1]
        : this.#table[this.#table.length - (index - staticTable.length)];
    if (field === undefined) throw damaged('an index of no field');
    return field;
  }

  #add(field: Field): void {
    this.version++;
    this.#tableBytes += sizeOf(field);
    this.#table.push(field);
    this.#evict();
  }

  #resize(bytes: number): void {
    // Every client may use the size it has from the start; this server allows no other.
    if (bytes > TABLE_BYTES) throw damaged('a table over the limit');
    this.version++;
    this.#tableBytesMax = bytes;
    this.#evict();
  }

  #evict(): void {
    while (this.#tableBytes > this.#tableBytesMax) this.#tableBytes -= sizeOf(this.#table.shift()!);
  }

  /** A number whose first `bits` bits are the last of the next byte (section 5.1). */
  #integer(bits: number): number {
    const most = 2 ** bits - 1;
    let value = this.#byte() & most;
    if (value < most) return value;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** shift;
      // Zeros may go on for ever and say nothing.
      if (value > INTEGER_MAX || shift > 28) throw damaged('a number is too large');
      if (byte < 0x80) return value;
    }
  }

  #string(): string {
    const huffman = (this.#bytes[this.#at] ?? 0) & 0x80;
    const length = this.#integer(7);
    const start = this.#at;
    const end = start + length;
    if (end > this.#bytes.length) throw damaged('a string is cut off');
    this.#at = end;
    return huffman ? decodeHuffman(this.#bytes, start, end) : this.#bytes.toString('latin1', start, end);
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw damaged('the block is cut off');
    return byte;
  }
}

const damaged = (how: string): ConnectionError => new ConnectionError(ErrorCode.compressionError, how);
