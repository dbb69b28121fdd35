/**
 * Folds lines that are not part of a table to the terminal's width: broken between words, with continuation
 * lines indented.
 */
import { shortDigests } from './table.js';

/** A name and at least two blanks, or only blanks. */
const NAME = /^ *(?:\S+(?: \S+)* {2,})?/;
/** Continuation lines are not indented if that leaves less than this. */
const ROOM_LEAST = 24;

/** Shortens digests first. A word longer than the width, such as a path, stays whole. */
export function folded(text: string, width: number): string[] {
  if (text.length <= width) return [text];
  const short = shortDigests(text);
  const start = NAME.exec(short)?.[0].length ?? 0;
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
