// Compiles programs of the C++ core without Node, for the sanitizers (sanitize.mjs) and the fuzzers (fuzz/run.mjs).
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { core, native } from '../../native/sources.mjs';

export { core };

export const root = fileURLToPath(new URL('../../', import.meta.url));
const fuzz = join(root, 'test/native/fuzz');

/** Fuzz targets by name, and their sources in addition to the core. */
export const targets = {
  checkpoint: [join(fuzz, 'checkpoint_target.cc')],
  changes: [join(fuzz, 'changes_target.cc'), join(fuzz, 'model.cc')],
};
/** Drives a target without a fuzzer. */
export const replay = join(fuzz, 'replay.cc');

const always = [
  '-std=c++20',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-fno-sanitize-recover=all',
  '-fno-omit-frame-pointer',
];
const include = ['-g', '-O1', '-I', native, '-I', fuzz];

/**
 * Compiles each source once and links the programs.
 * @param {{ compiler: string, flags: string[], out: string, programs: Record<string, { sources: string[], flags?: string[] }> }} plan
 *   `flags` of a program are those of its linking only
 * @returns {Promise<Record<string, string>>} the programs' files by name; throws when the compiler is not content
 */
export async function build({ compiler, flags, out, programs }) {
  mkdirSync(out, { recursive: true });
  const object = (source) => join(out, `${basename(source, '.cc')}.o`);
  const sources = [...new Set(Object.values(programs).flatMap(({ sources }) => sources))];
  await together(sources, (source) =>
    run(compiler, [...always, ...flags, ...include, '-c', source, '-o', object(source)]),
  );
  const files = {};
  await together(Object.entries(programs), async ([name, { sources, flags: linking = flags }]) => {
    files[name] = join(out, name);
    await run(compiler, [...linking, ...sources.map(object), '-o', files[name], '-pthread']);
  });
  return files;
}

/** Runs a command with its output shown; throws unless it ends well. */
export function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'inherit' });
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${basename(command)} ended with ${signal ?? code}`));
    });
  });
}

async function together(things, work) {
  const waiting = [...things];
  const worker = async () => {
    for (let thing = waiting.shift(); thing !== undefined; thing = waiting.shift()) await work(thing);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}
