/**
 * Checkpoints: the packed graph on disk, so that opening need not read every record. Written when the journal has
 * grown and at a clean close; called by engine.ts. Packing runs off the main thread.
 *
 * Two slots alternate. The chunks of the new one are written first, some in a transaction; then one transaction
 * makes it the valid one. The journal it replaces is removed after that, in pieces; entries it covers are ignored.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { unknownError } from '../../errors.js';
import type { GraphCore } from '../graph.js';
import type { DataFile } from './disk/files.js';
import { type Job, runJobs } from './flush/flush.js';
import type { LmdbStorage } from './storage.js';
import type { Databases } from './tree/databases.js';
import { journalKey } from './tree/journal.js';

/** Four pages with their head: longer runs of free pages are hard to find, and the file would grow instead. */
const CHUNK_BYTES = 4 * 4096 - 32;
/** Chunks written in one transaction. */
const CHUNKS_AT_ONCE = 64;
/** A journal smaller than this is never worth a checkpoint. */
const JOURNAL_BYTES_MIN = 512 * 1024;
/**
 * Above that, it is worth one when it is as large as the last. At the close, where nothing else waits for the disk,
 * so is one that would take a tenth of a second to read at the next opening.
 */
const JOURNAL_BYTES_AT_CLOSE = 8 * 1024 * 1024;
const TRIM_ENTRIES = 1000;
/** Turns of the event loop, of a fraction of a millisecond each, that a checkpoint waits for live marks to settle: seconds. */
const SETTLING_TURNS = 20_000;

export interface CheckpointState {
  slot: number;
  chunks: number;
  bytes: number;
  /** The graph after this commit. */
  revision: number;
  records: number;
  /** Marks lived when it was written, so it has them, unless they were not to be settled. Those of earlier versions do not. */
  marks?: boolean;
}

export interface LogState {
  /** The newest one known to the tree. */
  generation: number;
  /** The log has this generation or a later one: commits are missing otherwise. */
  isBegun: boolean;
}

export interface StoreState {
  /** Whether the last owner closed the store. */
  clean: boolean;
  /** Stores of earlier versions have none. */
  log?: LogState;
  checkpoint?: CheckpointState;
}

const STATE = 'state';

export function readState(dbs: Databases): StoreState | undefined {
  const stored = dbs.meta.get(STATE);
  if (stored === undefined) return undefined;
  try {
    // Only `stateBytes` writes it; damage shows as text that is not JSON, or in the checkpoint's own checksums.
    return JSON.parse(Buffer.from(stored).toString('utf8')) as StoreState;
  } catch (cause) {
    throw unknownError('the state of the store is damaged', {
      object: STATE,
      remedy: 'restore the store from a copy',
      cause,
    });
  }
}

/** REQUIRES: nothing else writes, as at opening. */
export function writeState(dbs: Databases, file: DataFile, state: StoreState): void {
  runJobs(dbs, file, [{ into: 'meta', key: STATE, value: stateBytes(state) }]);
}

export const stateBytes = (state: StoreState): Buffer => Buffer.from(JSON.stringify(state));

export function chunkKey(slot: number, chunk: number): Buffer {
  const key = Buffer.allocUnsafe(5);
  key.writeUInt8(slot, 0);
  key.writeUInt32BE(chunk, 1);
  return key;
}

function readChunkKey(bytes: Uint8Array): { slot: number; chunk: number } {
  const key = Buffer.from(bytes);
  return { slot: key.readUInt8(0), chunk: key.readUInt32BE(1) };
}

export class Checkpointer {
  readonly #dbs: Databases;
  readonly #graph: () => GraphCore;
  readonly #storage: LmdbStorage;
  readonly #revision: () => number;
  readonly #logGeneration: () => number;
  readonly #warn: (message: string) => void;
  #state: StoreState;
  #journalBytes: number;
  #running: Promise<void> | undefined;

  constructor(
    dbs: Databases,
    /** Throws when it is not that of the records any more: then no checkpoint is written. */
    graph: () => GraphCore,
    storage: LmdbStorage,
    options: {
      state: StoreState;
      journalBytes: number;
      revision: () => number;
      logGeneration: () => number;
      warn: (message: string) => void;
    },
  ) {
    this.#dbs = dbs;
    this.#graph = graph;
    this.#storage = storage;
    this.#state = options.state;
    this.#journalBytes = options.journalBytes;
    this.#revision = options.revision;
    this.#logGeneration = options.logGeneration;
    this.#warn = options.warn;
  }

  /** Bytes of the journal that the newest checkpoint does not cover. */
  get journalBytes(): number {
    return this.#journalBytes;
  }

  /** After a group reached the tree: begins a checkpoint when the journal has outgrown the last one. */
  grown(bytes: number): void {
    this.#journalBytes += bytes;
    if (this.#running === undefined && this.#isDue()) {
      this.#running = this.write()
        .catch((error: unknown) => this.#warn(`no checkpoint of the graph was written: ${String(error)}`))
        .finally(() => {
          this.#running = undefined;
        });
    }
  }

  /**
   * At the close, when nothing else is written any more; `isWhole`: the tree has everything; `withCheckpoint`: with a checkpoint in any
   * case. Returns whether the tree no longer relies on the log.
   */
  async close(isWhole: boolean, withCheckpoint = false): Promise<boolean> {
    await this.#running;
    if (!isWhole) return false;
    try {
      if (withCheckpoint || this.#isDueAtClose()) await this.write();
      const log = { generation: this.#logGeneration(), isBegun: false };
      await this.#writeState({ ...this.#state, clean: true, log });
      return true;
    } catch (error) {
      this.#warn(`the store was not closed cleanly: ${String(error)}`);
      return false;
    }
  }

  #isDue(): boolean {
    return this.#journalBytes > Math.max(JOURNAL_BYTES_MIN, this.#state.checkpoint?.bytes ?? 0);
  }

  /** Without marks, the next opening would begin with counting. */
  #isDueAtClose(): boolean {
    const { checkpoint } = this.#state;
    if (this.#journalBytes > JOURNAL_BYTES_AT_CLOSE || this.#isDue()) return true;
    if (checkpoint === undefined) return this.#journalBytes > 0;
    return checkpoint.marks !== true && this.#graph().stats().hasLiveMarks;
  }

  /** Live marks go along if nothing is left to take up in them; so most of that is done before. */
  async #updateMarks(): Promise<void> {
    for (let turns = 0; turns < SETTLING_TURNS && !this.#graph().bringUpToDate(); turns++) await nextTurn();
  }

  async write(): Promise<void> {
    await this.#updateMarks();
    const storage = this.#storage;
    const { flusher } = storage;
    const old = this.#state.checkpoint;
    const lostBefore = storage.lostCount;
    const journalBytes = this.#journalBytes;
    // The journal has one entry for each transaction: the checkpoint's revision must be the end of one.
    storage.seal();
    const revision = this.#revision();
    const records = storage.records();
    const marks = this.#graph().stats().hasLiveMarks;
    const image = await this.#graph().save();
    const slot = old === undefined ? 0 : 1 - old.slot;
    const chunks = Math.ceil(image.length / CHUNK_BYTES);
    for (let from = 0; from < chunks; from += CHUNKS_AT_ONCE) {
      const jobs: Job[] = [];
      for (let i = from; i < Math.min(from + CHUNKS_AT_ONCE, chunks); i++) {
        // A copy: what is sent to another thread goes with all of the buffer after it.
        const value = new Uint8Array(image.subarray(i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES));
        jobs.push({ into: 'checkpoints', key: chunkKey(slot, i), value });
      }
      await flusher.run(jobs);
    }
    // The image may have what is not in the tree yet, and may never be.
    await storage.drain();
    if (storage.lostCount !== lostBefore) return;
    await this.#writeState({
      ...this.#state,
      checkpoint: { slot, chunks, bytes: image.length, revision, records, marks },
    });
    this.#journalBytes -= journalBytes;
    await this.#trim(revision, { slot, chunks });
  }

  async #trim(revision: number, valid: { slot: number; chunks: number }): Promise<void> {
    const { flusher } = this.#storage;
    const { journal, checkpoints } = this.#dbs;
    const old = [...checkpoints.getKeys()].filter((key) => {
      const { slot, chunk } = readChunkKey(key);
      return slot !== valid.slot || chunk >= valid.chunks;
    });
    for (let from = 0; from < old.length; from += CHUNKS_AT_ONCE) {
      const some = old.slice(from, from + CHUNKS_AT_ONCE);
      await flusher.run(
        some.map((key) => ({ into: 'checkpoints', key: new Uint8Array(key), value: undefined })),
      );
    }
    for (;;) {
      this.#dbs.env.resetReadTxn();
      // The newest entry stays: a store that cannot use its checkpoint has the revision from it.
      const keys = [...journal.getKeys({ end: journalKey(revision), limit: TRIM_ENTRIES })];
      if (keys.length === 0) return;
      await flusher.run(keys.map((key) => ({ into: 'journal', key: new Uint8Array(key), value: undefined })));
    }
  }

  async #writeState(state: StoreState): Promise<void> {
    await this.#storage.flusher.run([{ into: 'meta', key: STATE, value: stateBytes(state) }]);
    this.#state = state;
  }
}
