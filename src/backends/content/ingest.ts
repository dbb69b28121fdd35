/**
 * The files of one unfinished ingest, besides its data. Called by the content directory and its writers.
 *
 * Timestamps are replaced by renaming, so that a reader never sees half of one. They are not synced: what a crash
 * takes with it is the time of an update, never data.
 */
import { readFile, rename, rm, rmdir, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { notFound, unknownError } from '../../errors.js';
import {
  formatTimestamp,
  type Instant,
  NANOS_PER_SECOND,
  parseTimestamp,
  zeroTime,
} from '../../model/time.js';
import type { IngestStatus } from '../contract.js';
import { orAbsent } from '../files.js';

const SECONDS_PER_YEAR = 366n * 86_400n;
/** Year 1 is how other writers of this layout spell "no time". */
const endOfYearOne = zeroTime + SECONDS_PER_YEAR * NANOS_PER_SECOND;

export const dataPath = (directory: string): string => join(directory, 'data');

/** Writes everything but the data into a discarded ingest (or a new one); `total` 0 is unknown and not written. */
export async function writeIngest(
  directory: string,
  { ref, total, startedAt }: Readonly<{ ref: string; total: number; startedAt: Instant }>,
  isNew: boolean,
): Promise<void> {
  const time = formatTimestamp(startedAt);
  const write = (name: string, text: string): Promise<void> =>
    writeFile(join(directory, name), text, { mode: 0o600 });
  await Promise.all([
    write('startedat', time),
    write('updatedat', time),
    total > 0 && write('total', String(total)),
    total === 0 && !isNew && rm(join(directory, 'total'), { force: true }),
    write('ref', ref),
  ]);
}

export async function writeTimestamp(
  directory: string,
  name: 'startedat' | 'updatedat',
  time: Instant,
): Promise<void> {
  const path = join(directory, name);
  await writeFile(`${path}.tmp`, formatTimestamp(time), { mode: 0o600 });
  await rename(`${path}.tmp`, path);
}

/** NotFound when the data or the ref is missing, Unknown when another file is missing or unreadable. */
export async function readIngest(directory: string): Promise<IngestStatus> {
  const [data, ref] = await Promise.all([
    orAbsent(stat(dataPath(directory), { bigint: true })),
    readRef(directory),
  ]);
  if (data === null || ref === null) {
    throw notFound(`there is no ingest in ${directory}`, { object: directory });
  }
  const startedAt = await readTimestamp(directory, 'startedat');
  let updatedAt = await readTimestamp(directory, 'updatedat');
  const total = await readTotal(directory);
  if (updatedAt < data.mtimeNs) updatedAt = data.mtimeNs;
  return { ref, offset: Number(data.size), total, startedAt, updatedAt };
}

/** The ref an ingest directory belongs to; null when it does not say. */
export const readRef = (directory: string): Promise<string | null> =>
  orAbsent(readFile(join(directory, 'ref'), 'utf8'));

async function readTimestamp(directory: string, name: string): Promise<Instant> {
  const path = join(directory, name);
  const text = await orAbsent(readFile(path, 'utf8'));
  const time = text === null ? undefined : parseTimestamp(text);
  if (time === undefined) {
    throw unknownError(`${path} is ${text === null ? 'missing' : 'no timestamp'}`, { object: path });
  }
  return time < endOfYearOne ? zeroTime : time;
}

async function readTotal(directory: string): Promise<number> {
  const path = join(directory, 'total');
  const text = await orAbsent(readFile(path, 'utf8'));
  if (text === null) return 0;
  const total = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(total)) throw unknownError(`${path} is no size`, { object: path });
  return total;
}

/** Removes the directory of an ingest whose data went elsewhere, or is not needed. */
export async function removeIngest(directory: string): Promise<void> {
  try {
    await Promise.all(
      ['ref', 'startedat', 'updatedat', 'total'].map((name) => orAbsent(unlink(join(directory, name)))),
    );
    await rmdir(directory);
  } catch {
    await rm(directory, { recursive: true, force: true });
  }
}
