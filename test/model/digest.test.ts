import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import {
  Digester,
  digestOf,
  EMPTY_SHA256,
  isDigest,
  parseDigest,
  validateDigest,
} from '../../src/model/digest.js';

const lengths = { sha256: 64, sha384: 96, sha512: 128 } as const;

test('given a digest of each algorithm, when parsed, then its parts come back', () => {
  for (const [algorithm, digits] of Object.entries(lengths)) {
    const hex = '0123456789abcdef'.repeat(digits / 16);
    assert.deepEqual(parseDigest(`${algorithm}:${hex}`), { algorithm, hex });
    assert.equal(isDigest(`${algorithm}:${hex}`), true);
    assert.doesNotThrow(() => validateDigest(`${algorithm}:${hex}`));
  }
});

test('given a malformed digest, when validated, then InvalidArgument says why', () => {
  const hex = 'a'.repeat(64);
  const cases: [string, RegExp][] = [
    ['', /algorithm:hex/],
    ['foo', /algorithm:hex/],
    [':', /algorithm:hex/],
    [`:${hex}`, /algorithm:hex/],
    ['sha256:', /algorithm:hex/],
    ['sha256:short', /64 hex digits/],
    [`sha256:${hex}a`, /64 hex digits/],
    [`sha512:${hex}`, /128 hex digits/],
    [`sha256:${'A'.repeat(64)}`, /0-9 and a-f/],
    [`sha256:${'a'.repeat(63)}g`, /0-9 and a-f/],
    [`sha256:${'a'.repeat(63)}\n`, /0-9 and a-f/],
    [`sha256:${hex}\n`, /64 hex digits/],
    [`SHA256:${hex}`, /unknown algorithm/],
    [`md5:${'a'.repeat(32)}`, /unknown algorithm/],
    [`constructor:${hex}`, /unknown algorithm/],
    [`sha256:sha256:${hex}`, /64 hex digits/],
  ];
  for (const [digest, message] of cases) {
    assert.equal(isDigest(digest), false, digest);
    assert.throws(() => validateDigest(digest), { kind: 'InvalidArgument', message }, digest);
    assert.throws(() => parseDigest(digest), { kind: 'InvalidArgument', message }, digest);
  }
});

test('given a huge malformed digest, when validated, then the message stays short', () => {
  assert.throws(
    () => validateDigest(`sha256:${'x'.repeat(100_000)}`),
    (error: Error) => error.message.length < 300,
  );
});

test('given bytes, when hashed at once or in pieces, then the digests are the same at every point', () => {
  const bytes = Buffer.from('a blob in several pieces');
  for (const algorithm of ['sha256', 'sha384', 'sha512'] as const) {
    const digester = new Digester(algorithm);
    for (let at = 0; at <= bytes.length; at += 8) {
      const expected = `${algorithm}:${createHash(algorithm).update(bytes.subarray(0, at)).digest('hex')}`;
      assert.equal(digester.digest(), expected);
      assert.equal(digester.digest(), expected, 'asked again');
      assert.equal(digestOf(bytes.subarray(0, at), algorithm), expected);
      digester.update(bytes.subarray(at, at + 8));
    }
  }
});

test('given no bytes, when hashed, then the digest is the well-known one of sha256', () => {
  assert.equal(digestOf(new Uint8Array(0)), EMPTY_SHA256);
  assert.equal(new Digester().digest(), EMPTY_SHA256);
});
