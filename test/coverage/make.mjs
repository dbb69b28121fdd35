// Writes docs/coverage.md: every numbered edge case with the tests that carry its number in their names, as `[#12]`.
// `--check` writes nothing and fails when the file is out of date or a case has neither a test nor a reason.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = fileURLToPath(new URL('../../', import.meta.url));
const target = join(repository, 'docs', 'coverage.md');

/** Groups of cases, with their last numbers. */
const groups = [
  ['Call context, identifiers, labels', 12],
  ['Images', 33],
  ['Containers', 47],
  ['Sandboxes', 55],
  ['Namespaces', 65],
  ['Filters', 78],
  ['Content: writing', 115],
  ['Content: management', 130],
  ['Snapshots', 167],
  ['Leases', 180],
  ['Collections: what is kept', 216],
  ['Collections and backends', 226],
  ['Database, transactions, callbacks, migrations', 241],
  ['Scheduler', 250],
  ['Raw keys, locks, several hosts', 265],
];

/** Why a case has no test. */
const leftOut = new Map([]);

/** Where we mean something else than containerd. */
const differs = new Map([
  [225, 'by design an update is not held up by a collection either'],
  [263, 'the list of shared leases shows those of single hosts, too, as `<id>@<host>`: they hold something'],
]);

function* sources() {
  for (const dir of ['test', 'src/engine/suite']) {
    for (const name of readdirSync(join(repository, dir), { recursive: true }).map(String).sort()) {
      if (name.endsWith('.ts')) yield `${dir}/${name}`;
    }
  }
}

const tag = / ?\[#(\d+)\] ?/g;
const text = /(['"`])((?:\\.|(?!\1).)*)\1/g;
const textsOf = (line) => [...line.matchAll(text)].map((match) => match[2].replace(/\\(.)/g, '$1'));

/** What a test is called: the text with its tags, or the one before them, where tags stand by themselves. */
function nameOf(line, lineBefore) {
  const texts = [...textsOf(lineBefore), ...textsOf(line)].map((found) => found.replace(tag, ' ').trim());
  const tagged = textsOf(line).findIndex((found) => found.search(tag) >= 0) + textsOf(lineBefore).length;
  if (texts[tagged] !== '') return texts[tagged];
  return (
    texts.slice(0, tagged).findLast((found) => found.startsWith('given ')) ?? 'a row of a table of cases'
  );
}

/** Case number → its tests. */
function tagged() {
  const found = new Map();
  for (const file of sources()) {
    const lines = readFileSync(join(repository, file), 'utf8').split('\n');
    for (const [index, line] of lines.entries()) {
      for (const [, digits] of line.matchAll(tag)) {
        const test = { file, name: nameOf(line, lines[index - 1] ?? '') };
        const tests = found.get(Number(digits)) ?? [];
        if (!tests.some(({ file, name }) => file === test.file && name === test.name)) tests.push(test);
        found.set(Number(digits), tests);
      }
    }
  }
  return found;
}

const cell = (text) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');

function rows(number, tests) {
  const reason = leftOut.get(number);
  const lines = tests.map(({ file, name }) => `| ${number} | ${cell(name)} | ${file} |`);
  if (differs.has(number)) lines.push(`| ${number} | *differs:* ${cell(differs.get(number))} | |`);
  if (reason !== undefined) lines.push(`| ${number} | *no test:* ${cell(reason)} | |`);
  return lines;
}

function table(found) {
  const lines = [
    '# Edge cases and their tests',
    '',
    'The project is built against a list of numbered edge cases: what containerd does, where it is surprising, and',
    'what was decided where it is wrong. A test for a case carries its number in its name. Made by',
    '`node test/coverage/make.mjs`; a test fails when this page is out of date.',
  ];
  let number = 1;
  for (const [index, [title, last]] of groups.entries()) {
    lines.push(
      '',
      `## ${String.fromCharCode(65 + index)}. ${title}`,
      '',
      '| case | test | file |',
      '|---|---|---|',
    );
    for (; number <= last; number++) lines.push(...rows(number, found.get(number) ?? []));
  }
  return `${lines.join('\n')}\n`;
}

const found = tagged();
const last = groups.at(-1)[1];
const problems = [];
for (let number = 1; number <= last; number++) {
  const tested = found.has(number);
  if (!tested && !leftOut.has(number)) problems.push(`case ${number} has neither a test nor a reason`);
  if (tested && leftOut.has(number)) problems.push(`case ${number} has a test, and a reason why it has none`);
}
for (const number of found.keys()) {
  if (number < 1 || number > last) problems.push(`there is no case ${number}`);
}

const page = table(found);
if (process.argv.includes('--check')) {
  let committed = '';
  try {
    committed = readFileSync(target, 'utf8');
  } catch {}
  if (committed !== page) problems.push('docs/coverage.md is out of date: run `node test/coverage/make.mjs`');
} else {
  writeFileSync(target, page);
}
for (const problem of problems) console.error(problem);
process.exitCode = problems.length > 0 ? 1 : 0;
