/** Long byte fields of records: what is deflated comes back, what does not pay is left, damage is reported. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { decodeValue, encodeValue } from '../../src/engine/schema/codec.js';
import {
  PACK_BYTES_MAX,
  PACK_BYTES_MIN,
  packBytes,
  unpackBytes,
} from '../../src/engine/schema/packed-bytes.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { runtimeSpec } from '../../src/synth/runtime-spec.js';

const KEY = 'containers\0ns\0c';

test('given a container spec, when stored, then it takes a fifth of its size and comes back as it was', () => {
  const spec = new Uint8Array(Buffer.from(runtimeSpec('0123456789abcdef'.repeat(4))));
  const bytes = encodeValue(KEY, { spec: { typeUrl: 'a/b', value: spec } });
  assert.ok(bytes.length < spec.length / 5, `${bytes.length} of ${spec.length}`);
  assert.deepEqual(decodeValue(KEY, bytes), { spec: { typeUrl: 'a/b', value: spec } });
});

test('given bytes around the limits, when stored, then they come back as they were', () => {
  for (const size of [0, 1, PACK_BYTES_MIN - 1, PACK_BYTES_MIN, PACK_BYTES_MAX, PACK_BYTES_MAX + 1]) {
    for (const value of [new Uint8Array(size).fill(7), new Uint8Array(randomBytes(size))]) {
      assert.deepEqual(decodeValue(KEY, encodeValue(KEY, { value })), { value });
    }
  }
});

test('given bytes that do not shrink, or too few or many of them, when packed, then they are left alone', () => {
  assert.equal(packBytes(randomBytes(4096)), undefined);
  assert.equal(packBytes(Buffer.alloc(PACK_BYTES_MIN - 1)), undefined);
  assert.equal(packBytes(Buffer.alloc(PACK_BYTES_MAX + 1)), undefined);
});

test('given packed bytes of another size than they claim, or damaged ones, when unpacked, then that is reported', () => {
  const whole = Buffer.alloc(1000, 'abcdefgh');
  const packed = packBytes(whole);
  assert.ok(packed !== undefined);
  assert.deepEqual(unpackBytes(packed, 1000), new Uint8Array(whole));
  for (const size of [0, 999, 1001, PACK_BYTES_MAX + 1, 2 ** 50]) {
    assert.equal(unpackBytes(packed, size), undefined);
  }
  assert.equal(unpackBytes(packed.subarray(0, packed.length - 2), 1000), undefined);
  const stored = encodeValue(KEY, { value: new Uint8Array(whole) });
  assert.throws(() => decodeValue(KEY, stored.subarray(0, stored.length - 1)), assertKind('Unknown'));
});
