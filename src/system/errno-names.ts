/**
 * Names of the system's errors by number. Node has none for some that a disk has: their code and text are `Unknown system error
 * -122`, or UNKNOWN. Called by system-errors.ts, and where a number comes from an addon.
 */
import { constants } from 'node:os';
import { getSystemErrorMap, getSystemErrorName } from 'node:util';

/** Linux' own, which Node does not list. */
const LINUX = { EUCLEAN: 117, EREMOTEIO: 121, ENOMEDIUM: 123, ENOKEY: 126, EHWPOISON: 133 } as const;

/** Of the kernel, and of Node's own beside them. */
const ERRNO_MAX = 4095;

const names = new Map<number, string>(
  Object.entries({ ...LINUX, ...constants.errno }).map(([name, errno]) => [errno, name]),
);

const texts: Readonly<Record<string, string>> = {
  EDQUOT: 'disk quota exceeded',
  ESTALE: 'stale file handle',
  EUCLEAN: 'structure needs cleaning',
  EBADMSG: 'bad message',
  EREMOTEIO: 'remote i/o error',
};

/** `EDQUOT: disk quota exceeded` for 122, as Node's messages begin. */
export function errnoText(errno: number): string {
  const name = errnoName(errno);
  const text = getSystemErrorMap().get(-errno)?.[1] ?? texts[name];
  return text === undefined ? name : `${name}: ${text}`;
}

/** `ENOSPC` for 28; a number that nobody has a name for keeps Node's words. */
export function errnoName(errno: number): string {
  // A text may have any number. Node throws for those that cannot be one.
  if (!(errno >= 1 && errno <= ERRNO_MAX)) return `Unknown system error ${-errno}`;
  const name = getSystemErrorName(-errno);
  return isUnnamed(name) ? (names.get(errno) ?? name) : name;
}

/** Whether a code is one of Node's two words for a number without a name. */
export const isUnnamed = (code: string): boolean =>
  code === 'UNKNOWN' || code.startsWith('Unknown system error');

/**
 * A message of Node's, with names: `EDQUOT: disk quota exceeded, write`.
 * @param errno of the error, where the message has no number
 */
export const withNames = (message: string, errno?: number): string =>
  message
    .replace(/^UNKNOWN: unknown error/, (words) => (errno === undefined ? words : errnoText(errno)))
    .replace(/Unknown system error -(\d+)(: Unknown system error -\1)?/g, (words, number: string) => {
      const name = errnoName(Number(number));
      if (isUnnamed(name)) return words;
      return words.includes(':') ? errnoText(Number(number)) : name;
    });
