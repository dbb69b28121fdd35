import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { commandsIn, isLeaf, pathOf } from '../../src/cli/command-tree.js';
import { completionScript } from '../../src/cli/completion.js';
import { examples } from '../../src/cli/examples.js';
import { manPage } from '../../src/cli/man-page.js';
import { createProgram } from '../../src/cli/program.js';
import { tempDir } from '../support/db.js';
import { missingTools } from '../support/debian.js';

const PAGE = fileURLToPath(new URL('../../../docs/ebbtide.1', import.meta.url));

/** The words of each `ebbtide …` in a line of a shell. */
const commandsOf = (line: string): string[][] =>
  line
    .split(/ \| | && | > |[<>]\(|\)$/)
    .map((part) => (part.match(/'[^']*'|\S+/g) ?? []).map((word) => word.replace(/^'|'$/g, '')))
    .filter(([name]) => name === 'ebbtide' || name === 'xargs')
    .map((words) => words.slice(words.indexOf('ebbtide') + 1));

test('given the tree of verbs, when help is made, then each has examples, which the command takes', async () => {
  const program = await createProgram();
  const leaves = [...commandsIn(program)].filter((command) => isLeaf(command));
  assert.deepEqual(Object.keys(examples).sort(), leaves.map(pathOf).sort());
  let ran = '';
  for (const leaf of leaves) {
    leaf.exitOverride().action(() => {
      ran = pathOf(leaf);
    });
  }
  for (const [path, lines] of Object.entries(examples)) {
    for (const line of lines) {
      const [words, ...more] = commandsOf(line);
      assert.ok(words, line);
      for (const one of [words, ...more]) {
        // What `ls` hands on through xargs.
        await program.parseAsync(one.at(-1) === 'rm' ? [...one, 'x'] : one, { from: 'user' });
        assert.ok(line.includes(`ebbtide ${ran}`), `${line}: ${ran}`);
      }
      assert.ok(line.includes(`ebbtide ${path}`), line);
    }
  }
  for (const command of program.commands) assert.notEqual(command.helpGroup(), '', command.name());
});

test('given bash, when its completion is asked, then it knows every verb, option and value', async (t) => {
  if (spawnSync('bash', ['--version']).status !== 0) return t.skip('bash is not installed');
  const program = await createProgram();
  const lines = [
    completionScript(program, 'bash'),
    'set -u',
    '[[ $(complete -p ebbtide) == *"-F _ebbtide ebbtide" ]] || exit 1',
  ];
  const expected: string[][] = [];
  const ask = (words: readonly string[], result: readonly string[]): void => {
    expected.push([...result]);
    const all = ['ebbtide', ...words].map((word) => `'${word}'`).join(' ');
    lines.push(`COMP_WORDS=(${all}) COMP_CWORD=${words.length}; _ebbtide; echo "\${COMPREPLY[*]-}"`);
  };
  const globals = program.options.flatMap(({ short, long }) => [short, long]);
  for (const command of commandsIn(program)) {
    const path = pathOf(command).split(' ').filter(Boolean);
    if (!isLeaf(command))
      ask(
        [...path, ''],
        command.commands.map((sub) => sub.name()),
      );
    if (path.length === 0) continue;
    const own = command.options.flatMap(({ short, long }) => [short, long]);
    ask([...path, '-'], [...own, ...globals, '--help', '-h'].filter((name) => name) as string[]);
    for (const { argChoices, long } of command.options)
      if (argChoices !== undefined) ask([...path, long!, ''], argChoices);
  }
  ask(['-n', 'images', '--root', '/srv', 'conta'], ['containers']);
  ask(['du', '--by', '=', 'nam'], ['namespace']);
  ask(['completion', ''], ['bash', 'zsh', 'fish']);
  ask(['gc', '--plan', '/dev/nul'], ['/dev/null']);
  ask(['images', 'rm', 'x'], []);
  const { status, stdout, stderr } = spawnSync('bash', ['--norc', '-s'], { input: lines.join('\n') });
  assert.deepEqual([status, String(stderr)], [0, '']);
  assert.deepEqual(
    String(stdout)
      .split('\n')
      .slice(0, -1)
      .map((line) => line.split(' ').filter(Boolean)),
    expected,
  );
});

test('given zsh and fish, when their completion is read, then it is sound', async (t) => {
  const missing = missingTools(['zsh', 'fish']);
  if (missing !== undefined) return t.skip(missing);
  const program = await createProgram();
  const dir = await tempDir(t);
  for (const shell of ['zsh', 'fish'] as const) {
    const file = join(dir, shell);
    writeFileSync(file, completionScript(program, shell));
    const { status, stderr } = spawnSync(shell, ['-n', file], { env: { ...process.env, HOME: dir } });
    assert.deepEqual([status, String(stderr)], [0, ''], shell);
  }
});

test('given the manual page, when it is compared with the verbs and formatted, then it is up to date and sound', async (t) => {
  const page = manPage(await createProgram());
  assert.equal(readFileSync(PAGE, 'utf8'), page, 'npm run man writes it');
  const program = await createProgram();
  for (const command of commandsIn(program))
    if (isLeaf(command))
      assert.ok(page.includes(`.SS ebbtide ${pathOf(command).replaceAll('-', '\\-')}`), pathOf(command));
  const missing = missingTools(['groff']);
  if (missing !== undefined) return t.skip(missing);
  const { status, stderr } = spawnSync('groff', ['-man', '-ww', '-z', PAGE]);
  assert.deepEqual([status, String(stderr)], [0, '']);
});
