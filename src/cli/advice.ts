/**
 * Remedies for the user of the command: those of the library are written for its caller. Called where a verb
 * ends (runner.ts).
 */
import type { Command } from 'commander';
import { EbbtideError, type ErrorKind, kindOf } from '../errors.js';
import { Interrupted } from '../images/services.js';
import { NoStore } from '../no-store.js';
import { isAbsent, messageOf } from '../system/system-errors.js';
import { pathOf } from './command-tree.js';
import { quoted } from './output/printable.js';

/** The command with the global options that were typed, for advice that can be copied. */
export function typedBefore(command: Command): string {
  let program = command;
  while (program.parent !== null) program = program.parent;
  const words = ['ebbtide'];
  for (const option of program.options) {
    const name = option.attributeName();
    if (name === 'json' || program.getOptionValueSource(name) !== 'cli') continue;
    words.push(`--${option.name()}`);
    if (!option.isBoolean()) words.push(quoted(String(program.getOptionValue(name))));
  }
  return words.join(' ');
}

/** The error with a remedy for the user of this verb. */
export function advised(error: unknown, command: Command): unknown {
  const remedy = remedyFor(error, command);
  if (remedy === undefined) return error;
  const object = error instanceof EbbtideError ? error.object : undefined;
  return new EbbtideError(kindOf(error), messageOf(error), { object, remedy, cause: error });
}

function remedyFor(error: unknown, command: Command): string | undefined {
  const ebbtide = typedBefore(command);
  if (error instanceof Interrupted) {
    return `repeat the command to continue; to drop what it has created: ${ebbtide} leases rm ${quoted(error.lease)} --sync`;
  }
  if (error instanceof NoStore && error.place === 'directory')
    return 'check --root; `ebbtide init`, import, serve and synth create a store there';
  if (error instanceof EbbtideError && error.remedy !== undefined) return undefined;
  if (isAbsentPath(error)) return 'check the path';
  return byKind[kindOf(error)]?.(ebbtide, command, messageOf(error));
}

function isAbsentPath(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (isAbsent(at)) return true;
  return false;
}

/** For errors without a remedy from the library. */
const byKind: Partial<Record<ErrorKind, (ebbtide: string, command: Command, message: string) => string>> = {
  NotFound: (ebbtide, command, message) => `${ebbtide} ${listOf(command, message)} lists the existing ones`,
  AlreadyExists: (ebbtide, command, message) =>
    `choose another name; ${ebbtide} ${listOf(command, message)} lists the existing ones`,
  InvalidArgument: (_, command) => `ebbtide ${pathOf(command)} --help shows how it is used`,
  ResourceExhausted: () => 'free memory, or raise the limit (ulimit -v, MemoryMax of a unit)',
  Unknown: (ebbtide) => `${ebbtide} doctor --check examines the store; EBBTIDE_DEBUG=1 shows the stack`,
};

/** What an error is about, where it begins with that, and the verb that lists those. */
const OBJECT = /^(?:parent |target )?(image|content|snapshot|container|lease|namespace) "?/;

/** The verb that lists the objects that an error is about, else those that a verb works on. */
function listOf(command: Command, message: string): string {
  const [, object] = OBJECT.exec(message) ?? [];
  if (object !== undefined) return object === 'content' ? 'content ls' : `${object}s ls`;
  const list = command.parent?.commands.find((sub) => sub.name() === 'ls');
  if (list !== undefined) return pathOf(list);
  return command.name() === 'export' ? 'images ls' : 'du -A';
}
