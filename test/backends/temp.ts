/** What the tests of backends share: directories that are removed again, and assertions on kinds. */
import assert from 'node:assert/strict';
import type {} from 'node:test';
import type { BackendLog } from '../../src/backends/log.js';
import { type ErrorKind, kindOf } from '../../src/errors.js';

export { tempDir } from '../support/temp.js';

/** The error the work fails with; its kind and, if given, its text are checked. */
export async function failsWith(work: Promise<unknown>, kind: ErrorKind, text?: RegExp): Promise<Error> {
  try {
    await work;
  } catch (error) {
    assert.ok(error instanceof Error);
    assert.equal(kindOf(error), kind, `${error.message} (${error.stack})`);
    if (text !== undefined) assert.match(error.message, text);
    return error;
  }
  assert.fail(`should fail with ${kind}`);
}

export interface Logged {
  log: BackendLog;
  lines: string[];
}

/** A log that tests can look at. */
export function recordingLog(): Logged {
  const lines: string[] = [];
  return { lines, log: (level, message) => void lines.push(`${level}: ${message}`) };
}
