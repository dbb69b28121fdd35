/** `view` and `export-graph` as commands: where their text goes, and what is left when it cannot. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { cli, layout } from '../cli/support.js';
import { commandLine, noTerminal, onTerminal } from '../cli/terminal.js';

test('given a store, when it is exported, then to standard output or a file, the same', async (t) => {
  const run = await cli(t);
  await run.json('import', (await layout(t)).path);
  const timeless = (text: string): string => text.replaceAll(/"(createdAt|free|used)":("[^"]*"|\d+)/g, '');
  const file = join(run.root, '..', 'graph.json');
  const printed = await run.ok('export-graph');
  assert.equal((JSON.parse(printed) as { format: string }).format, 'ebbtide-graph');
  const said = await run.json<{ path: string; format: string; size: number }>('export-graph', '-o', file);
  assert.deepEqual(said, { path: file, format: 'json', size: statSync(file).size });
  assert.equal(timeless(readFileSync(file, 'utf8')), timeless(printed));
  assert.match(await run.ok('export-graph', '--format', 'ncdu'), /^\[1,2,/);
  assert.match(await run.ok('view'), /^<!doctype html>/);
  assert.match(await run.ok('view', '-o', file), /open it in a browser/);
  assert.match(readFileSync(file, 'utf8'), /^<!doctype html>/);
});

test('given what cannot be written, when a picture is drawn, then an error, and nothing is left', async (t) => {
  const run = await cli(t);
  const beside = (name: string): string => join(run.root, '..', name);
  await run.fails(2, /--json and the picture cannot both go to standard output/, 'export-graph', '--json');
  await run.fails(2, /--json and the page cannot both/, 'view', '--json');
  await run.fails(
    2,
    /Allowed choices are json, ncdu, speedscope, heapsnapshot/,
    'export-graph',
    '--format',
    'html',
  );
  await run.fails(2, /--output is empty/, 'view', '-o', '');
  await run.fails(3, /cannot write .*no-such/, 'view', '-o', beside('no-such/view.html'));
  assert.ok(!existsSync(beside('no-such')));
  mkdirSync(beside('directory'));
  const { code } = await run.run('view', '-o', beside('directory'));
  assert.ok(code !== 0 && statSync(beside('directory')).isDirectory());
  if (existsSync('/dev/full')) {
    await run.fails(6, /cannot write \/dev\/full/, 'export-graph', '-o', '/dev/full');
    assert.ok(existsSync('/dev/full'));
  }
  // What fails before anything is written leaves an older file.
  writeFileSync(beside('older'), 'older');
  await run.fails(3, /no store at/, '--root', beside('nothing'), 'view', '-o', beside('older'));
  assert.equal(readFileSync(beside('older'), 'utf8'), 'older');
});

test('given a terminal, when a picture would go to it, then that is refused', {
  skip: noTerminal,
}, async (t) => {
  const run = await cli(t);
  for (const verb of ['view', 'export-graph']) {
    const { status, lines } = onTerminal(100, commandLine([verb, '--root', run.root]));
    assert.equal(status, 2);
    assert.match(lines.join(' '), /would go to the terminal/);
  }
});
