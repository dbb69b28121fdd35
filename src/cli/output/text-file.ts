/** Writes a long text in pieces, to a file or to standard output. Called by the verbs that draw pictures or plan. */
import { type FileHandle, open, rm } from 'node:fs/promises';
import { invalidArgument } from '../../errors.js';
import { fsError } from '../../system/system-errors.js';
import { standardOutput } from '../runner.js';

export const STDOUT = '-';

/** InvalidArgument when the text cannot go there. */
export function checkTextOutput(output: string, what: string, isJson: boolean): void {
  if (output !== STDOUT) return;
  if (isJson)
    throw invalidArgument(`--json and ${what} cannot both go to standard output`, {
      remedy: 'write to a file with -o, --output FILE',
    });
  if (standardOutput.isTerminal) {
    throw invalidArgument(`${what} would go to the terminal`, {
      remedy: 'redirect standard output to a file or a pipe, or give -o, --output FILE',
    });
  }
}

/** Returns the bytes written. A file that was not written to its end is removed. */
export async function writeText(
  output: string,
  pieces: AsyncIterable<string>,
  signal: AbortSignal | undefined,
): Promise<number> {
  if (output === STDOUT) return send(pieces, signal);
  let file: FileHandle | undefined;
  const written = async <T>(step: () => Promise<T>): Promise<T> =>
    step().catch((error: unknown) => {
      throw fsError('write', output, error);
    });
  let bytes = 0;
  try {
    for await (const piece of pieces) {
      // Not before there is something to write: what fails first leaves an older file as it is.
      const to = file ?? (await written(() => open(output, 'w')));
      file = to;
      const encoded = Buffer.from(piece);
      await written(() => to.writeFile(encoded));
      bytes += encoded.length;
    }
    const done = file;
    file = undefined;
    await written(async () => done?.close());
    return bytes;
  } catch (error) {
    const isFile = (await file?.stat().catch(() => undefined))?.isFile() ?? false;
    await file?.close().catch(() => undefined);
    if (isFile) await rm(output, { force: true });
    throw error;
  }
}

/** A document, as a file that people read. */
export const writeJson = async (
  output: string,
  document: unknown,
  signal: AbortSignal | undefined,
): Promise<void> => {
  async function* pieces(): AsyncGenerator<string> {
    yield `${JSON.stringify(document, undefined, 2)}\n`;
  }
  await writeText(output, pieces(), signal);
};

async function send(pieces: AsyncIterable<string>, signal: AbortSignal | undefined): Promise<number> {
  let bytes = 0;
  for await (const piece of pieces) {
    const encoded = Buffer.from(piece);
    if (!(await standardOutput.send(encoded, signal))) break;
    bytes += encoded.length;
  }
  return bytes;
}
