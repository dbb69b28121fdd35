/** Zstandard blocks decoded by libzstd (native/host/zstd.cc), on Node's thread pool. Frame checksums are compared. */
import { present } from '../../../errors.js';
import { addonError, loadAddon } from '../../../system/addon.js';
import { type BlockDecoder, type Blocks, damaged } from './zstd-blocks.js';

/** What native/host/zstd.cc exports. */
interface Addon {
  version: string;
  error: string;
  Decoder: new (windowLogMax: number) => Decoder;
}

interface Decoder {
  decode(input: Uint8Array, output: Uint8Array): Promise<number>;
  close(): void;
  readonly frameEnds: boolean;
}

const addon = loadAddon('ebbtide_zstd') as Addon | undefined;

/** Version of the libzstd in use, or why there is none. */
export const nativeZstd: { version?: string; reason?: string } =
  addon === undefined
    ? { reason: addonError('ebbtide_zstd') }
    : addon.error !== ''
      ? { reason: addon.error }
      : { version: addon.version };

export class NativeDecoder implements BlockDecoder {
  readonly #decoder: Decoder;
  #previous: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(windowLogMax: number) {
    this.#decoder = new (present(addon, 'libzstd').Decoder)(windowLogMax);
  }

  decode(blocks: Blocks): Promise<Uint8Array> {
    const decoded = this.#previous.then(() => this.#decode(blocks));
    this.#previous = decoded.catch(() => undefined);
    return decoded;
  }

  async #decode({ bytes, maxBytes, last }: Blocks): Promise<Uint8Array> {
    if (this.#closed) throw damaged('reading it was aborted');
    const output = Buffer.allocUnsafeSlow(maxBytes);
    let written: number;
    try {
      written = await this.#decoder.decode(bytes, output);
    } catch (error) {
      // What follows a damaged block cannot be decoded.
      this.#closed = true;
      throw damaged(error instanceof Error ? error.message : String(error), error);
    }
    if (last && !this.#decoder.frameEnds) throw damaged('a frame does not end with its last block');
    return output.subarray(0, written);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#decoder.close();
  }
}
