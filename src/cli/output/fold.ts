/** Lines that are no table, for a terminal: broken between words, under the words that they continue. */
import { shortDigests } from './table.js';

/** A name and at least two blanks, or blanks alone. */
const NAME = /^ *(?:\S+(?: \S+)* {2,})?/;
/** Less room than this is no room to continue in. */
const ROOM_LEAST = 24;

/** Digests are shortened first. A word that is longer than the width, as a path may be, stays whole. */
export function folded(text: string, width: number): string[] {
  if (text.length <= width) return [text];
  const short = shortDigests(text);
  const start = NAME.exec(short)![0].length;
  const indent = width - start >= ROOM_LEAST ? start : 2;
  const lines: string[] = [];
  let line = short.slice(0, start);
  let isBegun = false;
  for (const word of short.slice(start).split(' ')) {
    if (isBegun && line.length + 1 + word.length > width) {
      lines.push(line.trimEnd());
      line = ' '.repeat(indent) + word;
    } else line += isBegun ? ` ${word}` : word;
    isBegun = true;
  }
  return [...lines, line];
}
