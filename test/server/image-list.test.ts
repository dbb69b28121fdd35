import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Value } from '../../src/engine/contract.js';
import { encodeValue } from '../../src/engine/schema/codec.js';
import { fieldWords, prefixWords, textWords } from '../../src/engine/schema/dictionary.js';
import { imageKey } from '../../src/engine/schema/keys.js';
import { StoredRecord } from '../../src/engine/schema/stored-record.js';
import { assertKind } from '../../src/engine/suite/support.js';
import type { ImageRecord } from '../../src/model/records.js';
import { PREFIX_BYTES } from '../../src/server/grpc/prefix.js';
import { imageListChunks } from '../../src/server/messages/image-list.js';
import { codecOf } from '../../src/server/schema.js';
import { imageMessage } from '../../src/server/services/images.js';
import { imageOf, type StoredImages } from '../../src/stores/images.js';
import { testDB } from '../support/db.js';

interface Stored {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const { frame } = codecOf<object>('containerd.services.images.v1.ListImagesResponse');
const listPieces = imageListChunks(imageMessage);

/** The whole of a response. */
function framer(response: unknown): Buffer {
  const pieces = listPieces(response);
  const parts: Buffer[] = [];
  for (;;) {
    const { bytes, last } = pieces.next(parts.length === 0 ? PREFIX_BYTES : 0, 2 ** 30);
    parts.push(bytes);
    if (last) return Buffer.concat(parts);
  }
}

/** What is before the message may be anything still. */
const body = (framed: Buffer): Buffer => framed.subarray(PREFIX_BYTES);

/** The list, and how many images were made on the way. */
function framed(images: readonly Stored[]): { bytes: Buffer; made: number } {
  let made = 0;
  const left = [...images];
  const list: StoredImages = {
    visitNext(visit) {
      const record = new StoredRecord();
      for (const { name, bytes } of left.splice(0, 7)) {
        // Within a larger buffer, as the store has them.
        const around = Buffer.concat([Buffer.from('before'), bytes, Buffer.from('behind')]);
        record.begin(imageKey('ns', name), around, 6, 6 + bytes.length);
        visit(name, record, () => {
          made++;
          return imageOf(name, record.value() as unknown as ImageRecord);
        });
      }
      return left.length > 0;
    },
  };
  return { bytes: body(framer(list)), made };
}

const general = (records: readonly (readonly [string, ImageRecord])[]): Buffer =>
  body(frame({ images: records.map(([name, record]) => imageMessage(imageOf(name, record))) }));

const stored = (name: string, value: unknown): Stored => ({
  name,
  bytes: encodeValue(imageKey('ns', name), value as Value),
});

const hex = (length: number) =>
  fc
    .array(fc.constantFrom(...'0123456789abcdef'), { minLength: length, maxLength: length })
    .map((digits) => digits.join(''));
const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 20 }).filter((t) => !/\p{Surrogate}/u.test(t)),
  fc.constantFrom(...textWords),
  fc.constantFrom(...prefixWords).map((prefix) => `${prefix}and the rest of it`),
  hex(64).map((digits) => `sha256:${digits}`),
  hex(128).map((digits) => `sha512:${digits}`),
  hex(96).map((digits) => `sha384:${digits}`),
  hex(64),
  hex(64).map((digits) => `docker.io/library/x@sha256:${digits}`),
  fc.constantFrom('', '__proto__', 'the-name-of-the-image', 'x/the-name-of-the-image', 'ä'.repeat(200)),
);
const name = fc.oneof(
  text.filter((t) => t !== '' && !t.includes('\0')),
  fc.constant('the-name-of-the-image'),
);
const map = fc.dictionary(text, text, { noNullPrototype: true, maxKeys: 5 });
const instant = fc.oneof(
  fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
  fc.constantFrom(0n, -1n, 1n, 1_800_000_000_000_000_000n, 1_800_000_000_123_456_789n),
);
const target = fc.record({
  digest: text,
  mediatype: text,
  size: fc.oneof(fc.maxSafeNat(), fc.constant(0)),
});
const record = fc
  .record(
    { createdat: instant, updatedat: instant, labels: map, annotations: map, target },
    { requiredKeys: ['createdat', 'updatedat', 'target'], noNullPrototype: true },
  )
  .chain((r) =>
    fc
      .tuple(fc.constantFrom(0, 1), fc.shuffledSubarray(Object.keys(r), { minLength: Object.keys(r).length }))
      .map(([same, order]) => {
        const entries = order.map((field) => [field, (r as Record<string, unknown>)[field]]);
        const made = Object.fromEntries(entries) as ImageRecord;
        return same === 1 ? { ...made, updatedat: made.createdat } : made;
      }),
  );

test('given any stored images, when listed as they are stored, then the bytes are those of the general way', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(name, record), { maxLength: 6 }), (records) => {
      const { bytes, made } = framed(records.map(([n, r]) => stored(n, r)));
      assert.deepEqual(bytes, general(records));
      assert.equal(made, 0);
    }),
    { numRuns: 600 },
  );
});

test('given many images, when listed again and again, then each list is whole', () => {
  const records = Array.from({ length: 12_000 }, (_, i): [string, ImageRecord] => [
    `example.com/${i}`,
    {
      createdat: BigInt(i),
      updatedat: BigInt(i),
      labels: { i: String(i).repeat(20) },
      target: { digest: '', mediatype: 'a/b', size: i },
    },
  ]);
  const images = records.map(([n, r]) => stored(n, r));
  for (const count of [12_000, 3, 12_000, 0, 5000]) {
    assert.deepEqual(framed(images.slice(0, count)).bytes, general(records.slice(0, count)));
  }
});

test('given a stored image with something unusual, when listed, then it goes the general way', () => {
  const usual = {
    createdat: 5n,
    updatedat: 6n,
    target: { digest: `sha256:${'a'.repeat(64)}`, mediatype: 'a/b', size: 1 },
  };
  const unusual: object[] = [
    { ...usual, createdat: 2n ** 64n },
    { ...usual, more: 'of a later version' },
    { ...usual, name: 'a field of another record' },
    { ...usual, target: { ...usual.target, size: 1.5 } },
    { ...usual, target: { ...usual.target, size: -1 } },
    { ...usual, target: { ...usual.target, ref: 'x' } },
    { ...usual, target: { ...usual.target, deep: { er: 1 } } },
    { ...usual, labels: { a: 'b', on: true } },
  ];
  for (const value of unusual) {
    const record = value as ImageRecord;
    if (typeof (record.labels as Record<string, unknown> | undefined)?.on === 'boolean') {
      // The definition has texts only: what matters is that the neighbours are whole.
      assert.throws(() => framed([stored('a', usual), stored('b', value)]));
      continue;
    }
    const records: [string, ImageRecord][] = [
      ['a', usual],
      ['b', record],
      ['c', usual],
    ];
    const { bytes, made } = framed(records.map(([n, r]) => stored(n, r)));
    assert.deepEqual(bytes, general(records), JSON.stringify(Object.keys(value)));
    assert.equal(made, 1);
  }
});

test('given damaged records, when listed, then there is a message or an error that names the image', () => {
  const records = fc.tuple(record, fc.nat(), fc.nat({ max: 255 }));
  fc.assert(
    fc.property(records, ([r, position, byte]) => {
      const { bytes } = stored('the-name-of-the-image', r);
      const changed = Buffer.from(bytes);
      changed[position % bytes.length] = byte;
      for (const damaged of [changed, changed.subarray(0, position % bytes.length)]) {
        try {
          framed([{ name: 'the-name-of-the-image', bytes: damaged }]);
        } catch (error) {
          // A record that is whole but none of an image ends in a TypeError, as in every other call.
          if (error instanceof TypeError) continue;
          assertKind('Unknown')(error);
          assert.match(String(error), /images\/ns\/the-name-of-the-image/);
        }
      }
    }),
    { numRuns: 2000 },
  );
});

test('fields of images are words of the dictionary, or no image would go the short way', () => {
  for (const word of [
    'createdat',
    'updatedat',
    'labels',
    'annotations',
    'target',
    'digest',
    'mediatype',
    'size',
  ]) {
    assert.ok((fieldWords as readonly string[]).includes(word), word);
  }
});

test('given images in a store, some not in its tree yet, when listed as stored, then all come by name', async (t) => {
  const db = await testDB(t);
  const ctx = { namespace: 'ns' };
  const target = { digest: `sha256:${'b'.repeat(64)}`, mediaType: 'a/b', size: 7, annotations: { a: 'b' } };
  for (let i = 0; i < 700; i++) {
    // The last ones are on their way while the list is made.
    const creation = db.images.create(ctx, {
      name: `n${String(i).padStart(4, '0')}`,
      target,
      labels: { i: `${i}` },
    });
    if (i < 690) await creation;
    else t.after(() => creation);
  }
  await db.images.delete(ctx, 'n0003');
  const list = body(framer(await db.images.stored(ctx)));
  const images = await db.images.list(ctx);
  assert.equal(images.length, 699);
  assert.deepEqual(list, body(frame({ images: images.map(imageMessage) })));
  assert.equal(framer(await db.images.stored({ namespace: 'other' })).length, PREFIX_BYTES);
  await db.view(async (tx) => {
    const inside = db.withTransactionContext(ctx, tx);
    await assert.rejects(db.images.stored(inside), assertKind('FailedPrecondition'));
  });
});
