/** The tree of verbs, for help, completion and the manual page. */
import type { Command } from 'commander';

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
