/** The manual page, generated from the tree of verbs. */
import type { Argument, Command, Option } from 'commander';
import type { ErrorKind } from '../errors.js';
import { commandsIn, isLeaf, pathOf } from './command-tree.js';
import { examples } from './examples.js';
import { exitCodes, exitMeanings } from './exit-codes.js';

/** Deterministic for a tree and a version. */
export function manPage(program: Command): string {
  const leaves = [...commandsIn(program)].filter((command) => isLeaf(command) && pathOf(command) !== '');
  return `${[
    `.\\" Made from the help of the command: npm run man`,
    `.TH EBBTIDE 1 "" "ebbtide ${roff(program.version() ?? '')}" "ebbtide"`,
    '.SH NAME',
    `ebbtide \\- ${roff(lowerFirst(program.description()))}`,
    '.SH SYNOPSIS',
    '.B ebbtide',
    '[\\fIoptions\\fR] \\fIverb\\fR [\\fIarguments\\fR]',
    '.SH OPTIONS',
    ...groups(program.options),
    '.SH VERBS',
    ...leaves.flatMap(verbSection),
    '.SH EXIT STATUS',
    '.TP',
    '.B 0',
    'done',
    ...exitLines(),
    '.SH ENVIRONMENT',
    ...environment(program).flatMap(([name, option]) => ['.TP', `.B ${roff(name)}`, `as ${bold(option)}`]),
  ].join('\n')}\n`;
}

function verbSection(command: Command): string[] {
  const words = ['ebbtide', pathOf(command), ...command.registeredArguments.map(argumentText)];
  const described = command.registeredArguments.filter(({ description }) => description !== '');
  return [
    `.SS ${roff(words.join(' '))}`,
    text(command.description()),
    ...described.flatMap((argument) => [
      '.TP',
      `\\fI${roff(argument.name())}\\fR`,
      text(withChoices(argument.description, argument.argChoices)),
    ]),
    ...groups(command.options),
    ...exampleLines(examples[pathOf(command)] ?? []),
  ];
}

function exampleLines(lines: readonly string[]): string[] {
  if (lines.length === 0) return [];
  return ['.PP', 'Examples:', '.PP', '.RS 4', '.nf', ...lines.map((line) => plain(roff(line))), '.fi', '.RE'];
}

const argumentText = (argument: Argument): string => {
  const name = `${argument.name()}${argument.variadic ? '...' : ''}`;
  return argument.required ? `<${name}>` : `[${name}]`;
};

/** Grouped under their headings, in the order of the tree. */
function groups(options: readonly Option[]): string[] {
  const lines: string[] = [];
  let heading: string | undefined;
  for (const option of options) {
    if (option.hidden) continue;
    if (option.helpGroupHeading !== undefined && option.helpGroupHeading !== heading) {
      heading = option.helpGroupHeading;
      lines.push('.PP', text(heading));
    }
    lines.push('.TP', bold(option.flags), text(describe(option)));
  }
  return lines;
}

function describe(option: Option): string {
  const { description, argChoices, defaultValue, defaultValueDescription } = option;
  const isShown = typeof defaultValue !== 'boolean' && defaultValue !== undefined;
  const initial = defaultValueDescription ?? (isShown ? String(defaultValue) : undefined);
  return withChoices(description, argChoices) + (initial === undefined ? '' : ` (default: ${initial})`);
}

const withChoices = (description: string, choices: readonly string[] | undefined): string =>
  choices === undefined ? description : `${description}: ${choices.join(', ')}`;

function exitLines(): string[] {
  return (Object.entries(exitCodes) as [ErrorKind, number][]).flatMap(([kind, code]) => [
    '.TP',
    `.B ${code}`,
    text(exitMeanings[kind]),
  ]);
}

/**
 * Environment variables and the options they stand for; options name them in their descriptions where
 * commander does not.
 */
function environment(program: Command): [string, string][] {
  const found = new Map<string, string>();
  for (const command of commandsIn(program)) {
    for (const { long, envVar, description } of command.options) {
      const names = [
        ...(envVar === undefined ? [] : [envVar]),
        ...(description.match(/EBBTIDE_[A-Z_]+/g) ?? []),
      ];
      for (const name of names) if (!found.has(name)) found.set(name, long ?? '');
    }
  }
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1));
}

const bold = (words: string): string => `\\fB${roff(words)}\\fR`;
const lowerFirst = (words: string): string => words.charAt(0).toLowerCase() + words.slice(1);

const LINE = 79;

/** Text, in lines that cannot be read as roff requests; readers refill lines. */
function text(words: string): string {
  const lines: string[] = [];
  let line = '';
  for (const word of roff(words).split(' ')) {
    if (line !== '' && line.length + 1 + word.length > LINE) {
      lines.push(line);
      line = word;
    } else line += line === '' ? word : ` ${word}`;
  }
  return [...lines, line].map(plain).join('\n');
}

const plain = (line: string): string => line.replace(/^([.'])/, '\\&$1');

const roff = (words: string): string =>
  words
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('…', '...')
    .replaceAll("'", '\\(aq')
    .replaceAll('`', '\\(ga')
    .replaceAll('"', '\\(dq')
    .replaceAll('~', '\\(ti')
    .replaceAll('^', '\\(ha');
