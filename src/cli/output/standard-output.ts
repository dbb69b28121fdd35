/**
 * Standard output of the command. A file or device accepts everything or the write fails; its space may run
 * out in the middle. A pipe whose reader has gone (`| head`) accepts nothing more, which is not an error.
 */
import { once } from 'node:events';
import { fstatSync, writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { type EbbtideError, isKind, unavailable } from '../../errors.js';
import { errnoOf, messageOf } from '../../system/system-errors.js';

const STDOUT = 1;

export class StandardOutput {
  readonly isTerminal = isatty(STDOUT);
  /** Neither a pipe, whose reader may be slow, nor a terminal. */
  readonly #isFile = !this.isTerminal && isFile();
  #isGone = false;

  constructor(failed: (error: EbbtideError) => void) {
    if (this.#isFile) return;
    process.stdout.on('error', (error: Error) => {
      this.#isGone = true;
      if (errnoOf(error) !== 'EPIPE') failed(unwritable(error));
    });
  }

  /** Width of a line in characters; undefined if it is not a terminal. */
  get columns(): number | undefined {
    if (!this.isTerminal) return undefined;
    const wanted = Number(process.env.COLUMNS);
    return Number.isInteger(wanted) && wanted > 0 ? wanted : (process.stdout.columns ?? 80);
  }

  write(text: string): void {
    if (this.#isFile) writeAll(Buffer.from(text));
    else if (!this.#isGone) process.stdout.write(text);
  }

  /** Waits for the reader. Returns false if it has gone. */
  async send(bytes: Uint8Array, signal?: AbortSignal): Promise<boolean> {
    if (this.#isFile) writeAll(bytes);
    else if (!this.#isGone && !process.stdout.write(bytes)) {
      await once(process.stdout, 'drain', signal ? { signal } : {}).catch((error: unknown) => {
        if (signal?.aborted || isKind(error, 'Canceled')) throw error;
      });
    }
    return !this.#isGone;
  }
}

function isFile(): boolean {
  try {
    const stats = fstatSync(STDOUT);
    return !stats.isFIFO() && !stats.isSocket();
  } catch {
    return false;
  }
}

function writeAll(bytes: Uint8Array): void {
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(STDOUT, bytes, done);
  } catch (error) {
    throw unwritable(error);
  }
}

/** The usual remedy, space on the disk of the store, does not apply. */
const unwritable = (error: unknown): EbbtideError =>
  unavailable(`cannot write to standard output: ${messageOf(error)}`, { cause: error });
