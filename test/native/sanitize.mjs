// Unit tests of the C++ core and a replay of the fuzz targets under sanitizers: npm run test:sanitize. The replay takes
// the targets' seeds and some thousand inputs made from them, the same every time. Needs g++ with its sanitizers. Arguments: parts of
// names, to pick some programs.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { build, core, replay, root, run, targets } from './programs.mjs';

const here = join(root, 'test/native');
const tests = readdirSync(here)
  .filter((name) => name.endsWith('.cc'))
  .map((name) => [name.slice(0, -3), { sources: [join(here, name), ...core] }]);
const replays = Object.entries(targets).map(([name, sources]) => [
  `replay_${name}`,
  { sources: [replay, ...sources, ...core] },
]);
const wanted = process.argv.slice(2);
const picked = (programs) =>
  Object.fromEntries(
    programs.filter(([name]) => wanted.length === 0 || wanted.some((part) => name.includes(part))),
  );
const plans = [
  ['address,undefined', picked([...tests, ...replays])],
  // The targets have one thread.
  ['thread', picked(tests)],
];

let passed = 0;
let failed = 0;
for (const [sanitizers, programs] of plans) {
  const flags = [`-fsanitize=${sanitizers}`];
  const out = join(root, 'build/sanitize', sanitizers.split(',')[0]);
  const files = await build({ compiler: process.env.CXX ?? 'g++', flags, out, programs });
  for (const [name, file] of Object.entries(files)) {
    try {
      await run(file, []);
      passed++;
    } catch (error) {
      failed++;
      console.error(`${name} failed under ${sanitizers}: ${error.message}`);
    }
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
