/**
 * A leaf of several pages without the rest of its long values, for readers that need the beginning only: a value may have 2 GiB. Pure;
 * called by pages.ts.
 */
import { BUCKET_FLAG, ELEMENT_BYTES, PAGE_HEADER_BYTES, PageFlag } from './format.js';

/** Undefined if there is nothing to cut, and for what is not as it must be, which a walk says. */
export function withoutLongValues(
  bytes: Buffer,
  view: DataView,
  at: number,
  room: number,
  valueBytesMax: number,
): Buffer | undefined {
  const count = view.getUint16(at + 10, true);
  const data = PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
  if (view.getUint16(at + 8, true) !== PageFlag.leaf || data > room) return undefined;
  const parts: Buffer[] = [Buffer.from(bytes.subarray(at, at + data))];
  const elements = parts[0] ?? bytes;
  let length = data;
  let isCut = false;
  for (let element = PAGE_HEADER_BYTES; element < data; element += ELEMENT_BYTES) {
    const key = element + elements.readUInt32LE(element + 4);
    const value = key + elements.readUInt32LE(element + 8);
    const end = value + elements.readUInt32LE(element + 12);
    if (end > room) return undefined;
    const isLong = end - value > valueBytesMax && (elements.readUInt32LE(element) & BUCKET_FLAG) === 0;
    isCut ||= isLong;
    const part = bytes.subarray(at + key, at + (isLong ? value + valueBytesMax : end));
    elements.writeUInt32LE(length - element, element + 4);
    if (isLong) elements.writeUInt32LE(valueBytesMax, element + 12);
    parts.push(part);
    length += part.length;
  }
  return isCut ? Buffer.concat(parts) : undefined;
}
