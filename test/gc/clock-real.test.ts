/** The wall clock of a whole process is set, by Debian's faketime; the time since the boot is the real one. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tempDir } from '../support/db.js';
import { missingTools } from '../support/debian.js';

const program = fileURLToPath(new URL('clock-program.js', import.meta.url));

/** Where Debian puts the library: a directory for each architecture. */
function library(): string | undefined {
  for (const name of readdirSync('/usr/lib')) {
    const path = join('/usr/lib', name, 'faketime/libfaketime.so.1');
    if (existsSync(path)) return path;
  }
  return undefined;
}

test('given a process, when its wall clock is set on and back, then no live lease goes', async (t) => {
  const missing = missingTools(['faketime']);
  const preload = missing === undefined ? library() : undefined;
  if (preload === undefined) {
    t.skip(missing ?? 'libfaketime is not where Debian puts it');
    return;
  }
  const dir = await tempDir(t);
  const file = join(dir, 'offset');
  writeFileSync(file, '+0');
  const { stdout, stderr } = spawnSync(process.execPath, [program, join(dir, 'root'), file], {
    encoding: 'utf8',
    env: {
      ...process.env,
      LD_PRELOAD: preload,
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    },
  });
  assert.notEqual(stdout, '', stderr);
  const { steppedMs, ahead, back, steps, logged } = JSON.parse(stdout);
  assert.ok(steppedMs > 8 * 3_600_000, `the clock went ${steppedMs} ms on`);
  assert.deepEqual(ahead, ['hour'], 'kept for the grace');
  assert.deepEqual(back, ['four hours', 'hour', 'made ahead']);
  assert.deepEqual(steps, { forward: 1, backward: 1 });
  assert.equal(logged.length, 2);
});
