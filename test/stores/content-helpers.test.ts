import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { chunksOf } from '../../src/backends/content/chunks-of.js';
import { digestOf } from '../../src/model/digest.js';
import {
  copy,
  openWriter,
  readBlob,
  type SeekableSource,
  type Source,
  WriterReset,
  writeBlob,
} from '../../src/stores/content/content-helpers.js';
import { ns1, rejects } from './fixtures.js';
import { altered, storeWorld } from './store-world.js';

const bytes = (size: number): Buffer => Buffer.from(Array.from({ length: size }, (_, i) => (i * 31) % 253));

/** Front to back only, in uneven chunks; records that it was read and released. */
function plain(data: Buffer, seen: { read?: boolean; closed?: boolean } = {}): AsyncIterable<Uint8Array> {
  return (async function* () {
    try {
      seen.read = true;
      for (let at = 0; at < data.length; at += 997) yield data.subarray(at, at + 997);
    } finally {
      seen.closed = true;
    }
  })();
}

function seekable(data: Buffer): SeekableSource {
  let at = 0;
  return {
    seek: (offset) => {
      at = offset;
    },
    [Symbol.asyncIterator]: async function* () {
      for (; at < data.length; at += 1000) yield data.subarray(at, at + 1000);
    },
  };
}

const randomAccess = (data: Buffer): Source => ({
  read: async (buffer, position) => data.copy(buffer, 0, position),
});

const sources: Record<string, (data: Buffer) => Source> = {
  bytes: (data) => data,
  'a plain source': plain,
  'a list of chunks': (data) => [data.subarray(0, 13), data.subarray(13)],
  'a seekable source': seekable,
  'a random access source': randomAccess,
};

describe('resuming', () => {
  for (const size of [500, 5000, 50000]) {
    it(`[#86] given 0 to 100 % of ${size} bytes, when the ref is reopened, then every way of going on works`, async (t) => {
      const world = await storeWorld(t);
      const data = bytes(size);
      const digest = digestOf(data);
      const ways: Record<string, (writer: Awaited<ReturnType<typeof openWriter>>) => Promise<void>> = {
        'truncate and write all': async (writer) => {
          await writer.truncate(0);
          await writer.write(data);
          await writer.commit(size, digest);
        },
        'write the rest': async (writer) => {
          await writer.write(data.subarray((await writer.status()).offset));
          await writer.commit(size, digest);
        },
      };
      for (const [name, source] of Object.entries(sources)) {
        ways[`copy ${name}`] = (writer) => copy(writer, ns1, source(data), size, digest);
      }
      for (const [name, goOn] of Object.entries(ways)) {
        for (const percent of [0, 10, 50, 90, 100]) {
          const sent = Math.floor((size * percent) / 100);
          const first = await world.content.writer(ns1, 'r', { size });
          await first.write(data.subarray(0, sent));
          await first.close();
          const writer = await openWriter(world.content, ns1, 'r', { size, digest });
          assert.equal((await writer.status()).offset, sent, `${name} at ${percent} %`);
          await goOn(writer);
          assert.deepEqual(await world.read(ns1, digest), data, `${name} at ${percent} %`);
          await world.content.delete(ns1, digest);
          await world.blobs.delete(digest);
        }
      }
    });
  }
});

describe('openWriter', () => {
  it('[#112] given a busy ref, then it waits until the holder closes', async (t) => {
    const { content } = await storeWorld(t);
    const holder = await content.writer(ns1, 'r');
    const waiting = openWriter(content, ns1, 'r');
    const first = await Promise.race([waiting, new Promise((resolve) => setTimeout(resolve, 40, 'waits'))]);
    assert.equal(first, 'waits');
    await holder.close();
    await (await waiting).close();
  });

  it('[#112] given a signal that ends, then Unavailable', async (t) => {
    const { content } = await storeWorld(t);
    const holder = await content.writer(ns1, 'r');
    const signal = AbortSignal.timeout(30);
    await rejects(openWriter(content, { ...ns1, signal }, 'r'), 'Unavailable');
    await holder.close();
  });

  it('given another error, then it is passed on at once', async (t) => {
    const { content } = await storeWorld(t);
    await rejects(openWriter(content, ns1, ''), 'InvalidArgument');
  });
});

describe('writeBlob', () => {
  it('[#113] given a blob that is there, then it resolves without reading the source', async (t) => {
    const world = await storeWorld(t);
    const digest = await world.blob(ns1, 'there');
    const seen: { read?: boolean } = {};
    await writeBlob(world.content, ns1, 'r', plain(Buffer.from('there'), seen), { digest, size: 5 });
    assert.equal(seen.read, undefined);
  });

  it('[#113] given a blob that comes to be meanwhile, then it resolves', async (t) => {
    const world = await storeWorld(t);
    const digest = await world.blob(ns1, 'there');
    await writeBlob(world.content, ns1, 'r', Buffer.from('there'));
    assert.equal((await world.content.info(ns1, digest)).size, 5);
  });

  for (const [name, source] of Object.entries(sources)) {
    it(`given ${name} and labels, then blob and labels are stored and the ref is free`, async (t) => {
      const world = await storeWorld(t);
      const data = bytes(3000);
      await writeBlob(world.content, ns1, 'r', source(data), {}, { labels: { a: '1' } });
      assert.deepEqual((await world.content.info(ns1, digestOf(data))).labels, { a: '1' });
      await (await world.content.writer(ns1, 'r')).close();
    });
  }

  it('[#114] given a source that is too short, then an error, no commit, and the ref keeps what was sent', async (t) => {
    const world = await storeWorld(t);
    const seen: { closed?: boolean } = {};
    const source = plain(bytes(90), seen);
    await rejects(writeBlob(world.content, ns1, 'r', source, { size: 100 }), 'Unknown', 'unexpected EOF');
    assert.equal(seen.closed, true);
    await rejects(world.content.info(ns1, digestOf(bytes(90))), 'NotFound');
    assert.equal((await world.content.status(ns1, 'r')).offset, 90);
  });

  it('given a signal that ends while copying, then Canceled, the source is let go of and the ref free', async (t) => {
    const world = await storeWorld(t);
    const stop = new AbortController();
    let closed = false;
    const source = (async function* () {
      try {
        yield bytes(10);
        stop.abort();
        yield bytes(10);
      } finally {
        closed = true;
      }
    })();
    await rejects(writeBlob(world.content, { ...ns1, signal: stop.signal }, 'r', source), 'Canceled');
    assert.equal(closed, true);
    const writer = await world.content.writer(ns1, 'r');
    assert.equal((await writer.status()).offset, 10);
    await writer.close();
  });
});

describe('chunksOf', () => {
  it('given a blob of several chunks, then each is right until the next is asked for', async (t) => {
    const world = await storeWorld(t);
    const data = bytes(1_000_000);
    await writeBlob(world.content, ns1, 'r', data);
    await using reader = await world.content.readerAt(ns1, digestOf(data));
    let at = 0;
    for await (const chunk of chunksOf(reader)) {
      // Time for the next one to be read.
      await sleep(20);
      assert.ok(data.subarray(at, at + chunk.length).equals(chunk), `the chunk at ${at}`);
      at += chunk.length;
    }
    assert.equal(at, data.length);
  });
});

describe('copy', () => {
  it('[#114] given a source that cannot seek and offset 3, then its first 3 bytes are dropped', async (t) => {
    const world = await storeWorld(t);
    const data = Buffer.from('0123456789');
    const writer = await world.content.writer(ns1, 'r');
    await writer.write(data.subarray(0, 3));
    await copy(writer, ns1, [Buffer.from('xy'), Buffer.from('z3456789')], 10, '');
    assert.deepEqual(await world.read(ns1, digestOf(data)), data);
  });

  for (const [name, source] of Object.entries(sources)) {
    it(`[#115] given a writer that is reset ten times while ${name} is copied, then it succeeds`, async (t) => {
      const world = await storeWorld(t);
      const data = bytes(20_000);
      let resets = 10;
      const real = await world.content.writer(ns1, 'r');
      const writer = altered(real, {
        write: async (chunk: Uint8Array) => {
          if (resets-- <= 0) return real.write(chunk);
          await real.write(chunk.subarray(0, 5));
          throw new WriterReset();
        },
      });
      await copy(writer, ns1, source(data), data.length, digestOf(data));
      assert.deepEqual(await world.read(ns1, digestOf(data)), data);
    });
  }

  it('given many small chunks, then they are written together; what a source gave before it broke off is written, too', async (t) => {
    const world = await storeWorld(t);
    const data = bytes(1_000_000);
    const chunks = Array.from({ length: 1000 }, (_, n) => data.subarray(n * 1000, (n + 1) * 1000));
    const real = await world.content.writer(ns1, 'r');
    const sizes: number[] = [];
    const writer = altered(real, {
      write: async (chunk: Uint8Array) => {
        sizes.push(chunk.length);
        return real.write(chunk);
      },
    });
    async function* breaking() {
      yield* chunks.slice(0, 500);
      throw new Error('broken');
    }
    await assert.rejects(copy(writer, ns1, breaking(), data.length, ''), /broken/);
    assert.equal((await real.status()).offset, 500_000);
    await copy(writer, ns1, chunks, data.length, digestOf(data));
    assert.deepEqual(await world.read(ns1, digestOf(data)), data);
    assert.ok(sizes.length <= 6, `written in ${sizes.length} pieces`);
  });

  it('[#115] given a writer that loses everything at commit, then a source that can go back is sent again', async (t) => {
    const world = await storeWorld(t);
    const data = bytes(2000);
    const lossy = async (source: Source) => {
      const real = await world.content.writer(ns1, 'r');
      await real.truncate(0);
      let resets = 10;
      const writer = altered(real, {
        commit: async (...args: Parameters<typeof real.commit>) => {
          if (resets-- <= 0) return real.commit(...args);
          await real.truncate(0);
          throw new WriterReset();
        },
      });
      try {
        await copy(writer, ns1, source, data.length, '');
      } finally {
        await real.close();
      }
    };
    await lossy(seekable(data));
    assert.deepEqual(await world.read(ns1, digestOf(data)), data);
    await rejects(lossy(plain(data)), 'Unknown', 'cannot go back');
  });
});

describe('readBlob', () => {
  it('given inline data of the right length and digest, then it is returned, without a look at the store', async (t) => {
    const { content } = await storeWorld(t);
    const data = Buffer.from('inline');
    const result = await readBlob(content, ns1, { digest: digestOf(data), size: 6, data });
    assert.deepEqual(result, data);
    result.fill(0);
    assert.equal(data.toString(), 'inline');
  });

  it('given inline data that is not what it claims, then the blob is read', async (t) => {
    const world = await storeWorld(t);
    const digest = await world.blob(ns1, bytes(2_500_000));
    for (const more of [{}, { data: Buffer.from('no'), size: 2 }, { data: bytes(2_500_000), size: 1 }]) {
      assert.deepEqual(await readBlob(world.content, ns1, { digest, ...more }), bytes(2_500_000));
    }
    await rejects(readBlob(world.content, ns1, { digest: digestOf(Buffer.from('none')) }), 'NotFound');
  });
});
