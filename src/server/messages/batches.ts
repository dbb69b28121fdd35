/**
 * Gathers the records of a list into messages: as many in one as containerd sends, fewer if they are large.
 * Called by the services that stream lists.
 */
import type { Limits } from '../limits.js';

/** Records in one message of a list, as in containerd. */
const ITEMS_MAX = 100;
/** Target size in bytes, and the largest fraction of a message's limit; a single record may be larger. */
const BYTES_MAX = 2 ** 20;
const MESSAGE_SHARE = 4;

export class Batches<T> {
  readonly #send: (items: T[]) => Promise<void>;
  readonly #bytesMax: number;
  #items: T[] = [];
  #bytes = 0;

  constructor({ messageBytes }: Pick<Limits, 'messageBytes'>, send: (items: T[]) => Promise<void>) {
    this.#bytesMax = Math.min(BYTES_MAX, messageBytes / MESSAGE_SHARE);
    this.#send = send;
  }

  /** Resolves when the next may be added. */
  async add(item: T): Promise<void> {
    const bytes = roughSize(item);
    if (this.#bytes + bytes > this.#bytesMax) await this.flush();
    this.#items.push(item);
    this.#bytes += bytes;
    if (this.#items.length >= ITEMS_MAX) await this.flush();
  }

  /** Sends the rest. */
  async flush(): Promise<void> {
    const items = this.#items;
    if (items.length === 0) return;
    this.#items = [];
    this.#bytes = 0;
    await this.#send(items);
  }
}

/** Approximate size of a message in bytes: strings count their characters. */
function roughSize(value: unknown): number {
  if (typeof value === 'string') return value.length + 2;
  if (value instanceof Uint8Array) return value.length + 4;
  if (typeof value !== 'object' || value === null) return 4;
  let bytes = 8;
  for (const [name, part] of Object.entries(value)) bytes += name.length + roughSize(part);
  return bytes;
}
