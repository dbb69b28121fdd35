/** The command's code cache: used where it is of this script, and never a reason for a command to fail. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { cacheOf, load } from '../../src/cli/code-cache.js';
import { repository } from '../coverage/consumer.js';
import { tempDir } from '../support/temp.js';
import { MAIN } from './support.js';

const SCRIPT = join(dirname(MAIN), 'command.cjs');

test('given a build, when the command is loaded, then V8 takes the cache', () => {
  assert.equal(load(SCRIPT).isCached, true);
});

test('given a cache that is damaged, of another script or missing, then the command runs without it', async (t) => {
  const dir = await tempDir(t);
  const main = join(dir, 'dist/src/bundle/main.js');
  cpSync(dirname(MAIN), dirname(main), { recursive: true });
  cpSync(join(repository, 'package.json'), join(dir, 'package.json'));
  symlinkSync(join(repository, 'node_modules'), join(dir, 'node_modules'));
  const script = join(dirname(main), 'command.cjs');
  const cache = cacheOf(script);
  const bytes = readFileSync(cache);
  const flipped = Buffer.from(bytes);
  flipped.writeUInt8(flipped.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
  const source = readFileSync(script, 'latin1');
  const damages: Record<string, () => void> = {
    'cut off': () => writeFileSync(cache, bytes.subarray(0, bytes.length >> 1)),
    'a bit changed': () => writeFileSync(cache, flipped),
    empty: () => writeFileSync(cache, ''),
    missing: () => rmSync(cache),
    // Of the same length, which is all that V8 looks at.
    'of another script': () => {
      writeFileSync(cache, bytes);
      writeFileSync(script, source.replaceAll('the root is empty', 'the root is EMPTY'));
    },
  };
  for (const [what, damage] of Object.entries(damages)) {
    damage();
    const { status, stderr } = spawnSync(process.execPath, [main, '--root', '', 'images', 'ls'], {
      encoding: 'utf8',
    });
    assert.equal(status, 2, `${what}: ${stderr}`);
    assert.match(
      stderr,
      what === 'of another script' ? /the root is EMPTY/ : /the root is empty/,
      `${what}: ${stderr}`,
    );
  }
});
