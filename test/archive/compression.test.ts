import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { gzipSync } from 'node:zlib';
import { ChunkReader } from '../../src/backends/archive/chunks.js';
import { decompress, detectCompression } from '../../src/backends/archive/compression/compression.js';
import { unzstd } from '../../src/backends/archive/compression/zstd.js';
import type { BlockDecoder } from '../../src/backends/archive/compression/zstd-blocks.js';
import { FallbackDecoder } from '../../src/backends/archive/compression/zstd-fallback.js';
import { NativeDecoder, nativeZstd } from '../../src/backends/archive/compression/zstd-native.js';
import { type ArchiveLimits, withDefaults } from '../../src/backends/archive/limits.js';
import { EbbtideError, isKind } from '../../src/errors.js';
import { addonPath, loadAddon } from '../../src/system/addon.js';
import { hasTool, run, streamOf } from './support.js';

async function unpack(
  bytes: Uint8Array,
  limits: Partial<ArchiveLimits> = {},
  chunk?: number,
): Promise<Buffer> {
  const { chunks } = await decompress(streamOf(bytes, chunk), { limits: withDefaults(limits), name: 'test' });
  const parts: Buffer[] = [];
  for await (const part of chunks) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

const plain = Buffer.concat([Buffer.alloc(300_000, 'abcdefgh'), randomBytes(50_000), Buffer.alloc(400_000)]);
const zstdMissing = hasTool('zstd') ? false : 'the zstd tool is not installed';

/** A frame of zeros: `count` blocks of 128 KiB, four bytes each. */
function zstdBomb(count: number, windowByte = 0x38): Buffer {
  const blocks = Buffer.alloc(count * 4);
  for (let i = 0; i < count; i++) {
    const last = i === count - 1 ? 1 : 0;
    blocks.writeUIntLE((128 * 1024 * 8) | (1 << 1) | last, i * 4, 3);
  }
  return Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, windowByte]), blocks]);
}

describe('compression', () => {
  test('given the first bytes, the form is known', () => {
    assert.equal(detectCompression(gzipSync('x')), 'gzip');
    assert.equal(detectCompression(zstdBomb(1)), 'zstd');
    assert.equal(detectCompression(Buffer.from([0x50, 0x2a, 0x4d, 0x18])), 'zstd');
    assert.equal(detectCompression(Buffer.from('plain')), 'none');
    assert.equal(detectCompression(Buffer.alloc(0)), 'none');
  });

  for (const chunk of [1000, 70_000]) {
    test(`given chunks of ${chunk} bytes, plain and gzip come out as they were`, async () => {
      assert.ok((await unpack(plain, {}, chunk)).equals(plain));
      assert.ok((await unpack(gzipSync(plain), {}, chunk)).equals(plain));
    });
  }

  test('given gzip of any sizes, in members, split anywhere, then it comes out; padded also, cut off or followed by something not', async () => {
    const upTo = (n: number): number => randomInt(n);
    for (let n = 0; n < 8; n++) {
      const contents = Array.from({ length: 1 + upTo(3) }, () =>
        Buffer.concat([randomBytes(upTo(100_000)), Buffer.alloc(upTo(900_000), 'text ')]),
      );
      const zipped = Buffer.concat(contents.map((content) => gzipSync(content, { level: 1 })));
      const chunk = 1 + upTo(n % 2 === 0 ? 300_000 : 3000);
      const expected = Buffer.concat(contents);
      const said = `${zipped.length} bytes in chunks of ${chunk}`;
      assert.ok((await unpack(zipped, {}, chunk)).equals(expected), said);
      const padded = Buffer.concat([zipped, Buffer.alloc(upTo(5000))]);
      assert.ok((await unpack(padded, {}, chunk)).equals(expected), `${said}, padded`);
      const damaged = (error: unknown): boolean =>
        isKind(error, 'InvalidArgument') && /damaged gzip data/.test(String(error));
      const cutOff = zipped.subarray(0, zipped.length - 1 - upTo(8));
      await assert.rejects(unpack(cutOff, {}, chunk), damaged, `${said}, cut off`);
      const followed = Buffer.concat([zipped, Buffer.from('more')]);
      await assert.rejects(unpack(followed, {}, chunk), damaged, `${said}, followed`);
    }
  });

  test('given several gzip members, they come out in a row', async () => {
    const two = Buffer.concat([gzipSync('one'), gzipSync('two')]);
    assert.equal((await unpack(two)).toString(), 'onetwo');
  });

  for (const level of ['-1', '-19', '--ultra -22 --long=27']) {
    test(`given zstd ${level}, the bytes come out as they were`, { skip: zstdMissing }, async () => {
      const packed = run('zstd', ['-q', '-c', ...level.split(' ')], plain);
      assert.ok((await unpack(packed, {}, 997)).equals(plain));
    });
  }

  test('given several zstd frames and skippable ones, the data comes out in a row', {
    skip: zstdMissing,
  }, async () => {
    const skippable = Buffer.concat([Buffer.from([0x51, 0x2a, 0x4d, 0x18, 5, 0, 0, 0]), randomBytes(5)]);
    const frames = [
      run('zstd', ['-q', '-c'], Buffer.from('one')),
      skippable,
      run('zstd', ['-qc', '--no-check'], plain),
    ];
    const out = await unpack(Buffer.concat([skippable, ...frames]), {}, 11);
    assert.ok(out.equals(Buffer.concat([Buffer.from('one'), plain])));
  });

  test('given damaged or cut data, the error is InvalidArgument', async () => {
    const packed = gzipSync(plain);
    await assert.rejects(unpack(packed.subarray(0, 5000)), (e) => isKind(e, 'InvalidArgument'));
    const flipped = Buffer.from(packed);
    flipped[3000]! ^= 0xff;
    await assert.rejects(unpack(flipped), (e) => isKind(e, 'InvalidArgument'));
    await assert.rejects(unpack(zstdBomb(3).subarray(0, 12)), (e) => isKind(e, 'InvalidArgument'));
  });

  test('given zstd data with flipped bytes, it ends in InvalidArgument or in other bytes', {
    skip: zstdMissing,
  }, async () => {
    const packed = run('zstd', ['-q', '-c', '-19'], plain.subarray(280_000, 360_000));
    for (let at = 4; at < Math.min(packed.length, 3000); at += 61) {
      const flipped = Buffer.from(packed);
      flipped[at]! ^= 0x55;
      await unpack(flipped).catch((error: unknown) => {
        assert.ok(error instanceof EbbtideError && error.kind === 'InvalidArgument', String(error));
      });
    }
  });

  test('given a zstd window above 128 MiB, it is refused', async () => {
    await assert.rejects(unpack(zstdBomb(1, 0xa8)), /window of .* above the limit/);
  });
});

/** One block of 65,000 matches of 98,000 bytes each: 120 KiB that a decoder without bounds unfolds for minutes. */
function zstdSpinner(): Buffer {
  const sequences = 60_000;
  // Literals: one raw byte. Codes as run-length tables: literal length 0, offset code 0, match length code 52.
  const head = [0x08, 0x61, 0xff, (sequences - 0x7f00) & 255, (sequences - 0x7f00) >> 8, 0x54, 0, 0, 52];
  // Sixteen extra bits for each match length, all set; the last byte is the end mark.
  const bits = Buffer.alloc(sequences * 2 + 1, 0xff);
  bits[bits.length - 1] = 1;
  const block = Buffer.concat([Buffer.from(head), bits]);
  const blockHead = Buffer.alloc(3);
  blockHead.writeUIntLE((block.length << 3) | (2 << 1) | 1, 0, 3);
  return Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38]), blockHead, block]);
}

describe('compression bombs', () => {
  test('given a zstd block that makes the decoder spin, it is given up and the caller was never delayed', async () => {
    let ticks = 0;
    const clock = setInterval(() => ticks++, 20);
    const reading = async (): Promise<number> => {
      let bytes = 0;
      for await (const chunk of unzstd(new ChunkReader(streamOf(zstdSpinner())), new FallbackDecoder(1500)))
        bytes += chunk.length;
      return bytes;
    };
    await assert.rejects(
      reading(),
      (e) => isKind(e, 'InvalidArgument') && /took longer than 1500 ms/.test(String(e)),
    );
    clearInterval(clock);
    assert.ok(ticks >= 5, `the event loop turned ${ticks} times in 1500 ms`);
  });

  const bombs: [string, () => Buffer][] = [
    ['gzip', () => gzipSync(Buffer.alloc(200 * 2 ** 20))],
    ['zstd', () => zstdBomb(1600)],
  ];
  for (const [name, make] of bombs) {
    test(`given a ${name} bomb, the ratio stops it`, async () => {
      await assert.rejects(unpack(make(), { maxRatio: 500 }), (error: unknown) => {
        assert.ok(error instanceof EbbtideError);
        assert.equal(error.kind, 'FailedPrecondition');
        assert.match(error.message, /more than 500 times its size/);
        return true;
      });
    });
    test(`given a ${name} bomb, the size stops it`, async () => {
      await assert.rejects(unpack(make(), { maxBytes: 10_000_000 }), /more than 10000000 bytes/);
    });
  }

  test('given a zstd bomb, memory stays small', async () => {
    const { chunks } = await decompress(streamOf(zstdBomb(4000)), {
      limits: withDefaults({ maxRatio: 1e9 }),
      name: 'test',
    });
    let bytes = 0;
    const before = process.memoryUsage().rss;
    let most = before;
    for await (const chunk of chunks) {
      bytes += chunk.length;
      most = Math.max(most, process.memoryUsage().rss);
    }
    assert.equal(bytes, 4000 * 128 * 1024);
    assert.ok(most - before < 200 * 2 ** 20, `grew by ${most - before} bytes`);
  });
});

describe('zstd decoders', () => {
  const decoders: [string, () => BlockDecoder, string | false][] = [
    ['libzstd', () => new NativeDecoder(27), nativeZstd.reason ?? false],
    ['JavaScript', () => new FallbackDecoder(), false],
  ];
  for (const [name, make, missing] of decoders) {
    const skip = missing || zstdMissing;
    const decode = async (bytes: Uint8Array, chunk?: number): Promise<Buffer> => {
      const parts: Uint8Array[] = [];
      for await (const part of unzstd(new ChunkReader(streamOf(bytes, chunk)), make())) parts.push(part);
      return Buffer.concat(parts);
    };
    const refused = (bytes: Uint8Array, message: RegExp): Promise<void> =>
      assert.rejects(decode(bytes), (e) => isKind(e, 'InvalidArgument') && message.test(String(e)));

    test(`${name}: frames of every level, long windows and skippable frames, whatever the chunks`, {
      skip,
    }, async () => {
      const skippable = Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9]);
      for (const level of ['-1', '-3 --long=27', '-19', '--fast=5 --no-check']) {
        const packed = run('zstd', ['-q', '-c', ...level.split(' ')], plain);
        const twice = Buffer.concat([packed, skippable, packed, skippable]);
        assert.ok((await decode(twice, 1013)).equals(Buffer.concat([plain, plain])), level);
      }
    });

    test(`${name}: what is cut, needs a dictionary or is something else is refused`, { skip }, async () => {
      const packed = run('zstd', ['-q', '-c'], plain);
      for (const end of [3, 6, 1000, packed.length - 1])
        await refused(packed.subarray(0, end), /it ends early/);
      await refused(
        Buffer.concat([packed, Buffer.from('trailing garbage')]),
        /does not begin where expected/,
      );
      const legacy = Buffer.from([0x27, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0]);
      await refused(Buffer.concat([packed, legacy]), /does not begin where expected/);
      const withDictionary = Buffer.from(packed);
      withDictionary[4]! |= 1;
      await refused(withDictionary, /needs a dictionary/);
      await refused(zstdBomb(1, 0xf8), /window of .* above the limit/);
    });

    test(`${name}: empty blocks by the hundred thousand cost a few calls`, { skip: missing }, async () => {
      const count = 300_000;
      const blocks = Buffer.alloc(count * 3);
      blocks[(count - 1) * 3] = 1;
      let calls = 0;
      const decoder = make();
      const counting: BlockDecoder = {
        decode: (blocks) => {
          calls++;
          return decoder.decode(blocks);
        },
        close: () => decoder.close(),
      };
      const frame = Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38]), blocks]);
      for await (const part of unzstd(new ChunkReader(streamOf(frame)), counting))
        assert.equal(part.length, 0);
      assert.ok(calls < 10, `${calls} calls`);
    });

    test(`${name}: giving up in the middle leaves nothing running`, { skip }, async () => {
      const packed = run('zstd', ['-q', '-c'], Buffer.concat([randomBytes(3_000_000)]));
      for await (const part of unzstd(new ChunkReader(streamOf(packed)), make())) {
        assert.ok(part.length > 0);
        break;
      }
    });
  }

  test('libzstd compares the checksum of a frame', { skip: nativeZstd.reason ?? zstdMissing }, async () => {
    const packed = run('zstd', ['-q', '-c', '--check'], plain);
    packed[packed.length - 1]! ^= 1;
    await assert.rejects(unpack(packed), (e) => isKind(e, 'InvalidArgument') && /checksum/.test(String(e)));
  });
});

describe('the addon of libzstd', { skip: nativeZstd.reason ?? false }, () => {
  interface Addon {
    Decoder: new (
      ...args: unknown[]
    ) => { decode(...args: unknown[]): Promise<number>; close(): void; frameEnds: boolean };
  }
  const { Decoder } = loadAddon('ebbtide_zstd') as unknown as Addon;
  const frame = zstdBomb(1);

  test('given wrong arguments, a second call beside the first, or a closed decoder, it throws', async () => {
    for (const window of [undefined, 'x', 9, 32, Number.NaN])
      assert.throws(() => new Decoder(window), TypeError);
    const decoder = new Decoder(27);
    for (const args of [[], [frame], [frame, 'x'], [new Uint16Array(2), frame], [frame, new ArrayBuffer(4)]])
      assert.throws(() => decoder.decode(...args), TypeError);
    const first = decoder.decode(frame, Buffer.alloc(128 * 1024));
    assert.throws(() => decoder.decode(frame, Buffer.alloc(1)), TypeError);
    assert.deepEqual([await first, decoder.frameEnds], [128 * 1024, true]);
    decoder.close();
    decoder.close();
    assert.throws(() => decoder.decode(frame, Buffer.alloc(1)), TypeError);
  });

  test('given too little room, the call fails and nothing is written beyond it; closing beside a call is safe', async () => {
    const memory = Buffer.alloc(2000, 7);
    const decoder = new Decoder(27);
    await assert.rejects(decoder.decode(frame, memory.subarray(0, 1000)), /more than its frame allows/);
    assert.deepEqual([...new Set(memory.subarray(1000))], [7]);
    assert.equal(await decoder.decode(frame, Buffer.alloc(128 * 1024)), 128 * 1024, 'it begins again');
    const running = decoder.decode(frame, Buffer.alloc(128 * 1024));
    decoder.close();
    assert.equal(await running, 128 * 1024);
  });

  test('given a thread that ends in the middle of a call, the process goes on', async () => {
    const code = `const { Decoder } = require(${JSON.stringify(addonPath('ebbtide_zstd'))});
      new Decoder(27).decode(require('node:worker_threads').workerData, Buffer.alloc(1 << 27)); process.exit()`;
    const worker = new Worker(code, { eval: true, workerData: zstdBomb(1000) });
    const [exit] = (await once(worker, 'exit')) as [number];
    assert.equal(exit, 0);
  });
});
