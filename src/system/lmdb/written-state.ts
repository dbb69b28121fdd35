/**
 * The transaction that this process has committed last to an LMDB file. What a restore, a `cp` or `rsync --inplace`, writes over a
 * file in use is another tree: a transaction on top would mix the two, and neither could be read afterwards. Called by the engine and the
 * metastore of snapshots around each of their transactions.
 */
import { unavailable } from '../../errors.js';
import { WRITTEN_INTO } from '../system-errors.js';
import { newestIn } from './readers.js';

export class WrittenState {
  readonly #fd: number;
  readonly #path: string;
  /** 0: not known, as before the first transaction. */
  readonly #newest: BigInt64Array;

  /** @param shared by all threads that write to the file, one at a time */
  constructor(fd: number, path: string, shared = new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT)) {
    this.#fd = fd;
    this.#path = path;
    this.#newest = new BigInt64Array(shared);
  }

  get shared(): SharedArrayBuffer {
    return this.#newest.buffer as SharedArrayBuffer;
  }

  get isOurs(): boolean {
    const known = Number(Atomics.load(this.#newest, 0));
    return known === 0 || newestIn(this.#fd) === known;
  }

  /** Unavailable: another program has written to the file since. */
  verify(): void {
    if (!this.isOurs) throw writtenInto(this.#path);
  }

  /** Never throws, for the transaction may be on disk. REQUIRES: called after each transaction, of whatever outcome. */
  note(): void {
    let newest = 0;
    try {
      newest = newestIn(this.#fd);
    } catch {
      // The next transaction is not compared.
    }
    Atomics.store(this.#newest, 0, BigInt(newest));
  }
}

export const writtenInto = (path: string): Error =>
  unavailable(`another program has written into ${path}, which is open`, {
    object: path,
    remedy: WRITTEN_INTO,
  });
