/** docs/reference.md has every name that the package exports, and every name and member has a docstring. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { repository } from './consumer.js';

test('given the declarations of the package, then each has words, and the reference is made of them', () => {
  const script = join(repository, 'test/coverage/reference.mjs');
  const { status, stderr } = spawnSync(process.execPath, [script, '--check'], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
});
