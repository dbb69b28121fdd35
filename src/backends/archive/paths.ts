/**
 * Names inside archives are bytes, not text: a layer may have names that are not UTF-8. Here they are strings
 * with one character for each byte (`BytePath`) and become paths only in the call to the file system. Used by
 * everything in this room; pure functions.
 */
import { invalidArgument } from '../../errors.js';

/** A path or name whose characters are the bytes 1–255. ASCII text is its own byte path. */
export type BytePath = string;

const ASCII = /^[\x00-\x7f]*$/;

export const toBytePath = (text: string): BytePath =>
  ASCII.test(text) ? text : Buffer.from(text, 'utf8').toString('latin1');

/** For messages: bytes that are not UTF-8 show as U+FFFD. */
export const showPath = (path: BytePath): string =>
  ASCII.test(path) ? path : Buffer.from(path, 'latin1').toString('utf8');

/** Converts to what `node:fs` accepts. */
export const fsPath = (path: BytePath): string | Buffer =>
  ASCII.test(path) ? path : Buffer.from(path, 'latin1');

export const joinPath = (dir: BytePath, name: BytePath): BytePath => (dir === '' ? name : `${dir}/${name}`);

/**
 * The components of a name inside an archive: empty ones and `.` are dropped, `..` removes one. Absolute
 * names are relative to the root of the layer. InvalidArgument when `..` leads above that root, or for a NUL.
 */
export function splitEntryName(name: BytePath, what = 'entry'): BytePath[] {
  if (name.includes('\0')) {
    throw invalidArgument(`archive ${what} ${JSON.stringify(showPath(name))} has a NUL in its name`);
  }
  const parts: BytePath[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) {
      throw invalidArgument(`archive ${what} "${showPath(name)}" leads out of the archive's root`, {
        object: showPath(name),
        remedy: 'the archive is hostile or damaged: do not use it',
      });
    }
  }
  return parts;
}
