/** Sizes as text: `1000`, `500M`, `1.5GiB`; units are powers of 1024. Called for command lines and policies; pure. */

const SIZE = /^(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?$/i;

/** Bytes; undefined for anything else, and for what no file system can have. */
export function parseSize(text: string): number | undefined {
  const match = SIZE.exec(text);
  if (match === null) return undefined;
  const bytes = Math.round(Number(match[1]) * 1024 ** ' kmgt'.indexOf(match[2]?.toLowerCase() || ' '));
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
