import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { commandsIn, isLeaf, pathOf } from '../../src/cli/command-tree.js';
import { createProgram } from '../../src/cli/program.js';
import { buildCommand } from '../../src/system/addon.js';
import { cliWithoutStore } from './support.js';

const PACKAGE = fileURLToPath(new URL('../../../', import.meta.url));

/** Commands of ours in the texts of the source: `ebbtide`, a verb, its options. */
function* commandsInTexts(): Generator<{ file: string; words: string[] }> {
  for (const name of readdirSync(join(PACKAGE, 'src'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.ts') || name.endsWith('examples.ts')) continue;
    const text = readFileSync(join(PACKAGE, 'src', name), 'utf8').replace(
      /\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm,
      '',
    );
    // After `ebbtide`, until something that is not a word of a command.
    for (const [, line = ''] of text.matchAll(/\bebbtide((?: (?:--?)?[a-z][a-z-]*| \$\{\w+\}| [A-Z]{2,})+)/g))
      yield { file: name, words: line.trim().split(' ') };
  }
}

test('given the texts of the program, when they name a command of ours, then there is one', async () => {
  const program = await createProgram();
  const leaves = [...commandsIn(program)].filter(isLeaf);
  const paths = leaves.map(pathOf);
  const groups = program.commands.map((command) => command.name());
  const globals = program.options.map(({ long }) => long);
  let found = 0;
  for (const { file, words } of commandsInTexts()) {
    const [first = '', second = ''] = words;
    // Prose goes on with other words: "ebbtide needs …".
    if (!groups.includes(first)) {
      assert.ok(
        words[0] === '--help' || !words.some((word) => word.startsWith('--')),
        `${file}: ebbtide ${words.join(' ')}`,
      );
      continue;
    }
    const path = paths.includes(first) ? first : `${first} ${second}`;
    const leaf = leaves[paths.indexOf(path)];
    assert.ok(leaf, `${file}: ebbtide ${words.join(' ')}`);
    const options = [...globals, ...leaf.options.map(({ long }) => long), '--help'];
    for (const word of words.filter((one) => one.startsWith('--')))
      assert.ok(options.includes(word), `${file}: ${path} ${word}`);
    found++;
  }
  assert.ok(found >= 15, `${found}`);
});

test('given a clone or an installation, when addons are to be built, then the command named is there and does that', () => {
  const [program, script] = buildCommand().split(' ');
  assert.equal(program, 'node');
  assert.equal(script, join(PACKAGE, 'native/build.mjs'));
  const { files } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8')) as { files: string[] };
  assert.ok(existsSync(script) && files.includes('native/*.mjs'), 'it comes with the package');
});

test('given a root or a lease that is empty or not there, when named, then what to type comes with it', async (t) => {
  const run = await cliWithoutStore(t);
  await run.fails(2, /the root is empty.*\n {2}name a directory with --root\n/, '--root', '', 'init');
  await run.init();
  // Empty, a path would be the working directory.
  for (const [what, ...words] of [
    ['--output', 'export', 'x', '-o', ''],
    ['--plan', 'gc', '--plan', ''],
    ['source', 'import', ''],
    ['directory', 'backup', ''],
    ['backup', 'restore', ''],
  ] as const)
    await run.fails(2, new RegExp(`${what} is empty.*\n {2}name a file or a directory`), ...words);
  for (const [what, ...words] of [
    ['directory', 'backup', '-'],
    ['backup', 'restore', '-'],
    ['--output', 'compact', '-o', '-'],
    ['--policy-file', 'serve', '--policy-file', '-'],
    ['--root', '--root', '-', 'init'],
  ] as const)
    await run.fails(2, new RegExp(`${what} cannot be standard input or output.*\n.*\\./-`), ...words);
  assert.match(await run.ok('gc', '--plan', '-'), /^\{/);
  const twoRoots = ['--root', run.root, '--containerd-root', run.root, 'du'];
  await run.fails(2, /'--containerd-root <dir>' cannot be used with option '--root <dir>'/, ...twoRoots);
  const mangled = join(run.root, '..', 'a\ufffd');
  await run.fails(2, /--root is not valid UTF-8/, '--root', mangled, 'init');
  mkdirSync(mangled);
  await run.fails(3, /no store at/, '--root', mangled, 'images', 'ls');
  await run.fails(3, /cannot read .*nosuch.*\n {2}check the path\n/, 'import', 'nosuch');
  await run.fails(
    3,
    /lease "nope" not found.*\n {2}ebbtide --namespace x leases ls lists the existing ones\n/,
    '-n',
    'x',
    'leases',
    'rm',
    'nope',
  );
  // Of what the error is about, whatever the verb makes.
  const image = ['containers', 'create', 'c', '--image', 'nope'];
  await run.fails(3, /image "nope" not found.*\n {2}ebbtide images ls lists the existing ones\n/, ...image);
});

test('given an environment without a home or a temporary directory, then no store appears in the working directory, and a remedy', (t) => {
  if (process.getuid?.() !== 0) return t.skip('becoming a user without a home takes root');
  const main = join(PACKAGE, 'dist/src/bundle/main.js');
  const run = (uid: number, env: Record<string, string>, ...words: string[]): [number | null, string] => {
    const { status, stderr } = spawnSync(process.execPath, [main, ...words], {
      uid,
      env,
      cwd: '/',
      encoding: 'utf8',
    });
    return [status, stderr];
  };
  const noHome = /^ebbtide: the root is empty.*\n {2}name a directory with --root/;
  for (const env of [{}, { HOME: '' }, { HOME: 'home', XDG_DATA_HOME: 'data' }] as Record<string, string>[]) {
    const [status, stderr] = run(54_321, env, 'init');
    assert.equal(status, 2, stderr);
    assert.match(stderr, noHome);
  }
  const [status, stderr] = run(0, { TMPDIR: '/nowhere' }, 'demo');
  assert.equal(status, 5, stderr);
  assert.match(
    stderr,
    /cannot make a temporary directory in \/nowhere: it is not there.*\n {2}make it, or set TMPDIR/,
  );
});
