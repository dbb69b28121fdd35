/** Files that are replaced or cut while they are read, and a file system that makes copies at once. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, renameSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { rootBucket } from '../../src/bolt/bucket.js';
import { BoltDamage } from '../../src/bolt/format.js';
import { type BoltSnapshot, readBolt, readCopy } from '../../src/bolt/snapshot.js';
import { BoltWriter } from '../../src/bolt/writer.js';
import { ensurePackages } from '../conformance/debian.js';
import { tempDir } from '../support/temp.js';
import { missing, Writer } from './program.js';
import { numbersIn } from './tree.js';

async function write(path: string, text: string): Promise<void> {
  await using writer = await BoltWriter.create(path);
  writer.openBucket(Buffer.from('values'));
  for (let n = 0; n < 50; n++)
    writer.put(Buffer.from(String(n).padStart(4, '0')), Buffer.alloc(100_000, text));
  writer.closeBucket();
  await writer.finish();
}

function valuesIn(snapshot: BoltSnapshot): string[] {
  const values: string[] = [];
  rootBucket(snapshot).each(({ bucket }) => bucket?.each(({ text }) => values.push(text.slice(0, 3))));
  return values;
}

/** Asked whether it is aborted after each read: the second time it changes something. */
function during(change: () => void): AbortSignal {
  const { signal } = new AbortController();
  let looks = 0;
  Object.defineProperty(signal, 'aborted', {
    get() {
      if (++looks === 2) change();
      return false;
    },
  });
  return signal;
}

test('given a file that another one takes the place of while it is read, then the other one is read', async (t) => {
  const dir = await tempDir(t);
  const [path, other] = [join(dir, 'file.db'), join(dir, 'other.db')];
  await write(path, 'old');
  await write(other, 'new');
  const snapshot = await readBolt(path, { signal: during(() => renameSync(other, path)) });
  assert.deepEqual(valuesIn(snapshot), new Array(50).fill('new'));
  assert.equal(snapshot.retries, 1);
});

test('given a file that is cut while it is read, then a walk says which page is missing', async (t) => {
  const path = join(await tempDir(t), 'file.db');
  await write(path, 'old');
  const snapshot = await readBolt(path, { signal: during(() => truncateSync(path, 1_000_000)) });
  assert.throws(
    () => valuesIn(snapshot),
    (error) => error instanceof BoltDamage && error.page !== undefined,
  );
});

const noBtrfs = missing ?? ensurePackages(['btrfs-progs']) ?? (process.getuid?.() !== 0 && 'needs root');

test('given a file system that makes copies at once, when a copy is read beside a bbolt that commits, then it is of one moment, and nothing is left', {
  skip: noBtrfs,
}, async (t) => {
  const dir = await tempDir(t);
  const [image, mount] = [join(dir, 'image'), join(dir, 'mount')];
  mkdirSync(mount);
  execFileSync('truncate', ['-s', '256M', image]);
  execFileSync('mkfs.btrfs', ['-q', image]);
  execFileSync('mount', ['-o', 'loop', image, mount]);
  after(() => execFileSync('umount', [mount]));
  const path = join(mount, 'file.db');
  await using _ = await Writer.start(path);
  assert.equal(await readCopy(path, 0, {}), undefined, 'the temporary directory is on another file system');
  const temporary = process.env.TMPDIR;
  mkdirSync(join(mount, 'temporary'));
  process.env.TMPDIR = join(mount, 'temporary');
  try {
    for (let n = 0; n < 30; n++) {
      const snapshot = await readCopy(path, 0, {});
      assert.equal(numbersIn(snapshot!).size, 1);
    }
    assert.deepEqual(readdirSync(process.env.TMPDIR), []);
  } finally {
    if (temporary === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = temporary;
  }
});
