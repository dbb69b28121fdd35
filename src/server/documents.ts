/**
 * Answers with many shapes as JSON: what JSON lacks is written as an object with one telling field, so that it comes
 * back as what it was: bigints (instants) and bytes. Functions are left out. Pure; used by both ends.
 */
import { invalidArgument } from '../errors.js';

export interface DocumentMessage {
  json: string;
}

const BIGINT = '$int';
const BYTES = '$bytes';

export const toDocument = (value: unknown): DocumentMessage => ({ json: JSON.stringify(value, write) });

export function fromDocument<T = unknown>({ json }: DocumentMessage): T {
  try {
    return JSON.parse(json, read) as T;
  } catch (cause) {
    throw invalidArgument('the document is not JSON', { cause });
  }
}

function write(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return { [BIGINT]: value.toString() };
  if (value instanceof Uint8Array) return { [BYTES]: Buffer.from(value).toString('base64') };
  return value;
}

function read(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const [name, ...more] = Object.keys(value);
  if (more.length > 0 || name === undefined) return value;
  const content = (value as Record<string, unknown>)[name];
  if (typeof content !== 'string') return value;
  if (name === BIGINT && /^-?\d{1,39}$/.test(content)) return BigInt(content);
  return name === BYTES ? Buffer.from(content, 'base64') : value;
}
