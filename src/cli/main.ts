#!/usr/bin/env -S node --v8-pool-size=1
/**
 * The `ebbtide` command.
 *
 * Node's own threads, which compile and help to collect garbage, are four whatever the processors; on a host with two they
 * keep commits waiting (docs/benchmarks.md).
 */
import { CommanderError } from 'commander';
import { exitCodes } from './exit-codes.js';
import { createProgram } from './program.js';
import { report } from './runner.js';

// A terminal that goes away ends the output, not the work.
process.stderr.on('error', () => undefined);

try {
  const program = await createProgram(process.argv.slice(2));
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : exitCodes.InvalidArgument;
  } else {
    process.exitCode = report(error);
  }
}
