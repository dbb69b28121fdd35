/**
 * What to type after an error: the library's remedies speak to its caller, these to who typed the command. Called where a verb
 * ends (runner.ts).
 */
import type { Command } from 'commander';
import { EbbtideError, type ErrorKind, kindOf } from '../errors.js';
import { Interrupted } from '../images/services.js';
import { NoStore } from '../no-store.js';
import { isAbsent, messageOf } from '../system/system-errors.js';
import { pathOf } from './command-tree.js';
import { quoted } from './output/printable.js';

/**
 * The command with the global options that were typed, for advice that works as it stands.
 */
export function typedBefore(command: Command): string {
  let program = command;
  while (program.parent !== null) program = program.parent;
  const words = ['ebbtide'];
  for (const option of program.options) {
    const name = option.attributeName();
    if (name === 'json' || program.getOptionValueSource(name) !== 'cli') continue;
    words.push(option.long!);
    if (!option.isBoolean()) words.push(quoted(String(program.getOptionValue(name))));
  }
  return words.join(' ');
}

/** The error with what the user of this verb can do about it. */
export function advised(error: unknown, command: Command): unknown {
  const remedy = remedyFor(error, command);
  if (remedy === undefined) return error;
  const object = error instanceof EbbtideError ? error.object : undefined;
  return new EbbtideError(kindOf(error), messageOf(error), { object, remedy, cause: error });
}

function remedyFor(error: unknown, command: Command): string | undefined {
  const ebbtide = typedBefore(command);
  if (error instanceof Interrupted) {
    return `the same command goes on from here; this drops what it has made: ${ebbtide} leases rm ${quoted(error.lease)} --sync`;
  }
  if (error instanceof NoStore && error.place === 'directory')
    return 'check --root; `ebbtide init` makes a store there, and so do import, serve and synth';
  if (error instanceof EbbtideError && error.remedy !== undefined) return undefined;
  if (isAbsentPath(error)) return 'check the path';
  return byKind[kindOf(error)]?.(ebbtide, command);
}

function isAbsentPath(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (isAbsent(at)) return true;
  return false;
}

/** Where the library has no remedy. */
const byKind: Partial<Record<ErrorKind, (ebbtide: string, command: Command) => string>> = {
  NotFound: (ebbtide, command) => `${ebbtide} ${listOf(command)} shows what there is`,
  AlreadyExists: (ebbtide, command) =>
    `choose another name; ${ebbtide} ${listOf(command)} shows those there are`,
  InvalidArgument: (_, command) => `ebbtide ${pathOf(command)} --help shows how it is used`,
  Unknown: (ebbtide) =>
    `${ebbtide} doctor --check looks at the store; EBBTIDE_DEBUG=1 shows where this comes from`,
};

/** The verb that lists what a verb is about. */
function listOf(command: Command): string {
  const list = command.parent?.commands.find((sub) => sub.name() === 'ls');
  if (list !== undefined) return pathOf(list);
  return command.name() === 'export' ? 'images ls' : 'du -A';
}
