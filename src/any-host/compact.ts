/** Another program's `meta.db`, written again without what is free in it, while its owner runs. Called by the verb. */
import { randomBytes } from 'node:crypto';
import { realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { exists } from '../backends/files.js';
import { rootBucket } from '../bolt/bucket.js';
import { copyBucket } from '../bolt/copy.js';
import { FileHeap } from '../bolt/heap.js';
import { readBolt } from '../bolt/snapshot.js';
import { BoltWriter, isThere } from '../bolt/writer.js';
import { errnoOf, fsError } from '../system/system-errors.js';
import { inTurns } from '../system/turns.js';
import { findPlaces, type Places } from './places.js';
import { refusal } from './refusals.js';

export interface CompactedFile {
  /** The file that was read, and the one that was written. */
  readonly metadata: string;
  readonly output: string;
  /** Bytes. */
  readonly before: number;
  readonly after: number;
}

/** As `readBolt`, and BoltDamage where the tree cannot be followed. AlreadyExists: there is something at `output`. */
export async function compactForeign(
  directory: string,
  output: string,
  signal?: AbortSignal,
): Promise<CompactedFile> {
  const places = await findPlaces(directory);
  const target = await outsideOf(places, output);
  await using heap = await FileHeap.create(`${target}.partial-${randomBytes(4).toString('hex')}`);
  const snapshot = await readBolt(places.metadata, { signal, heap });
  await using writer = await BoltWriter.create(target, { pageSize: snapshot.meta.pageSize });
  await inTurns(copyBucket(rootBucket(snapshot), writer), signal);
  const after = await writer.finish();
  return {
    metadata: places.metadata,
    output: target,
    before: snapshot.pages.limit * snapshot.meta.pageSize,
    after,
  };
}

/**
 * Nothing is made in the root that is read, whatever name it has: a mount may give it a second one. FailedPrecondition; NotFound without the
 * output's directory; AlreadyExists if there is something, before it is worked for.
 */
export async function outsideOf(places: Places, output: string): Promise<string> {
  const path = resolve(output);
  try {
    const directory = await realpath(dirname(path));
    if (await isWithin(directory, places.root)) throw refusal(`writing ${path}`, places.root);
    const target = join(directory, basename(path));
    if (await exists(target)) throw isThere(target);
    return target;
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    throw fsError('write', path, error);
  }
}

async function isWithin(directory: string, root: string): Promise<boolean> {
  const { dev, ino } = await stat(root, { bigint: true });
  for (let at = directory; ; at = dirname(at)) {
    const one = await stat(at, { bigint: true });
    if (one.dev === dev && one.ino === ino) return true;
    if (at === dirname(at)) return false;
  }
}
