/** The command on a terminal of so many columns, as `script` makes one. */
import { spawnSync } from 'node:child_process';
import { quoted } from '../../src/cli/output/printable.js';
import { MAIN } from './support.js';

/** undefined: there are terminals here. */
export const noTerminal: string | undefined =
  spawnSync('script', ['--version']).error === undefined ? undefined : 'script is not installed';

export interface Screen {
  status: number | null;
  lines: string[];
}

/** Runs a line of a shell. */
export function onTerminal(columns: number, line: string, env: NodeJS.ProcessEnv = {}): Screen {
  const { status, stdout } = spawnSync('script', ['-qec', `stty cols ${columns}; ${line}`, '/dev/null'], {
    env: { ...process.env, COLUMNS: '', ...env },
    encoding: 'utf8',
  });
  const text = stdout.replaceAll('\r\n', '\n');
  return { status, lines: text === '' ? [] : text.replace(/\n$/, '').split('\n') };
}

/** `ebbtide` with these words, as a line of a shell. */
export const commandLine = (words: readonly string[]): string =>
  [process.execPath, MAIN, ...words].map(quoted).join(' ');

/** Lines that a terminal would wrap. A path that is longer than a line stays whole, so that it can be copied. */
export const tooLong = (lines: readonly string[], columns: number): string[] =>
  lines.filter((line) => line.length > columns && line.split(' ').at(-1)!.length < columns - 24);
