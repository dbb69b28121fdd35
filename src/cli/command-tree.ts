/** The tree of verbs, for help, completion, the manual page, and what checks arguments. */
import type { Command, Option } from 'commander';

/** `images ls`; '' for the command itself. */
export function pathOf(command: Command): string {
  const words: string[] = [];
  for (let at: Command | null = command; at?.parent; at = at.parent) words.unshift(at.name());
  return words.join(' ');
}

/** A command and all below it, in the order of the help; without the verb `help`, which commander adds. */
export function* commandsIn(command: Command): Generator<Command> {
  yield command;
  for (const sub of command.commands) yield* commandsIn(sub);
}

export const isLeaf = (command: Command): boolean => command.commands.length === 0;

const PATHS: ReadonlySet<string> = new Set([
  'backup',
  'dir',
  'directory',
  'file',
  'layout',
  'path',
  'plan',
  'socket',
  'source',
  'target',
]);

/** Whether a value of this name, in a usage, is a path. */
export const isPath = (name: string): boolean => PATHS.has(name);

/** The name of an option's value; empty without one. */
export const valueName = ({ flags }: Option): string => /[<[]([\w-]+)/.exec(flags)?.[1] ?? '';
