/**
 * containerd's Go client, which gives up every call for a piece of a blob when it has its bytes: no rhythm of such
 * calls ends a connection. Needs Debian's Go and the sources of containerd.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { digestOf } from '../../src/model/digest.js';
import { ensurePackages } from '../conformance/debian.js';
import { buildGo } from '../conformance/go-programs.js';
import { world } from './world.js';

const run = promisify(execFile);
const KiB = 1024;
const BYTES = 150 * 1024 * KiB;
/** What small pieces are read of: some thousand calls that are given up. */
const FEW_BYTES = 20 * 1024 * KiB;
const missing = ensurePackages(['golang-go', 'golang-github-containerd-containerd-dev']);

test('a blob of 150 MB in pieces of any size, on one thread and on many', {
  skip: missing ?? false,
}, async (t) => {
  const program = buildGo('test/server/reader', 'program');
  const { client, daemon } = await world(t);
  const written = async (size: number): Promise<string> => {
    const bytes = randomBytes(size);
    const digest = digestOf(bytes);
    const stream = client.write();
    await stream.ask({ ref: `r${size}` });
    for (let at = 0; at < size; at += 8192 * KiB) {
      await stream.ask({ action: 1, offset: at, data: bytes.subarray(at, at + 8192 * KiB) });
    }
    await stream.ask({ action: 2, offset: size, expected: digest });
    await stream.end();
    return digest;
  };
  const digests = { [BYTES]: await written(BYTES), [FEW_BYTES]: await written(FEW_BYTES) };
  for (const threads of ['1', '2']) {
    for (const [piece, size] of [
      [4 * KiB, FEW_BYTES],
      [32 * KiB, BYTES],
      [1024 * KiB, BYTES],
    ] as const) {
      const digest = digests[size]!;
      const args = [`-address=${daemon.address}`, `-digest=${digest}`, `-size=${size}`, `-piece=${piece}`];
      const { stdout } = await run(program, args, { env: { ...process.env, GOMAXPROCS: threads } });
      assert.equal(stdout.trim(), digest, `${threads} threads, pieces of ${piece}`);
    }
  }
});
