/**
 * Caches open readers of blobs: Go clients read a blob with one call for each chunk, and opening its file for
 * each would cost more than the chunk. Access by namespace is checked for every call; the bytes of a digest
 * are the same whichever file they come from. A removed blob keeps its disk space until its reader closes, a
 * moment later. Called by the content service.
 */
import type { BlobReader } from '../backends/contract.js';
import type { CallContext } from '../context.js';
import type { DB } from '../db.js';

const KEPT_MS = 500;
const IDLE_MAX = 16;

type Store = Pick<DB['content'], 'info' | 'readerAt'>;

interface Entry {
  readonly digest: string;
  readonly reader: BlobReader;
  users: number;
  timer: NodeJS.Timeout | undefined;
}

export class OpenReaders {
  readonly #store: Store;
  readonly #entries = new Map<string, Entry>();
  #idle = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * Calls `fn` with a reader of the blob. NotFound without a record in the namespace, or when the bytes are
   * missing.
   */
  async use<T>(ctx: CallContext, digest: string, fn: (reader: BlobReader) => Promise<T>): Promise<T> {
    const entry = await this.#take(ctx, digest);
    let failed = true;
    try {
      const result = await fn(entry.reader);
      failed = false;
      return result;
    } finally {
      await this.#giveBack(entry, failed);
    }
  }

  async #take(ctx: CallContext, digest: string): Promise<Entry> {
    if (this.#entries.has(digest)) {
      const { size } = await this.#store.info(ctx, digest);
      // It may have been dropped while the store was asked.
      const entry = this.#entries.get(digest);
      if (entry?.reader.size === size) return this.#use(entry);
    }
    const reader = await this.#store.readerAt(ctx, digest);
    // Two calls may open the same blob at the same time; the second does not share its reader.
    const entry: Entry = { digest, reader, users: 1, timer: undefined };
    if (!this.#entries.has(digest)) this.#entries.set(digest, entry);
    return entry;
  }

  #use(entry: Entry): Entry {
    if (entry.users === 0) {
      this.#idle--;
      clearTimeout(entry.timer);
    }
    entry.users++;
    return entry;
  }

  /** After a failed read the blob is opened again next time: its file may have been replaced. */
  async #giveBack(entry: Entry, failed: boolean): Promise<void> {
    if (failed && this.#entries.get(entry.digest) === entry) this.#entries.delete(entry.digest);
    if (--entry.users > 0) return;
    if (this.#entries.get(entry.digest) !== entry || this.#idle >= IDLE_MAX) {
      await this.#close(entry);
      return;
    }
    this.#idle++;
    entry.timer = setTimeout(() => {
      this.#idle--;
      this.#close(entry).catch(() => undefined);
    }, KEPT_MS);
    entry.timer.unref();
  }

  async #close(entry: Entry): Promise<void> {
    if (this.#entries.get(entry.digest) === entry) this.#entries.delete(entry.digest);
    await entry.reader.close();
  }
}
