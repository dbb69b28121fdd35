/** Checks of the paths among the arguments of a verb, before anything is opened. Called by the runner. */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { invalidArgument } from '../errors.js';
import { isPath, valueName } from './command-tree.js';

/** InvalidArgument for a path that is empty, which would be the working directory, or that this program cannot have read as it is. */
export function checkPaths(command: Command): void {
  const check = (what: string, value: unknown): void => {
    // The root has words of its own: it may be empty without having been named.
    if (value === '' && what !== '--root')
      throw invalidArgument(`${what} is empty`, { object: what, remedy: 'name a file or a directory' });
    // What is not UTF-8 arrives with this mark in its place, so the name would be another one.
    if (typeof value === 'string' && value.includes('\ufffd') && !existsSync(value))
      throw invalidArgument(`${what} is not valid UTF-8`, {
        object: value,
        remedy: 'rename it, or go there and use a relative path',
      });
  };
  for (const [i, argument] of command.registeredArguments.entries())
    if (isPath(argument.name()))
      for (const value of [command.processedArgs[i]].flat()) check(argument.name(), value);
  for (let at: Command | null = command; at !== null; at = at.parent)
    for (const option of at.options)
      if (isPath(valueName(option))) check(`--${option.name()}`, at.getOptionValue(option.attributeName()));
}
