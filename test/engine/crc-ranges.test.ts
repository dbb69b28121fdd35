import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { CrcRanges } from '../../src/engine/lmdb/wal/crc-ranges.js';
import { BATCH_HEAD_BYTES, BATCH_MAGIC } from '../../src/engine/lmdb/wal/format.js';
import { recoverLog } from '../../src/engine/lmdb/wal/recovery.js';
import { cpuMs } from '../support/cpu.js';
import { tempDir } from './temp.js';

test('given any range and seed, when its checksum is asked for, then it is that of its bytes', () => {
  const bytes = randomBytes(5000);
  const ranges = new CrcRanges(bytes);
  const edges = [0, 1, 255, 256, 257, 511, 512, 4864, 4999, 5000];
  for (const start of edges) {
    for (const end of edges.filter((edge) => edge >= start)) {
      for (const seed of [0, 1, 7, 0x7fffffff, 0x80000000, 0xffffffff]) {
        const expected = crc32(bytes.subarray(start, end), seed);
        assert.equal(ranges.of(start, end, seed), expected, `${start} to ${end}, seed ${seed}`);
      }
    }
  }
});

test('given a log whose tail is full of what looks like batches, when it is read, then each is not read to its end', async (t) => {
  const dir = await tempDir(t);
  const log = Buffer.alloc(8 * 2 ** 20);
  for (let at = BATCH_HEAD_BYTES; at + BATCH_HEAD_BYTES < log.length; at += BATCH_HEAD_BYTES) {
    log.writeUInt32LE(BATCH_MAGIC, at);
    log.writeUInt32LE(1, at + 4);
    log.writeUInt32LE(log.length - at - BATCH_HEAD_BYTES, at + 8);
    log.writeDoubleLE(6, at + 24);
  }
  writeFileSync(join(dir, 'log.0'), log);
  const started = cpuMs();
  assert.deepEqual(recoverLog(dir, { flushed: 1 }).batches, []);
  // One after the other they would be 800 GB.
  assert.ok(cpuMs() - started < 30_000);
});
