#!/usr/bin/env -S node --v8-pool-size=1
/**
 * The `ebbtide` command.
 *
 * Node's own threads, which compile and help to collect garbage, are four whatever the processors; on a host with two they
 * keep commits waiting (docs/benchmarks.md).
 */
import { CommanderError } from 'commander';
import { invalidArgument } from '../errors.js';
import { exitCodes } from './exit-codes.js';
import { createProgram } from './program.js';
import { report } from './runner.js';

// A terminal that goes away ends the output, not the work.
process.stderr.on('error', () => undefined);

const words = process.argv.slice(2);
const isJson = words.includes('--json');
try {
  const program = await createProgram(words);
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) process.exitCode = report(error, isJson);
  else if (error.exitCode !== 0) {
    process.exitCode = exitCodes.InvalidArgument;
    // As text the parser has said it, or the help.
    const what =
      error.code === 'commander.help' ? 'a verb is missing' : error.message.replace(/^error: /, '');
    if (isJson) report(invalidArgument(what, { remedy: 'ebbtide --help shows the verbs' }), true);
  }
}
