/** Records as JSON. Called by embedders, for the command's `--json` too. */
import { formatTimestamp } from './time.js';

/**
 * For `JSON.stringify(record, jsonValue)`: times (bigint) become RFC 3339 text, bytes base64, maps objects. Any other value
 * stays as it is.
 */
export function jsonValue(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return formatTimestamp(value);
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (value instanceof Map) return Object.fromEntries(value);
  // A Buffer's own toJSON has run before this function gets it.
  if (isBufferJson(value)) return Buffer.from(value.data).toString('base64');
  return value;
}

function isBufferJson(value: unknown): value is { type: 'Buffer'; data: number[] } {
  return (
    typeof value === 'object' &&
    value !== null &&
    'type' in value &&
    value.type === 'Buffer' &&
    'data' in value
  );
}
