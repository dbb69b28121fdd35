/**
 * The files of one unfinished ingest, except its data. Called by the content directory and its writers.
 *
 * An ingest appears and disappears by a rename of its directory, and its timestamps are replaced by renaming,
 * so a reader sees all of an ingest or nothing. The files are not synced: a power cut can leave a directory
 * whose ref is not its own, which is then not an ingest.
 */
import { lstat, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isNotFound, notFound, unknownError } from '../../errors.js';
import {
  formatTimestamp,
  type Instant,
  NANOS_PER_SECOND,
  parseTimestamp,
  zeroTime,
} from '../../model/time.js';
import { HeldDirectory } from '../../system/held-directory.js';
import type { IngestStatus } from '../contract.js';
import { type FileStep, FileSteps } from '../file-steps.js';
import { orAbsent, readText } from '../files.js';
import { isIngestOf } from './layout.js';

const SECONDS_PER_YEAR = 366n * 86_400n;
/** Other writers of this layout use year 1 for "no time". */
const endOfYearOne = zeroTime + SECONDS_PER_YEAR * NANOS_PER_SECOND;
/** Attempts to read an ingest with a missing file: before that, another ingest may have replaced it. */
const MAX_READINGS = 16;

export const dataPath = (directory: string): string => join(directory, 'data');

/** The initial state of an ingest; `total` 0 is unknown. */
export interface IngestHead {
  ref: string;
  total: number;
  startedAt: Instant;
}

/** What makes a new, private directory with everything of an ingest, its data empty. */
export function ingestSteps(directory: string, { ref, total, startedAt }: IngestHead): FileStep[] {
  const time = formatTimestamp(startedAt);
  const write = (name: string, text: string): FileStep => FileSteps.write(join(directory, name), text, 0o600);
  return [
    FileSteps.makeDirectory(directory, 0o700),
    write('startedat', time),
    write('updatedat', time),
    ...(total > 0 ? [write('total', String(total))] : []),
    write('ref', ref),
    FileSteps.write(dataPath(directory), '', 0o600),
  ];
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

/**
 * NotFound without an ingest: no directory, no data, or a ref that does not belong to the directory. Unknown
 * when another file is missing or unreadable. All files are of one directory, which was in its place when the
 * last one was read.
 */
export async function readIngest(directory: string): Promise<IngestStatus> {
  for (let reading = 1; ; reading++) {
    // Looked for first, because that yields: a caller may poll for an ingest.
    if ((await orAbsent(lstat(directory))) === null) throw noIngest(directory);
    const held = HeldDirectory.open(directory);
    try {
      const status = await readHeld(held.at, directory);
      if (held.isInPlace) return status;
    } catch (error) {
      if (isNotFound(error) || reading === MAX_READINGS) throw error;
    } finally {
      held.release();
    }
    if (reading === MAX_READINGS) throw noIngest(directory);
  }
}

const noIngest = (directory: string) => notFound(`there is no ingest in ${directory}`, { object: directory });

async function readHeld(at: string, directory: string): Promise<IngestStatus> {
  const data = await orAbsent(lstat(dataPath(at), { bigint: true }));
  const ref = data?.isFile() ? await orAbsent(readText(join(at, 'ref'))) : null;
  if (data === null || ref === null || !isIngestOf(directory, ref)) {
    throw noIngest(directory);
  }
  const [startedAt, updatedAt, total] = await Promise.all([
    readTimestamp(at, 'startedat'),
    readTimestamp(at, 'updatedat'),
    readTotal(at),
  ]);
  const latest = updatedAt < data.mtimeNs ? data.mtimeNs : updatedAt;
  return { ref, offset: Number(data.size), total, startedAt, updatedAt: latest };
}

/** The ref of the ingest in a directory; null when there is none, or it belongs to another directory. */
export async function readRef(directory: string): Promise<string | null> {
  const ref = await orAbsent(readText(join(directory, 'ref')));
  return ref !== null && isIngestOf(directory, ref) ? ref : null;
}

async function readTimestamp(directory: string, name: string): Promise<Instant> {
  const path = join(directory, name);
  const text = await orAbsent(readText(path));
  const time = text === null ? undefined : parseTimestamp(text);
  if (time === undefined) {
    throw unknownError(`${path} is ${text === null ? 'missing' : 'not a timestamp'}`, { object: path });
  }
  return time < endOfYearOne ? zeroTime : time;
}

async function readTotal(directory: string): Promise<number> {
  const path = join(directory, 'total');
  const text = await orAbsent(readText(path));
  if (text === null) return 0;
  const total = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(total)) throw unknownError(`${path} is not a size`, { object: path });
  return total;
}
