/** What is for people, on terminals of 60, 80 and 120 columns: nothing is wrapped in the middle of a word or a number. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commandsIn, isLeaf, pathOf } from '../../src/cli/command-tree.js';
import { quoted } from '../../src/cli/output/printable.js';
import { createProgram } from '../../src/cli/program.js';
import { openDB } from '../../src/open.js';
import { batchEnv, MANY, partsOf } from './batch.js';
import { cli, layout } from './support.js';
import { noTerminal, onTerminal, tooLong } from './terminal.js';

const WIDTHS = [60, 80, 120];
const ONE = 'example.com/one:1';

/** Lists that need more than the store of this test, and what has formats but is no list. */
const ELSEWHERE = ['hosts ls', 'orphans', 'export-graph'];
/** Further words for a screen; a list that is not here is asked without any. */
const words: Readonly<Record<string, readonly string[]>> = { import: ['SOURCE'] };
/** Screens that are not lists. */
const others: readonly (readonly string[])[] = [
  ['content', 'ls', '--ingests'],
  ['images', 'show', ONE],
  ['why', ONE],
  ['du', '-A', '--without', ONE, 'example.com/two:1'],
  ['gc', '--dry-run', '--full'],
  ['gc'],
  ['history'],
  ['history', '--names'],
  ['check', '--hash'],
  ['doctor', '--check'],
  ['images', 'show', 'example.com/not-here:1'],
  ['--help'],
  ['du', '--help'],
];

test('given terminals of several widths, when verbs print, then every line fits, and a pipe gets more', async (t) => {
  if (noTerminal !== undefined) return t.skip(noTerminal);
  const run = await cli(t);
  const { path, base } = await layout(t);
  await run.ok('import', path, '--unpack', 'native');
  await run.ok(
    'containers',
    'create',
    'a-container-with-a-name-that-is-rather-long',
    '--image',
    ONE,
    '--label',
    'tier=front',
  );
  await run.ok(
    'leases',
    'create',
    'keep',
    '--expires',
    '24h',
    '--label',
    'owner=somebody-with-a-name-that-is-rather-long',
  );
  await run.ok('leases', 'add', 'keep', 'content', base);
  await run.ok('namespaces', 'create', 'other', '--label', `note=${'words '.repeat(20)}`);
  await run.ok(
    'images',
    'tag',
    ONE,
    `registry.example.com/team/${'a-rather-long-name/'.repeat(3)}app:2026.11`,
  );
  await run.ok('images', 'tag', ONE, 'garbage:1');
  await run.ok('images', 'rm', 'garbage:1');
  {
    await using db = await openDB({ root: run.root });
    const writer = await db.content.writer({ namespace: 'test' }, `a-ref-of-an-ingest-${'0'.repeat(64)}`);
    await writer.write(Buffer.alloc(5000));
    await writer.close();
  }
  const program = await createProgram();
  const lists = [...commandsIn(program)]
    .filter((command) => isLeaf(command) && command.options.some(({ long }) => long === '--format'))
    .map(pathOf)
    .filter((verb) => !ELSEWHERE.includes(verb));
  assert.ok(lists.length >= 7, lists.join());
  const screens = [
    ...lists.map((verb) => [
      ...verb.split(' '),
      ...(words[verb] ?? []).map((word) => (word === 'SOURCE' ? path : word)),
    ]),
    ...others,
  ];
  const all = [process.execPath, MANY, JSON.stringify(screens)].map(quoted).join(' ');
  for (const width of WIDTHS) {
    const { lines } = onTerminal(width, all, batchEnv(run.root));
    const printed = partsOf(lines.join('\n')).map((text) => text.replace(/\n<<< \d+\s*$/, ''));
    assert.equal(printed.length, screens.length);
    for (const [n, text] of printed.entries()) {
      const name = `${screens[n]!.join(' ')} at ${width}`;
      assert.ok(text.trim() !== '', name);
      // Examples are there to be copied.
      const [folded = ''] = text.split('\nExamples:\n');
      assert.deepEqual(tooLong(folded.trimEnd().split('\n'), width), [], name);
    }
    // What distinguishes objects is there at any width.
    const images = printed[lists.indexOf('images ls')]!;
    assert.match(images, new RegExp(`^${ONE} +sha256:[0-9a-f]{8}`, 'm'), images);
  }
  assert.ok((await run.ok('images', 'ls')).split('\n').some((line) => line.length > 160));
});
