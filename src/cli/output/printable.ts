/** Texts for a terminal, and for a shell. */
export { printable } from '../../model/printable.js';

/** Quotes text as one word of a shell. */
export const quoted = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
