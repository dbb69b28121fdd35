/**
 * Limits on the resources of an archive. Exceeding one is FailedPrecondition and names the entry: the archive
 * may be valid, only larger than the caller allows. Counted while streaming, before anything is written.
 */
import { failedPrecondition } from '../../errors.js';

/** Limits of a layer's archive, checked before anything is allocated. */
export interface ArchiveLimits {
  /** Entries of one archive. */
  maxEntries: number;
  /** Decompressed bytes of one archive, including holes of sparse files. */
  maxBytes: number;
  /** Bytes of one entry's name or link target. */
  maxPathBytes: number;
  /** Decompressed bytes for each compressed byte, beyond the first `RATIO_FREE_BYTES`. */
  maxRatio: number;
}

const GiB = 2 ** 30;

/** The limits of an archive for which none are given. */
export const defaultLimits: Readonly<ArchiveLimits> = {
  maxEntries: 4_000_000,
  maxBytes: 256 * GiB,
  maxPathBytes: 4096,
  maxRatio: 2000,
};

/** A small archive may have any ratio. */
export const RATIO_FREE_BYTES = 64 * 2 ** 20;

export const withDefaults = (limits: Partial<ArchiveLimits> | undefined): ArchiveLimits => ({
  ...defaultLimits,
  ...limits,
});

/** Counts what one archive has used so far. */
export class Budget {
  readonly limits: ArchiveLimits;
  #entries = 0;
  #bytes = 0;

  constructor(limits: ArchiveLimits) {
    this.limits = limits;
  }

  get entries(): number {
    return this.#entries;
  }

  /** Counts one more entry with `size` bytes of content; `name` is for the message. */
  take(name: string, size: number): void {
    if (++this.#entries > this.limits.maxEntries) {
      throw tooMuch(`has more than ${this.limits.maxEntries} entries`, name, 'maxEntries');
    }
    this.#bytes += size;
    if (this.#bytes > this.limits.maxBytes) {
      throw tooMuch(`needs more than ${this.limits.maxBytes} bytes`, name, 'maxBytes');
    }
  }

  /** Checks a name's length in bytes (byte paths have one character for each byte). */
  path(name: string): void {
    if (name.length > this.limits.maxPathBytes) {
      const shown = `${name.slice(0, 64)}…`;
      throw tooMuch(`has a name of ${name.length} bytes`, shown, 'maxPathBytes');
    }
  }
}

export const tooMuch = (what: string, entry: string, limit: keyof ArchiveLimits) =>
  failedPrecondition(`archive ${what} (at "${entry}")`, {
    object: entry,
    remedy: `do not use it unless you trust it: a program can raise ${limit} in the limits of an import`,
  });
