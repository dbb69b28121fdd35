import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { zeroTime } from '../../src/model/time.js';
import {
  decodeAny,
  decodeTime,
  decodeUvarint,
  decodeVarint,
  encodeAny,
  encodeTime,
  encodeUvarint,
  encodeVarint,
  readUvarint,
} from '../../src/model/wire.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
const int64 = fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n });
const unknown = { kind: 'Unknown' };

test('given known numbers, when encoded, then their bytes are the interop form', () => {
  const signed: [bigint | number, string][] = [
    [0, '00'],
    [-1, '01'],
    [1, '02'],
    [63, '7e'],
    [-64, '7f'],
    [64, '8001'],
    [4, '08'],
    [-(1n << 63n), 'ffffffffffffffffff01'],
  ];
  for (const [value, form] of signed) assert.equal(hex(encodeVarint(value)), form, String(value));
  assert.equal(hex(encodeUvarint(300)), 'ac02');
  assert.equal(hex(encodeUvarint((1n << 64n) - 1n)), 'ffffffffffffffffff01');
});

test('given any 64-bit number, when encoded and decoded, then it is the same', () => {
  fc.assert(
    fc.property(int64, (n) => {
      assert.equal(decodeVarint(encodeVarint(n)), n);
      assert.equal(decodeUvarint(encodeUvarint(BigInt.asUintN(64, n))), BigInt.asUintN(64, n));
    }),
  );
});

test('given numbers beyond 64 bits, when encoded or decoded, then they are refused', () => {
  assert.throws(() => encodeVarint(1n << 63n), { kind: 'InvalidArgument' });
  assert.throws(() => encodeVarint(-(1n << 63n) - 1n), { kind: 'InvalidArgument' });
  assert.throws(() => encodeUvarint(1n << 64n), { kind: 'InvalidArgument' });
  assert.throws(() => encodeUvarint(-1), { kind: 'InvalidArgument' });
  assert.throws(() => decodeUvarint(bytes('ffffffffffffffffff02')), unknown);
  assert.throws(() => decodeUvarint(bytes('8080808080808080808001')), unknown);
});

test('given a number cut off, when decoded, then Unknown; bytes after it are left alone', () => {
  assert.throws(() => decodeVarint(bytes('')), unknown);
  assert.throws(() => decodeVarint(bytes('80')), unknown);
  assert.deepEqual(readUvarint(bytes('ff ac02 07'), 1), { value: 300n, next: 3 });
  assert.equal(decodeVarint(bytes('0207')), 1n);
});

test('given known instants, when encoded, then 15 bytes of version 1 in UTC', () => {
  assert.equal(hex(encodeTime(zeroTime)), '01 0000000000000000 00000000 ffff'.replaceAll(' ', ''));
  assert.equal(hex(encodeTime(5n)), '01 0000000e7791f700 00000005 ffff'.replaceAll(' ', ''));
  assert.equal(hex(encodeTime(zeroTime - 1n)), '01 ffffffffffffffff 3b9ac9ff ffff'.replaceAll(' ', ''));
});

test('given any instant, when encoded and decoded, then it is the same', () => {
  fc.assert(fc.property(int64, (t) => assert.equal(decodeTime(encodeTime(t)), t)));
});

test('given a time with a zone, when decoded, then only the instant counts, in both versions', () => {
  assert.equal(decodeTime(bytes('01 0000000e7791f700 00000005 0078')), 5n);
  assert.equal(decodeTime(bytes('02 0000000e7791f700 00000005 0078 1e')), 5n);
  const inside = bytes('ffff 01 0000000e7791f700 00000005 ffff').subarray(2);
  assert.equal(decodeTime(inside), 5n);
});

test('given no time, when decoded, then the zero time; given a damaged one, then Unknown', () => {
  assert.equal(decodeTime(undefined), zeroTime);
  for (const form of [
    '',
    '01',
    '01 0000000e7791f700 00000005 ff',
    '01 0000000e7791f700 00000005 ffff 00',
    '02 0000000e7791f700 00000005 ffff',
    '03 0000000e7791f700 00000005 ffff',
    '00 0000000e7791f700 00000005 ffff',
    '01 0000000e7791f700 3b9aca00 ffff',
  ]) {
    assert.throws(() => decodeTime(bytes(form)), unknown, form);
  }
});

test('given typed messages, when encoded, then empty fields are left out', () => {
  assert.equal(hex(encodeAny({ typeUrl: '', value: new Uint8Array(0) })), '');
  assert.equal(hex(encodeAny({ typeUrl: 'a', value: new Uint8Array(0) })), '0a0161');
  assert.equal(hex(encodeAny({ typeUrl: '', value: Uint8Array.of(1, 2) })), '12020102');
  assert.equal(hex(encodeAny({ typeUrl: 'é', value: Uint8Array.of(7) })), '0a02c3a9120107');
});

test('given any typed message, when encoded and decoded, then it is the same', () => {
  const text = fc.string({ unit: 'binary', maxLength: 300 });
  fc.assert(
    fc.property(text, fc.uint8Array({ maxLength: 300 }), (typeUrl, value) => {
      const decoded = decodeAny(encodeAny({ typeUrl, value }));
      assert.equal(decoded.typeUrl, typeUrl);
      assert.equal(hex(decoded.value), hex(value));
    }),
  );
});

test('given unknown fields in between, when decoded, then they are skipped and the last of a field counts', () => {
  const group = '1b 1801 23 0801 24 1c';
  const form = `1801 0a0161 21 0102030405060708 ${group} 1a0300ff00 120107 2d 01020304 0a0162 0805`;
  assert.deepEqual(decodeAny(bytes(form)), { typeUrl: 'b', value: Uint8Array.of(7) });
});

test('given a damaged message, when decoded, then Unknown and never a crash', () => {
  const damaged = [
    ...['0a', '0a05', '0a0261', '1202', '18', '1880', '21 01', '2d 01', '1b', '1b 1c24', '1b 24', '1c'],
    ...[
      '0e',
      '0f',
      '00',
      '02 01',
      '0a01ff',
      'ffffffffffffffffff7f',
      '12ffffffffffffffffff01',
      '1b'.repeat(200),
    ],
  ];
  for (const form of damaged) assert.throws(() => decodeAny(bytes(form)), unknown, form);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (noise) => {
      try {
        decodeAny(noise);
      } catch (error) {
        assert.equal((error as { kind?: string }).kind, 'Unknown');
      }
    }),
  );
});

test('given a decoded message, when the bytes change afterwards, then the message does not', () => {
  const form = bytes('12020102');
  const { value } = decodeAny(form);
  form.fill(0xff);
  assert.deepEqual(value, Uint8Array.of(1, 2));
});
