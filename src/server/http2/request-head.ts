/**
 * The headers of a request as a whole (RFC 9113, sections 8.1 to 8.3): what HTTP/2 requires of them, before
 * they are interpreted. Pure.
 */
import type { Field } from './static-table.js';

export interface RequestHead {
  readonly method: string;
  readonly path: string;
  /** The announced length of the content in bytes. */
  readonly contentLength: number | undefined;
  /** All fields except the pseudo-headers, as received. */
  readonly fields: readonly Field[];
}

const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** No NUL, CR or LF, and no space or tab at either end. */
const BAD_VALUE = /[\0\r\n]|^[ \t]|[ \t]$/;
const forbidden = new Set(['connection', 'proxy-connection', 'keep-alive', 'transfer-encoding', 'upgrade']);
const pseudoNames = new Set([':method', ':scheme', ':path', ':authority']);

/** Undefined if malformed: the stream has to be reset. */
export function requestHead(all: readonly Field[]): RequestHead | undefined {
  const pseudo = new Map<string, string>();
  for (const { name, value } of all) {
    if (!name.startsWith(':')) break;
    if (!pseudoNames.has(name) || pseudo.has(name) || BAD_VALUE.test(value)) return undefined;
    pseudo.set(name, value);
  }
  const fields = all.slice(pseudo.size);
  if (!fields.every(isValid)) return undefined;
  const method = pseudo.get(':method');
  const path = pseudo.get(':path');
  if (!method || !path || !pseudo.get(':scheme')) return undefined;
  const lengths = fields.filter(({ name }) => name === 'content-length');
  const length = lengths[0]?.value;
  if (lengths.some(({ value }) => value !== length || !/^\d{1,15}$/.test(value))) return undefined;
  return { method, path, contentLength: length === undefined ? undefined : Number(length), fields };
}

/** Whether the fields are valid trailers of a request. */
export const areTrailers = (fields: readonly Field[]): boolean => fields.every(isValid);

function isValid({ name, value }: Field): boolean {
  if (!NAME.test(name) || BAD_VALUE.test(value) || forbidden.has(name)) return false;
  return name !== 'te' || value === 'trailers';
}
