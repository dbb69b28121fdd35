/** JSON files that people write: a policy, a config, a plan. Called by the daemon and the command line. */
import { readFile } from 'node:fs/promises';
import { invalidArgument } from '../errors.js';
import { printable } from '../model/printable.js';
import { fsError } from './system-errors.js';

/** Editors of some systems put it before the text. */
const BYTE_ORDER_MARK = '\ufeff';

/** @param what "policy". InvalidArgument, with the file's name, when it is not JSON, or an object in it has a field twice. */
export async function readJson(what: string, file: string): Promise<unknown> {
  const bytes = await readFile(file, 'utf8').catch((error: unknown) => {
    throw fsError(`read the ${what}`, file, error);
  });
  const text = bytes.startsWith(BYTE_ORDER_MARK) ? bytes.slice(1) : bytes;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const why = text.trim() === '' ? 'it is empty' : printable((error as Error).message);
    throw invalidArgument(`the ${what} ${file} is not JSON: ${why}`, { object: file, cause: error });
  }
  const field = repeatedField(text);
  if (field !== undefined) {
    throw invalidArgument(`the ${what} ${file} has the field "${printable(field)}" twice in one object`, {
      object: file,
      remedy: 'only the last one would count: keep one',
    });
  }
  return value;
}

/** A name that an object has twice, which JSON.parse passes over. REQUIRES: the text is JSON. */
function repeatedField(text: string): string | undefined {
  const open: Set<string>[] = [];
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === '{' || character === '[') open.push(new Set());
    else if (character === '}' || character === ']') open.pop();
    if (character !== '"') continue;
    const start = at;
    for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++;
    let next = at + 1;
    while (' \t\r\n'.includes(text[next] ?? '"')) next++;
    if (text[next] !== ':') continue;
    const field = JSON.parse(text.slice(start, at + 1)) as string;
    const fields = open.at(-1);
    if (fields?.has(field)) return field;
    fields?.add(field);
  }
  return undefined;
}
