/** Runs the command for the given arguments and sets the process's exit code. Called by main.ts. */
import { CommanderError } from 'commander';
import { invalidArgument } from '../errors.js';
import { exitCodes } from './exit-codes.js';
import { createProgram } from './program.js';
import { report } from './runner.js';

export async function run(words: readonly string[]): Promise<void> {
  const isJson = words.includes('--json');
  try {
    const program = await createProgram(words);
    await program.parseAsync(words, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) process.exitCode = report(error, isJson);
    else if (error.exitCode !== 0) {
      process.exitCode = exitCodes.InvalidArgument;
      // The parser has already printed it as text, or the help.
      const what = error.code === 'commander.help' ? 'missing verb' : error.message.replace(/^error: /, '');
      if (isJson) report(invalidArgument(what, { remedy: 'ebbtide --help shows the verbs' }), true);
    }
  }
}
