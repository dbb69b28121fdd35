/**
 * The change feed: the last change sets, and those to come. Filled by engine.ts when a commit has become visible,
 * in revision order. In memory only: it reaches back to the opening of the store at most.
 */
import { failedPrecondition } from '../../errors.js';
import type { Change, ChangeSet, Key } from '../contract.js';
import { decodeValue } from '../schema/codec.js';
import { SEPARATOR } from '../schema/keys.js';
import { partitionPoint } from './partition-point.js';

const SETS_MAX = 4096;
const BYTES_MAX = 16 * 1024 * 1024;
/** Beside keys and values, what an entry costs. */
const ENTRY_BYTES = 64;

/** A set as it is kept: few objects, because most are made by collections and never asked for. */
export interface KeptSet {
  readonly revision: number;
  /** One after the other; no key has an empty component. */
  readonly keys: string;
  /** Encoded, one a key; undefined when all were deleted. */
  readonly values: readonly (Uint8Array | undefined)[] | undefined;
  readonly bytes: number;
}

/** What a commit stores under a key; no bytes: deleted. */
export interface Stored {
  readonly bytes: Uint8Array | undefined;
}

export class Feed {
  /** Revision before the oldest kept set. */
  #base: number;
  #sets: KeptSet[] = [];
  #bytes = 0;
  #closed = false;
  readonly #wakers = new Set<() => void>();

  constructor(revision: number) {
    this.#base = revision;
  }

  push(set: KeptSet): void {
    this.#sets.push(set);
    this.#bytes += set.bytes;
    if (this.#sets.length > SETS_MAX * 1.25 || this.#bytes > BYTES_MAX * 1.25) this.#trim();
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  async *since(revision: number, signal: AbortSignal | undefined): AsyncGenerator<ChangeSet> {
    for (let position = revision; ; ) {
      if (position < this.#base) {
        throw failedPrecondition(`the change feed no longer reaches back to revision ${position}`, {
          remedy: 'read everything again and follow the feed from the revision of that read',
        });
      }
      const set = this.#sets[partitionPoint(this.#sets, ({ revision: at }) => at <= position)];
      if (set !== undefined) {
        position = set.revision;
        yield { revision: set.revision, changes: changesOf(set) };
      } else if (this.#closed || signal?.aborted) {
        return;
      } else {
        await this.#next(signal);
      }
      if (signal?.aborted) return;
    }
  }

  #next(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#wakers.delete(wake);
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      this.#wakers.add(wake);
      signal?.addEventListener('abort', wake, { once: true });
    });
  }

  #wake(): void {
    for (const wake of [...this.#wakers]) wake();
  }

  #trim(): void {
    let left = this.#sets.length;
    for (const { revision, bytes } of this.#sets) {
      if (left <= SETS_MAX && (this.#bytes <= BYTES_MAX || left === 1)) break;
      this.#bytes -= bytes;
      this.#base = revision;
      left--;
    }
    if (left < this.#sets.length) this.#sets = this.#sets.slice(-left);
  }
}

/** What a commit changed, for the feed when it has become visible. */
export function keptSet(revision: number, records: Iterable<[Key, Stored]>): KeptSet {
  const keys: Key[] = [];
  const values: (Uint8Array | undefined)[] = [];
  let size = ENTRY_BYTES;
  let isDeletion = true;
  for (const [key, { bytes }] of records) {
    keys.push(key);
    values.push(bytes);
    if (bytes !== undefined) isDeletion = false;
    size += key.length + (bytes === undefined ? 0 : bytes.length + ENTRY_BYTES);
  }
  return { revision, keys: keys.join(BETWEEN), values: isDeletion ? undefined : values, bytes: size };
}

function changesOf({ keys, values }: KeptSet): Change[] {
  if (keys === '') return [];
  return keys.split(BETWEEN).map((key, i) => {
    const bytes = values?.[i];
    return { key, value: bytes === undefined ? undefined : decodeValue(key, bytes) };
  });
}

const BETWEEN = SEPARATOR + SEPARATOR;
