#!/usr/bin/env -S node --v8-pool-size=1
/**
 * The `ebbtide` command.
 *
 * Node's own threads, which compile and help to collect garbage, are four whatever the number of processors;
 * on a host with two they delay commits (docs/benchmarks.md).
 */
import { run } from './run.js';

// A terminal that goes away ends the output, not the work.
process.stderr.on('error', () => undefined);

await run(process.argv.slice(2));
