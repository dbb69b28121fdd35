/** Whether a name still leads to a file that is known by its device and inode. */
import assert from 'node:assert/strict';
import {
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { kindOf } from '../../src/errors.js';
import { type Held, identityOf, placeOf } from '../../src/system/file-identity.js';

test('given a file that is open, when its name is linked, replaced or taken away, then placeOf says so, by path and below a directory', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ebbtide-identity-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const path = join(dir, 'file');
  writeFileSync(path, 'x');
  const fd = openSync(path, 'r');
  const held: Held = { fd: openSync(dir, 'r'), at: dir };
  t.after(() => [fd, held.fd].forEach((open) => void closeSync(open)));
  const identity = identityOf(fd, path);
  const both = (name: string) => [placeOf(identity, join(dir, name)), placeOf(identity, name, held)];

  linkSync(path, join(dir, 'same inode'));
  symlinkSync('file', join(dir, 'link'));
  for (const name of ['file', 'same inode', 'link', './file']) {
    assert.deepEqual(both(name), ['same', 'same'], name);
  }
  mkdirSync(join(dir, 'directory'));
  symlinkSync('circle', join(dir, 'circle'));
  assert.deepEqual(both('directory'), ['other', 'other']);
  for (const name of ['missing', 'file/below', 'circle'])
    assert.deepEqual(both(name), ['nothing', 'nothing'], name);

  // The inode stays taken while it is open, so a new file never has it.
  writeFileSync(join(dir, 'new'), 'x');
  renameSync(join(dir, 'new'), path);
  rmSync(join(dir, 'same inode'));
  assert.deepEqual(both('file'), ['other', 'other']);
  assert.throws(
    () => placeOf(identity, 'x'.repeat(300), held),
    (error) => kindOf(error) === 'FailedPrecondition' && String(error).includes(dir),
  );
});
