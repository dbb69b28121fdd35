/**
 * The collections of a store's past, in a file of bounded size beside its records; over etcd those of this host. Written in
 * the background: no collection waits for it or fails by it. Called by db.ts.
 */
import { join } from 'node:path';
import { invalidArgument } from '../errors.js';
import { type CollectionRecord, isNotable } from '../gc/report/collection-record.js';
import { HeldDirectory } from '../system/held-directory.js';
import { fsError, messageOf } from '../system/system-errors.js';
import { RecordFile } from './record-file.js';

const FILE = 'history';
/** Records that wait for space, or are all that there is of a store in memory. */
const WAITING_MAX = 64;
/** Records that are returned at most. */
const RECORDS_MAX = 1000;

/** Which collections of the past are returned. */
export interface HistoryOptions {
  /** The newest this many; default and most 1000. */
  limit?: number | undefined;
}

type Warn = (message: string, details: Readonly<Record<string, unknown>>) => void;

export class History {
  readonly #path: string | undefined;
  readonly #warn: Warn;
  #directory: HeldDirectory | undefined;
  #file: RecordFile | undefined;
  /** Not in the file. */
  #waiting: CollectionRecord[] = [];
  #writing: Promise<void> | undefined;
  #last: CollectionRecord | undefined;
  #isWarned = false;

  /** @param directory of the store's records, absolute; undefined: in memory only */
  constructor(directory: string | undefined, isReadOnly: boolean, warn: Warn) {
    this.#path = directory === undefined ? undefined : join(directory, FILE);
    this.#warn = warn;
    if (directory !== undefined && !isReadOnly) this.#directory = HeldDirectory.open(directory);
  }

  /** Returns at once. A failure that repeats itself is kept once. */
  add(record: CollectionRecord): void {
    if (!isNotable(record) || isRepeated(record, this.#last)) return;
    this.#last = record;
    this.#waiting.push(record);
    if (this.#waiting.length > WAITING_MAX) this.#waiting.shift();
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  /** Newest first. InvalidArgument: the limit is not a number above 0. */
  async read({ limit = RECORDS_MAX }: HistoryOptions = {}): Promise<CollectionRecord[]> {
    if (!(limit > 0)) {
      throw invalidArgument(`a limit of ${limit} collections is none`, { remedy: 'use a number above 0' });
    }
    await this.#writing;
    const waiting = this.#waiting;
    const stored = this.#path === undefined ? [] : await RecordFile.read(this.#path).catch(this.#unreadable);
    return [...(stored as CollectionRecord[]), ...waiting].reverse().slice(0, Math.min(limit, RECORDS_MAX));
  }

  readonly #unreadable = (error: unknown): never => {
    throw fsError('read', this.#path ?? '', error);
  };

  async close(): Promise<void> {
    await this.#writing;
    await this.#file?.close();
    this.#directory?.release();
    this.#directory = undefined;
  }

  /** What cannot be written now waits for the next collection, which may have freed the space. */
  async #write(): Promise<void> {
    const directory = this.#directory;
    if (directory === undefined) return;
    try {
      this.#file ??= await RecordFile.open(directory, FILE);
      for (let record = this.#waiting[0]; record !== undefined; record = this.#waiting[0]) {
        await this.#file.append(record);
        if (this.#waiting[0] === record) this.#waiting.shift();
      }
      this.#isWarned = false;
    } catch (error) {
      if (!this.#isWarned)
        this.#warn('the history of collections is not written', { error: messageOf(error) });
      this.#isWarned = true;
    }
  }
}

const isRepeated = (record: CollectionRecord, last: CollectionRecord | undefined): boolean =>
  record.outcome !== 'ok' &&
  record.outcome === last?.outcome &&
  record.error === last.error &&
  record.names.length === 0;
