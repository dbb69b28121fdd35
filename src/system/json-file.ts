/** JSON files that people write: a policy, a config, a plan. Called by the daemon and the command line. */
import { readFile } from 'node:fs/promises';
import { invalidArgument } from '../errors.js';
import { printable } from '../model/printable.js';
import { fsError } from './system-errors.js';

/** Editors of some systems put it before the text. */
const BYTE_ORDER_MARK = '\ufeff';

/** @param what "policy". InvalidArgument, with the file's name, when it is not JSON. */
export async function readJson(what: string, file: string): Promise<unknown> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw fsError(`read the ${what}`, file, error);
  });
  try {
    return JSON.parse(text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text);
  } catch (error) {
    const why = text.trim() === '' ? 'it is empty' : printable((error as Error).message);
    throw invalidArgument(`the ${what} ${file} is not JSON: ${why}`, { object: file, cause: error });
  }
}
