/** `ebbtide completion SHELL`: prints the script that completes verbs, options and their values. */
import { Argument, type Command } from 'commander';
import { completionScript, type Shell, shells } from '../../completion.js';
import { verb } from '../../runner.js';

export function completion(program: Command): void {
  program
    .command('completion')
    .description('print the completion script of a shell')
    .addArgument(new Argument('<shell>', 'the shell').choices([...shells]))
    .action(verb(async ({ out }, [shell]) => out.text(completionScript(program, shell as Shell))));
}
