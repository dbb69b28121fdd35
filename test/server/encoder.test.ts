import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import { PREFIX_BYTES } from '../../src/server/grpc/prefix.js';
import {
  decodeWriteRequest,
  frameReadResponse,
  READ_HEAD_BYTES,
} from '../../src/server/messages/content-codec.js';
import { encoderOf } from '../../src/server/messages/encoder.js';
import { codecOf, messageTypes } from '../../src/server/schema.js';

const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 8 }),
  fc.constantFrom(
    '',
    'a',
    'ä',
    'x'.repeat(33),
    'y'.repeat(127),
    'z'.repeat(128),
    '€'.repeat(50),
    '__proto__',
  ),
);
const number = fc.oneof(fc.constantFrom(0, 1, 127, 128, 16_383, 16_384, 2 ** 31 - 1), fc.nat());
const wide = fc.oneof(number, fc.maxSafeNat(), fc.constantFrom(2 ** 32, 2 ** 53 - 1));
const signed = fc.oneof(wide, fc.constantFrom(-1, -62_135_596_800, -(2 ** 53 - 1)));

/** Any value of a field; `depth` ends types that contain themselves. */
function anyValue(field: protobuf.Field, depth: number): fc.Arbitrary<unknown> {
  if (field.resolvedType instanceof protobuf.Type) return messageOf(field.resolvedType, depth - 1);
  if (field.resolvedType instanceof protobuf.Enum) {
    return fc.constantFrom(...Object.values(field.resolvedType.values));
  }
  switch (field.type) {
    case 'string':
      return text;
    case 'bytes':
      return fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
    case 'bool':
      return fc.boolean();
    case 'double':
      return fc.double({ noNaN: true });
    case 'int64':
      return signed;
    case 'uint64':
      return wide;
    default:
      return number;
  }
}

function messageOf(type: protobuf.Type, depth: number): fc.Arbitrary<object> {
  const fields: Record<string, fc.Arbitrary<unknown>> = {};
  for (const field of type.fieldsArray) {
    if (depth <= 0 && field.resolvedType instanceof protobuf.Type) continue;
    const value = anyValue(field, depth);
    if (field.map)
      fields[field.name] = fc.dictionary(
        text.filter((key) => key !== '__proto__'),
        value,
        { maxKeys: 4, noNullPrototype: true },
      );
    else if (field.repeated) fields[field.name] = fc.array(value, { maxLength: 4 });
    else fields[field.name] = value;
  }
  return fc.record(fields, { requiredKeys: [], noNullPrototype: true });
}

test('every message is written as the protobuf library reads it', () => {
  const types = messageTypes().filter((type) => !type.fullName.startsWith('.google.protobuf'));
  assert.equal(types.length > 90, true, `${types.length} types`);
  for (const type of types) {
    const encode = encoderOf(type);
    fc.assert(
      fc.property(messageOf(type, 3), (message) => {
        const read = (bytes: Uint8Array): object =>
          type.toObject(type.decode(bytes), { defaults: true, longs: Number });
        assert.deepEqual(read(encode(message)), read(type.encode(message).finish()));
      }),
      { numRuns: 15 },
    );
  }
});

test('messages larger than the buffer, and smaller ones after them, are whole', () => {
  const { encode, decode } = codecOf<{ filters: string[] }>(
    'containerd.services.images.v1.ListImagesRequest',
  );
  for (const size of [10, 3_000_000, 10, 200_000]) {
    const filters = Array.from({ length: 20 }, (_, i) => String.fromCharCode(97 + i).repeat(size));
    assert.deepEqual(decode(encode({ filters })).filters, filters);
  }
});

test('the messages of the byte streams are those of the definitions', () => {
  const write = codecOf<object>('containerd.services.content.v1.WriteContentRequest');
  const read = codecOf<{ offset: number; data: Buffer }>(
    'containerd.services.content.v1.ReadContentResponse',
  );
  const request = fc.record({
    action: fc.constantFrom(0, 1, 2, 7),
    ref: text,
    total: signed,
    expected: text,
    offset: signed,
    data: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    labels: fc.dictionary(
      text.filter((key) => key !== '__proto__'),
      text,
      { minKeys: 1, maxKeys: 3, noNullPrototype: true },
    ),
  });
  fc.assert(
    fc.property(request, (message) => {
      const decoded = decodeWriteRequest(write.encode(message));
      assert.deepEqual({ ...decoded, labels: { ...decoded.labels } }, { ...message });
    }),
  );
  fc.assert(
    fc.property(wide, fc.uint8Array({ maxLength: 300 }), (offset, data) => {
      const buffer = Buffer.concat([Buffer.alloc(READ_HEAD_BYTES, 0xff), data]);
      const decoded = read.decode(frameReadResponse(buffer, offset, data.length).subarray(PREFIX_BYTES));
      assert.deepEqual([decoded.offset, new Uint8Array(decoded.data)], [offset, data]);
    }),
  );
  // Damaged ones are refused; nothing is read after the end.
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      try {
        decodeWriteRequest(Buffer.from(bytes));
      } catch (error) {
        assert.match(String(error), /malformed message/);
      }
    }),
  );
});

test('given our definitions, when 64-bit numbers are read by them, then they are plain; and others of the process read all 64 bits', () => {
  const status = codecOf<Record<string, unknown>>('containerd.services.content.v1.Status');
  const sent = status.decode(status.encode({ ref: 'a', offset: 2 ** 40, total: -5 }));
  assert.deepEqual([sent.offset, sent.total], [2 ** 40, -5]);
  assert.equal(status.decode(Buffer.alloc(0)).offset, 0);
  // As etcd's client does, whose leases are numbers of 61 bits.
  const { root } = protobuf.parse('syntax = "proto3"; message Lease { int64 ID = 1; }');
  const lease = root.lookupType('Lease');
  const id = '1418812193405772809';
  const bytes = lease.encode(lease.fromObject({ ID: id })).finish();
  assert.equal(lease.toObject(lease.decode(bytes), { longs: String }).ID, id);
});
