/** Record and key codecs: round trips, order, damage, size. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { FieldValue, Value } from '../../src/engine/contract.js';
import { linkPrefix } from '../../src/engine/core/storage.js';
import { NodeInMemory } from '../../src/engine/core/stored-node.js';
import {
  cutBound,
  decodeKey,
  decodeLink,
  digestCut,
  encodeBelow,
  encodedCut,
  encodeKey,
  encodeLink,
  encodeLinkPrefix,
} from '../../src/engine/lmdb/codec/key-codec.js';
import { decodeAdjacency, encodeNode, nodeParts } from '../../src/engine/lmdb/codec/node-codec.js';
import { decodeFields, decodeValue, encodeValue } from '../../src/engine/schema/codec.js';
import { fieldWords, prefixWords, textWords } from '../../src/engine/schema/dictionary.js';
import { key } from '../../src/engine/schema/keys.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { compareUtf8 } from '../../src/model/utf8.js';

const hexDigits = (length: number) =>
  fc
    .array(fc.constantFrom(...'0123456789abcdef'), { minLength: length, maxLength: length })
    .map((d) => d.join(''));
const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 80 }).filter((text) => !/\p{Surrogate}/u.test(text)),
  hexDigits(64).map((digits) => `sha256:${digits}`),
  hexDigits(128).map((digits) => `sha512:${digits}`),
  hexDigits(96).map((digits) => `sha384:${digits}`),
  hexDigits(64).map((digits) => `docker.io/library/x@sha256:${digits}`),
  hexDigits(64),
  fc.constantFrom(...textWords),
  fc.constantFrom(...prefixWords).map((prefix) => `${prefix}rest of it`),
  fc.constantFrom('k8s.io/17/the-leaf-of-the-key', 'the-leaf-of-the-key'),
);
const scalar: fc.Arbitrary<FieldValue> = fc.oneof(
  anyText,
  fc.maxSafeInteger(),
  fc.double(),
  fc.bigInt(-(2n ** 80n), 2n ** 80n),
  fc.boolean(),
  fc.uint8Array({ maxLength: 64 }),
);
const fieldName = fc.oneof(fc.constantFrom(...fieldWords), anyText);
const fields = (value: fc.Arbitrary<FieldValue>) =>
  fc.dictionary(fieldName, value, { noNullPrototype: true });
const texts = fc.dictionary(anyText, anyText, { noNullPrototype: true });
const anyRecord = fields(fc.oneof(scalar, texts, fields(fc.oneof(scalar, fields(scalar)))));
const anyValue: fc.Arbitrary<Value> = fc.oneof(anyText, anyRecord);

const own = key('snapshots', 'k8s.io', 'overlayfs', 'the-leaf-of-the-key');

test('given any value, when encoded and decoded, then it is equal', () => {
  fc.assert(
    fc.property(anyValue, (value) => {
      assert.deepEqual(decodeValue(own, encodeValue(own, value)), value);
    }),
    { numRuns: 400 },
  );
});

test('given any record, when some of its fields are decoded, then they are as in the whole of it', () => {
  fc.assert(
    fc.property(anyValue, fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }), (value, choice) => {
      const bytes = Buffer.from(encodeValue(own, value));
      const all = typeof value === 'string' ? [] : Object.entries(value);
      const wanted = all.filter((_, i) => choice[i % choice.length]);
      const padded = Buffer.concat([Buffer.from('xy'), bytes]);
      const node = new NodeInMemory(own, padded, 2);
      const fields = decodeFields(node, new Set(wanted.map(([name]) => name)));
      assert.deepEqual(Object.entries(fields), wanted);
      if (all.length === 0) return;
      const cut = new NodeInMemory(own, padded, 2, node.end - 1);
      assert.throws(() => decodeFields(cut, new Set()), assertKind('Unknown'));
    }),
  );
});

test('given any bytes or a damaged record, when decoded, then it is a value or an Unknown error that names the key', () => {
  const tryDecode = (bytes: Uint8Array): void => {
    try {
      decodeValue(own, bytes);
    } catch (error) {
      assertKind('Unknown')(error);
      assert.match(String(error), /snapshots\/k8s\.io\/overlayfs\/the-leaf-of-the-key/);
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), tryDecode), { numRuns: 400 });
  fc.assert(
    fc.property(anyValue, fc.nat(), fc.nat({ max: 255 }), (value, position, byte) => {
      const bytes = Buffer.from(encodeValue(own, value));
      bytes[position % bytes.length] = byte;
      tryDecode(bytes);
      tryDecode(bytes.subarray(0, position % bytes.length));
    }),
    { numRuns: 400 },
  );
  assert.throws(() => decodeValue(own, encodeValue(own, { size: 5 }).subarray(0, 3)), assertKind('Unknown'));
});

test('given the dictionaries, when counted, then they fit their codes and are without repeats', () => {
  assert.ok(fieldWords.length <= 255 && textWords.length <= 128 && prefixWords.length <= 64);
  for (const words of [fieldWords, textWords, prefixWords]) assert.equal(new Set(words).size, words.length);
});

test('given records of a container host, when encoded, then they are small', () => {
  const digest = `sha256:${'ab'.repeat(32)}`;
  const t = 1_700_000_000_123_456_789n;
  const blob = {
    createdat: t,
    updatedat: t,
    size: 31_357_624,
    labels: {
      'containerd.io/distribution.source.docker.io': 'library/alpine',
      'containerd.io/uncompressed': digest,
    },
  };
  const snapshot = {
    createdat: t,
    updatedat: t,
    name: `k8s.io/1234/${digest}`,
    parent: digest,
    labels: { 'containerd.io/snapshot.ref': digest },
  };
  assert.ok(encodeValue(key('blobs', 'k8s.io', digest), blob).length < 85);
  assert.ok(encodeValue(key('snapshots', 'k8s.io', 'overlayfs', digest), snapshot).length < 75);
});

const component = fc
  .oneof(
    anyText,
    fc
      .tuple(hexDigits(64), fc.nat({ max: 64 }), fc.constantFrom('', '-', ':', 'A', 'g', '~'))
      .map(([digits, length, tail]) => `sha256:${digits.slice(0, length)}${tail}`),
    fc.constantFrom(
      's',
      'sh',
      'sha',
      'sha256',
      'sha256:',
      'sb',
      'r',
      't',
      'sha2568',
      `sha256:${'f'.repeat(64)}x`,
    ),
  )
  .filter((text) => text !== '' && !text.includes('\0'));
const collection = fc.oneof(
  fc.constantFrom('images', 'blobs', 'snapshots', 'snapshotters', 'meta'),
  fc.constantFrom('a', 'imagery', 'zz', 'foreigner', 'snapshot'),
);
const anyKey = fc
  .tuple(collection, fc.array(component, { maxLength: 3 }))
  .map(([first, rest]) => [first, ...rest].join('\0'));

test('given any two keys, when encoded, then their bytes are in the order of their components', () => {
  fc.assert(
    fc.property(anyKey, anyKey, (a, b) => {
      const encodedA = Buffer.from(encodeKey(a));
      assert.equal(encodedCut(), digestCut(encodedA), a);
      const encodedB = Buffer.from(encodeKey(b));
      assert.equal(decodeKey(encodedA), a);
      // A cut key stands where any key with its beginning would.
      const cut = digestCut(encodedA);
      if (cut > 0 && Buffer.compare(encodedB, encodedA) > 0) {
        assert.ok(Buffer.compare(cutBound(encodedA), encodedB) <= 0);
      }
      assert.equal(
        Math.sign(Buffer.compare(encodedA, encodedB)),
        Math.sign(compareUtf8(a, b)),
        `${a} | ${b}`,
      );
    }),
    { numRuns: 3000 },
  );
});

test('given keys one after the other, neighbours or not, when decoded, then each is what was encoded', () => {
  const near = fc.tuple(anyKey, fc.array(component, { minLength: 1, maxLength: 4 }));
  fc.assert(
    fc.property(fc.array(near, { maxLength: 6 }), (groups) => {
      const keys = groups.flatMap(([parent, leaves]) => [
        parent,
        ...leaves.map((l) => `${parent}\0${l}`),
        parent,
      ]);
      for (const k of keys) {
        const encoded = Buffer.from(encodeKey(k));
        assert.equal(
          decodeKey(Buffer.concat([Buffer.from('ab'), encoded, Buffer.from('\0c')]), 2, 2 + encoded.length),
          k,
        );
      }
    }),
    { numRuns: 1000 },
  );
});

test('given two names in one place, when encoded, then their bytes are in the order of the names', () => {
  fc.assert(
    fc.property(component, component, (a, b) => {
      const encodedA = Buffer.from(encodeKey(`blobs\0ns\0${a}`));
      const encodedB = Buffer.from(encodeKey(`blobs\0ns\0${b}`));
      assert.equal(
        Math.sign(Buffer.compare(encodedA, encodedB)),
        Math.sign(compareUtf8(a, b)),
        `${a} | ${b}`,
      );
    }),
    { numRuns: 5000 },
  );
});

test('given a key below a prefix, when both are encoded, then the bytes of one begin with the other’s', () => {
  fc.assert(
    fc.property(anyKey, component, anyKey, (prefix, last, other) => {
      const start = Buffer.from(encodeBelow(prefix));
      const begins = (k: string) => Buffer.from(encodeKey(k)).subarray(0, start.length).equals(start);
      assert.equal(begins(`${prefix}\0${last}`), true);
      assert.equal(begins(other), other.startsWith(`${prefix}\0`));
    }),
    { numRuns: 1000 },
  );
});

test('given any two links, when encoded, then they come back and are in order of from, relation, to', () => {
  const relation = fc.constantFrom('children', 'holds', 'holds.flat', 'named', 'another', 'zeta');
  const shared = fc.constantFrom('snapshots\0ns\0a', 'snapshots\0ns\0b', 'leases\0ns', 'meta');
  const end = fc.oneof(
    anyKey,
    fc.tuple(shared, component).map((parts) => parts.join('\0')),
    shared,
  );
  const anyLink = fc.tuple(end, relation, end);
  fc.assert(
    fc.property(anyLink, anyLink, ([from, word, to], [from2, word2, to2]) => {
      const a = linkPrefix(from, word) + to;
      const b = linkPrefix(from2, word2) + to2;
      const encodedA = Buffer.from(encodeLink(a));
      const encodedB = Buffer.from(encodeLink(b));
      assert.equal(decodeLink(encodedA), a);
      assert.equal(Math.sign(Buffer.compare(encodedA, encodedB)), Math.sign(compareUtf8(a, b)));
      const prefix = Buffer.from(encodeLinkPrefix(linkPrefix(from, word)));
      assert.equal(encodedA.subarray(0, prefix.length).equals(prefix), true);
      assert.equal(encodedB.subarray(0, prefix.length).equals(prefix), from === from2 && word === word2);
    }),
    { numRuns: 3000 },
  );
});

test('given a node, when encoded, then its parts come back; cut short, then Unknown', () => {
  const name = Buffer.from(encodeKey(own));
  const bytes = encodeValue(own, { size: 1 });
  const adjacency = { flags: 0x104 | 3, expireAt: 5n, edges: [8 * 70_000 + 2, 17] };
  for (const entry of [
    { id: 1, adjacency, bytes },
    { id: 1, adjacency: undefined, bytes },
    { id: 1, adjacency: undefined, bytes: undefined },
  ]) {
    const node = Buffer.from(encodeNode(name, entry));
    const { keyStart, keyEnd, adjacencyStart, adjacencyEnd, valueStart } = nodeParts(1, node, node.length);
    assert.equal(decodeKey(node, keyStart, keyEnd), own);
    if (entry.adjacency === undefined) assert.equal(adjacencyStart, adjacencyEnd);
    else assert.deepEqual(decodeAdjacency(1, node, adjacencyStart, adjacencyEnd), adjacency);
    assert.deepEqual(valueStart < 0 ? undefined : Buffer.from(node.subarray(valueStart)), entry.bytes);
    assert.throws(() => nodeParts(1, node, 8), assertKind('Unknown'));
  }
});
