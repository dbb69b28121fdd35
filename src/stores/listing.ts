/**
 * Lists of records, created lazily; yields to other work while filters are evaluated. Called by the stores.
 */
import { yieldToEventLoop } from '../backends/files.js';
import type { CallContext } from '../context.js';
import type { Key, Reader } from '../engine/contract.js';
import { leaf } from '../engine/schema/keys.js';
import { throwIfAborted } from '../errors.js';
import { type Adaptor, parseFilters } from '../model/filters.js';
import { readRecord, type StoredRecord, scanRecords } from './common.js';

/** How long filters are evaluated before the thread is yielded. */
const YIELD_AFTER_MS = 2;

/** Of a call context: how to yield, and whether to stop. */
type YieldContext = Pick<CallContext, 'signal' | 'yieldTurn'>;

/** Yields the thread at intervals in a loop over records. */
export class Pace {
  #until = performance.now() + YIELD_AFTER_MS;
  readonly #context: YieldContext;

  constructor(context: YieldContext) {
    this.#context = context;
  }

  get isOver(): boolean {
    return performance.now() > this.#until;
  }

  /** Throws when the caller's signal is aborted. */
  async pass(): Promise<void> {
    const { yieldTurn = yieldToEventLoop, signal } = this.#context;
    await yieldTurn();
    throwIfAborted(signal);
    this.#until = performance.now() + YIELD_AFTER_MS;
  }
}

/** Describes a list: the records below a prefix, by the last part of their keys. */
export interface Listing<R extends StoredRecord, T> {
  readonly prefix: Key;
  /** Fields of a record for filters. */
  adapt(name: string, record: R): Adaptor;
  make(name: string, record: R): T;
  /** The name that callers use; undefined if the record is not listed. */
  nameOf?(k: Key): string | undefined;
}

/**
 * The records that match any of the filters, all without filters. Matches are found first and kept as keys; a
 * record that is deleted before it is read is left out. InvalidArgument: a malformed filter, or one that
 * costs too much (model/filters.ts).
 */
export async function listed<R extends StoredRecord, T>(
  reader: Reader,
  listing: Listing<R, T>,
  filters: readonly string[],
  context: YieldContext,
): Promise<Iterable<T>> {
  const { prefix, adapt, nameOf = leaf } = listing;
  if (filters.length === 0) return made(scanRecords<R>(reader, prefix), listing);
  const matches = parseFilters(filters);
  const found: Key[] = [];
  const pace = new Pace(context);
  for (const [k, record] of scanRecords<R>(reader, prefix)) {
    const name = nameOf(k);
    if (name !== undefined && matches(adapt(name, record))) found.push(k);
    if (pace.isOver) await pace.pass();
  }
  return made(recordsOf<R>(reader, found), listing);
}

function* recordsOf<R extends StoredRecord>(reader: Reader, keys: readonly Key[]): Generator<[Key, R]> {
  for (const k of keys) {
    const record = readRecord<R>(reader, k);
    if (record !== undefined) yield [k, record];
  }
}

function* made<R extends StoredRecord, T>(
  records: Iterable<[Key, R]>,
  { make, nameOf = leaf }: Listing<R, T>,
): Generator<T> {
  for (const [k, record] of records) {
    const name = nameOf(k);
    if (name !== undefined) yield make(name, record);
  }
}
