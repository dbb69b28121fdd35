/** Checks of the paths among the arguments of a verb, before anything is opened. Called by the runner. */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { invalidArgument } from '../errors.js';
import { isPath, valueName } from './command-tree.js';

/**
 * InvalidArgument for a path that is empty, which would be the working directory, that this program cannot have read as it is,
 * or that is - where no standard input or output is taken.
 */
export function checkPaths(command: Command): void {
  const check = (what: string, value: unknown, help: string): void => {
    // The root has words of its own: it may be empty without having been named.
    if (value === '' && what !== '--root')
      throw invalidArgument(`${what} is empty`, { object: what, remedy: 'name a file or a directory' });
    // What is not UTF-8 arrives with this mark in its place, so the name would be another one.
    if (typeof value === 'string' && value.includes('\ufffd') && !existsSync(value))
      throw invalidArgument(`${what} is not valid UTF-8`, {
        object: value,
        remedy: 'rename it, or go there and use a relative path',
      });
    if (value === '-' && !takesStream(help))
      throw invalidArgument(`${what} cannot be standard input or output`, {
        object: what,
        remedy: 'name a file or a directory: ./- if that is its name',
      });
  };
  for (const [i, argument] of command.registeredArguments.entries())
    if (isPath(argument.name()))
      for (const value of [command.processedArgs[i]].flat())
        check(argument.name(), value, command.description());
  for (let at: Command | null = command; at !== null; at = at.parent)
    for (const option of at.options)
      if (isPath(valueName(option)))
        check(`--${option.name()}`, at.getOptionValue(option.attributeName()), option.description);
}

/** Whether a help text says that - may be given. */
const takesStream = (help: string): boolean => /(^| )-[ ;]/.test(help);
