#!/usr/bin/env -S node --v8-pool-size=1
/**
 * The `ebbtide` command.
 *
 * Node's own threads, which compile and help to collect garbage, are four whatever the number of processors;
 * on a host with two they delay commits (docs/benchmarks.md).
 */
import { fileURLToPath } from 'node:url';
import { load } from './code-cache.js';

// A terminal that goes away ends the output, not the work.
process.stderr.on('error', () => undefined);

// run.ts with all that it imports, beside this file in the build.
const { run } = load(fileURLToPath(new URL('./command.cjs', import.meta.url)));
await run(process.argv.slice(2));
