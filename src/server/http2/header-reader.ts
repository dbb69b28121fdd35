/**
 * Header blocks of a connection as what they mean to the application. Clients send the same few blocks again and
 * again: what such a block means is remembered, for as long as the table that it refers to stays what it is.
 */
import { type Block, HeaderDecoder } from './header-decoder.js';
import { type RequestHead, requestHead } from './request-head.js';

/** What requests' headers are to somebody. */
export interface HeadMaker<Head> {
  /** Asked once for headers that come again; must not depend on anything else. */
  head(request: RequestHead): Head;
  /** The same for headers over the limit. */
  tooLarge(): Head;
}

export interface Meaning<Head> {
  /** Undefined: malformed. */
  readonly head: Head | undefined;
  readonly contentLength: number | undefined;
}

/** Blocks that are remembered, and how large one may be for that. */
const KNOWN_MAX = 64;
const KNOWN_BYTES_MAX = 1024;

export class HeaderReader<Head> {
  readonly #maker: HeadMaker<Head>;
  readonly #decoder: HeaderDecoder;
  readonly #known = new Map<string, Meaning<Head>>();
  /** Of the table, when the known ones were read. */
  #version = 0;

  constructor(listBytesMax: number, maker: HeadMaker<Head>) {
    this.#decoder = new HeaderDecoder(listBytesMax);
    this.#maker = maker;
  }

  /** A ConnectionError when the block is none; every block must be read, here or below. */
  request(block: Buffer): Meaning<Head> {
    const key = block.length <= KNOWN_BYTES_MAX ? block.toString('latin1') : undefined;
    const known = key === undefined ? undefined : this.#known.get(key);
    if (known !== undefined && this.#version === this.#decoder.version) return known;
    const decoded = this.#decoder.decode(block);
    if (this.#version !== this.#decoder.version || this.#known.size >= KNOWN_MAX) {
      this.#known.clear();
      this.#version = this.#decoder.version;
    }
    const meaning = this.#meaning(decoded);
    if (decoded.repeatable && key !== undefined) this.#known.set(key, meaning);
    return meaning;
  }

  trailers(block: Buffer): Block['fields'] {
    return this.#decoder.decode(block).fields;
  }

  #meaning({ fields, tooLarge }: Block): Meaning<Head> {
    if (tooLarge) return { head: this.#maker.tooLarge(), contentLength: undefined };
    const request = requestHead(fields);
    if (request === undefined) return { head: undefined, contentLength: undefined };
    return { head: this.#maker.head(request), contentLength: request.contentLength };
  }
}
