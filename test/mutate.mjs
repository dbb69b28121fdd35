// Looks for lines that no test needs: changes one line of the compiled program at a time, in a copy of it, and runs tests that
// should then fail. Prints each change that they pass, which is a test that is missing, a line that is not needed, or one that
// only makes things faster or is told in a log.
//
//   npm run build && node test/mutate.mjs gc/sweep,stores/guards.js gc/ schedules/ [--count 20] [--seed 1]
//
// First the files and folders below src/, then parts of the names of tests, as test/run.mjs takes them.
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { count: { type: 'string', default: '20' }, seed: { type: 'string', default: '1' } },
});
const [places, ...tests] = positionals;
if (places === undefined || tests.length === 0) {
  console.error('node test/mutate.mjs FILES-OR-FOLDERS,… TESTS… [--count N] [--seed N]');
  process.exit(2);
}

/** What a line is made to be, and how; undefined where it cannot. */
const changes = {
  'the other way round': (line) =>
    line.match(/^(\s*(?:} )?(?:else )?if \()(.*)(\)(?: \{| .*;)?)$/)?.slice(1, 4),
  'left out': (line) => (/^\s*(?:await )?(?:this\.|[a-z])[\w.#?]*\(.*\);$/.test(line) ? ';' : undefined),
  'equal or not': (line) => line.replace(/ ([!=])== /, (_, sign) => ` ${sign === '!' ? '=' : '!'}== `),
  'and, or': (line) => line.replace(/ (&&|\|\|) /, (_, sign) => (sign === '&&' ? ' || ' : ' && ')),
  'one more or less': (line) =>
    line.includes('=>')
      ? undefined
      : line.replace(/ ([<>])(=?) /, (_, sign, equal) => ` ${sign}${equal === '' ? '=' : ''} `),
};

function changed(line, make) {
  const made = make(line);
  const text = Array.isArray(made) ? `${made[0]}!(${made[1]})${made[2]}` : made;
  return text === line ? undefined : text;
}

const root = fileURLToPath(new URL('..', import.meta.url));
const copy = mkdtempSync(join(tmpdir(), 'ebbtide-mutants-'));
process.on('exit', () => rmSync(copy, { recursive: true, force: true }));
for (const name of ['dist', 'test']) cpSync(join(root, name), join(copy, name), { recursive: true });
for (const name of readdirSync(root)) {
  if (['dist', 'test', '.git'].includes(name)) continue;
  if (statSync(join(root, name)).isDirectory()) symlinkSync(join(root, name), join(copy, name));
  else cpSync(join(root, name), join(copy, name));
}

const src = join(copy, 'dist/src');
const files = places.split(',').flatMap((place) => {
  const path = join(src, place);
  const names = statSync(path).isDirectory() ? readdirSync(path).map((name) => join(path, name)) : [path];
  return names.filter((name) => name.endsWith('.js'));
});
const candidates = files.flatMap((file) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((line, at) =>
      /^\s*(?:\/\/|\*|\/\*|import |export \{)/.test(line)
        ? []
        : Object.entries(changes).flatMap(([how, make]) => {
            const to = changed(line, make);
            return to === undefined ? [] : [{ file, at, how, line, to }];
          }),
    ),
);
console.log(`${candidates.length} changes of ${files.length} files are possible`);

let state = Number(values.seed);
function draw(below) {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}
const passes = () =>
  spawnSync(process.execPath, [join(copy, 'test/run.mjs'), ...tests], { stdio: 'ignore', cwd: copy })
    .status === 0;

if (!passes()) {
  console.error('the tests fail without any change');
  process.exit(1);
}
let survived = 0;
let tried = 0;
while (tried < Number(values.count) && candidates.length > 0) {
  const [{ file, at, how, line, to }] = candidates.splice(draw(candidates.length), 1);
  const text = readFileSync(file, 'utf8');
  writeFileSync(file, text.split('\n').with(at, to).join('\n'));
  if (spawnSync(process.execPath, ['--check', file]).status === 0) {
    tried++;
    if (passes()) {
      survived++;
      console.log(`${relative(src, file)}:${at + 1} ${how}\n  - ${line.trim()}\n  + ${to.trim()}`);
    }
  }
  writeFileSync(file, text);
}
console.log(`${survived} of ${tried} were not noticed`);
