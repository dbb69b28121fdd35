/**
 * Runs many commands in one process, one after the other, since most of the time of a short one is that of its start. A program.
 *
 * With an argument, a list of lists of words as JSON, it runs those: on standard error each command follows a line `>>> number`,
 * and `<<< code` ends it. With MARKED in the environment the first line is on standard output too. With NOBODY it gives up its
 * rights before the second command.
 *
 * Without one it takes commands as messages (warm.ts), and ends both streams of each with the text of the message and the code.
 */
import { writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { load } from '../../src/cli/code-cache.js';
import type { Order } from './warm.js';

const NOBODY = 65534;
// As the command does.
const { run } = load(fileURLToPath(new URL('../../src/bundle/command.cjs', import.meta.url)));

if (process.argv[2] === undefined) {
  process.on('message', ({ words, env, end }: Order) => {
    for (const name of Object.keys(process.env)) if (!(name in env)) delete process.env[name];
    Object.assign(process.env, env);
    void runOne(words).then(() => {
      for (const stream of [process.stdout, process.stderr]) stream.write(`${end}${process.exitCode}\n`);
    });
  });
} else {
  for (const [n, words] of (JSON.parse(process.argv[2]) as string[][]).entries()) {
    // What it needs is loaded by then, from directories that may be closed to others.
    if (n === 1 && process.env.NOBODY !== undefined) {
      process.setgroups!([]);
      process.setgid!(NOBODY);
      process.setuid!(NOBODY);
    }
    writeSync(2, `>>> ${n}\n`);
    if (process.env.MARKED !== undefined) process.stdout.write(`>>> ${n}\n`);
    await runOne(words);
    writeSync(2, `\n<<< ${process.exitCode}\n`);
  }
  process.exitCode = 0;
}

async function runOne(words: readonly string[]): Promise<void> {
  process.exitCode = 0;
  await run(words);
  // Standard output may fail late.
  await new Promise((done) => setImmediate(done));
}
