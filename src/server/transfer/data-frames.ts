/**
 * Hand-written codec of the messages that carry an archive, Data inside an Any: the general one would copy the bytes twice more. Field
 * numbers are those of google.protobuf.Any and api/containerd/types/transfer.proto. Used by bytes.ts; pure.
 */
import { PREFIX_BYTES } from '../grpc/prefix.js';

export const DATA = 'containerd.types.transfer.Data';
const TYPE = Buffer.from(DATA);
/** Of the length of data below 2 MiB, in seven bits a byte. */
const LENGTH_BYTES = 3;
const TAG_BYTES = 1;
const TYPE_BYTES = TAG_BYTES + 1 + TYPE.length;

/** Bytes to leave free before the data. */
export const DATA_HEAD_BYTES = PREFIX_BYTES + TYPE_BYTES + 2 * (TAG_BYTES + LENGTH_BYTES);

/** The message whose data is in `buffer` from DATA_HEAD_BYTES on, below 2 MiB, after PREFIX_BYTES free bytes. */
export function frameData(buffer: Buffer, length: number): Buffer {
  let at = PREFIX_BYTES;
  buffer[at++] = 0x0a;
  buffer[at++] = TYPE.length;
  at += TYPE.copy(buffer, at);
  at = putLength(buffer, at, TAG_BYTES + LENGTH_BYTES + length, 0x12);
  putLength(buffer, at, length, 0x0a);
  return buffer.subarray(0, DATA_HEAD_BYTES + length);
}

/** Always as long, with bytes that add nothing, which the format allows. */
function putLength(into: Buffer, at: number, length: number, tag: number): number {
  into[at] = tag;
  into[at + 1] = (length & 0x7f) | 0x80;
  into[at + 2] = ((length >> 7) & 0x7f) | 0x80;
  into[at + 3] = (length >> 14) & 0x7f;
  return at + TAG_BYTES + LENGTH_BYTES;
}
