// Coverage-guided fuzzing of the C++ core's boundary with libFuzzer under address and undefined-behaviour sanitizers:
//
//   npm run fuzz                          both targets, a minute each
//   npm run fuzz -- --seconds 600         longer
//   npm run fuzz -- --target checkpoint   one of them
//
// What is found is kept in build/fuzz, with a corpus that grows from run to run. Needs clang with libFuzzer; as root on
// Debian it is installed.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { build, core, replay, root, run, targets } from '../programs.mjs';

const PACKAGES = ['clang-14', 'libclang-rt-14-dev', 'libfuzzer-14-dev'];
const COMPILERS = ['clang++', ...[19, 18, 17, 16, 15, 14].map((version) => `clang++-${version}`)];
const CHECKS = 'address,undefined';

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '60' }, target: { type: 'string' } },
});
const seconds = Number(values.seconds);
const wanted = values.target === undefined ? Object.keys(targets) : [values.target];
if (!Number.isInteger(seconds) || seconds < 1) fail(`--seconds takes a whole number, not ${values.seconds}`);
for (const name of wanted) {
  if (targets[name] === undefined)
    fail(`there is no target ${name}; known: ${Object.keys(targets).join(', ')}`);
}

const compiler = findCompiler();
const out = join(root, 'build/fuzz');
const programs = {};
for (const name of wanted) {
  const sources = [...targets[name], ...core];
  programs[`fuzz_${name}`] = { sources, flags: [`-fsanitize=fuzzer,${CHECKS}`] };
  programs[`replay_${name}`] = { sources: [replay, ...sources], flags: [`-fsanitize=${CHECKS}`] };
}
const files = await build({ compiler, flags: [`-fsanitize=fuzzer-no-link,${CHECKS}`], out, programs });

let passed = 0;
let failed = 0;
for (const name of wanted) {
  const corpus = join(out, `corpus-${name}`);
  mkdirSync(corpus, { recursive: true });
  try {
    await run(files[`replay_${name}`], ['--seeds', corpus]);
    await fuzz(name, corpus);
    passed++;
  } catch (error) {
    failed++;
    console.error(`${name}: ${error.message}; replay it with ${files[`replay_${name}`]} FILE`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

/** Runs a target's fuzzer; its own words go into a log, and here only if it finds something. */
async function fuzz(name, corpus) {
  const log = join(out, `${name}.log`);
  const options = [
    `-max_total_time=${seconds}`,
    '-max_len=8192',
    '-timeout=30',
    '-rss_limit_mb=4096',
    '-print_final_stats=1',
    // Checkpoints begin with numbers that must equal others.
    `-use_value_profile=${name === 'checkpoint' ? 1 : 0}`,
    `-artifact_prefix=${out}/${name}-`,
  ];
  const file = openSync(log, 'w');
  const child = spawn(files[`fuzz_${name}`], [...options, corpus], { stdio: ['ignore', file, file] });
  const [code, signal] = await once(child, 'exit');
  closeSync(file);
  const lines = readFileSync(log, 'utf8').split('\n');
  if (code !== 0) {
    console.error(lines.slice(-60).join('\n'));
    throw new Error(`the fuzzer found something (${signal ?? code}); all it said is in ${log}`);
  }
  const done = lines.findLast((line) => line.includes('DONE')) ?? '';
  console.log(`${name}: nothing found in ${seconds} s: ${done.replace(/\s+/g, ' ')}`);
}

/** A clang++ that links fuzzers; installed if that is possible. */
function findCompiler() {
  const usable = () =>
    [process.env.CXX, ...COMPILERS].find((name) => name !== undefined && linksFuzzers(name));
  const found = usable();
  if (found !== undefined) return found;
  if (process.getuid?.() === 0) {
    console.error(`npm run fuzz: installing ${PACKAGES.join(', ')}`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const install = () =>
      spawnSync('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...PACKAGES], {
        stdio: 'inherit',
        env,
      });
    if (install().status !== 0) {
      spawnSync('apt-get', ['update', '-q'], { stdio: 'inherit', env });
      install();
    }
  }
  return (
    usable() ??
    fail(`no clang with libFuzzer: install the Debian packages ${PACKAGES.join(', ')}, or set CXX to one`)
  );
}

function linksFuzzers(name) {
  mkdirSync(join(root, 'build/fuzz'), { recursive: true });
  const source = join(root, 'build/fuzz/probe.cc');
  writeFileSync(
    source,
    '#include <cstdint>\nextern "C" int LLVMFuzzerTestOneInput(const uint8_t*, unsigned long) { return 0; }\n',
  );
  const args = [`-fsanitize=fuzzer,${CHECKS}`, source, '-o', join(root, 'build/fuzz/probe')];
  return spawnSync(name, args, { stdio: 'ignore' }).status === 0;
}

function fail(message) {
  console.error(`npm run fuzz: ${message}`);
  process.exit(2);
}
