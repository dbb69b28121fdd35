/**
 * Maps the header blocks of a connection to what they mean to the application. Clients send the same few
 * blocks again and again, so the meaning of a block is cached as long as the table that it refers to is
 * unchanged.
 */
import { type Block, HeaderDecoder } from './header-decoder.js';
import { type RequestHead, requestHead } from './request-head.js';

/** Interprets the headers of requests. */
export interface HeadMaker<Head> {
  /** Called once for recurring headers; the result must depend on nothing else. */
  head(request: RequestHead): Head;
  /** The same for headers over the limit. */
  tooLarge(): Head;
}

export interface Meaning<Head> {
  /** Undefined: malformed. */
  readonly head: Head | undefined;
  readonly contentLength: number | undefined;
}

/** Number of cached blocks, and the largest that is cached. */
const KNOWN_MAX = 64;
const KNOWN_BYTES_MAX = 1024;

export class HeaderReader<Head> {
  readonly #maker: HeadMaker<Head>;
  readonly #decoder: HeaderDecoder;
  readonly #known = new Map<string, Meaning<Head>>();
  /** The table's version when the cached blocks were decoded. */
  #version = 0;

  constructor(listBytesMax: number, maker: HeadMaker<Head>) {
    this.#decoder = new HeaderDecoder(listBytesMax);
    this.#maker = maker;
  }

  /** Throws a ConnectionError when the block is malformed; every block must be read, here or below. */
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
