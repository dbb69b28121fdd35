/**
 * Whether the disk has room for new records. When it has not, the reserves (blocks of the log and of the tree) are for commits
 * that take something away, which is what makes room. Called by the storage before each commit; lives on the thread that
 * owns the store.
 */
import { statfsSync } from 'node:fs';
import { type EbbtideError, unavailable } from '../../errors.js';
import { type DataFile, fileError } from './disk/files.js';
import type { Wal } from './wal/wal.js';

/** Free bytes below which the disk counts as full. */
const FREE_BYTES_MIN = 1024 * 1024;
/** What ext4 keeps for itself counts as free, but cannot be used: a fiftieth of the blocks, up to this many bytes. */
const KEPT_BLOCKS_MAX = 4096;
/** A smaller disk is not worth reserves: they would be most of it. */
const DISK_BYTES_MIN = 32 * 1024 * 1024;
/** Milliseconds for which a result counts. */
const CURRENT_MS = 100;

export class Room {
  readonly #dir: string;
  readonly #file: DataFile;
  readonly #log: Wal;
  #until = 0;
  #isFull = false;

  constructor(dir: string, file: DataFile, log: Wal) {
    this.#dir = dir;
    this.#file = file;
    this.#log = log;
    // What the last owner's transactions had left of the reserve, or an earlier version had not made.
    this.#look();
  }

  get isFull(): boolean {
    try {
      if (performance.now() >= this.#until) this.#look();
    } catch (error) {
      throw fileError('look at', this.#dir, error);
    }
    return this.#isFull;
  }

  /** When it was looked at last. */
  get wasFull(): boolean {
    return this.#isFull;
  }

  #look(): void {
    this.#until = performance.now() + CURRENT_MS;
    const { blocks, bsize } = statfsSync(this.#dir);
    // Of an unknown size: what counts is whether the reserves can be had.
    if (blocks > 0 && blocks * bsize < DISK_BYTES_MIN) return;
    this.#isFull = !this.#hasReserves() || isFull(this.#dir);
    if (this.#isFull && this.#log.giveBack()) this.#isFull = !this.#hasReserves() || isFull(this.#dir);
  }

  #hasReserves(): boolean {
    // Both are tried: each may find room.
    const hasTree = this.#file.keepReserve();
    return this.#log.keepReserve() && hasTree;
  }

  error(): EbbtideError {
    return unavailable(`no space left on the disk of ${this.#dir}: only removals are taken`, {
      object: this.#dir,
      remedy: 'free disk space (removals and `ebbtide gc` work on a full disk too) and try again',
    });
  }
}

function isFull(dir: string): boolean {
  const { bavail, bfree, blocks, bsize } = statfsSync(dir);
  if (blocks === 0) return false;
  const kept = Math.min(KEPT_BLOCKS_MAX, Math.ceil(blocks / 50)) * bsize;
  return bavail * bsize < FREE_BYTES_MIN && bfree * bsize < kept + FREE_BYTES_MIN;
}
