/** Pipes where files of a store belong: no reader may wait for a writer that never comes. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tempDir } from '../support/temp.js';

const program = fileURLToPath(new URL('./pipes-program.js', import.meta.url));
/** Milliseconds after which a reader counts as waiting for ever. */
const FOR_EVER = 120_000;

test('given pipes in the place of files, then no reader waits, ingests beside them are listed, and errors name them', async (t) => {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [program, await tempDir(t)], {
    encoding: 'utf8',
    timeout: FOR_EVER,
    killSignal: 'SIGKILL',
  });
  const last = stdout.trim().split('\n').at(-1);
  assert.equal(signal, null, `waits for ever: ${last}`);
  assert.equal(status, 0, `${last}\n${stderr}`);
  assert.equal(last, 'end');
});
