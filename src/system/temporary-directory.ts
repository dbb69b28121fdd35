/** Directories for a while, outside of any root. Called by whoever mounts something to look at it, copies a file, or tries. */
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { failedPrecondition } from '../errors.js';
import { fsError, isAbsent } from './system-errors.js';

/** A new one, which the caller removes. FailedPrecondition where the environment names none that is there. */
export async function temporaryDirectory(name: string): Promise<string> {
  const place = tmpdir();
  try {
    return await mkdtemp(join(place, `ebbtide-${name}-`));
  } catch (error) {
    if (!isAbsent(error)) throw fsError('make a temporary directory in', place, error);
    throw failedPrecondition(`cannot make a temporary directory in ${place}: it is not there`, {
      object: place,
      remedy: 'make it, or set TMPDIR to another directory',
      cause: error,
    });
  }
}
