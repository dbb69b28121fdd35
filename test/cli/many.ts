/**
 * Runs many commands in one process, one after the other, since most of the time of a short one is that of its start. A program:
 * its argument is a list of lists of words as JSON; on standard error each command follows a line `>>> number`, and `<<< code` ends it.
 * With MARKED in the environment the first line is on standard output too. With NOBODY it gives up its rights before the second
 * command.
 */
import { writeSync } from 'node:fs';
import { run } from '../../src/cli/run.js';

const NOBODY = 65534;

for (const [n, words] of (JSON.parse(process.argv[2]!) as string[][]).entries()) {
  // What it needs is loaded by then, from directories that may be closed to others.
  if (n === 1 && process.env.NOBODY !== undefined) {
    process.setgroups!([]);
    process.setgid!(NOBODY);
    process.setuid!(NOBODY);
  }
  process.exitCode = 0;
  writeSync(2, `>>> ${n}\n`);
  if (process.env.MARKED !== undefined) process.stdout.write(`>>> ${n}\n`);
  await run(words);
  // Standard output may fail late.
  await new Promise((done) => setImmediate(done));
  writeSync(2, `\n<<< ${process.exitCode}\n`);
}
process.exitCode = 0;
