// Builds the addons. Run by npm's install script, by `npm run check` and by hand:
//
//   node native/build.mjs              build; on failure say what follows from it and exit 0
//   node native/build.mjs --strict     with warnings as errors; exit 1 on failure
//   node native/build.mjs --if-needed  nothing when the addons are newer than their sources
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const addons = ['ebbtide_core', 'ebbtide_sys', 'ebbtide_zstd'].map((name) =>
  join(root, 'build/Release', `${name}.node`),
);
const flags = new Set(process.argv.slice(2));
const known = ['--strict', '--if-needed'];
const unknown = [...flags].filter((flag) => !known.includes(flag));
if (unknown.length > 0) {
  console.error(`native/build.mjs: unknown ${unknown.join(', ')}; use ${known.join(', ')}`);
  process.exit(2);
}
process.exit(build());

function build() {
  const strict = flags.has('--strict');
  if (flags.has('--if-needed') && isUpToDate()) return 0;
  const problem = compile(strict);
  if (problem === undefined) return 0;
  // An addon of older sources may not fit the package's JavaScript any more.
  for (const addon of addons) rmSync(addon, { force: true });
  console.error(
    strict
      ? `ebbtide: building the addons failed: ${problem}`
      : `ebbtide: the addons were not built (${problem}); the C++ core will run as WebAssembly. ` +
          'With g++ (C++20), make and python3 installed, "npm rebuild ebbtide" builds them.',
  );
  return strict ? 1 : 0;
}

/** Runs node-gyp; answers what went wrong. Its output is shown only when it fails. */
function compile(strict) {
  const [command, ...args] = nodeGyp();
  if (command === undefined) return 'node-gyp was not found';
  const options = ['configure', 'build', ...headers()];
  const { error, status, stdout, stderr } = spawnSync(command, [...args, ...options], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, JOBS: process.env.JOBS ?? 'max', GYP_DEFINES: `strict=${strict ? 1 : 0}` },
    maxBuffer: 1 << 26,
  });
  if (error !== undefined) return error.message;
  if (status === 0) return undefined;
  process.stderr.write(`${stdout}${stderr}`.split('\n').slice(-60).join('\n'));
  return `node-gyp ended with ${status}`;
}

/** The command that runs node-gyp: npm names its own one, else the PATH's, else the one beside npm. */
function nodeGyp() {
  const given = process.env.npm_config_node_gyp;
  if (given !== undefined && existsSync(given)) return [process.execPath, given];
  if (spawnSync('node-gyp', ['--version'], { stdio: 'ignore' }).status === 0) return ['node-gyp'];
  const prefix = dirname(dirname(process.execPath));
  const bundled = join(prefix, 'lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js');
  return existsSync(bundled) ? [process.execPath, bundled] : [];
}

/** Node's own headers where they are installed beside it, so that nothing has to be downloaded. */
function headers() {
  const prefix = dirname(dirname(process.execPath));
  if (process.env.npm_config_nodedir !== undefined) return [];
  return existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
}

function isUpToDate() {
  if (!addons.every((file) => existsSync(file))) return false;
  const sources = readdirSync(join(root, 'native'))
    .filter((name) => /\.(cc|h)$/.test(name))
    .map((name) => join(root, 'native', name));
  const newest = Math.max(...[...sources, join(root, 'binding.gyp')].map((file) => statSync(file).mtimeMs));
  return addons.every((file) => statSync(file).mtimeMs >= newest);
}
