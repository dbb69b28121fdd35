/** Reads the records of a collection in batches, letting others run in between. Called by the files of check/. */
import { yieldToEventLoop } from '../backends/files.js';
import type { Key, Reader } from '../engine/contract.js';

const BATCH = 512;

export type StoredRecords = [Key, ReturnType<Reader['get']>][];

/** What is written meanwhile may be seen or not. */
export async function* recordsOf(reader: Reader, prefix: Key): AsyncGenerator<StoredRecords, void> {
  for (let after: Key | undefined; ; await yieldToEventLoop()) {
    const batch = [...reader.scan(prefix, { limit: BATCH, ...(after !== undefined && { after }) })];
    if (batch.length > 0) yield batch;
    if (batch.length < BATCH) return;
    after = batch.at(-1)?.[0];
  }
}
