/**
 * Encodes this server's header blocks (HPACK, RFC 7541). A few recurring fields are added to the peer's table
 * once and take one byte from then on; all others are sent as literals without indexing or Huffman code. One
 * encoder for each connection; blocks must be encoded in the order in which they are sent.
 */
import { present } from '../../errors.js';
import { TABLE_BYTES } from './constants.js';
import { staticTable } from './static-table.js';

const FIRST_DYNAMIC = staticTable.length + 1;
const EMPTY_TABLE = Buffer.of(0x20);

/** A field that the peer adds to its table. */
export interface KnownField {
  /** Literal with indexing. */
  readonly teach: Buffer;
  /** Literal without indexing, for a peer whose table is too small. */
  readonly literal: Buffer;
}
/** A complete header block: constant parts, and fields to be indexed. */
export type BlockParts = readonly (Buffer | KnownField)[];

export class HeaderEncoder {
  /** In the order in which they were indexed. */
  readonly #known: KnownField[] = [];
  #teaching = true;
  #resize = false;

  /** The peer's limit for its table. A table smaller than the default is not used at all. */
  limitTable(bytes: number): void {
    if (bytes >= TABLE_BYTES || !this.#teaching) return;
    this.#teaching = false;
    this.#resize = true;
    this.#known.length = 0;
  }

  encode(parts: BlockParts): Buffer {
    const out: Buffer[] = [];
    if (this.#resize) out.push(EMPTY_TABLE);
    this.#resize = false;
    for (const part of parts) {
      if (Buffer.isBuffer(part)) out.push(part);
      else out.push(this.#field(part));
    }
    const [first] = out;
    return first !== undefined && out.length === 1 ? first : Buffer.concat(out);
  }

  #field(field: KnownField): Buffer {
    if (!this.#teaching) return field.literal;
    const place = this.#known.indexOf(field);
    if (place >= 0) return indexed(FIRST_DYNAMIC + this.#known.length - 1 - place);
    this.#known.push(field);
    return field.teach;
  }
}

const indexedBytes = Array.from({ length: 127 }, (_, index) => Buffer.of(0x80 | index));
const indexed = (index: number): Buffer => present(indexedBytes[index], 'an index below 127');

/** For fields that all blocks have: few and small, so that they stay in the peer's table. */
export function knownField(name: string, value: string): KnownField {
  return { teach: literal(name, value, 0x40), literal: literal(name, value, 0) };
}

/** A literal field. Names are lower case; values have one character for each byte. */
export const literalField = (name: string, value: string): Buffer => literal(name, value, 0);

function literal(name: string, value: string, first: number): Buffer {
  return Buffer.concat([Buffer.of(first), string(name), string(value)]);
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([integer(bytes.length), bytes]);
}

function integer(value: number): Buffer {
  if (value < 127) return Buffer.of(value);
  const bytes = [127];
  let rest = value - 127;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}
