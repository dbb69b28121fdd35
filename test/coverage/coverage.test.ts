/** The table of edge cases is complete and up to date. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { repository } from './consumer.js';

test('given the tests, when the table of edge cases is made again, then it is the one in docs/coverage.md', () => {
  const made = spawnSync(process.execPath, [join(repository, 'test/coverage/make.mjs'), '--check'], {
    encoding: 'utf8',
  });
  assert.equal(made.stderr, '');
  assert.equal(made.status, 0);
});
