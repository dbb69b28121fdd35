// Runs the compiled tests with node:test, as `npm test` does. Arguments: file name parts to pick some; flags of `node --test`.
//
// Failures are printed again at the end. `--test-concurrency` is 3 unless given: some tests wait most of their time (etcd, clocks).
//
// The tests get a temporary directory of their own. What is left in it at the end is a fault of a test, or of the
// program, and fails the run; so is a process of theirs that still runs, or a mount below it.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../dist/test/', import.meta.url));
const wanted = process.argv.slice(2).filter((a) => !a.startsWith('--'));
const flags = process.argv.slice(2).filter((a) => a.startsWith('--'));
const files = readdirSync(root, { recursive: true })
  .map(String)
  .filter((f) => f.endsWith('.test.js') && (wanted.length === 0 || wanted.some((w) => f.includes(w))))
  .sort(inMixedOrder);
if (files.length === 0) {
  console.error(`no test file matches ${wanted.join(', ')}`);
  process.exit(1);
}

// Their tests clean up after themselves. Hooks outside of a suite are those of all files: they make something for the tests
// of a file, or of all, and change nothing for the others.
const TOGETHER = new Set(
  (
    'any-host archive backends backup bolt check cli conformance coverage db engine environment etcd gc images model ' +
    'native pictures policy registry server stores synth'
  ).split(' '),
);

// Short: sockets are made below it, whose paths may have 107 bytes.
const temporary = mkdtempSync(join(tmpdir(), 'ebb-'));
// As the temporary directory is: some tests run programs as another user.
chmodSync(temporary, 0o1777);
// A test that waits for what never comes fails; the longest take two minutes on a busy machine.
const defaults = ['--test-concurrency=3', '--test-timeout=900000', '--test-reporter=spec'].filter(
  (flag) => !flags.some((given) => given.startsWith(flag.split('=')[0])),
);
const generated = mkdtempSync(join(root, 'together-'));
const child = spawn(process.execPath, ['--test', ...defaults, ...flags, ...together(files)], {
  stdio: 'inherit',
  env: { ...process.env, TMPDIR: temporary },
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => {
  rmSync(generated, { recursive: true });
  const left = leftOver();
  for (const line of left) console.error(`left behind by the tests: ${line}`);
  process.exit(signal || left.length > 0 ? 1 : (code ?? 1));
});

/**
 * What node:test runs, a process each: files of a room of `TOGETHER` by eight, other files alone. To load the product and to
 * compile it again for each file takes a tenth to a quarter of their processor time.
 */
function together(files) {
  const runs = files.filter((file) => !TOGETHER.has(roomOf(file))).map((file) => join(root, file));
  for (const room of TOGETHER) {
    const members = files.filter((file) => roomOf(file) === room);
    for (let i = 0; i < members.length; i += 8)
      runs.push(joined(`${room}-${i / 8}`, members.slice(i, i + 8)));
  }
  return runs.sort(inMixedOrder);
}

function roomOf(file) {
  return file.split('/')[0];
}

/** A file whose tests are those of some files. */
function joined(name, members) {
  if (members.length === 1) return join(root, members[0]);
  const path = join(generated, `${name}.test.js`);
  writeFileSync(path, members.map((file) => `import '../${file}';\n`).join(''));
  return path;
}

/** The same order in every run, in which files of one directory are not side by side: some wait, some compute. */
function inMixedOrder(a, b) {
  const key = (name) => createHash('sha256').update(name).digest('hex');
  return key(a) < key(b) ? -1 : 1;
}

/** What the tests left behind, a line each; all of it is gone afterwards. */
function leftOver() {
  const left = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    if (!belongs(pid)) continue;
    left.push(`process ${pid}: ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()}`);
    process.kill(Number(pid), 'SIGKILL');
  }
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1]);
  for (const path of mounts.filter((path) => path?.startsWith(`${temporary}/`)).reverse()) {
    left.push(`mount ${path}`);
    spawnSync('umount', ['-l', path]);
  }
  left.push(...readdirSync(temporary).map((name) => join(temporary, name)));
  rmSync(temporary, { recursive: true, force: true, maxRetries: 3 });
  return left;
}

/** Whether a process has our temporary directory in its environment, or stands below it. */
function belongs(pid) {
  if (Number(pid) === process.pid) return false;
  try {
    if (readlinkSync(`/proc/${pid}/cwd`).startsWith(`${temporary}/`)) return true;
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`TMPDIR=${temporary}`);
  } catch {
    return false;
  }
}
