/**
 * Texts that anyone may have chosen, for eyes: control characters must not be obeyed by a terminal, and those that change the direction
 * of writing must not show a name, or what stands beside it, as something else. Called by the command and for pages; pure.
 */

/** With such characters as `\x1b` or `\u202e`. */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (c) => {
    const code = c.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, '0')}` : `\\x${code.padStart(2, '0')}`;
  });
}
