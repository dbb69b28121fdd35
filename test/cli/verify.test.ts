/** `ebbtide verify --resume`: a verification that was interrupted goes on; damage is found in each run. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { CheckReport } from '../../src/check/findings.js';
import { SoundItemsFile } from '../../src/cli/sound-items.js';
import { openDB, layout as paths } from '../../src/open.js';
import { makeRoot } from '../any-host/root.js';
import { rot } from '../stores/damage.js';
import { tempDir } from '../support/temp.js';
import { cli, layout, serve } from './support.js';

test('given a verification that was interrupted, when the next one goes on, then it reads only the rest, what has changed since, and what was damaged', async (t) => {
  const run = await cli(t);
  const { path, base } = await layout(t);
  await run.ok('import', path, '--unpack', 'native');
  const blob = join(paths.content(run.root), 'blobs', 'sha256', base.slice(7));
  await rot(blob);
  const state = join(await tempDir(t), 'state');
  {
    await using db = await openDB({ root: run.root });
    using sound = SoundItemsFile.open(state, run.root);
    const ended = new AbortController();
    const onProgress = (phase: string): void => {
      if (phase === 'layers') ended.abort();
    };
    const options = { hash: true, layers: true, graph: false, sound, onProgress };
    await assert.rejects(db.check({ signal: ended.signal }, options), /context canceled/);
  }
  const lines = readFileSync(state, 'latin1').split('\n').length;
  assert.ok(lines > 3);
  // As a crash leaves it.
  writeFileSync(state, readFileSync(state).subarray(0, -3));
  const { code, stdout, stderr } = await run.run('verify', '--hash', '--json', '--resume', state);
  assert.equal(code, 5);
  assert.match(stderr, /files and layers were found sound before/);
  const { checked, findings } = JSON.parse(stdout) as CheckReport;
  // All but the header, the line that was cut short and the end.
  assert.equal(checked.earlier, lines - 3);
  assert.ok(findings.some(({ kind, object }) => kind === 'blob-digest' && object === base));
  assert.ok(checked.hashedBytes > 0);
  assert.equal(existsSync(state), false);
});

test('given a state of another root, a file of something else, or a daemon, then --resume is refused', async (t) => {
  const run = await cli(t);
  const { path } = await layout(t);
  await run.ok('import', path);
  const dir = await tempDir(t);
  SoundItemsFile.open(join(dir, 'others'), dir)[Symbol.dispose]();
  writeFileSync(join(dir, 'text'), 'text\n');
  for (const name of ['others', 'text'])
    await run.fails(2, /is no state of a verification/, 'verify', '--resume', join(dir, name));
  assert.equal(readFileSync(join(dir, 'text'), 'utf8'), 'text\n');
  await makeRoot(join(dir, 'foreign'), 'example.com/one:1');
  const foreign = [
    '--containerd-root',
    join(dir, 'foreign'),
    'verify',
    '--resume',
    join(dir, 'foreign', 'state'),
  ];
  await run.fails(5, /is only read/, ...foreign);
  await serve(t, run);
  await run.fails(2, /a daemon does not go on/, 'verify', '--resume', join(dir, 'new'));
});
