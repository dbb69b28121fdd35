/**
 * Lists of records: made as they are asked for, with other work let in while filters look for those that match. Called by
 * the stores.
 */
import { yieldToEventLoop } from '../backends/files.js';
import type { CallContext } from '../context.js';
import type { Key, Reader } from '../engine/contract.js';
import { leaf } from '../engine/schema/keys.js';
import { throwIfAborted } from '../errors.js';
import { type Adaptor, parseFilters } from '../model/filters.js';
import { readRecord, type StoredRecord, scanRecords } from './common.js';

/** How long filters look at records before others get the thread. */
const TURN_MS = 2;

/** Of a call context: when to go on, and whether at all. */
type Patience = Pick<CallContext, 'signal' | 'turn'>;

/** Lets others have the thread now and then in a loop over records. */
export class Pace {
  #until = performance.now() + TURN_MS;
  readonly #context: Patience;

  constructor(context: Patience) {
    this.#context = context;
  }

  get isOver(): boolean {
    return performance.now() > this.#until;
  }

  /** Throws when the caller has given up. */
  async pass(): Promise<void> {
    const { turn = yieldToEventLoop, signal } = this.#context;
    await turn();
    throwIfAborted(signal);
    this.#until = performance.now() + TURN_MS;
  }
}

/** What a list is of: the records below a prefix, by the last part of their keys. */
export interface Listing<R extends StoredRecord, T> {
  readonly prefix: Key;
  /** Fields of a record that filters may name. */
  adapt(name: string, record: R): Adaptor;
  make(name: string, record: R): T;
  /** The name that callers use; undefined: not theirs. */
  nameOf?(k: Key): string | undefined;
}

/**
 * The records that match any of the filters, all without one. What matches is found first, and kept as keys; a record that
 * goes before it is asked for is left out. InvalidArgument: a bad filter, or one that costs too much (model/filters.ts).
 */
export async function listed<R extends StoredRecord, T>(
  reader: Reader,
  listing: Listing<R, T>,
  filters: readonly string[],
  context: Patience,
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
