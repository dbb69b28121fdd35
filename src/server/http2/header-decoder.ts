/**
 * Decodes the peer's header blocks (HPACK, RFC 7541). One decoder for each connection, since a block may
 * refer to fields of earlier ones. Strings have one character for each byte.
 *
 * A block is always decoded to its end, because the next one depends on it. Fields beyond the limit are
 * counted and dropped, and strings are shared, so that a small block cannot become a large list.
 */
import { present } from '../../errors.js';
import { ConnectionError, ErrorCode, TABLE_BYTES } from './constants.js';
import { decodeHuffman } from './huffman.js';
import { type Field, staticTable } from './static-table.js';

/** What a field counts in addition to its name and value (RFC 7541, section 4.1). */
const FIELD_BYTES = 32;
/** Upper bound on any valid length, index or size. */
const INTEGER_MAX = 2 ** 24;
const NOTHING = Buffer.alloc(0);

export interface Block {
  readonly fields: readonly Field[];
  /** Whether fields were dropped because the list exceeds the limit. */
  readonly tooLarge: boolean;
  /** Whether equal bytes mean the same fields as long as `version` is unchanged. */
  readonly repeatable: boolean;
}

const sizeOf = ({ name, value }: Field): number => name.length + value.length + FIELD_BYTES;

export class HeaderDecoder {
  readonly #listBytesMax: number;
  /** The newest is last. */
  readonly #table: Field[] = [];
  #tableBytes = 0;
  #tableBytesMax = TABLE_BYTES;
  #bytes: Buffer = NOTHING;
  #at = 0;
  /** Incremented by every change of the table. */
  version = 0;

  constructor(listBytesMax: number) {
    this.#listBytesMax = listBytesMax;
  }

  /** Throws a ConnectionError when the block is malformed: later ones cannot be decoded either. */
  decode(block: Buffer): Block {
    this.#bytes = block;
    this.#at = 0;
    const before = this.version;
    const fields: Field[] = [];
    let listBytes = 0;
    for (let first = block[0]; first !== undefined; first = block[this.#at]) {
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
    if (field === undefined) throw damaged('an index beyond the table');
    return field;
  }

  #add(field: Field): void {
    this.version++;
    this.#tableBytes += sizeOf(field);
    this.#table.push(field);
    this.#evict();
  }

  #resize(bytes: number): void {
    // Every client may use the default size; this server does not allow a larger one.
    if (bytes > TABLE_BYTES) throw damaged('a table over the limit');
    this.version++;
    this.#tableBytesMax = bytes;
    this.#evict();
  }

  #evict(): void {
    while (this.#tableBytes > this.#tableBytesMax)
      this.#tableBytes -= sizeOf(present(this.#table.shift(), 'a field of the table'));
  }

  /** A number whose first `bits` bits are the last ones of the next byte (section 5.1). */
  #integer(bits: number): number {
    const most = 2 ** bits - 1;
    let value = this.#byte() & most;
    if (value < most) return value;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** shift;
      // Zeros without effect may go on for ever.
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
