/** The header blocks of gRPC responses (grpc/doc/PROTOCOL-HTTP2.md), ready to send. Pure. */
import { type BlockParts, knownField, literalField } from '../http2/header-encoder.js';
import type { CallStatus } from '../status.js';

const STATUS_200 = Buffer.of(0x88);
const CONTENT_TYPE = ['content-type', 'application/grpc'] as const;

/** Before the first message of a response. */
export const responseHead: BlockParts = [STATUS_200, knownField(...CONTENT_TYPE)];
/** After the last message of a successful call. */
export const success: BlockParts = [knownField('grpc-status', '0')];

/** Limit on the bytes of an error's text; clients limit the size of headers. */
const MESSAGE_BYTES_MAX = 6 * 1024;

/** The end of a failed call; `only`: nothing was sent before. */
export function failure({ code, details, binary }: CallStatus, only: boolean): BlockParts {
  const parts = [literalField('grpc-status', String(code))];
  if (details !== '') parts.push(literalField('grpc-message', percentEncoded(details)));
  if (binary !== undefined) parts.push(literalField('grpc-status-details-bin', binary.toString('base64')));
  return only ? [STATUS_200, literalField(...CONTENT_TYPE), ...parts] : parts;
}

/** The same for a call in an unsupported encoding. */
export const refusedEncoding = (status: CallStatus, known: string): BlockParts => [
  ...failure(status, true),
  literalField('grpc-accept-encoding', known),
];

/** The response to a request that is not gRPC. */
export const httpStatus = (status: number): BlockParts => [literalField(':status', String(status))];

/** Keeps printable ASCII, except the percent sign and spaces at either end, which headers may not have. */
function percentEncoded(text: string): string {
  const bytes = Buffer.from(text).subarray(0, MESSAGE_BYTES_MAX);
  let out = '';
  for (const [i, byte] of bytes.entries()) {
    const atEnd = byte === 0x20 && (i === 0 || i === bytes.length - 1);
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25 && !atEnd;
    out += plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
}
