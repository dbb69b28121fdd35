// Builds the graph core as WebAssembly, with Debian's clang 14 and C++ library for it:
//
//   node native/wasm/build.mjs          into native/wasm/ebbtide_core.wasm, which is checked in
//   node native/wasm/build.mjs FILE     into another file
//   node native/wasm/build.mjs --packages   prints what has to be installed
//
// The same sources and packages give the same bytes, but for functions in which the compiler has calls to move out of two
// `try` blocks or more: it goes by where it has its blocks in memory. Such a function is to be split (graph_snapshot.cc was); test/native/wasm-build.test.ts holds the file against that.
import { spawnSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { core, native } from '../sources.mjs';

/** Debian's packages that a build takes. */
const packages = ['clang-14', 'lld-14', 'wasi-libc', 'libc++-14-dev-wasm32', 'libclang-rt-14-dev-wasm32'];

const here = dirname(fileURLToPath(import.meta.url));

const MOST_BYTES = 2 ** 32;
const flags = [
  ...['--target=wasm32-wasi', '-mexec-model=reactor', '-std=c++20', '-O3', '-fwasm-exceptions'],
  ...['-mbulk-memory', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror'],
  ...[
    '--gc-sections',
    '--strip-all',
    '--import-memory',
    `--max-memory=${MOST_BYTES}`,
    '--initial-memory=1048576',
    '--stack-first',
  ].map((flag) => `-Wl,${flag}`),
];

/** Returns what went wrong. */
function build(out) {
  const sources = [...core, join(here, 'carrier.cc'), join(here, 'runtime.cc')];
  const { error, status, stderr } = spawnSync('clang++-14', [...flags, '-I', native, ...sources, '-o', out], {
    encoding: 'utf8',
  });
  if (error?.code === 'ENOENT') return `clang++-14 was not found: apt-get install ${packages.join(' ')}`;
  if (error !== undefined || status !== 0) return error?.message ?? stderr;
  chmodSync(out, 0o644);
  return undefined;
}

const [, , out = join(here, 'ebbtide_core.wasm')] = process.argv;
if (out === '--packages') {
  console.log(packages.join(' '));
} else {
  const problem = build(out);
  if (problem !== undefined) console.error(problem);
  process.exitCode = problem === undefined ? 0 : 1;
}
